"""Whatever a component does when it is to start, to reload, to sweep or to stop: it is named, and the others go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.assembly.components import SWEEP_SECONDS, Components, Owned
from mailserver.cli.without_server import NoAnswers
from mailserver.config import Options
from mailserver.interfaces import (
    IComponent,
    IComponentFactory,
    IPrivilegedComponent,
    IRecipientFilter,
    IReloading,
    ISweeping,
    Services,
)
from mailserver.plugins.catalogue import Catalogue, FoundPlugin
from mailserver.plugins.life import StartError
from mailserver.plugins.register import Register
from tests.plugins.misbehaviour import HANGS, NONSENSE, RAISES

SECONDS = 5.0
# Of what such a method answers nobody takes notice.  What is no Awaitable, or was not awaited, is wrong all the same.
WRONG = RAISES | HANGS | {what: method for what, method in NONSENSE.items() if not what.startswith("answers") or "Deferred" in what or "coroutine" in what}


@implementer(IRecipientFilter, IComponent, IReloading, ISweeping)
class Component:
    """Does what is set, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.does: dict[str, Callable[[], Any]] = {}

    def _do(self, what: str) -> Any:
        self.asked.append(what)
        return self.does[what]() if what in self.does else succeed(3 if what == "sweep" else None)

    def start(self) -> Any:
        return self._do("start")

    def reload(self) -> Any:
        return self._do("reload")

    def sweep(self) -> Any:
        return self._do("sweep")

    def stop(self) -> Any:
        return self._do("stop")

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Any: ...


@implementer(IComponentFactory)
class Factory:
    api_version = "1.0"
    summary = "Of a test."
    provides = IRecipientFilter
    options = Options

    def __init__(self, name: str, kind: type = Component) -> None:
        self.name = name
        self.kind = kind

    def build(self, options: Any, services: Any) -> Any:
        return self.kind()


class Table:
    """Of a configuration."""

    name = None

    def __init__(self, use: str, options: Any = None) -> None:
        self.use = use
        self.options = options if options is not None else Options()


class Odd:
    """Options that cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparing")

    __hash__ = None  # type: ignore[assignment]


class Lives(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.catalogue = Catalogue([FoundPlugin(Factory(name), "a test") for name in ("bad", "good")])
        self.components = self.made(self.catalogue)

    def made(self, catalogue: Catalogue) -> Components:
        async def flush() -> None: ...

        services = Services(
            clock=self.clock, run_in_thread=None, state=None, resolver=NoAnswers(), hostname="mx.example.org",  # type: ignore[arg-type]
            configuration_directory="/", data_directory="/",
        )  # fmt: skip
        register = Register(clock=self.clock, call_from_thread=lambda work, *arguments: work(*arguments), steady_seconds=self.clock.seconds)
        return Components(catalogue=catalogue, clock=self.clock, register=register, services=lambda *_: services, flush=flush)

    def ended(self, awaitable: Awaitable[Any], seconds: float = SECONDS) -> Any:
        """What comes of it within the time: an error, or None."""
        failed: list[Any] = []
        with capturedLogs():
            answer = Deferred.fromCoroutine(awaitable).addErrback(failed.append)  # type: ignore[arg-type]
            self.clock.advance(seconds)
        self.assertTrue(answer.called, "it still waits")
        self.flushLoggedErrors(RuntimeError)  # of a canceller
        return failed[0].value if failed else None

    def taken(self, name: str) -> Owned:
        return self.components.take("filter", Table(name))

    def test_whatever_a_start_does_it_ends_with_the_components_name(self) -> None:
        for what, method in WRONG.items():
            bad = self.taken("bad")
            bad.component.does["start"] = method
            error = self.ended(self.components.start(bad, SECONDS))
            self.assertIsInstance(error, OSError, what)
            if not what.startswith("raises OSError"):
                self.assertTrue(str(error).startswith("filter bad: start"), (what, error))
            another = self.taken("bad")
            self.assertIsNot(another, bad, "one that has failed is not taken again")
            self.components.give_back(another)
            self.assertIsNone(self.ended(self.components.let_go(bad, SECONDS)))
            self.assertEqual(bad.component.asked, ["start", "stop"], what)

    def test_whatever_a_reload_does_it_ends_with_the_components_name_and_the_component_goes_on(self) -> None:
        bad = self.taken("bad")
        self.assertIsNone(self.ended(self.components.start(bad, SECONDS)))
        for what, method in WRONG.items():
            bad.component.does["reload"] = method
            self.assertIs(self.taken("bad"), bad)
            error = self.ended(self.components.start(bad, SECONDS))
            self.assertIsInstance(error, OSError, what)
            self.ended(self.components.let_go(bad, SECONDS))
        self.assertNotIn("stop", bad.component.asked)

    def test_whatever_a_stop_does_it_is_over(self) -> None:
        for what, method in WRONG.items():
            bad = self.taken("bad")
            self.ended(self.components.start(bad, SECONDS))
            bad.component.does["stop"] = method
            self.assertIsNone(self.ended(self.components.let_go(bad, SECONDS)), what)
            self.assertNotIn(bad, list(self.components))

    def test_whatever_a_sweep_does_the_others_are_swept(self) -> None:
        bad, good = self.taken("bad"), self.taken("good")
        for what, method in (RAISES | HANGS | NONSENSE).items():
            bad.component.does["sweep"] = method
            self.assertIsNone(self.ended(self.components.sweep(), SWEEP_SECONDS), what)
        self.assertEqual(len(good.component.asked), len(RAISES | HANGS | NONSENSE))

    def test_one_that_was_never_started_is_not_stopped(self) -> None:
        one = self.taken("good")
        self.components.give_back(one)
        self.assertEqual(list(self.components), [])
        two = self.taken("good")
        self.ended(self.components.let_go(two, SECONDS))
        self.assertEqual((one.component.asked, two.component.asked), ([], []))

    def test_the_last_who_holds_it_stops_it(self) -> None:
        one = self.taken("good")
        self.ended(self.components.start(one, SECONDS))
        self.assertIs(self.taken("good"), one)
        self.ended(self.components.let_go(one, SECONDS))
        self.assertEqual(one.component.asked, ["start"])
        self.ended(self.components.let_go(one, SECONDS))
        self.assertEqual(one.component.asked, ["start", "stop"])

    def test_options_that_cannot_be_compared_have_changed(self) -> None:
        one = self.components.take("filter", Table("good", Odd()))
        self.assertIsNot(self.components.take("filter", Table("good", Odd())), one)

    def test_a_factory_that_is_another_object_makes_another_component(self) -> None:
        one = self.taken("good")
        self.components._catalogue = Catalogue([FoundPlugin(Factory("good"), "a test")])
        self.assertIsNot(self.taken("good"), one)

    def test_what_needs_privileges_gets_them_at_the_start_alone(self) -> None:
        @implementer(IPrivilegedComponent)
        class Privileged(Component):
            def start_privileged(self) -> None:
                self.asked.append("privileged")
                if "privileged" in self.does:
                    self.does["privileged"]()

        self.components = self.made(Catalogue([FoundPlugin(Factory("root", Privileged), "a test")]))
        one = self.taken("root")
        self.components.start_privileged()
        self.assertEqual(one.component.asked, ["privileged"])
        for what, method in RAISES.items():
            if what.endswith("at once"):
                one.component.does["privileged"] = method
                with capturedLogs():
                    self.assertRaisesRegex(OSError, "filter root: start_privileged", self.components.start_privileged)
        self.assertIsNone(self.components.privileged("filter"))
        self.components.have_privileges = False
        self.assertIs(self.components.privileged("filter"), one)
        self.assertIs(self.taken("root"), one)
        with self.assertRaisesRegex(StartError, "filter: root: this change needs a restart"):
            self.components.take("filter", Table("root", Odd()))
