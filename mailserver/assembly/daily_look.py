"""Joins the daily look at the DNS of our domains to the server's parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from mailserver.config import Configuration
from mailserver.config.endpoints import is_local
from mailserver.config.filter_order import filter_names

if TYPE_CHECKING:
    from mailserver.doctor.asking import SeenLive
    from mailserver.doctor.daily import DailyLook
    from mailserver.doctor.findings import CheckedRecord
    from mailserver.doctor.house_facts import DomainFacts
    from mailserver.doctor.report_evidence import ReportEvidence
    from mailserver.doctor.trying import Trials
    from mailserver.plugins.pools import Pools
    from mailserver.state_store import StateStore

__all__ = ["SPACE", "looks_daily", "make_daily_look"]

ASK_SECONDS = 10.0
SPACE = "doctor"  # of the state
READERS = {"DMARC": "dmarc_reports", "MTA-STS": "tls_reports"}
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
    from mailserver.doctor.daily import DailyLook  # a server that only submits, or a sandbox, has no use for it

    looks = _Looks(configuration)
    return DailyLook(
        clock=server.reactor,
        look=looks,
        give_up=looks.give_up,
        run_in_thread=server.pools.of("doctor", 1),
        state=server.state.space(SPACE),
        reports=looks.reports,
    )


class _Looks:
    """Blocks, in a thread."""

    log = Logger()

    def __init__(self, configuration: Callable[[], Configuration]) -> None:
        self._configuration = configuration
        self._is_over = False
        self._seen: SeenLive | None = None
        self._trials: Trials | None = None

    def give_up(self) -> None:
        """By the reactor's thread."""
        self._is_over = True
        if self._seen is not None:
            self._seen.give_up()
        if self._trials is not None:
            self._trials.give_up()

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
                records = examined(facts, self._seen, now=time.time(), fetch=fetched)
                if configuration.dns.daily_trials and not self._is_over:
                    records = (*records, *self._tried(configuration, facts, self._seen, with_host=not found))
                found[domain] = records
            except Exception:  # noqa: BLE001  one domain's trouble: the others are looked at all the same
                self.log.failure("the DNS of {domain} could not be looked at", domain=domain)
        return found

    def _ask_ourselves(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any] | None:
        from mailserver.control.client import ControlError, ask

        path = os.path.join(self._configuration().data, "control.sock")
        try:
            return ask(path, command, {**arguments}, timeout_seconds=ASK_SECONDS)
        except ControlError:
            return None

    def reports(self, kind: str, domain: str, seconds: float) -> ReportEvidence:
        """What others have reported in the last seconds, read by the filters that are there for it."""
        from mailserver.doctor.configured import facts_of
        from mailserver.doctor.report_evidence import NO_EVIDENCE, dmarc_evidence, tls_evidence

        configuration = self._configuration()
        names = filter_names([(one.use, one.name) for one in configuration.filter])
        for name, table in zip(names, configuration.filter, strict=True):
            if table.use == READERS[kind]:
                question = {"name": name, "command": "show", "arguments": {"domain": domain, "since": seconds}}
                said = self._ask_ourselves("component.run", question)
                if said is None:
                    return NO_EVIDENCE
                if kind != "DMARC":
                    return tls_evidence(said["answer"])
                return dmarc_evidence(said["answer"], facts_of(configuration, domain).addresses)
        return NO_EVIDENCE

    def _tried(
        self, configuration: Configuration, facts: DomainFacts, seen: SeenLive, *, with_host: bool
    ) -> Sequence[CheckedRecord]:
        """A failure of the trials takes nothing from the look."""
        from mailserver.doctor.trial_facts import trial_facts_of
        from mailserver.doctor.trying import SECONDS, Trials

        try:
            seen.last(SECONDS)
            trial = trial_facts_of(configuration, facts.domain, facts.addresses)
            self._trials = trials = Trials(facts, trial, seen, ask=self._ask_ourselves)
            if self._is_over:
                return ()
            return (*trials.of_domain(), *(trials.of_host() if with_host else ()))
        except Exception:  # noqa: BLE001
            self.log.failure("what {domain} can do could not be tried", domain=facts.domain)
            return ()
