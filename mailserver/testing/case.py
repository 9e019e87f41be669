"""A trial test case for components that judge."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no annotations)

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar, TypeVarTuple

from pydantic import ValidationError
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from mailserver.authentication.passwords import verify_password
from mailserver.config import ConfigurationError, Fault, check_options
from mailserver.config.fault_sentences import key_text, sentences
from mailserver.interfaces import Services
from mailserver.mail.address import Address
from mailserver.mail.answers import Accept, Defer, Pass, Quarantine, Refuse, Signal, Verdict
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient, TLSFacts
from mailserver.mail.ids import IdSource
from mailserver.mail.process_failure import ProcessFailed
from mailserver.plugins.awaiting import now_or_later
from mailserver.plugins.catalogue import build_component
from mailserver.plugins.in_reactor import ReactorCalls
from mailserver.plugins.metrics import Metrics
from mailserver.processes.job_format import call_job, job_of, result_of, take_beyond
from mailserver.receive.judging import BoundFilter, Judging
from mailserver.testing.fetch import FakeFetch
from mailserver.testing.quarantine import MemoryQuarantine
from mailserver.testing.records import MemoryRecords
from mailserver.testing.resolver import FakeResolver
from mailserver.testing.sending import FakeSend
from mailserver.testing.state import MemoryState
from mailserver.testing.waiting_mail import MemoryWaitingMail

__all__ = ["ComponentCase", "FilterCase"]

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")
TESTED = "tested"  # what `build` calls the component
START_SECONDS = 1_800_000_000.0  # January 2027: times look like times, and no test depends on today


class _AtOnce:
    """Threads for a test: none."""

    def run(self, function: Any, /, *arguments: Any) -> Deferred[Any]:
        return maybeDeferred(function, *arguments)

    def stop(self) -> None:
        """Nothing runs."""


def _as_in_a_process(
    function: Callable[[*Arguments], T], /, *arguments: *Arguments, seconds: float = 60.0
) -> Deferred[T]:
    """The function in the test's own process; what cannot be sent to another one, or come back, fails as there."""
    if not 0 < seconds <= 3600:
        return fail(ValueError("a call may take up to an hour"))
    try:
        result, beyond = result_of(call_job(job_of(function, arguments, seconds)))
    except (TypeError, ProcessFailed) as error:
        return fail(error)
    take_beyond(arguments, beyond)
    return succeed(result)


def _at_once(function: Any, *arguments: Any) -> None:
    function(*arguments)


class ComponentCase(TestCase):
    """Makes what a component is given, and the component.

    `clock` is the time that the component sees (`self.clock.advance(seconds)` lets it pass), `resolver`, `state`, `records`,
    `quarantine` and `fetch` are what it may use; fill `self.resolver.zones` before the component asks.  `send_mail.sent` has the
    messages that it has sent, `waiting_mail.done` what it has held and released, `own_domains` are ours, `process_failure` is
    what `run_in_process` comes to, None for an answer.  A verb of `state`, `records` or `quarantine` that was called and never
    awaited fails the test at its end.
    """

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.clock.advance(START_SECONDS)
        self.resolver = FakeResolver()
        self.state = MemoryState(self.clock, name=TESTED)
        self.metrics: dict[str, Metrics] = {}
        self.records = MemoryRecords(name=TESTED)
        self.quarantine = MemoryQuarantine(self.clock, name=TESTED)
        self.waiting_mail = MemoryWaitingMail()
        self.process_failure: Exception | None = None
        self.fetch = FakeFetch()
        self.send_mail = FakeSend()
        self.own_domains = {"example.org"}
        self.addCleanup(self._assert_all_were_awaited)
        self._ids = IdSource(self.clock.seconds)

    def _assert_all_were_awaited(self) -> None:
        """A verb does nothing before it is awaited, and what it returns is true: that goes wrong in silence."""
        forgotten = self.state.calls.never_awaited() + self.records.calls.never_awaited()
        forgotten += self.quarantine.calls.never_awaited()
        self.assertEqual(forgotten, [], "never awaited")

    # --- The component. ---

    @property
    def services(self) -> Services:
        """What the core lends to a component.  Work for a thread or a process runs at once, in the test's thread."""
        return self.services_for(TESTED)

    def services_for(self, name: str) -> Services:
        """The same for a component of this name, with a space and records of its own.

        `state.space(name)` and `records.space(name)` are those, and `metrics[name]` has what it counts.
        """
        folder = self.mktemp()
        metrics = self.metrics.setdefault(name, Metrics())
        return Services(
            clock=self.clock,
            run_in_thread=maybeDeferred,
            state=self.state.space(name),
            records=self.records.space(name),
            fetch=self.fetch,
            send=self.send_mail,
            run_in_process=self._run_in_process,
            quarantine=self.quarantine.space(name),
            waiting_mail=self.waiting_mail,
            is_own_domain=self.own_domains.__contains__,
            resolver=self.resolver,
            hostname="mail.example.test",
            configuration_directory=folder,
            data_directory=folder,
            check_password=self._check_password,
            new_threads=lambda use, most: _AtOnce(),
            room_for=lambda octets: True,
            steady_seconds=self.clock.seconds,
            name=name,
            in_reactor=ReactorCalls(_at_once),
            metrics=metrics,
        )

    def _run_in_process(
        self, function: Callable[[*Arguments], T], /, *arguments: *Arguments, seconds: float = 60.0
    ) -> Deferred[T]:
        """At once, and it comes to nothing where `process_failure` says so."""
        if self.process_failure is not None:
            return fail(self.process_failure)
        return _as_in_a_process(function, *arguments, seconds=seconds)

    async def _check_password(self, password: str, hash: str | None) -> bool:
        """As the server's, in the test's thread."""
        return hash is not None and verify_password(password, hash)

    def build(self, factory: Any, **options: Any) -> Any:
        """Build a component as the server does, from the values that the TOML file would hold.

        Raises `ConfigurationError` for options that the configuration would refuse.
        """
        try:
            checked = check_options(factory.options, options, self.services.configuration_directory)
        except ValidationError as error:
            found = sentences(error, factory.options, options)
            raise ConfigurationError([Fault("options", 1, key_text(path), words) for path, words in found]) from error
        return build_component(factory, checked, self.services)

    def configured(
        self,
        component: object,
        *,
        on_error: Literal["defer", "skip", "refuse"] = "defer",
        deadline_seconds: float = 30.0,
    ) -> Judging:
        """The component behind the core's rules: deadline, `on_error`, the worst verdict wins.

        Its methods `peer`, `sender`, `recipient`, `content` and `content_for` (which asks scorers, too) return a judgement with
        `verdict`, `answers` and `findings`, or a Deferred of it.  `MailCase` shows what modifiers and signers make of a message.
        """
        bound = BoundFilter(TESTED, component, None, on_error, deadline_seconds)
        return Judging([bound], clock=self.clock)

    # --- What it is given. ---

    def peer(
        self,
        address: str = "192.0.2.25",
        *,
        hello: str = "client.example.net",
        service: str = "mx",
        login: str = "",
        tls: TLSFacts | None = None,
        port: int = 40025,
    ) -> Peer:
        """The connected peer.  `hello=""` is the time before EHLO."""
        return Peer(address, port, service, hello, "EHLO" if hello else "", tls, login, look_up=self.resolver.query)

    def envelope(
        self,
        sender: str | None = "sender@example.net",
        recipients: Sequence[str] = ("user@example.org",),
        *,
        peer: Peer | None = None,
        parameters: MailParameters | None = None,
    ) -> Envelope:
        """An envelope; `sender=None` is the null reverse-path."""
        return Envelope(
            self._ids.next(),
            peer or self.peer(),
            None if sender is None else Address.parse(sender, utf8=True),
            tuple(map(self.recipient, recipients)),
            self.clock.seconds(),
            parameters or MailParameters(),
        )

    def recipient(self, address: str = "user@example.org") -> Recipient:
        """One forward-path."""
        return Recipient(Address.parse(address, utf8=True))

    def content(self, message: bytes = b"Subject: test\n\nHello.\n") -> Content:
        """A message.  A line may end with LF alone here; the filter sees CRLF, as on the wire."""
        return Content.of(re.sub(rb"(?<!\r)\n", b"\r\n", message))

    # --- Asking. ---

    def begin(self, awaitable: Awaitable[T]) -> Deferred[T]:
        """Ask without waiting for the answer.  Advance `clock`, then call `answer(deferred)`."""
        try:
            result = now_or_later(awaitable)
        except Exception:  # noqa: BLE001  # it is for whoever looks at the Deferred
            return fail()
        return result if isinstance(result, Deferred) else succeed(result)

    def answer(self, awaitable: Awaitable[T]) -> T:
        """The answer, which must have come by now.  Raises the component's error."""
        seen: list[Any] = []
        self.begin(awaitable).addBoth(seen.append)
        if not seen:
            self.fail("the component still waits: use begin(), let time pass with clock.advance(), then answer()")
        if isinstance(seen[0], Failure):
            seen[0].raiseException()
        answer: T = seen[0]
        return answer


class FilterCase(ComponentCase):
    """Says what a filter has answered."""

    def judge(self, awaitable: Awaitable[Verdict]) -> Verdict:
        """As `answer`, and the answer must be a verdict."""
        verdict = self.answer(awaitable)
        self.assertIsInstance(verdict, Verdict, f"{verdict!r} is no verdict")
        return verdict

    # --- What was said. ---

    def assertPassed(self, verdict: Verdict, *findings: str) -> None:
        """The verdict must be a pass with findings of these names, in this order."""
        self._assert_said(verdict, Pass, "")
        self.assertEqual([found.name for found in verdict.findings], list(findings), "the names of the findings")

    def assertRefused(self, verdict: Verdict, why: str = "") -> None:
        """The verdict must be a permanent refusal whose reason matches the pattern `why`."""
        self._assert_said(verdict, Refuse, why)

    def assertDeferred(self, verdict: Verdict, why: str = "") -> None:
        """The verdict must be a temporary refusal whose reason matches `why`."""
        self._assert_said(verdict, Defer, why)

    def assertQuarantined(self, verdict: Verdict, why: str = "") -> None:
        """The verdict must send the message to the Junk folder, for a reason that matches `why`."""
        self._assert_said(verdict, Quarantine, why)

    def assertAccepted(self, verdict: Verdict, why: str = "") -> None:
        """The verdict must be an explicit acceptance whose reason matches `why`."""
        self._assert_said(verdict, Accept, why)

    def assertSignal(self, verdict: Verdict, name: str, score: float | None = None, why: str = "") -> None:
        """The verdict must be a signal of this name, and of this score where it is given."""
        self._assert_said(verdict, Signal, why)
        if isinstance(verdict, Signal):
            self.assertEqual(verdict.name, name)
            if score is not None:
                self.assertEqual(verdict.score, score)

    def _assert_said(self, verdict: Verdict, kind: type, why: str) -> None:
        self.assertIsInstance(verdict, kind, f"expected {kind.__name__}, not {verdict!r}")
        if why:
            self.assertRegex(getattr(verdict, "why", ""), why)
