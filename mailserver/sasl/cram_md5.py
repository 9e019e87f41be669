"""CRAM-MD5 (RFC 2195): a keyed hash of a challenge.  The server has to know the password itself.

    challenge = msg-id
    response  = user SP 32HEXDIG
"""

from __future__ import annotations

import hmac
import re
import secrets

from mailserver.sasl.exchange import Mechanism
from mailserver.sasl.plain import text_of
from mailserver.sasl.steps import Challenge, Failed, FindSecret, Succeeded, Trouble

__all__ = ["cram_md5"]

DIGEST = re.compile(rb"[0-9a-f]{32}")
NOBODY = secrets.token_bytes(32)  # nobody's password, so that an unknown user costs as much as a known one


def cram_md5(challenge: bytes) -> Mechanism:
    """The server's side.  `challenge` is a msg-id that was never used before: ``<random.time@hostname>``."""
    response = yield Challenge(challenge)
    name, separator, digest = response.rpartition(b" ")
    username = text_of(name)
    if not separator or not username or DIGEST.fullmatch(digest.lower()) is None:
        return Failed(Trouble.MALFORMED, username or "")
    secret = yield FindSecret(username)
    expected = hmac.digest(NOBODY if secret is None else secret, challenge, "md5").hex().encode("ascii")
    if hmac.compare_digest(expected, digest.lower()) and secret is not None:
        return Succeeded(username)
    return Failed(Trouble.CREDENTIALS, username)
