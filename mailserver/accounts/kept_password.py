"""Everything that an account keeps of its password."""

from __future__ import annotations

import secrets

from mailserver.accounts.entry import Password
from mailserver.authentication.passwords import hash_password
from mailserver.authentication.sealing import seal
from mailserver.sasl.scram_keys import SALT_OCTETS, derive_scram_keys, encode_scram_keys

__all__ = ["keep_password"]


def keep_password(password: str, account: str, key: bytes | None = None) -> Password:
    """The password's hash and SCRAM keys; with a `key` also the password sealed for this account.  Blocks for some 30 ms.

    Raises `PasswordError`.  A password that SASLprep forbids gets no SCRAM keys.
    """
    hash = hash_password(password)
    try:
        scram = encode_scram_keys(derive_scram_keys(password, salt=secrets.token_bytes(SALT_OCTETS)))
    except ValueError:
        scram = None
    return Password(hash, scram, None if key is None else seal(password, account, key))
