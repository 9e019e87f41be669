"""What an answer of a name server says, and whether its signatures hold (RFC 4035 section 5.3).  No I/O."""

from __future__ import annotations

import time
from typing import Any

import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from mailserver.doctor.seen import DNSSECState, SeenRecords, SeenState

__all__ = ["is_lame", "key_state", "read_answer", "records_of", "rrset_of", "signature_of", "text_of_name"]

IN = dns.rdataclass.IN
CANNOT_TELL = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
Keys = dict[dns.name.Name, Any]


def text_of_name(name: dns.name.Name) -> str:
    """In lower case, without a final dot; the root is "."."""
    return name.to_text(omit_final_dot=True).lower()


def rrset_of(message: dns.message.Message, name: dns.name.Name, type: str) -> Any:
    """The records of a name in the answer, None where there are none."""
    return message.get_rrset(message.answer, name, IN, dns.rdatatype.from_text(type))


def signature_of(message: dns.message.Message, name: dns.name.Name, type: str) -> Any:
    """Their signatures in the answer."""
    return message.get_rrset(message.answer, name, IN, dns.rdatatype.RRSIG, dns.rdatatype.from_text(type))


def is_lame(message: dns.message.Message) -> str:
    """Why the server does not answer for the zone, "" where it does."""
    if message.rcode() not in CANNOT_TELL:
        return dns.rcode.to_text(message.rcode())
    return "" if message.flags & dns.flags.AA else "it does not answer for the zone (its answer is not authoritative)"


def read_answer(message: dns.message.Message, name: str, type: str, keys: Keys | None, now: float) -> SeenRecords:
    """What an authoritative server says of a name.  With `keys`, those of its signed zone, the signatures have to hold."""
    lame = is_lame(message)
    if lame:
        return SeenRecords(name, type, SeenState.FAILED, why=lame)
    owner = dns.name.from_text(name)
    found = rrset_of(message, owner, type)
    if found is not None:
        fault, has_expired = _signature_fault(message, owner, found, keys, now)
        records = tuple(sorted({_text(type, one) for one in found}))
        return SeenRecords(
            name, type, SeenState.FOUND, records, signature_fault=fault, has_expired=has_expired, ttl_seconds=found.ttl
        )
    alias = rrset_of(message, owner, "CNAME")
    if alias is not None:
        fault, has_expired = _signature_fault(message, owner, alias, keys, now)
        target = text_of_name(alias[0].target)
        return SeenRecords(name, type, SeenState.FOUND, alias=target, signature_fault=fault, has_expired=has_expired)
    return SeenRecords(name, type, SeenState.NO_NAME if message.rcode() == dns.rcode.NXDOMAIN else SeenState.NONE)


def records_of(message: dns.message.Message, type: str) -> tuple[str, ...]:
    """All records of this type in an answer, whatever CNAMEs it went over."""
    kind = dns.rdatatype.from_text(type)
    return tuple(sorted({_text(type, one) for found in message.answer if found.rdtype == kind for one in found}))


def _signature_fault(
    message: dns.message.Message, owner: dns.name.Name, found: Any, keys: Keys | None, now: float
) -> tuple[str, bool]:
    if not keys:
        return "", False
    signatures = signature_of(message, owner, dns.rdatatype.to_text(found.rdtype))
    if signatures is None:
        return "there is none", False
    return _fault_of(found, signatures, keys, now)


def _fault_of(found: Any, signatures: Any, keys: Keys, now: float) -> tuple[str, bool]:
    """What is wrong with signatures, and whether all are of the past."""
    try:
        dns.dnssec.validate(found, signatures, keys, now=now)
    except dns.exception.UnsupportedAlgorithm:
        return "", False
    except (dns.exception.DNSException, ValueError) as error:
        ends = max(one.expiration for one in signatures)
        if ends < now:
            return f"it has expired on {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(ends))}", True
        return f"it does not verify ({error})", False
    return "", False


def key_state(
    apex: str, digests: Any, answer: dns.message.Message | None, now: float
) -> tuple[DNSSECState, str, Keys | None]:
    """How a zone is signed, why it is not right, and its keys where they are.

    `digests` are the DS records in the zone above, None where there are none; `answer` is one about DNSKEY.
    """
    name = dns.name.from_text(apex)
    keys = None if answer is None else rrset_of(answer, name, "DNSKEY")
    if keys is None:
        if digests is None:
            return DNSSECState.UNSIGNED, "", None
        return DNSSECState.BOGUS, "the zone above has a DS record, and the zone has no key", None
    if digests is None:
        return DNSSECState.NO_DS, "the zone is signed, and the zone above has no DS record", None
    trusted = dns.rrset.RRset(name, IN, dns.rdatatype.DNSKEY)
    for key in keys:
        if any(_is_digest_of(one, name, key) for one in digests):
            trusted.add(key, keys.ttl)
    if not trusted:
        tags = ", ".join(sorted({str(one.key_tag) for one in digests}))
        ours = ", ".join(sorted({str(dns.dnssec.key_id(one)) for one in keys}))
        return DNSSECState.BOGUS, f"the zone above has the DS record of key {tags}, and the zone has key {ours}", None
    signatures = None if answer is None else signature_of(answer, name, "DNSKEY")
    if signatures is None:
        return DNSSECState.BOGUS, "the keys of the zone are not signed", None
    fault, has_expired = _fault_of(keys, signatures, {name: trusted}, now)
    if fault:
        return (DNSSECState.EXPIRED if has_expired else DNSSECState.BOGUS), f"the signature of the zone's keys: {fault}", None
    return DNSSECState.SECURE, "", {name: keys}


def _is_digest_of(digest: Any, name: dns.name.Name, key: Any) -> bool:
    if digest.key_tag != dns.dnssec.key_id(key) or digest.algorithm != key.algorithm:
        return False
    try:
        made: Any = dns.dnssec.make_ds(name, key, digest.digest_type, validating=True)
    except (dns.exception.DNSException, ValueError):
        return False
    return bool(made.digest == digest.digest)


def _text(type: str, data: Any) -> str:
    match type:
        case "A" | "AAAA":
            return str(data.address)
        case "MX":
            return f"{data.preference} {text_of_name(data.exchange)}"
        case "TXT":
            return b"".join(data.strings).decode("ascii", "surrogateescape")
        case "SRV":
            return f"{data.priority} {data.weight} {data.port} {text_of_name(data.target)}"
        case "TLSA":
            return f"{data.usage} {data.selector} {data.mtype} {data.cert.hex()}"
        case "NS" | "PTR" | "CNAME":
            return text_of_name(data.target)
    return str(data.to_text())
