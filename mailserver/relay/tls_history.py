"""What was seen of other hosts' TLS last, for people: in memory, since the start."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from mailserver.relay.conclusions import TLSSession

__all__ = ["TLSHistory"]

SESSIONS_MOST = 2_000  # some 4 KB each, with the host's certificates
CHAIN_OCTETS_MOST = 16_384  # OpenSSL takes 100 KB of them: further ones of such a host are not kept
OF_A_DOMAIN_MOST = 50


class TLSHistory:
    """The last session with each address of each host of a domain; the domains that were seen longest ago are forgotten."""

    def __init__(self) -> None:
        self._domains: OrderedDict[str, OrderedDict[tuple[str, str], TLSSession]] = OrderedDict()
        self._count = 0

    def add(self, session: TLSSession) -> None:
        """It has just ended its beginning, well or badly."""
        seen = self._domains.setdefault(session.domain, OrderedDict())
        self._domains.move_to_end(session.domain)
        key = session.host, session.address
        session = _bounded(session)
        self._count += key not in seen
        seen[key] = session
        seen.move_to_end(key)
        if len(seen) > OF_A_DOMAIN_MOST:
            seen.popitem(last=False)
            self._count -= 1
        while self._count > SESSIONS_MOST:
            _, forgotten = self._domains.popitem(last=False)
            self._count -= len(forgotten)

    def of(self, domain: str) -> Sequence[TLSSession]:
        """Of this domain, the latest last."""
        return tuple(self._domains.get(domain, {}).values())


def _bounded(session: TLSSession) -> TLSSession:
    facts = session.facts
    if sum(map(len, facts.chain)) <= CHAIN_OCTETS_MOST:
        return session
    room, kept = CHAIN_OCTETS_MOST, []
    for one in facts.chain:
        room -= len(one)
        if room < 0:
            break
        kept.append(one)
    return replace(session, facts=replace(facts, chain=tuple(kept)))
