"""Certificates that a CA has issued to us, and our keys, on the disk.

    KEYS/acme/mail.pem         the key, the certificate, its chain: in one file, so that they fit together at any time
    KEYS/acme/mail.next.pem    the key that will follow; before the first certificate it is the first
    KEYS/acme/mail.later.pem   the one after that, where it was made ahead: before the first certificate the DNS shows both
    KEYS/acme/web.pem, …       the same, of the names of the web listener

A renewal keeps the key.  When the next key is taken into use, its certificate's file has it, and another next key is made: which
key is the present one stands in one place alone, and whoever is killed anywhere leaves nothing that does not fit together.
All functions block, and raise OSError.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mailserver.mail.durable import make_directory, replace_file
from mailserver.tls.identity import Identity, IdentityError, Pair, key_pem, read_identity

__all__ = [
    "account_path",
    "account_url",
    "issued_pair",
    "later_key",
    "later_spki",
    "next_key",
    "next_spki",
    "read_issued",
    "settle_next_key",
    "spki_of",
    "write_issued",
]

FOLDER = "acme"
KEY_OCTETS = 1 << 16


def issued_pair(keys_directory: str, name: str) -> Pair:
    """Where the certificate `name` ("mail", "web") and its key stand, whether they are there or not."""
    path = os.path.join(keys_directory, FOLDER, f"{name}.pem")
    return Pair(path, path)


def read_issued(keys_directory: str, name: str) -> Identity | None:
    """What was issued last; None before the first time.  Raises `IdentityError` for what cannot be used."""
    pair = issued_pair(keys_directory, name)
    return read_identity(pair) if os.path.exists(pair.key) else None


def write_issued(keys_directory: str, name: str, key: Any, chain_pem: str) -> None:
    """Put a certificate with its key in the place of the former."""
    folder = os.path.join(keys_directory, FOLDER)
    make_directory(folder)
    replace_file(issued_pair(keys_directory, name).key, key_pem(key) + chain_pem, _for_its_owner)


def next_key(keys_directory: str, name: str) -> Any:
    """The key that will be used next; it is made where there is none, or none that can be read."""
    path = _next_path(keys_directory, name)
    try:
        with open(path, "rb") as file:
            return serialization.load_pem_private_key(file.read(KEY_OCTETS), password=None)
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"{path}: the key that comes next cannot be read; remove the file, and another is made") from error
    make_directory(os.path.dirname(path))
    key = ec.generate_private_key(ec.SECP256R1())
    replace_file(path, key_pem(key), _for_its_owner)
    return key


def settle_next_key(keys_directory: str, name: str, identity: Identity | None) -> Any:
    """The next key, another one than that of `identity`: a key that was taken into use is next no more."""
    key = next_key(keys_directory, name)
    if identity is None or spki_of(key.public_key()) != spki_of(identity.key.public_key()):
        return key
    try:
        os.rename(_later_path(keys_directory, name), _next_path(keys_directory, name))
    except FileNotFoundError:
        os.unlink(_next_path(keys_directory, name))
    return next_key(keys_directory, name)


def later_key(keys_directory: str, name: str) -> None:
    """Make the key after the next ahead, unless it is there: the DNS can show it while nobody has a certificate yet."""
    path = _later_path(keys_directory, name)
    if not os.path.exists(path):
        make_directory(os.path.dirname(path))
        replace_file(path, key_pem(ec.generate_private_key(ec.SECP256R1())), _for_its_owner)


def next_spki(keys_directory: str, name: str) -> str:
    """As TLSA 3 1 1 has the key that comes next (RFC 6698 section 2.1); "" where there is none that can be read."""
    return _spki_at(_next_path(keys_directory, name))


def later_spki(keys_directory: str, name: str) -> str:
    """The same of the key after that; "" where none was made ahead."""
    return _spki_at(_later_path(keys_directory, name))


def _spki_at(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return spki_of(serialization.load_pem_private_key(file.read(KEY_OCTETS), password=None).public_key())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return ""


def account_path(keys_directory: str, directory_url: str) -> str:
    """Where our account at the CA with this directory is kept."""
    mark = hashlib.sha256(directory_url.encode()).hexdigest()[:16]
    return os.path.join(keys_directory, FOLDER, f"account-{mark}.json")


def account_url(keys_directory: str, directory_url: str) -> str:
    """The URL of that account; "" where there is none yet, or it cannot be read."""
    try:
        with open(account_path(keys_directory, directory_url), encoding="utf-8", errors="replace") as file:
            found = json.loads(file.read(KEY_OCTETS))
        return str(found["uri"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def spki_of(public_key: Any) -> str:
    """The SHA-256 of a public key's SubjectPublicKeyInfo, in lower-case hex."""
    octets = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(octets).hexdigest()


def _later_path(keys_directory: str, name: str) -> str:
    return os.path.join(keys_directory, FOLDER, f"{name}.later.pem")


def _next_path(keys_directory: str, name: str) -> str:
    return os.path.join(keys_directory, FOLDER, f"{name}.next.pem")


def _for_its_owner(fd: int) -> None:
    os.fchmod(fd, 0o400)
