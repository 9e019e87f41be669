"""A DKIM-Signature field (RFC 6376 section 3.5; RFC 8301, RFC 8463), read and written."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mailserver.mail.quick import quick
from mailserver.trust.canonical import Form
from mailserver.trust.tag_list import TagFault, parse_tags

__all__ = [
    "ALGORITHMS",
    "Signature",
    "algorithm_of",
    "demand_tags",
    "domain_of",
    "moment_of",
    "octets_of",
    "parse_signature",
    "signature_of",
    "unsigned_field",
]

ALGORITHMS = ("rsa-sha256", "ed25519-sha256")  # RFC 8301 section 3.1, RFC 8463; rsa-sha1 must not be used
DOMAIN = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*\.?")
NUMBER = re.compile(r"[0-9]{1,76}")
TIME = re.compile(r"[0-9]{1,12}")
FIELD_NAME = re.compile(r"[!-9;<>-~]+")
# The value of the tag b: all that follows "b=" up to the next semicolon.
SIGNATURE_VALUE = re.compile(rb"((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")
HEADER_NAMES_MOST = 500


@quick
@dataclass(frozen=True, slots=True)
class Signature:
    """What the field says.

    `headers` are the names of the signed fields, in lower case and in their order.  `body_octets` is l=, None for the whole body;
    `signed_at` and `expires_at` are t= and x= in seconds since the epoch.  `identity` is i=, or ``@`` and the domain.
    """

    algorithm: str
    domain: str
    selector: str
    identity: str
    headers: tuple[str, ...]
    body_hash: bytes
    signature: bytes
    header_form: Form = "simple"
    body_form: Form = "simple"
    body_octets: int | None = None
    signed_at: int | None = None
    expires_at: int | None = None

    @property
    def key_name(self) -> str:
        """Where its public key stands in the DNS (section 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


def parse_signature(value: str) -> Signature:
    """The field's value, unfolded.  Raises `TagFault`, whose words say what is wrong."""
    tags = parse_tags(value)
    demand_tags(tags, "v", "a", "b", "bh", "d", "h", "s")
    if tags["v"] != "1":
        raise TagFault("its version is not 1")
    found = signature_of(tags, tags.get("i"))
    if "from" not in found.headers:
        raise TagFault("it does not sign the From field")
    return found


def signature_of(tags: Mapping[str, str], identity: str | None) -> Signature:
    """From the tags that a DKIM-Signature and an ARC-Message-Signature have in common.  Raises `TagFault`."""
    domain = domain_of("d", tags["d"])
    identity = f"@{domain}" if identity is None else identity
    if not _is_below(identity.rpartition("@")[2].lower(), domain) or "@" not in identity:
        raise TagFault("the identity i is not of the domain d")
    if "dns/txt" not in [method.strip().lower() for method in tags.get("q", "dns/txt").split(":")]:
        raise TagFault("its key can be had in no way that is known here")
    header_form, body_form = _forms(tags.get("c", "simple/simple"))
    signed_at, expires_at = moment_of("t", tags.get("t")), moment_of("x", tags.get("x"))
    if signed_at is not None and expires_at is not None and expires_at <= signed_at:
        raise TagFault("it expires before it was made")
    return Signature(
        algorithm=algorithm_of(tags["a"]),
        domain=domain,
        selector=domain_of("s", tags["s"]),
        identity=identity,
        headers=_header_names(tags["h"]),
        body_hash=octets_of("bh", tags["bh"]),
        signature=octets_of("b", tags["b"]),
        header_form=header_form,
        body_form=body_form,
        body_octets=_length(tags.get("l")),
        signed_at=signed_at,
        expires_at=expires_at,
    )


def unsigned_field(raw: bytes) -> bytes:
    """The field as it was when it was signed: without the value of b (section 3.7)."""
    name, colon, value = raw.partition(b":")
    return name + colon + SIGNATURE_VALUE.sub(rb"\1", value, count=1)


def demand_tags(tags: Mapping[str, str], *names: str) -> None:
    """Raises `TagFault` for the first one that is missing."""
    missing = [name for name in names if name not in tags]
    if missing:
        raise TagFault(f"the tag {missing[0]} is missing")


def algorithm_of(value: str) -> str:
    """The value of a=, in lower case.  Raises `TagFault`."""
    algorithm = value.lower()
    if algorithm not in ALGORITHMS:
        is_old = algorithm == "rsa-sha1"
        raise TagFault("its algorithm, rsa-sha1, is not to be used any more" if is_old else "its algorithm is unknown")
    return algorithm


def domain_of(tag: str, value: str) -> str:
    """A domain or a selector, in lower case.  Raises `TagFault`."""
    if DOMAIN.fullmatch(value) is None:
        raise TagFault(f"{tag} is no domain name")
    return value.rstrip(".").lower()


def _is_below(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith("." + parent)


def _forms(value: str) -> tuple[Form, Form]:
    forms: dict[str, Form] = {"simple": "simple", "relaxed": "relaxed"}
    header, _, body = value.lower().partition("/")
    header, body = header.strip(), body.strip() or "simple"
    if header not in forms or body not in forms:
        raise TagFault("its canonicalisation is unknown")
    return forms[header], forms[body]


def _header_names(value: str) -> tuple[str, ...]:
    # An empty name is no field, but no reason either to turn a signature down: nobody else does.
    names = tuple([name for one in value.split(":") if (name := one.strip(" \t\r\n").lower())])
    if len(names) > HEADER_NAMES_MOST or not all(map(FIELD_NAME.fullmatch, names)):
        raise TagFault("h is no list of header fields")
    return names


def octets_of(tag: str, value: str) -> bytes:
    """What the base64 stands for.  Raises `TagFault`, also where there is none."""
    try:
        found = binascii.a2b_base64("".join(value.split()).encode("ascii"), strict_mode=True)
    except (binascii.Error, ValueError):
        raise TagFault(f"{tag} is not base64") from None
    if not found:
        raise TagFault(f"{tag} is empty")
    return found


def _length(value: str | None) -> int | None:
    if value is None:
        return None
    if NUMBER.fullmatch(value) is None:
        raise TagFault("l is no number")
    return int(value)


def moment_of(tag: str, value: str | None) -> int | None:
    """Seconds since the epoch, None for None.  Raises `TagFault`."""
    if value is None:
        return None
    if TIME.fullmatch(value) is None:
        raise TagFault(f"{tag} is no time")
    return int(value)
