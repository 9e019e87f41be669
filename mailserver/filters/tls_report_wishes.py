"""Which domains want TLS reports, so that nothing is counted for those that do not (RFC 8460 section 3)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from mailserver.api import LookupFailed
from mailserver.trust.dmarc import Query
from mailserver.trust.tls_report import report_uris

__all__ = ["ReportWishes"]

KNOWN_SECONDS = 3600.0
UNKNOWN_SECONDS = 300.0  # where the DNS cannot tell; until it does, it is counted
DOMAINS_MOST = 10_000


class ReportWishes:
    """`seconds` is a clock.  One look-up serves all who ask meanwhile."""

    def __init__(self, query: Query, seconds: Callable[[], float]) -> None:
        self._query = query
        self._seconds = seconds
        self._known: dict[str, tuple[float, bool]] = {}  # until when
        self._asking: dict[str, list[Deferred[bool]]] = {}

    async def has(self, domain: str) -> bool:
        """Whether the domain wants any, or the DNS cannot tell."""
        known = self._known.get(domain)
        if known is not None and self._seconds() < known[0]:
            return known[1]
        asking = self._asking.get(domain)
        if asking is not None:
            asking.append(Deferred())
            return await asking[-1]
        self._asking[domain] = []
        answer, keep_seconds = True, UNKNOWN_SECONDS
        try:
            found = await self._query(f"_smtp._tls.{domain}", "TXT")
            answer, keep_seconds = bool(report_uris(found.texts)), KNOWN_SECONDS
        except LookupFailed:
            pass
        finally:
            self._keep(domain, self._seconds() + keep_seconds, answer)
            for one in self._asking.pop(domain):
                one.callback(answer)
        return answer

    def _keep(self, domain: str, until: float, answer: bool) -> None:
        self._known.pop(domain, None)
        self._known[domain] = (until, answer)
        if len(self._known) > DOMAINS_MOST:
            del self._known[next(iter(self._known))]
