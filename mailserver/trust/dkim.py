"""Verifies the DKIM signatures of a message, and signs one (RFC 6376, RFC 8301, RFC 8463).

Three steps, of which the second alone asks anybody: `read_signatures` takes the fields apart; the caller looks up `key_name` of
each; `verify` compares.  The body is read once for all signatures (`body_hashes`), by whoever may wait for a file.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mailserver.mail.headers import HeaderField, Headers
from mailserver.mail.quick import quick
from mailserver.trust.canonical import BodyHash, Form, canonical_field
from mailserver.trust.dkim_key import PrivateKey, PublicKey, parse_key
from mailserver.trust.dkim_signature import Signature, parse_signature, unsigned_field
from mailserver.trust.tag_list import TagFault

__all__ = [
    "SIGNED_FIELDS",
    "BodyForm",
    "DKIMResult",
    "FoundSignature",
    "body_hashes",
    "forms_of",
    "header_digest",
    "key_for",
    "read_signatures",
    "sign",
    "verify",
]

SIGNATURES_MOST = 8  # of one message; further ones are not looked at
CLOCK_SECONDS = 300  # by how much another host's clock may differ from ours
LINE_CHARACTERS = 72
FORM: Form = "relaxed"
# What we sign (section 5.4.1; for List-Unsubscribe and its Post RFC 8058 section 4), each once more than it is there: nobody
# can add another one.
SIGNED_FIELDS = (
    "from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references", "mime-version",
    "content-type", "content-transfer-encoding", "list-id", "list-unsubscribe", "list-unsubscribe-post", "auto-submitted",
)  # fmt: skip
# Of these alone a list or a relay may rightly add one.
NOT_OVERSIGNED = frozenset({"list-id", "list-unsubscribe", "list-unsubscribe-post", "sender", "auto-submitted"})

BodyForm = tuple[Form, int | None]


@quick
@dataclass(frozen=True, slots=True)
class FoundSignature:
    """A DKIM-Signature field of the message: `signature`, or `fault` with what is wrong with it."""

    raw: bytes
    signature: Signature | None
    fault: str = ""


@quick
@dataclass(frozen=True, slots=True)
class DKIMResult:
    """What became of one signature.

    `result` is a word of RFC 8601 section 2.7.1: pass, fail, neutral, temperror, permerror.  `reason` says why it is no pass.
    `partial`: l= leaves a part of the body out, so that anybody may have added it.  `testing`: the domain says that it
    only tries.
    """

    result: str
    domain: str = ""
    selector: str = ""
    identity: str = ""
    algorithm: str = ""
    reason: str = ""
    key_bits: int = 0
    partial: bool = False
    testing: bool = False


def read_signatures(headers: Headers) -> list[FoundSignature]:
    """The message's signatures from the top, at most eight of them.  Never raises."""
    return [_found(field) for field in headers.fields("dkim-signature")[:SIGNATURES_MOST]]


def _found(field: HeaderField) -> FoundSignature:
    try:
        return FoundSignature(field.raw, parse_signature(field.value))
    except TagFault as fault:
        return FoundSignature(field.raw, None, str(fault))


def forms_of(signatures: Iterable[FoundSignature]) -> frozenset[BodyForm]:
    """In which forms the body has to be hashed for them."""
    return frozenset([(one.signature.body_form, one.signature.body_octets) for one in signatures if one.signature is not None])


def body_hashes(chunks: Iterable[bytes], forms: Iterable[BodyForm]) -> Mapping[BodyForm, tuple[bytes, int, int]]:
    """For each form the digest, how many octets of it were hashed, and how many there were.  Raises what `chunks` raise."""
    hashes = {form: BodyHash(form[0], most=form[1]) for form in forms}
    whole = {form[0]: BodyHash(form[0]) for form in hashes if form[1] is not None}
    for chunk in chunks:
        for one in (*hashes.values(), *whole.values()):
            one.update(chunk)
    for one in whole.values():
        one.digest()
    found: dict[BodyForm, tuple[bytes, int, int]] = {}
    for form, one in hashes.items():
        digest = one.digest()
        found[form] = digest, one.octets, one.octets if form[1] is None else whole[form[0]].octets
    return found


def verify(
    found: FoundSignature,
    headers: Headers,
    bodies: Mapping[BodyForm, tuple[bytes, int, int]],
    keys: Sequence[bytes] | None,
    *,
    now: float,
) -> DKIMResult:
    """Verify one signature.  `keys` are the TXT records at its `key_name`, None where the DNS could not tell."""
    signature = found.signature
    if signature is None:
        return DKIMResult("permerror", reason=found.fault)
    digest, hashed, octets = bodies[signature.body_form, signature.body_octets]
    partial = signature.body_octets is not None and octets > hashed

    def result(word: str, reason: str = "", bits: int = 0, testing: bool = False) -> DKIMResult:
        return DKIMResult(
            word, signature.domain, signature.selector, signature.identity, signature.algorithm, reason, bits, partial, testing
        )

    if signature.expires_at is not None and signature.expires_at + CLOCK_SECONDS < now:
        return result("fail", "it has expired")
    if signature.signed_at is not None and signature.signed_at > now + CLOCK_SECONDS + 86_400:
        return result("fail", "it was made in the future")
    if 0 < signature.headers.count("from") < headers.count("From"):
        return result("fail", "a From field was added")
    if signature.body_octets is not None and hashed < signature.body_octets:
        return result("fail", "the body is shorter than what was signed")
    if keys is None:
        return result("temperror", "the DNS could not tell its key")
    if digest != signature.body_hash:
        return result("fail", "the body has been changed")
    try:
        key = key_for(signature.algorithm, keys)
    except TagFault as fault:
        return result("permerror", str(fault))
    if key.strict and signature.identity.rpartition("@")[2].lower() != signature.domain:
        return result("permerror", "the key is not for a domain below its own", key.bits, key.testing)
    if not key.verifies(signature.signature, header_digest(headers, found.raw, signature)):
        return result("fail", "the header has been changed, or another key has signed", key.bits, key.testing)
    return result("pass", "", key.bits, key.testing)


def key_for(algorithm: str, records: Sequence[bytes]) -> PublicKey:
    """The key to verify a signature of this algorithm with.  Raises `TagFault`, whose words say why there is none."""
    if not records:
        raise TagFault("there is no key of this name")
    key = parse_key(records[0].decode("ascii", "replace"))
    if algorithm != f"{key.kind}-sha256":
        raise TagFault("the key is of another kind than the signature says")
    return key


def header_digest(headers: Headers, raw: bytes, signature: Signature) -> bytes:
    """The SHA-256 of what is signed of the header (section 3.7): the fields from the bottom up, then the signature itself."""
    fields = headers.by_name()
    form = signature.header_form
    signed: list[bytes] = []
    for name in signature.headers:
        rest = fields.get(name.encode("ascii", "replace"))
        if rest:
            signed.append(canonical_field(rest.pop(), form))
    signed.append(canonical_field(unsigned_field(raw), form))
    return hashlib.sha256(b"\r\n".join(signed)).digest()


def sign(
    headers: Headers,
    body_hash: bytes,
    key: PrivateKey,
    *,
    domain: str,
    selector: str,
    signed_at: int,
    names: Sequence[str] = SIGNED_FIELDS,
) -> str:
    """The value of a DKIM-Signature field, folded.  `body_hash` is that of the relaxed form of the whole body.

    Blocks for the time of the signature; see `PrivateKey.sign`.
    """
    present = [field.name.decode("ascii", "replace") for field in headers]
    listed: list[str] = []
    for name in names:
        count = present.count(name)
        listed += [name] * (count if name in NOT_OVERSIGNED else count + 1)
    signature = Signature(
        key.algorithm, domain, selector, f"@{domain}", tuple(listed), body_hash, b"", FORM, FORM, signed_at=signed_at
    )
    value = _folded_value(signature, listed, body_hash)
    digest = header_digest(headers, b"DKIM-Signature: " + value.encode("ascii"), signature)
    return value + _folded_base64(key.sign(digest))


def _folded_value(signature: Signature, listed: Sequence[str], body_hash: bytes) -> str:
    """All of it but the signature itself."""
    first = f"v=1; a={signature.algorithm}; c={FORM}/{FORM}; d={signature.domain};"
    names = textwrap.wrap(": ".join(listed), LINE_CHARACTERS - 4, break_long_words=False, break_on_hyphens=False)
    header_list = "\r\n\t ".join(names).replace(": ", ":")
    hashed = base64.b64encode(body_hash).decode("ascii")
    return f"{first}\r\n\ts={signature.selector}; t={signature.signed_at}; h={header_list};\r\n\tbh={hashed};\r\n\tb="


def _folded_base64(octets: bytes) -> str:
    text = base64.b64encode(octets).decode("ascii")
    return "\r\n\t ".join([text[n : n + LINE_CHARACTERS] for n in range(0, len(text), LINE_CHARACTERS)])
