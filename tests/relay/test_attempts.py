"""Who is asked before an attempt (`IAttemptFilter`, `IHosts`), in virtual time, before a delivery that notes what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import Candidate, IDelivery
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Pass, Remote
from mailserver.mail.content import Content
from mailserver.mail.edits import AddHeader, DropHeader, ReplaceRecipient
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.outbound_answers import GiveUp, Postpone, Proceed
from mailserver.mail.parcel import Destination, Parcel
from mailserver.plugins.asking import Asking
from mailserver.plugins.awaiting import later
from mailserver.plugins.bound import BoundComponent
from mailserver.plugins.budget import Budget
from mailserver.plugins.generation import Generation
from mailserver.relay.attempts import PATIENCE_SECONDS, AskedBefore, Attempts

MESSAGE = b"Subject: one\r\n\r\nhello\r\n"
SIGNED = b"DKIM-Signature: v=1; d=far.example; h=From:\r\n To : X-Tag; b=x\r\n" + MESSAGE
HOST = Candidate("mx.own.example", ("192.0.2.25",), 2525, 0)


def address(user: str, domain: str = "far.example") -> Address:
    return Address(user, domain)


def destination(index: int, user: str = "ann") -> Destination:
    return Destination(index, Recipient(address(user)), Remote(address(user)))


@implementer(IDelivery)
class Notes:
    """Delivers everything, but for what `answer` says."""

    stores = True

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.calls: list[tuple[Any, bytes, list[tuple[int, str]]]] = []

    def deliver(self, envelope: Envelope, content: Content, destinations: Sequence[Destination]) -> Any:
        return self._take(None, content, destinations)

    def deliver_to(self, hosts: Any, envelope: Envelope, content: Content, destinations: Sequence[Destination]) -> Any:
        return self._take(hosts, content, destinations)

    async def _take(self, hosts: Any, content: Content, destinations: Sequence[Destination]) -> Any:
        places = [(one.index, str(one.route.address)) for one in destinations]
        self.calls.append((hosts, b"".join(content.chunks()), places))
        if self.answer is not None:
            return await self.answer(destinations)
        return {one.index: Delivered("kept") for one in destinations}

    async def flush(self) -> None:
        """Nothing to do."""


class Says:
    """An `IAttemptFilter` and an `IHosts` in one; `answer` is what it says, or is called for it."""

    def __init__(self, answer: Any = Proceed()) -> None:
        self.answer = answer
        self.seen: list[tuple[bytes, str]] = []

    async def before_attempt(self, envelope: Envelope, content: Content, destination: Destination) -> Any:
        self.seen.append((b"".join(content.chunks()), str(destination.route.address)))
        return await self._say(destination.recipient.address)

    async def hosts(self, envelope: Envelope, address: Address) -> Any:
        self.seen.append((b"", str(address)))
        return await self._say(address)

    async def _say(self, address: Address) -> Any:
        answer = self.answer.get(address.local) if isinstance(self.answer, dict) else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return await answer() if callable(answer) and not isinstance(answer, type) else answer


class Unchecked(AddHeader):
    """One that has not been looked at when it was made."""

    def __post_init__(self) -> None:
        """Say nothing."""


async def hang() -> Any:
    await Deferred()


class AttemptCase(SynchronousTestCase):
    sign: Any = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.steps: list[dict[str, Any]] = []
        self.generation = Generation()
        self.delivery = Notes()

    def bound(self, component: Any, **options: Any) -> BoundComponent:
        name = f"plugin{component.number}" if hasattr(component, "number") else "plugin"
        return BoundComponent(name, component, Asking(name, self.clock), **{"deadline_seconds": 5.0, **options})

    def begin(
        self,
        *filters: Any,
        hosts: Sequence[Any] = (),
        users: Sequence[str] = ("ann",),
        message: bytes = MESSAGE,
        login: str = "bob@example.org",
        **options: Any,
    ) -> Deferred[Any]:
        options_of_attempts = {} if self.sign is None else {"sign": self.sign}
        attempts = Attempts(
            clock=self.clock,
            seconds=self.clock.seconds,
            note=lambda id, step, **fields: self.steps.append(fields),
            **options_of_attempts,
        )
        attempts.use(
            AskedBefore(
                [self.bound(one, **options) for one in filters], [self.bound(one, **options) for one in hosts], self.generation
            )
        )
        self.attempts = attempts
        destinations = [destination(n, user) for n, user in enumerate(users)]
        recipients = tuple([one.recipient for one in destinations])
        envelope = Envelope("ID", Peer("192.0.2.1", 1, "submission", login=login), address("bob"), recipients, 0.0)
        return later(attempts.deliver(self.delivery, envelope, Content.of(message), destinations))

    def outcomes(self, *filters: Any, **options: Any) -> dict[int, Any]:
        found: dict[int, Any] = self.successResultOf(self.begin(*filters, **options))
        self.assertEqual(self.generation.uses, 0)
        return found


class Verdicts(AttemptCase):
    def test_with_nobody_to_ask_the_delivery_is_called_as_it_is(self) -> None:
        self.assertEqual(self.outcomes(users=("ann", "eve")), {0: Delivered("kept"), 1: Delivered("kept")})
        self.assertEqual(self.delivery.calls, [(None, MESSAGE, [(0, "ann@far.example"), (1, "eve@far.example")])])

    def test_a_yes_to_all_is_one_call_with_the_message_as_it_was_and_no_word_on_the_road(self) -> None:
        self.outcomes(Says(), users=("ann", "eve"))
        self.assertEqual(self.delivery.calls, [(None, MESSAGE, [(0, "ann@far.example"), (1, "eve@far.example")])])
        self.assertEqual(self.steps, [])

    def test_one_recipients_no_is_nobody_elses(self) -> None:
        says = Says({"ann": Proceed(), "eve": Postpone("not on Sundays"), "joe": GiveUp("never", "5.7.27")})
        found = self.outcomes(says, users=("ann", "eve", "joe"))
        self.assertEqual(found[0], Delivered("kept"))
        self.assertEqual((found[1].reply.code, found[1].note), (450, "plugin: not on Sundays"))
        self.assertEqual((found[2].reply.code, found[2].reply.enhanced, found[2].note), (550, "5.7.27", "plugin: never"))
        self.assertEqual([places for _, _, places in self.delivery.calls], [[(0, "ann@far.example")]])
        self.assertEqual([(one["verdict"], one["recipient"]) for one in self.steps], [
            ("Postpone", "eve@far.example"), ("GiveUp", "joe@far.example"),
        ])  # fmt: skip

    def test_a_failure_by_judgement_is_told_to_nobody_whose_login_is_not_known(self) -> None:
        self.assertIs(self.outcomes(Says(GiveUp("no")))[0].reports, True)
        self.assertIs(self.outcomes(Says(GiveUp("no")), login="")[0].reports, False)

    def test_the_peer_never_reads_why(self) -> None:
        for verdict in (Postpone("a secret"), GiveUp("a secret")):
            self.assertNotIn("secret", str(self.outcomes(Says(verdict))[0].reply))

    def test_after_a_no_the_next_one_is_not_asked(self) -> None:
        second = Says()
        self.outcomes(Says(Postpone("no")), second)
        self.assertEqual(second.seen, [])


class Edits(AttemptCase):
    def test_lines_for_one_destination_stand_above_its_copy_alone(self) -> None:
        says = Says({"ann": Proceed((AddHeader("X-Tag", "ann"),)), "eve": Proceed(), "joe": Proceed((AddHeader("X-Tag", "ann"),))})
        self.outcomes(says, users=("ann", "eve", "joe"))
        self.assertEqual(
            [(content, [n for n, _ in places]) for _, content, places in self.delivery.calls],
            [(b"X-Tag: ann\r\n" + MESSAGE, [0, 2]), (MESSAGE, [1])],
        )

    def test_each_sees_what_those_before_it_have_done(self) -> None:
        other = address("other", "else.example")
        first = Says(Proceed((AddHeader("X-One", "1"), ReplaceRecipient(address("ann"), (other,)))))
        second = Says(Proceed((AddHeader("X-Two", "2"),)))
        found = self.outcomes(first, second)
        self.assertEqual(second.seen, [(b"X-One: 1\r\n" + MESSAGE, "other@else.example")])
        self.assertEqual(self.delivery.calls, [(None, b"X-Two: 2\r\nX-One: 1\r\n" + MESSAGE, [(0, "other@else.example")])])
        self.assertEqual(found, {0: Delivered("kept")})
        self.assertEqual(self.steps[0]["edits"], ["AddHeader X-One: 1", "ReplaceRecipient ann@far.example by other@else.example"])

    def test_an_edit_that_cannot_be_made_is_its_authors_failure(self) -> None:
        ann, eve = address("ann"), address("eve")
        wrong: list[Any] = [
            (Unchecked("X", "a\r\nb: c"),), (Unchecked("", "x"),), (Unchecked("X", "\ud800"),), (Unchecked("X", "x" * 999),),
            (DropHeader("Subject"),), (ReplaceRecipient(eve, (ann,)),), (ReplaceRecipient(ann, ()),),
            (ReplaceRecipient(ann, (ann, eve)),), (ReplaceRecipient(ann, (eve,)), ReplaceRecipient(ann, (eve,))),
            tuple([AddHeader("X", "x" * 900)] * 5), "X: y", None, (None,), (AddHeader,),
        ]  # fmt: skip
        for edits in wrong:
            self.delivery.calls.clear()
            self.assertIsInstance(self.outcomes(Says(Proceed(edits)))[0], Delayed, edits)
            self.assertEqual(self.delivery.calls, [])
            self.flushLoggedErrors()

    def test_all_together_put_no_more_than_a_bound_above_it(self) -> None:
        lines = Proceed(tuple([AddHeader("X", "x" * 900)] * 3))
        self.assertIsInstance(self.outcomes(Says(lines))[0], Delivered)
        self.assertIsInstance(self.outcomes(Says(lines), Says(lines))[0], Delayed)
        self.flushLoggedErrors()

    def test_what_we_have_signed_is_signed_anew_and_nothing_of_the_former_signature_stays(self) -> None:
        ours = b"DKIM-Signature: v=1; d=example.org; h=from:x-tag; b=old\r\nReceived: from here\r\n"
        theirs = b"DKIM-Signature: v=1; d=far.example; h=from:to; b=x\r\n"
        says = Says({"ann": Proceed((AddHeader("X-Tag", "1"),)), "eve": Proceed((AddHeader("X-Other", "1"),)), "joe": Proceed()})
        seen: list[bytes] = []

        async def sign(envelope: Envelope, content: Content) -> Content | None:
            seen.append(b"".join(content.chunks()))
            return content.with_prefix(b"DKIM-Signature: new\r\n")

        self.sign = sign
        found = self.outcomes(says, users=("ann", "eve", "joe"), message=ours + theirs + MESSAGE)
        self.assertEqual({type(one) for one in found.values()}, {Delivered})
        self.assertEqual(seen, [b"X-Tag: 1\r\nReceived: from here\r\n" + theirs + MESSAGE])
        self.assertEqual(
            [(content, [n for n, _ in places]) for _, content, places in self.delivery.calls],
            [
                (b"DKIM-Signature: new\r\n" + seen[0], [0]),
                (b"X-Other: 1\r\n" + ours + theirs + MESSAGE, [1]),
                (ours + theirs + MESSAGE, [2]),
            ],
        )

    def test_where_nobody_can_sign_it_now_it_is_deferred_for_this_destination_alone(self) -> None:
        ours = b"DKIM-Signature: v=1; d=example.org; h=from:x-tag; b=old\r\nReceived: from here\r\n"
        says = Says({"ann": Proceed((AddHeader("X-Tag", "1"),)), "eve": Proceed()})
        found = self.outcomes(says, users=("ann", "eve"), message=ours + MESSAGE)
        self.assertEqual((type(found[0]), found[0].note, type(found[1])), (Delayed, "it could not be signed anew", Delivered))

    def test_a_field_that_a_signature_covers_is_not_added(self) -> None:
        for name, wanted in (("X-Tag", Delayed), ("to", Delayed), ("DKIM-Signature", Delayed), ("X-Other", Delivered)):
            found = self.outcomes(Says(Proceed((AddHeader(name, "x"),))), message=b"Received: from here\r\n" + SIGNED)[0]
            self.assertIsInstance(found, wanted, name)
            self.flushLoggedErrors()


class Hosts(AttemptCase):
    def test_own_hosts_are_told_to_the_delivery_and_others_go_as_usual(self) -> None:
        self.outcomes(hosts=[Says({"ann": [HOST], "joe": (HOST,)})], users=("ann", "eve", "joe"))
        self.assertEqual(
            [(hosts, [n for n, _ in places]) for hosts, _, places in self.delivery.calls], [((HOST,), [0, 2]), (None, [1])]
        )
        self.assertEqual([one["why"] for one in self.steps], ["mx.own.example"] * 2)

    def test_the_first_that_names_some_decides(self) -> None:
        last = Says([HOST])
        self.outcomes(hosts=[Says(None), Says([HOST]), last])
        self.assertEqual((self.delivery.calls[0][0], last.seen), ((HOST,), []))

    def test_they_are_asked_with_the_address_after_the_edits(self) -> None:
        hosts = Says(None)
        self.outcomes(Says(Proceed((ReplaceRecipient(address("ann"), (address("eve"),)),))), hosts=[hosts])
        self.assertEqual(hosts.seen, [(b"", "eve@far.example")])

    def test_what_are_no_hosts_is_a_failure(self) -> None:
        wrong: list[Any] = [
            [], "mx.example", HOST, [None], [HOST] * 11, {HOST}, [replace(HOST, addresses=())], [replace(HOST, addresses=("mx",))],
            [replace(HOST, addresses=("fe80::1%eth0",))], [replace(HOST, addresses=("192.0.2.1",) * 9)], [replace(HOST, port=0)],
            [replace(HOST, port=65536)], [replace(HOST, port="25")], [replace(HOST, port=True)], [replace(HOST, name="")],
            [replace(HOST, name="a\r\nb")], [replace(HOST, name=7)], [replace(HOST, rank="x")], [replace(HOST, addresses=None)],
            [replace(HOST, addresses=iter(("192.0.2.1",)))],
        ]  # fmt: skip
        for hosts in wrong:
            self.delivery.calls.clear()
            self.assertIsInstance(self.outcomes(hosts=[Says(hosts)])[0], Delayed, hosts)
            self.assertEqual(self.delivery.calls, [])
            self.flushLoggedErrors()


class Misbehaviour(AttemptCase):
    def wrong(self) -> list[Any]:
        async def recursion() -> Any:
            return await recursion()

        class Unprintable(Exception):
            def __str__(self) -> str:
                raise ValueError("no words")

        return [
            None, "Proceed", Proceed, Pass(), True, 7, ValueError("x"), SystemExit(1), asyncio.CancelledError(), CancelledError(),
            RecursionError(), Unprintable(), recursion, GiveUp(7), Postpone(None), Deferred,  # type: ignore[arg-type]
        ]  # fmt: skip

    def test_whatever_it_does_counts_as_the_configuration_says_and_is_on_the_road(self) -> None:
        for on_error, wanted in (("defer", Delayed), ("skip", Delivered), ("refuse", Failed)):
            for answer in self.wrong():
                if answer is Deferred:
                    continue
                self.steps.clear()
                self.assertIsInstance(self.outcomes(Says(answer), on_error=on_error)[0], wanted, (on_error, answer))
                self.assertNotEqual(self.steps[0]["error"], "")
                self.flushLoggedErrors()

    def test_so_does_one_that_names_hosts(self) -> None:
        for on_error, wanted in (("defer", Delayed), ("skip", Delivered), ("refuse", Failed)):
            for answer in (ValueError("x"), SystemExit(1), "nonsense"):
                self.assertIsInstance(self.outcomes(hosts=[Says(answer)], on_error=on_error)[0], wanted)
                self.flushLoggedErrors()

    def test_one_that_hangs_for_one_recipient_fails_for_him_alone_and_the_others_go_at_once(self) -> None:
        answer = self.begin(Says({"ann": Proceed(), "eve": hang, "joe": Proceed()}), users=("ann", "eve", "joe"))
        self.clock.advance(PATIENCE_SECONDS)
        self.assertEqual(self.delivery.calls, [(None, MESSAGE, [(0, "ann@far.example"), (2, "joe@far.example")])])
        self.assertNoResult(answer)
        self.clock.advance(5 - PATIENCE_SECONDS)
        found = self.successResultOf(answer)
        self.assertEqual([type(found[one]) for one in range(3)], [Delivered, Delayed, Delivered])
        self.assertEqual((len(self.delivery.calls), self.generation.uses, self.clock.getDelayedCalls()), (1, 0, []))
        self.flushLoggedErrors()

    def test_those_with_an_answer_within_a_moment_share_a_call_and_a_late_one_has_its_own(self) -> None:
        waits: dict[str, Deferred[Any]] = {}

        async def wait(user: str) -> Any:
            waits[user] = Deferred()
            return await waits[user]

        users = ("ann", "eve", "joe")
        answer = self.begin(Says({user: partial(wait, user) for user in users}), users=users)
        waits["joe"].callback(Proceed())
        self.clock.advance(PATIENCE_SECONDS / 2)
        waits["ann"].callback(Proceed())
        self.assertEqual(self.delivery.calls, [])
        self.clock.advance(PATIENCE_SECONDS / 2)
        waits["eve"].callback(Proceed())
        self.assertEqual(sorted(self.successResultOf(answer)), [0, 1, 2])
        self.assertEqual([[index for index, _ in places] for _, _, places in self.delivery.calls], [[0, 2], [1]])

    def test_whoever_gives_up_in_the_middle_leaves_nothing_behind(self) -> None:
        for seconds in (0, PATIENCE_SECONDS):
            self.delivery.calls.clear()
            answer = self.begin(Says({"ann": Proceed(), "eve": hang}), users=("ann", "eve"), on_error="skip")
            self.clock.advance(seconds)
            answer.cancel()
            answer.addErrback(lambda failure: failure.trap(CancelledError))
            self.successResultOf(answer)
            self.assertEqual(len(self.delivery.calls), 1 if seconds else 0)
            self.assertEqual((self.generation.uses, self.clock.getDelayedCalls()), (0, []))
        self.flushLoggedErrors()

    def test_words_of_any_length_and_kind_are_bounded(self) -> None:
        for why in ("x" * 20_000_000, "\ud800\r\n\x1b[31m"):
            found = self.outcomes(Says(GiveUp(why)))[0]
            self.assertLess(len(found.note), 4000)
            self.assertLess(len(self.steps[-1]["why"]), 4000)
            found.note.encode()

    def test_a_delivery_that_fails_for_one_group_fails_for_it_alone(self) -> None:
        async def answer(destinations: Sequence[Destination]) -> Any:
            if destinations[0].index == 0:
                raise ValueError("broken")
            return {one.index: Delivered("kept") for one in destinations}

        self.delivery.answer = answer
        says = Says({"ann": Proceed((AddHeader("X", "1"),)), "eve": Proceed()})
        found = self.outcomes(says, users=("ann", "eve"))
        self.assertEqual((type(found[0]), found[0].note, found[1]), (Delayed, "ValueError: broken", Delivered("kept")))

    def test_whoever_gives_up_waiting_cancels_who_is_asked_and_the_delivery(self) -> None:
        cancelled: list[str] = []

        async def wait(what: str) -> Any:
            waiting: Deferred[Any] = Deferred(lambda _: cancelled.append(what))
            return await waiting

        answer = self.begin(Says(lambda: wait("filter")), users=("ann", "eve"), on_error="skip")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.delivery.calls, [])
        self.delivery.answer = lambda destinations: wait("delivery")
        answer = self.begin(Says({"ann": Proceed((AddHeader("X", "1"),)), "eve": Proceed()}), users=("ann", "eve"))
        answer.cancel()
        self.successResultOf(answer.addErrback(lambda failure: failure.trap(CancelledError)))
        self.assertEqual(cancelled, ["filter"] * 2 + ["delivery"] * 2)
        self.assertEqual(self.generation.uses, 0)


class Reloads(AttemptCase):
    def test_what_has_begun_ends_with_those_whom_it_asked_first(self) -> None:
        waiting: Deferred[Any] = Deferred()

        async def wait() -> Any:
            return await waiting

        answer = self.begin(Says(wait))
        self.assertEqual(self.generation.uses, 1)
        self.attempts.use(AskedBefore([], [], Generation()))
        waiting.callback(Proceed((AddHeader("X", "1"),)))
        self.assertEqual(self.successResultOf(answer), {0: Delivered("kept")})
        self.assertEqual((self.delivery.calls[0][1][:6], self.generation.uses), (b"X: 1\r\n", 0))


class NobodyKnowsYet(AttemptCase):
    def test_before_the_first_policy_nothing_is_delivered(self) -> None:
        attempts = Attempts(
            clock=self.clock, seconds=self.clock.seconds, note=lambda *_, **fields: self.steps.append(fields)
        )
        envelope: Any = Envelope("ID", Peer("192.0.2.1", 1, "mx"), None, (), 0.0)
        answers = [
            later(attempts.deliver(self.delivery, envelope, Content.of(MESSAGE), [destination(0, user)])) for user in ("ann", "eve")
        ]
        answers[1].cancel()
        self.failureResultOf(answers[1], CancelledError)
        self.assertEqual(self.delivery.calls, [])
        attempts.use(AskedBefore([self.bound(Says(Postpone("no")))], [], self.generation))
        self.assertIsInstance(self.successResultOf(answers[0])[0], Delayed)
        self.assertEqual(self.delivery.calls, [])


class LeftAlone(AttemptCase):
    def test_in_shadow_it_is_asked_and_recorded_and_not_obeyed(self) -> None:
        other = (ReplaceRecipient(address("ann"), (address("eve"),)),)
        for verdict in (Postpone("no"), GiveUp("no"), Proceed((AddHeader("X", "1"),)), Proceed(other), "nonsense"):
            self.steps.clear()
            self.assertEqual(self.outcomes(Says(verdict), shadow=True), {0: Delivered("kept")})
            self.assertEqual(self.delivery.calls.pop(), (None, MESSAGE, [(0, "ann@far.example")]))
            self.assertEqual([one["shadow"] for one in self.steps], [True])
            self.flushLoggedErrors()
        self.outcomes(hosts=[Says([HOST])], shadow=True)
        self.assertIsNone(self.delivery.calls[-1][0])

    def test_one_that_fails_too_often_is_not_asked_for_a_while(self) -> None:
        budget = Budget(failures=2, window_seconds=60, pause_seconds=30)
        says = Says(ValueError("broken"))
        for _ in range(4):
            self.assertIsInstance(self.outcomes(says, budget=budget)[0], Delayed)
        self.assertEqual(len(says.seen), 2)
        self.assertIn("not asked", self.steps[-1]["error"])
        says.answer = Proceed()
        self.clock.advance(30)
        self.assertEqual(self.outcomes(says, budget=budget), {0: Delivered("kept")})
        self.assertTrue(budget.is_closed)
        self.flushLoggedErrors()


class Batches(AttemptCase):
    def test_a_delivery_of_batches_gets_them_as_they_are_where_nobody_is_asked_and_else_one_by_one(self) -> None:
        whole: list[Any] = []

        class Batching(Notes):
            async def deliver_batch(self, parcels: Any) -> Any:
                whole.append(parcels)
                return [{0: Delivered("batch")} for _ in parcels]

        delivery = Batching()
        self.begin()
        envelope: Any = Envelope("ID", Peer("192.0.2.1", 1, "mx"), None, (), 0.0)
        parcels = [Parcel(envelope, Content.of(MESSAGE), (destination(0, user),)) for user in ("ann", "eve")]
        self.assertEqual(len(self.successResultOf(later(self.attempts.deliver_batch(delivery, parcels)))), 2)
        self.assertEqual(len(whole), 1)
        self.begin(Says({"ann": Postpone("no"), "eve": Proceed()}))
        first, second = self.successResultOf(later(self.attempts.deliver_batch(delivery, parcels)))
        self.assertEqual((type(first[0]), second), (Delayed, {0: Delivered("kept")}))
        self.assertEqual(len(whole), 1)
