"""Whatever a directory, a checker, a router or a delivery does in place of an answer is its own failure, within its time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from mailserver.interfaces import (
    Candidate,
    CannotTell,
    IAccountList,
    IBatchDelivery,
    IConcurrentDelivery,
    IDelivery,
    IDirectory,
    IHostAccounts,
    IScramAccounts,
    ISecretAccounts,
    ISenderGrants,
)
from mailserver.mail.address import Address, AddressError
from mailserver.mail.answers import Delayed, Delivered, Local, Mailbox, NotMine, Refused, Remote
from mailserver.mail.reply import Reply
from mailserver.plugins.asked_delivery import AskedDelivery
from mailserver.plugins.asked_directory import AskedChecker, AskedDirectory
from mailserver.plugins.asked_router import AskedRouter
from mailserver.plugins.asking import LEFT_MOST, Asking, ComponentFailed, anything
from mailserver.plugins.catalogue import PluginError
from mailserver.sasl.scram_keys import ScramForm, derive_scram_keys
from mailserver.sasl.steps import ScramKeys
from tests.plugins.misbehaviour import HANGS, NONSENSE, RAISES, Unprintable, returning, stubborn

SECONDS = 7.0
ALICE = Address("alice", "example.org")
BOX = Mailbox("alice", "example.org")
JUERGEN = Mailbox("jürgen\ue000", "example.org", ("Bücher",))
KEYS = derive_scram_keys("secret", salt=b"salt" * 4, iterations=4096)
NO = Reply.of(550, "5.1.1", "no")


class SubMailbox(Mailbox):
    """Somebody's own kind of mailbox."""


class SubText(str):
    """Somebody's own kind of text."""


# Per question: how it is asked, answers that are taken, with what becomes of them, and answers that are not.
Question = tuple[Callable[[Any, Asking], Any], Sequence[tuple[Any, Any]], Sequence[Any]]


def directory(ask: Callable[[Any], Any]) -> Callable[[Any, Asking], Any]:
    return lambda component, asking: ask(AskedDirectory(component, asking, SECONDS, list_seconds=SECONDS))


def delivery(ask: Callable[[Any], Any]) -> Callable[[Any, Asking], Any]:
    return lambda component, asking: ask(AskedDelivery(component, asking, prepare_seconds=SECONDS))


QUESTIONS: dict[str, Question] = {
    "find": (
        directory(lambda asked: asked.find("alice", "example.org")),
        [(None, None), (BOX, BOX), (SubMailbox("alice", "example.org"), BOX), (Mailbox(SubText("alice"), "example.org"), BOX), (JUERGEN, JUERGEN)],
        [
            "alice", ("alice", "example.org"), 0, Mailbox(None, "example.org"), Mailbox("alice", b"x"), Mailbox,  # type: ignore[arg-type]
            Mailbox("a\r\nRCPT TO:<x>", "example.org"), Mailbox("alice", "example.org\0"), replace(BOX, folder=("a\x1b",)),
            Mailbox("\udc80", "example.org"), Mailbox("a" * 2000, "example.org"), replace(BOX, folder="ab"),  # type: ignore[arg-type]
            replace(BOX, folder=(1,)), replace(BOX, system=1), replace(BOX, folder=("\ud800",)), [BOX],  # type: ignore[arg-type]
        ],
    ),
    "accounts": (
        directory(lambda asked: asked.accounts()),
        [([], []), (("a@b.example",), ["a@b.example"]), ([SubText("x")], ["x"])],
        [None, "text", b"octets", [1], ["\ud800"], {"a@b.example"}, 3],
    ),
    "scram_keys": (
        directory(lambda asked: asked.scram_keys("alice@example.org")),
        [(None, None), (KEYS, KEYS)],
        [
            "keys", replace(KEYS, iterations=0), replace(KEYS, iterations=True), replace(KEYS, iterations=10**9),
            replace(KEYS, salt=b""), replace(KEYS, salt="salt"), replace(KEYS, stored_key=b"short"), ScramKeys,  # type: ignore[arg-type]
            replace(KEYS, server_key=bytearray(32)), replace(KEYS, is_false=0),  # type: ignore[arg-type]
        ],
    ),
    "usual_scram_form": (
        directory(lambda asked: asked.usual_scram_form()),
        [(None, None), (ScramForm(4096, 16), ScramForm(4096, 16))],
        ["form", ScramForm(0, 16), ScramForm(4096, 65), ScramForm(4096, -1), ScramForm(4096.0, 16), (4096, 16)],  # type: ignore[arg-type]
    ),
    "secret": (
        directory(lambda asked: asked.secret("alice@example.org")),
        [(None, None), (b"secret", b"secret")],
        ["secret", bytearray(b"x"), 0],
    ),
    "account_of_certificate": (
        directory(lambda asked: asked.account_of_certificate("00", ())),
        [(None, None), ("alice@example.org", "alice@example.org")],
        ["", b"alice", "\ud800", ["alice"], "a" * 2000],
    ),
    "granted_senders": (
        directory(lambda asked: asked.granted_senders("alice@example.org")),
        [((), []), (["@example.org"], ["@example.org"])],
        [None, "@example.org", [None], 5, {"@example.org": 1}],
    ),
    "requestAvatarId": (
        lambda component, asking: AskedChecker(component, asking, SECONDS).requestAvatarId("credentials"),
        [("alice@example.org", "alice@example.org"), (b"alice", b"alice")],
        [None, "", b"", b"\xff", ["alice"], "\ud800", object],
    ),
    "route": (
        lambda component, asking: AskedRouter(component, asking, SECONDS).route(ALICE),
        [
            (NotMine(), NotMine()),
            ([Remote(ALICE)], (Remote(ALICE),)),
            ((Local(ALICE, BOX), Refused(NO, "no")), (Local(ALICE, BOX), Refused(NO, "no"))),
            ([Local(ALICE, SubMailbox("alice", "example.org"))], (Local(ALICE, BOX),)),
            ([Refused(Reply(550, "4.1.1", ("no",)), "no")], (Refused(Reply(550, "5.0.0", ("no",)), "no"),)),
            ([Refused(Reply(400, "x", ("no",)), "no")], (Refused(Reply(400, "4.0.0", ("no",)), "no"),)),
            ([Refused(Reply(500, "x", ("no",)), "no")], (Refused(Reply(500, "5.0.0", ("no",)), "no"),)),
            ([Refused(Reply(599, "5.1.1", ("no",)), "no")], (Refused(Reply(599, "5.1.1", ("no",)), "no"),)),
            ([Remote(Address("postmaster", ""))], (Remote(Address("postmaster", "")),)),
        ],
        [
            None, (), [], "text", Remote(ALICE), [ALICE], [None], {Remote(ALICE)}, NotMine, [NotMine()],
            [Remote(Address("a\r\nRCPT TO:<x>", "example.org"))], [Remote(Address("a", "example.org\r\n"))], [Remote("a@b.example")],  # type: ignore[arg-type]
            [Remote(Address("a", ""))], [Remote(Address("\ud800", "example.org"))], [Local(ALICE, None)], [Local(ALICE, "alice")],  # type: ignore[arg-type]
            [Refused("550 no", "no")], [Refused(Reply(250, "2.0.0", ("yes",)), "no")], [Refused(Reply(550, "5.1.1", "no"), "")],  # type: ignore[arg-type]
            [Refused(NO, None)], [Refused(Reply(399, "5.1.1", ("no",)), "no")], [Refused(Reply(600, "5.1.1", ("no",)), "no")],
            [Refused(Reply(True, "5.1.1", ("no",)), "no")],  # type: ignore[arg-type]
        ],
    ),
    "hosts_for": (
        delivery(lambda asked: asked.hosts_for(ALICE)),
        [([], []), ([Candidate("a", ("::1",), 25, 0)], [Candidate("a", ("::1",), 25, 0)]), (Delayed(Reply.of(451, "", "later")),) * 2],
        [None, "text", Delivered(), [None], [Candidate("a", "::1", 25, 0)], [Candidate("a", ("::1",), "25", 0)]],  # type: ignore[arg-type]
    ),
    "prepare": (delivery(lambda asked: asked.prepare([BOX])), [(None, None), (3, None), (Unprintable(), None)], []),
}
AT_ONCE: dict[str, Question] = {
    "missing": (delivery(lambda asked: asked.missing()), [("", ""), ("gone", "gone")], [None, 0, b"", "\ud800", "x" * 3000, Unprintable()]),
    "forgive": (delivery(lambda asked: asked.forgive()), [(None, None), (3, None)], []),
    "serves_secrets": (directory(lambda asked: asked.serves_secrets), [], []),
}


def component(**methods: Any) -> Any:
    made = SimpleNamespace(
        credentialInterfaces=(IUsernamePassword,), stores=True, deliver=returning(dict), flush=returning(lambda: None), **methods
    )
    directlyProvides(made, IDirectory, IDelivery)
    return made


class AskedCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asking = Asking("some component", self.clock)

    def asked(self, name: str, method: Any) -> Deferred[Any]:
        """The question `name`, to a component that does so."""
        ask = (QUESTIONS | AT_ONCE)[name][0]

        async def question() -> Any:
            found = ask(component(**{name: method}), self.asking)
            return found if name in AT_ONCE else await found

        return Deferred.fromCoroutine(question())

    def fails(self, name: str, what: str, method: Any) -> ComponentFailed:
        """It fails, by this component's name, and within its time."""
        self.asking = Asking("some component", self.clock)
        with capturedLogs():
            answer = self.asked(name, method)
            if not answer.called:
                self.clock.advance(50.0)
        self.assertTrue(answer.called, f"{name} {what}: it still waits")
        failed: list[Any] = []
        answer.addErrback(failed.append)
        self.assertEqual([type(one.value) for one in failed], [ComponentFailed], (name, what))
        self.assertTrue(str(failed[0].value).startswith(f"some component: {name}"), str(failed[0].value))
        self.assertEqual(self.clock.getDelayedCalls(), [], (name, what))
        str(failed[0].value).encode()
        self.flushLoggedErrors(RuntimeError)  # of a canceller
        return failed[0].value  # type: ignore[no-any-return]


class EveryQuestion(AskedCase):
    def misbehaving(self, name: str) -> Iterator[tuple[str, Any]]:
        yield from RAISES.items()
        yield from HANGS.items()
        for what, method in NONSENSE.items():
            if name == "requestAvatarId" and what.endswith("returns text"):
                continue  # a checker may answer at once, and that is a name
            if name != "prepare" or what.startswith(("is ", "returns ")) or "Deferred" in what:
                yield what, method

    def test_whatever_is_done_in_place_of_an_answer_is_the_components_failure(self) -> None:
        count = 0
        for name in QUESTIONS:
            for what, method in self.misbehaving(name):
                self.fails(name, what, method)
                count += 1
        self.assertGreater(count, 400)

    def test_an_answer_of_another_kind_is_the_components_failure_at_once_or_later(self) -> None:
        for name, (_, _, wrong) in QUESTIONS.items():
            for answer in wrong:
                with capturedLogs():
                    for method in (returning(lambda answer=answer: answer), lambda *_, answer=answer: succeed(answer)):
                        self.failureResultOf(self.asked(name, method), ComponentFailed)

    def test_a_sound_answer_is_taken_as_plain_values_at_once_or_later(self) -> None:
        for name, (_, right, _) in QUESTIONS.items():
            for answer, found in right:
                waiting: Deferred[Any] = Deferred()
                asked = self.asked(name, lambda *_, waiting=waiting: waiting)
                self.assertNoResult(asked)
                waiting.callback(answer)
                for result in (asked, self.asked(name, returning(lambda answer=answer: answer))):
                    got = self.successResultOf(result)
                    self.assertEqual((got, type(got)), (found, type(found)), name)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_answers_at_once_is_looked_at_too(self) -> None:
        for name, (_, right, wrong) in AT_ONCE.items():
            if name != "serves_secrets":
                for what, method in RAISES.items():
                    if what.endswith("at once"):
                        self.fails(name, what, method)
            for answer in wrong:
                self.fails(name, "", lambda *_, answer=answer: answer)
            for answer, found in right:
                self.assertEqual(self.successResultOf(self.asked(name, lambda *_, answer=answer: answer)), found)
        self.fails("serves_secrets", "", "yes")
        self.assertIs(self.successResultOf(self.asked("serves_secrets", True)), True)

    def test_what_a_component_says_itself_is_told_as_it_says_it(self) -> None:
        for name, error in (("find", CannotTell("the database is gone")), ("requestAvatarId", UnauthorizedLogin("no")), ("hosts_for", AddressError("no"))):
            for method in (lambda *_, error=error: fail(error), returning(lambda error=error: (_ for _ in ()).throw(error))):
                self.assertIs(self.failureResultOf(self.asked(name, method)).value, error)
        self.assertIsInstance(self.fails("find", "", lambda *_: fail(CannotTell(Unprintable()))), ComponentFailed)


class Time(AskedCase):
    def test_an_answer_that_comes_too_late_is_not_heard(self) -> None:
        late: Deferred[Any] = Deferred(lambda _: None)
        asked = self.asked("find", lambda *_: late)
        self.clock.advance(SECONDS - 0.1)
        self.assertNoResult(asked)
        with capturedLogs() as events:
            self.clock.advance(0.1)
        why = self.failureResultOf(asked, ComponentFailed).getErrorMessage()
        self.assertEqual(why, "some component: find has not ended within 7 seconds")
        self.assertEqual([event["who"] for event in events], ["some component"])

    def test_what_runs_on_is_counted_until_it_has_ended(self) -> None:
        gates: list[Deferred[None]] = []

        async def runs_on(*_: Any) -> None:
            while not gates or not gates[-1].called:
                gates.append(Deferred())
                try:
                    await gates[-1]
                except CancelledError:
                    gates.append(Deferred())
                    await gates[-1]

        with capturedLogs():
            asked = self.asked("find", runs_on)
            self.clock.advance(SECONDS)
        self.failureResultOf(asked, ComponentFailed)
        self.assertEqual(len(self.asking.left), 1)
        gates[-1].callback(None)
        self.assertEqual(len(self.asking.left), 0)

    def test_what_nobody_refers_to_any_more_is_not_counted(self) -> None:
        with capturedLogs():
            for method in (lambda *_: Deferred(), lambda *_: Deferred(lambda _: None)):
                asked = self.asked("find", method)
                self.clock.advance(SECONDS)
                self.failureResultOf(asked, ComponentFailed)
        self.assertEqual(len(self.asking.left), 0)

    def test_text_of_a_kind_of_its_own_becomes_plain_text(self) -> None:
        for box in (SubMailbox("alice", "example.org"), *(Mailbox(*words) for words in ((SubText("alice"), "example.org"), ("alice", SubText("example.org"))))):
            found: Any = self.successResultOf(self.asked("find", returning(lambda box=box: box)))
            self.assertEqual((found, type(found), type(found.user), type(found.domain)), (BOX, Mailbox, str, str))

    def test_a_component_of_which_too_much_runs_on_is_asked_nothing_more_but_to_stop(self) -> None:
        coroutines = [stubborn() for _ in range(LEFT_MOST)]
        with capturedLogs():
            waiting = [self.asking.ask("x", SECONDS, anything, lambda one=one: one, is_bounded=False) for one in coroutines]
            self.clock.advance(SECONDS)
        for one in waiting:
            assert isinstance(one, Deferred)
            self.failureResultOf(one, ComponentFailed)
        self.assertEqual(len(self.asking.left), LEFT_MOST)
        why = self.failureResultOf(self.asked("find", returning(lambda: None)), ComponentFailed).getErrorMessage()
        self.assertIn("1000 earlier questions have not ended", why)
        self.assertIsNone(self.asking.ask("stop", SECONDS, anything, returning(lambda: None), is_bounded=False))
        del waiting, coroutines
        gc.collect()
        self.assertIsNone(self.successResultOf(self.asked("find", returning(lambda: None))))

    def test_who_asks_may_go_and_that_is_nobodys_failure(self) -> None:
        cancelled: list[bool] = []
        asked = self.asked("find", lambda *_: Deferred(lambda _: cancelled.append(True)))
        with capturedLogs() as events:
            asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual((cancelled, events, self.clock.getDelayedCalls()), ([True], [], []))

    def test_a_component_that_has_been_stopped_owes_nobody_an_answer(self) -> None:
        asked = self.asked("find", lambda *_: Deferred())
        self.asking.end()
        self.assertIn("it has been stopped", self.failureResultOf(asked, ComponentFailed).getErrorMessage())

    def test_a_traceback_of_one_kind_is_in_the_log_once_a_minute(self) -> None:
        def times(seconds: float) -> int:
            with capturedLogs() as events:
                self.failureResultOf(self.asked("find", lambda *_: fail(ValueError("broken"))), ComponentFailed)
            self.clock.advance(seconds)
            return len([event for event in events if "ValueError: broken" in event.get("traceback", "")])

        self.assertEqual([times(30), times(31), times(1)], [1, 0, 1])


class Kinds(AskedCase):
    def test_it_provides_what_its_directory_provides_and_no_more(self) -> None:
        for kinds in ((IDirectory,), (IDirectory, IAccountList, IHostAccounts), (IDirectory, ISecretAccounts, ISenderGrants, ICredentialsChecker)):
            made = component(requestAvatarId=None)
            directlyProvides(made, *kinds)
            asked = AskedDirectory(made, self.asking, SECONDS)
            every = (IDirectory, IAccountList, IHostAccounts, IScramAccounts, ISecretAccounts, ISenderGrants, ICredentialsChecker)
            self.assertEqual([kind.providedBy(asked) for kind in every], [kind in kinds for kind in every])

    def test_a_delivery_that_says_nonsense_of_itself_cannot_be_used(self) -> None:
        def made(*kinds: Any, **more: Any) -> AskedDelivery:
            one = component()
            directlyProvides(one, *(kinds or (IDelivery,)))
            one.__dict__.update(more)
            return AskedDelivery(one, self.asking, prepare_seconds=1)

        for seconds in (0, -1, float("nan"), float("inf"), "5", True, None):
            self.assertRaises(PluginError, made, IConcurrentDelivery, calls_at_once=1, deadline_seconds=seconds)
            if seconds is not None:
                self.assertRaises(PluginError, made, deadline_seconds=seconds)
        for calls in (0, -3, 2.0, "2", None, 10**9):
            self.assertRaises(PluginError, made, IConcurrentDelivery, calls_at_once=calls, deadline_seconds=5)
        self.assertRaises(PluginError, made, IBatchDelivery)  # without deliver_batch
        for calls in (1, 100_000):
            self.assertEqual(made(IConcurrentDelivery, calls_at_once=calls, deadline_seconds=5).calls_at_once, calls)
        asked = made(IConcurrentDelivery, calls_at_once=3, deadline_seconds=5, knows_folders=False)
        self.assertEqual((asked.calls_at_once, asked.deadline_seconds, asked.knows_folders, asked.stores), (3, 5.0, False, True))
        self.assertIsNone(made().deadline_seconds)
        self.assertEqual(made(deadline_seconds=9).deadline_seconds, 9.0)

    def test_a_checker_that_says_nonsense_of_itself_is_its_own_failure(self) -> None:
        for interfaces in (None, 3):
            made = component(requestAvatarId=None)
            made.credentialInterfaces = interfaces
            with capturedLogs():
                self.assertRaises(ComponentFailed, AskedChecker, made, self.asking, SECONDS)
