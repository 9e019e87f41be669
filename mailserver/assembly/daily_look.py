"""Joins the daily look at the DNS of our domains to the server's parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from mailserver.config import Configuration
from mailserver.config.endpoints import is_local
from mailserver.doctor.daily import DailyLook
from mailserver.doctor.findings import CheckedRecord
from mailserver.plugins.pools import Pools
from mailserver.state_store import StateStore

if TYPE_CHECKING:
    from mailserver.doctor.asking import SeenLive

__all__ = ["looks_daily", "make_daily_look"]

DOMAINS_MOST = 100  # each may take a minute


class LookingParts(Protocol):
    """What is needed of the server."""

    reactor: Any
    pools: Pools
    state: StateStore


def looks_daily(configuration: Configuration) -> bool:
    """Whether strangers send mail here: a sandbox has no business with anybody's DNS."""
    return configuration.dns.daily_look and any(
        one.service == "mx" and not is_local(one.endpoint) for one in configuration.listen
    )


def make_daily_look(server: LookingParts, configuration: Callable[[], Configuration]) -> DailyLook:
    """`configuration()` is the one in force."""
    looks = _Looks(configuration)
    return DailyLook(
        clock=server.reactor,
        look=looks,
        give_up=looks.give_up,
        run_in_thread=server.pools.of("doctor", 1),
        state=server.state.space("doctor"),
    )


class _Looks:
    """Blocks, in a thread."""

    log = Logger()

    def __init__(self, configuration: Callable[[], Configuration]) -> None:
        self._configuration = configuration
        self._is_over = False
        self._seen: SeenLive | None = None

    def give_up(self) -> None:
        """By the reactor's thread."""
        self._is_over = True
        if self._seen is not None:
            self._seen.give_up()

    def __call__(self) -> Mapping[str, Sequence[CheckedRecord]]:
        from mailserver.doctor.asking import SeenLive  # not at every start: with what they need they take long
        from mailserver.doctor.configured import facts_of, recursive_servers
        from mailserver.doctor.examination import examined
        from mailserver.doctor.policy_fetching import fetched

        configuration = self._configuration()
        domains = [name for name, table in configuration.domain.items() if not name.startswith("*.") and not table.disabled]
        found: dict[str, Sequence[CheckedRecord]] = {}
        for domain in domains[:DOMAINS_MOST]:
            if self._is_over:
                break
            try:
                facts = facts_of(configuration, domain)
                self._seen = SeenLive(recursive_servers(configuration))
                found[domain] = examined(facts, self._seen, now=time.time(), fetch=fetched)
            except Exception:  # noqa: BLE001  one domain's trouble: the others are looked at all the same
                self.log.failure("the DNS of {domain} could not be looked at", domain=domain)
        return found
