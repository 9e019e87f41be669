"""What all listeners share of logins: the threads that compare passwords, the lockout, and the secret of the false keys."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mailserver.authentication.authenticator import Authenticator
from mailserver.authentication.checkers import make_checker
from mailserver.authentication.kept_secrets import kept_secret
from mailserver.authentication.lockout.counting import LockoutRules
from mailserver.authentication.lockout.lockout import Lockout
from mailserver.authentication.one_time import OneTimeLogins
from mailserver.authentication.password_checks import CostlyThreads, PasswordChecks
from mailserver.config import Configuration, ListenTable
from mailserver.mail.networks import Networks
from mailserver.plugins.asked_directory import AskedChecker
from mailserver.plugins.asking import Asking
from mailserver.routing.domains import Domains, LocalDomain
from mailserver.state_store import StateStore

__all__ = ["Logins", "offers_logins", "lets_anybody_in", "login_domain"]

LOCKOUTS_MOST = 100_000  # of one kind that are remembered; what is over first leaves first


class Logins:
    """Lives as long as the server.  `state` is its store; `lockout` is also for the control socket."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        reactor: Any,
        state: StateStore,
        note: Callable[..., None],
        next_id: Callable[[], str],
    ) -> None:
        authentication, lockout = configuration.authentication, configuration.lockout
        self._reactor = reactor
        self._secrets = state.space("authentication")
        self._is_wanted = lets_anybody_in(configuration)
        self._is_warm = False
        self._asking: dict[str, Asking] = {}  # by the checkers' descriptions
        self._threads = CostlyThreads(
            threads=authentication.threads, waiting=authentication.waiting, call_in_reactor=reactor.callFromThread
        )
        self.checks = PasswordChecks(
            run=self._threads.run, clock=reactor, remember_seconds=authentication.remember
        )
        self.one_time = OneTimeLogins(reactor)
        self.lockout = Lockout(
            clock=state,
            on_the_wall=state.on_the_wall,
            spaces=functools.partial(state.space, facts_most=LOCKOUTS_MOST),
            rules=LockoutRules(
                account_failures=lockout.account_failures,
                account_failures_everywhere=lockout.account_failures_everywhere,
                network_failures=lockout.network_failures,
                window_seconds=lockout.window,
                duration_seconds=lockout.duration,
                delay_seconds=lockout.delay,
            ),
            allow=Networks(lockout.allow),
            note=note,
            next_id=next_id,
        )

    def start(self) -> None:
        """Be ready to compare passwords.  A thread begins with its first work."""
        self._threads.start()
        self._warm_up()

    def change(self, configuration: Configuration) -> None:
        """Go on by another configuration, which a reload has brought; the rules of the lockout stay."""
        authentication = configuration.authentication
        self._is_wanted = lets_anybody_in(configuration)
        self._threads.resize(threads=authentication.threads, waiting=authentication.waiting)
        self.checks.remember_seconds = authentication.remember
        self._warm_up()

    def _warm_up(self) -> None:
        if self._is_wanted and not self._is_warm:
            self._is_warm = True
            self._threads.warm_up()

    def stop(self) -> None:
        """End the threads."""
        self._threads.stop()

    def authenticator(self, configuration: Configuration, accounts: Any) -> Authenticator | None:
        """Who may log in, by this configuration; None where nobody can.  Raises `CheckerError`."""
        if not lets_anybody_in(configuration):
            return None
        authentication = configuration.authentication
        domain = login_domain(configuration)
        return Authenticator(
            accounts=accounts,
            checkers=[self._checker(one, domain, configuration.limits.accounts_seconds) for one in authentication.checkers],
            lockout=self.lockout,
            clock=self._reactor,
            login_domain=domain,
            hostname=configuration.hostname,
            secret=self._secret,
            mechanisms=authentication.mechanisms,
            loopback_in_clear=authentication.without_tls == "loopback",
            one_time=self.one_time,
        )

    def _checker(self, description: str, domain: str, seconds: float) -> Any:
        kind = description.partition(":")[0]  # what follows may be a password
        asking = self._asking.setdefault(description, Asking(f"checker {kind}", self._reactor))
        return make_checker(description, domain, lambda checker: AskedChecker(checker, asking, seconds))

    def hanging(self) -> dict[str, int]:
        """By a checker's name: how many questions to it run on after their deadline."""
        return {asking.name: len(asking.left) for asking in self._asking.values() if asking.left}

    async def _secret(self) -> bytes:
        """What false SCRAM keys are made with: the same over restarts, so that nobody can tell them from real ones."""
        return await kept_secret(self._secrets, "secret")


def login_domain(configuration: Configuration) -> str:
    """What completes a user name without a domain: where the accounts are, not a domain that is only the same as another."""
    domains = Domains({name: LocalDomain(same_as=table.same_as) for name, table in configuration.domain.items()})
    return domains.names_of(configuration.authentication.domain or configuration.home_domain)


def offers_logins(listen: ListenTable) -> bool:
    """Whether clients may log in on this listener."""
    return listen.service == "submission" if listen.authentication is None else listen.authentication


def lets_anybody_in(configuration: Configuration) -> bool:
    """Whether there is a listener for logins, or a socket on which another program asks about passwords."""
    return configuration.authentication.socket is not None or any(map(offers_logins, configuration.listen))
