"""Asks each server of a zone, past all caches.  Everything here blocks, in threads of its own for the length of a look.

Which zone a name is in, and who answers for it, is asked of the host's own name servers and of the servers of the zone above.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype

from mailserver.doctor.messages import Keys, is_lame, key_state, read_answer, records_of, rrset_of, text_of_name
from mailserver.doctor.own_network import has_ipv6
from mailserver.doctor.seen import DNSSECState, NameServerSeen, SeenRecords, SeenState, ZoneSeen, merged
from mailserver.mail.dns_records import DNS_PORT, ServerAddress

__all__ = ["SeenLive"]

PAYLOAD_OCTETS = 1232
SERVERS_MOST = 16  # addresses of a zone's servers that are asked
NAMES_MOST = 13
THREADS = 8
TRIES = 2
WITHOUT_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)
FAULTS = (OSError, dns.exception.DNSException, EOFError, ValueError)
NO_TIME = "no time is left"


@dataclass(slots=True)
class _Zone:
    """What is known of a zone; `answers` are those of its servers that answer for it."""

    seen: ZoneSeen
    answering: tuple[NameServerSeen, ...] = ()
    keys: Keys | None = None


class SeenLive:
    """`Seen`, by asking.  `recursive` are the name servers of this host; `port` is that of authoritative ones.

    A server has `timeout_seconds` for an answer, twice; one that was silent is not asked again.  After `total_seconds` whatever
    has not been asked cannot be told.
    """

    def __init__(
        self,
        recursive: Sequence[ServerAddress],
        *,
        port: int = DNS_PORT,
        timeout_seconds: float = 3.0,
        total_seconds: float = 60.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._recursive = list(recursive)
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._until = time.monotonic() + total_seconds
        self._now = now
        self._sets: dict[tuple[str, str], SeenRecords] = {}
        self._cuts: dict[str, str] = {}
        self._zones: dict[str, _Zone] = {}
        self._silent: dict[str, str] = {}
        self._told: dict[tuple[str, str], dns.message.Message | None] = {}  # by the name servers of this host
        self._finding = threading.RLock()  # one zone is found at a time: all names of a zone wait for the same
        self._has_ipv6 = has_ipv6()

    # --- Seen ---

    def of(self, name: str, type: str) -> SeenRecords:
        """Ask all servers of the zone, each once."""
        found = self._sets.get((name, type))
        if found is None:
            found = self._sets[name, type] = self._asked(name, type)
        return found

    def zone(self, name: str) -> ZoneSeen:
        """Find the zone, ask each of its servers for its SOA record, look at its keys."""
        return self._zone(name).seen

    def ask_ahead(self, questions: Iterable[tuple[str, str]]) -> None:
        """Ask all of these side by side; what comes of them is there when it is looked for."""
        wanted = dict.fromkeys(questions)
        for name in dict.fromkeys([name for name, _ in wanted]):
            self.zone(name)
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda one: self.of(*one), wanted))

    def told(self, name: str, type: str) -> tuple[str, ...] | None:
        """What the name servers of this host say, with their caches: for what is not ours.  None where nobody can tell."""
        said = self._ask_recursive(name, type) if _is_name(name) else None
        return None if said is None else records_of(said, type)

    def last(self, seconds: float) -> None:
        """Go on for so long from now."""
        self._until = time.monotonic() + seconds

    def give_up(self) -> None:
        """By another thread: whatever has not been asked cannot be told."""
        self._until = 0.0

    # --- records ---

    def _asked(self, name: str, type: str) -> SeenRecords:
        if not _is_name(name):
            return SeenRecords(name, type, SeenState.NO_NAME)
        zone = self._zone(name)
        if not zone.answering:
            servers = "; ".join([f"{one}: {one.why}" for one in zone.seen.servers])
            return SeenRecords(name, type, SeenState.FAILED, why=zone.seen.why or servers or "nobody answers")
        answers: list[tuple[str, SeenRecords]] = []
        for server in zone.answering:
            said = self._exchange(server.address, self._port, name, type)
            if isinstance(said, str):
                one = SeenRecords(name, type, SeenState.FAILED, why=said)
            else:
                one = read_answer(said, name, type, zone.keys, self._now())
            answers.append((server.name, one))
        return merged(answers)

    # --- zones ---

    def _zone(self, name: str) -> _Zone:
        with self._finding:
            apex = self._cuts.get(name)
            if not _is_name(name):
                return _Zone(ZoneSeen("", why="it is no name"))
            if apex is None:
                apex = self._cuts[name] = self._apex(name)
            if not apex:
                return _Zone(ZoneSeen("", why="no name server of this host tells where the zone begins"))
            zone = self._zones.get(apex)
            if zone is None:
                zone = self._zones[apex] = self._found(apex)
            return zone

    def _apex(self, name: str) -> str:
        """Where the zone of a name begins, "" where nobody tells.  A zone that fails is found by the one above it."""
        wanted = dns.name.from_text(name)
        said = self._ask_recursive(name, "SOA")
        if said is not None:
            owners = [one.name for one in (*said.answer, *said.authority) if one.rdtype == dns.rdatatype.SOA]
            above = [one for one in owners if wanted.is_subdomain(one)]
            if above:
                return text_of_name(above[-1])
        if wanted == dns.name.root:
            return ""
        parent = wanted.parent()
        zone = self._cuts.get(text_of_name(parent)) or self._apex(text_of_name(parent))
        self._cuts[text_of_name(parent)] = zone
        if said is not None or not zone:  # an alias: no zone begins at it
            return zone
        delegation = self._delegation(zone, wanted)
        return zone if delegation is None else text_of_name(delegation.name)

    def _delegation(self, above: str, name: dns.name.Name) -> Any:
        """The NS records by which the zone above gives a name away; None where it does not."""
        if name == dns.name.root:
            return None
        for server in self._addresses(self._names(above))[:NAMES_MOST]:
            said = self._exchange(server.address, self._port, text_of_name(name), "NS")
            if isinstance(said, str):
                continue
            for found in (*said.authority, *said.answer):
                if found.rdtype == dns.rdatatype.NS and name.is_subdomain(found.name) and text_of_name(found.name) != above:
                    return found
            return None
        return None

    def _found(self, apex: str) -> _Zone:
        name = dns.name.from_text(apex)
        above = ""
        if name != dns.name.root:
            parent = text_of_name(name.parent())
            above = self._cuts.get(parent) or self._apex(parent)
            self._cuts[parent] = above
        delegation = self._delegation(above, name) if above and above != apex else None
        names = [] if delegation is None else [text_of_name(one.target) for one in delegation]
        servers = self._addresses(list(dict.fromkeys([*names, *self._names(apex)]))[:NAMES_MOST])
        examined = [self._examined(apex, one) for one in servers]
        if not examined:
            return _Zone(ZoneSeen(apex, why=f"no server of {apex} has an address"))
        answering = tuple([one for one in examined if not one.fault])
        if not answering:
            return _Zone(ZoneSeen(apex, tuple(examined), DNSSECState.UNKNOWN))
        state, why, keys = self._signing(apex, above, answering)
        return _Zone(ZoneSeen(apex, tuple(examined), state, why), answering, keys)

    def _names(self, apex: str) -> list[str]:
        said = self._ask_recursive(apex, "NS")
        found = None if said is None else rrset_of(said, dns.name.from_text(apex), "NS")
        return [] if found is None else [text_of_name(one.target) for one in found]

    def _addresses(self, names: Sequence[str]) -> list[NameServerSeen]:
        servers: list[NameServerSeen] = []
        for name in names:
            for type in ("A", "AAAA") if self._has_ipv6 else ("A",):
                said = self._ask_recursive(name, type)
                for found in () if said is None else said.answer:
                    if found.rdtype == dns.rdatatype.from_text(type):
                        servers += [NameServerSeen(name, one.address) for one in found]
        return servers[:SERVERS_MOST]

    def _examined(self, apex: str, server: NameServerSeen) -> NameServerSeen:
        said = self._exchange(server.address, self._port, apex, "SOA")
        if isinstance(said, str):
            return NameServerSeen(server.name, server.address, "silent", said)
        lame = is_lame(said)
        if not lame and rrset_of(said, dns.name.from_text(apex), "SOA") is None:
            lame = "it does not know the zone"
        return NameServerSeen(server.name, server.address, "lame" if lame else "", lame)

    def _signing(self, apex: str, above: str, servers: Sequence[NameServerSeen]) -> tuple[DNSSECState, str, Keys | None]:
        name = dns.name.from_text(apex)
        keys = self._exchange(servers[0].address, self._port, apex, "DNSKEY")
        if isinstance(keys, str):
            return DNSSECState.UNKNOWN, keys, None
        digests, is_told = None, name == dns.name.root
        for server in self._addresses(self._names(above)) if above else ():
            said = self._exchange(server.address, self._port, apex, "DS")
            if not isinstance(said, str) and not is_lame(said):
                digests, is_told = rrset_of(said, name, "DS"), True
                break
        if not is_told:
            recursive = self._ask_recursive(apex, "DS")
            if recursive is None:
                return DNSSECState.UNKNOWN, f"nobody tells whether the zone above has a DS record for {apex}", None
            digests = rrset_of(recursive, name, "DS")
        return key_state(apex, digests, keys, self._now())

    # --- messages ---

    def _ask_recursive(self, name: str, type: str) -> dns.message.Message | None:
        if (name, type) not in self._told:
            self._told[name, type] = self._told_by_one(name, type)
        return self._told[name, type]

    def _told_by_one(self, name: str, type: str) -> dns.message.Message | None:
        for server in self._recursive:
            said = self._exchange(server.host, server.port, name, type, recursive=True)
            if not isinstance(said, str) and said.rcode() in (0, 3):
                return said
        return None

    def _exchange(self, address: str, port: int, name: str, type: str, *, recursive: bool = False) -> dns.message.Message | str:
        """The answer, or why there is none."""
        silent = self._silent.get(f"{address}:{port}")
        if silent is not None:
            return silent
        why, edns = NO_TIME, True
        for _ in range(TRIES):
            left = self._until - time.monotonic()
            if left <= 0:
                return NO_TIME
            try:
                query = dns.message.make_query(name, type)
                if edns:
                    query.use_edns(0, dns.flags.DO, PAYLOAD_OCTETS)
                query.flags = dns.flags.RD | dns.flags.CD if recursive else dns.flags.Flag(0)
                message, _ = dns.query.udp_with_fallback(
                    query, address, timeout=min(self._timeout_seconds, left), port=port, ignore_unexpected=True
                )
                if edns and message.rcode() in WITHOUT_EDNS:  # RFC 6891 section 7
                    edns = False
                    continue
                return message
            except dns.exception.FormError as error:  # one record that makes no sense; the server may well tell of others
                return f"an answer that makes no sense: {error}"
            except dns.exception.Timeout:
                why = f"no answer in {self._timeout_seconds:g} s"
            except FAULTS as error:
                why = str(error) or type_name(error)
        self._silent[f"{address}:{port}"] = why
        return why


def _is_name(name: str) -> bool:
    try:
        dns.name.from_text(name)
    except (dns.exception.DNSException, UnicodeError, ValueError):
        return False
    return True


def type_name(error: Exception) -> str:
    """What an error without words is called."""
    return type(error).__name__
