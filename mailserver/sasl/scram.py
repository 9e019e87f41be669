"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677): both ends prove that they know the password, and nobody shows it.

    client-first-message      = gs2-header client-first-message-bare
    gs2-header                = gs2-cbind-flag "," [ "a=" saslname ] ","
    gs2-cbind-flag            = ("p=" cb-name) / "n" / "y"
    client-first-message-bare = [reserved-mext ","] "n=" saslname "," "r=" c-nonce ["," extensions]
    server-first-message      = [reserved-mext ","] "r=" c-nonce s-nonce "," "s=" base64 "," "i=" posit-number ["," extensions]
    client-final-message      = "c=" base64 "," "r=" c-nonce s-nonce ["," extensions] "," "p=" base64
    server-final-message      = ("e=" server-error-value / "v=" base64) ["," extensions]
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

from mailserver.sasl.exchange import Mechanism
from mailserver.sasl.saslprep import saslprep
from mailserver.sasl.steps import Challenge, ChannelBindings, Failed, FindScramKeys, ScramKeys, Succeeded, Trouble

__all__ = ["BINDING_TYPES", "scram_sha_256"]

BINDING_TYPES = ("tls-exporter", "tls-server-end-point")
MESSAGE_OCTETS = 4096
NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,512}")  # printable, without the comma
SASLNAME = re.compile(r"(?:[^\x00,=]|=2C|=3D){1,1024}")
FIRST = re.compile(r"((?:p=([A-Za-z0-9.\-]+)|[ny]),(?:a=([^,]*))?,)(n=([^,]*),r=([^,]*)(?:,.*)?)", re.DOTALL)
FINAL = re.compile(r"(c=([^,]*),r=([^,]*)(?:,[A-Za-z]=[^,]*)*),p=([^,]*)")
BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


@dataclass(frozen=True, slots=True)
class First:
    """The client's first message, taken apart.  `binding` is "n", "y", or the name of a channel binding type."""

    gs2_header: str
    binding: str
    authorization: str
    bare: str
    username: str
    nonce: str


def scram_sha_256(*, plus: bool, nonce: str, bindings: ChannelBindings, offers_plus: bool) -> Mechanism:
    """The server's side; `plus` is SCRAM-SHA-256-PLUS, which `offers_plus` says this server has offered.

    `nonce` is ours: printable ASCII without a comma, never used before.
    """
    message = yield Challenge(b"", is_prompt=True)
    first = parse_first(message)
    if first is None:
        return Failed(Trouble.MALFORMED)
    bound = bound_data(first, bindings, plus=plus, offers_plus=offers_plus)
    if bound is None:
        return Failed(Trouble.CHANNEL_BINDING, first.username)
    keys: ScramKeys = yield FindScramKeys(first.username)
    salt = base64.b64encode(keys.salt).decode("ascii")
    server_first = f"r={first.nonce}{nonce},s={salt},i={keys.iterations}"
    final = FINAL.fullmatch(text_of((yield Challenge(server_first.encode("ascii")))))
    if final is None:
        return Failed(Trouble.MALFORMED, first.username)
    without_proof, bound_again, nonce_again, proof = final.groups()
    if decoded(bound_again) != first.gs2_header.encode("utf-8") + bound:
        return Failed(Trouble.CHANNEL_BINDING, first.username)
    auth_message = f"{first.bare},{server_first},{without_proof}".encode()
    if nonce_again != first.nonce + nonce or not proves(decoded(proof), keys, auth_message):
        return Failed(Trouble.CREDENTIALS, first.username)
    signature = base64.b64encode(hmac.digest(keys.server_key, auth_message, "sha256"))
    # RFC 4954 section 4 knows no data beside 235: the signature is a challenge, and the client's answer to it is empty.
    last = yield Challenge(b"v=" + signature, is_proof=True)
    return Failed(Trouble.MALFORMED, first.username) if last else Succeeded(first.username, first.authorization)


def parse_first(message: bytes) -> First | None:
    """None for what is not well formed, asks for an extension that must be understood (`m=`), or is prepared to nothing."""
    found = FIRST.fullmatch(text_of(message))
    if found is None:
        return None
    gs2_header, binding_type, authorization, bare, username, nonce = found.groups()
    name, other = saslname(username), saslname(authorization) if authorization else ""
    if not name or other is None or NONCE.fullmatch(nonce) is None:
        return None
    return First(gs2_header, binding_type or gs2_header[0], other, bare, name, nonce)


def bound_data(first: First, bindings: ChannelBindings, *, plus: bool, offers_plus: bool) -> bytes | None:
    """The data that the client must have bound to, b"" for none; None where its wish does not go with ours (section 6)."""
    if plus != (first.binding not in ("n", "y")):
        return None
    if first.binding == "y" and offers_plus:
        return None  # it thinks that we offer no channel binding: somebody has taken it out of our offer
    return bindings.data.get(first.binding) if plus else b""


def proves(proof: bytes | None, keys: ScramKeys, auth_message: bytes) -> bool:
    """Section 3: ClientKey is ClientProof XOR ClientSignature, and its hash is StoredKey."""
    signature = hmac.digest(keys.stored_key, auth_message, "sha256")
    if proof is None or len(proof) != len(signature):
        return False
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key) and not keys.is_false


def saslname(text: str) -> str | None:
    """A name with ``=2C`` and ``=3D`` undone, prepared; None where it is malformed."""
    if SASLNAME.fullmatch(text) is None:
        return None
    try:
        return saslprep(text.replace("=2C", ",").replace("=3D", "="))
    except ValueError:
        return None


def text_of(message: bytes) -> str:
    """The message as text; "", which no message is, where it is too long or no UTF-8."""
    try:
        return message.decode("utf-8") if len(message) <= MESSAGE_OCTETS else ""
    except UnicodeDecodeError:
        return ""


def decoded(text: str) -> bytes | None:
    """Base64, strictly."""
    return base64.b64decode(text) if BASE64.fullmatch(text) else None
