"""Puts into a zone what is wanted, by dynamic updates (RFC 2136) that are signed with TSIG (RFC 8945).  Everything here blocks.

Each set of records is changed on the condition that it is still what it was a moment ago (RFC 2136 section 2.4.2): what somebody
else has written meanwhile is never lost, and records that are none of ours stay.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.tsigkeyring
import dns.update

from mailserver.doctor.findings import CheckedRecord, RecordVerdict
from mailserver.doctor.messages import rrset_of
from mailserver.doctor.seen import Seen, followed
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.mail.dns_records import DNS_PORT, ServerAddress

__all__ = ["PushFailed", "ZoneChange", "ZoneKey", "changes_of", "primary_of", "push", "read_zone_key"]

IN = dns.rdataclass.IN
SECONDS = 10.0
TRIES = 3  # where others change the same set at the same time
KEY_OCTETS = 4096
# As tsig-keygen and keymgr write it: key "name" { algorithm hmac-sha256; secret "base64"; };
KEY = re.compile(
    r'\s*key\s+"?([A-Za-z0-9._-]+)"?\s*\{\s*algorithm\s+"?([A-Za-z0-9.-]+)"?\s*;\s*secret\s+"([A-Za-z0-9+/=]+)"\s*;\s*\}\s*;?\s*'
)
COMMENT = re.compile(r"(?m)^\s*(?:#|//).*$")
FAULTS = (OSError, dns.exception.DNSException, EOFError, ValueError)


class PushFailed(Exception):
    """The server has not done it; the words say why."""


@dataclass(frozen=True, slots=True)
class ZoneKey:
    """A key that may change a zone.  Its `repr` does not show the secret."""

    name: str
    algorithm: str
    secret: str

    def __repr__(self) -> str:
        return f"<ZoneKey {self.name} {self.algorithm}>"


@dataclass(frozen=True, slots=True)
class ZoneChange:
    """Of one set of records: what is put in and what is taken out."""

    name: str
    type: str
    add: tuple[ZoneRecord, ...]
    remove: tuple[ZoneRecord, ...]


def read_zone_key(text: str) -> ZoneKey:
    """A key as ``tsig-keygen`` writes it.  Raises ValueError."""
    found = KEY.fullmatch(COMMENT.sub("", text[:KEY_OCTETS]))
    if found is None:
        raise ValueError('it holds no key such as  key "mail" { algorithm hmac-sha256; secret "…"; };')
    key = ZoneKey(found[1], found[2].lower(), found[3])
    try:
        if not base64.b64decode(key.secret, validate=True):
            raise ValueError("it is empty")
        _keyring(key)
    except FAULTS:
        raise ValueError("the secret of the key is not base64, or empty") from None
    return key


def changes_of(found: Sequence[CheckedRecord], seen: Seen, zone: str) -> tuple[ZoneChange, ...]:
    """What the zone itself needs: all that has to be done, and what is missing though it need not be there.

    Names of a zone that is delegated from it belong to that one.
    """
    sets: dict[tuple[str, str], tuple[dict[ZoneRecord, None], dict[ZoneRecord, None]]] = {}
    for one in found:
        wanted = one.is_advice and one.verdict is RecordVerdict.MISSING and not one.to_do
        if not (one.is_to_be_done or wanted):
            continue
        for n, records in enumerate((one.add, one.remove)):
            for record in records:
                if seen.zone(record.name).name == zone:
                    sets.setdefault((record.name, record.type), ({}, {}))[n][record] = None
    return tuple([ZoneChange(name, type, tuple(add), tuple(remove)) for (name, type), (add, remove) in sets.items()])


def primary_of(seen: Seen, zone: str, port: int = DNS_PORT) -> ServerAddress | None:
    """Whom the SOA record of the zone names (RFC 1035 section 3.3.13); None where nobody tells."""
    for record in seen.of(zone, "SOA").records:
        name = record.split(" ")[0].lower().removesuffix(".")
        for address in (*followed(seen, name, "A").records, *followed(seen, name, "AAAA").records):
            return ServerAddress(address, port)
    return None


def push(zone: str, changes: Sequence[ZoneChange], key: ZoneKey, server: ServerAddress) -> None:
    """Let the zone's primary server make all of the changes, or none.  Raises `PushFailed`."""
    for _ in range(TRIES):
        rcode = _pushed(zone, changes, key, server)
        if rcode == dns.rcode.NOERROR:
            return
        if rcode not in (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN):
            raise PushFailed(f"{server} has not changed {zone}: {dns.rcode.to_text(rcode)}")
    raise PushFailed(f"{server} has not changed {zone}: somebody else changes the same records at this moment")


def _pushed(zone: str, changes: Sequence[ZoneChange], key: ZoneKey, server: ServerAddress) -> dns.rcode.Rcode:
    update = dns.update.UpdateMessage(zone, keyring=_keyring(key), keyalgorithm=dns.name.from_text(key.algorithm))
    try:
        for change in changes:
            _put(update, change, _present(change, server))
        reply = dns.query.tcp(update, server.host, timeout=SECONDS, port=server.port)
    except FAULTS as error:
        raise PushFailed(f"{server} has not changed {zone}: {str(error) or type(error).__name__}") from error
    if reply.rcode() == dns.rcode.NOERROR and not reply.had_tsig:  # RFC 8945 section 5.3: who has the key signs its answer
        raise PushFailed(f"nobody knows whether {zone} is changed: what says so for {server} is not signed")
    return reply.rcode()


def _put(update: dns.update.UpdateMessage, change: ZoneChange, present: Any) -> None:
    name = dns.name.from_text(change.name)
    if present is None:
        update.absent(name, change.type)
    else:
        update.present(name, *present)  # each with a TTL of 0
    for record in change.remove:
        data = _data(record)
        if present is not None and data in present:
            update.delete(name, data)
    for record in change.add:
        update.add(name, record.ttl_seconds, _data(record))


def _present(change: ZoneChange, server: ServerAddress) -> Any:
    """The set as the primary has it now."""
    query = dns.message.make_query(change.name, change.type)
    query.flags = dns.flags.Flag(0)
    message = dns.query.tcp(query, server.host, timeout=SECONDS, port=server.port)
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise ValueError(dns.rcode.to_text(message.rcode()))
    return rrset_of(message, dns.name.from_text(change.name), change.type)


def _data(record: ZoneRecord) -> dns.rdata.Rdata:
    return dns.rdata.from_text(IN, dns.rdatatype.from_text(record.type), record.shown_data)


def _keyring(key: ZoneKey) -> Any:
    return dns.tsigkeyring.from_text({key.name: (dns.name.from_text(key.algorithm), key.secret)})
