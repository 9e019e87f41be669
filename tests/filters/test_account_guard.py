"""Accounts that were taken over: what counts, what is enough, what follows, and that nobody else is concerned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.api import IComponentFactory, IContentFilter, Options
from mailserver.filters.account_book import AccountBook
from mailserver.filters.account_guard import TAKEN_OVER, factory
from mailserver.filters.account_records import (
    ReleasedAccount,
    StoppedAccount,
    account_name,
    key_of,
    read_released,
    read_stopped,
)
from mailserver.filters.account_signals import SIGNALS, SeenSignal, SignalLimits, weighed
from mailserver.interfaces import CannotDo
from mailserver.mail.address import Address
from mailserver.mail.answers import Defer, Delivered, Finding, Pass, Remote
from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.mail.outbound_answers import Postpone, Proceed
from mailserver.mail.parcel import Destination
from mailserver.testing import FilterCase, FilterContract, MailCase
from mailserver.testing.waiting_mail import MemoryWaitingMail
from tests.any_octets import any_octets

USERS = ALICE, BOB, CAROL, DAVE, ERIN = tuple([f"{name}@example.org" for name in ("alice", "bob", "carol", "dave", "erin")])
DAY = 86_400.0
HOME, ABROAD = "192.0.2.7", "198.51.100.7"
NO_SUCH = "550 5.1.1 There is no such user here (1K1G5VAB3758FTJX)"
DKIM = Finding("dkim", 0.0, "", {"result": "pass", "domain": "provider.example"}, "dkim")
MANY = [f"someone{n}@elsewhere.example" for n in range(60)]


def complaint_about(message_id: str, kind: str = "abuse") -> bytes:
    return (
        "From: fbl@provider.example\nMIME-Version: 1.0\nSubject: complaint\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\n\n'
        "--b\nContent-Type: text/plain\n\nA complaint.\n"
        f"--b\nContent-Type: message/feedback-report\n\nFeedback-Type: {kind}\nUser-Agent: x/1\nVersion: 1\n"
        f"--b\nContent-Type: message/rfc822\n\nFrom: alice@example.org\nMessage-ID: {message_id}\n\nBuy.\n--b--\n"
    ).encode()


class Signals(SynchronousTestCase):
    LIMITS = {name: SignalLimits(3, 10) for name in SIGNALS}

    def test_one_is_not_enough_two_are_and_one_beyond_its_own_limit_is(self) -> None:
        for counts, stops in (
            ({"networks": 9}, False), ({"networks": 3, "complaints": 2}, False), ({"networks": 3, "complaints": 3}, True),
            ({"networks": 10}, True), ({"unknown": 3, "refusals": 3, "recipients": 3}, True), ({}, False),
        ):  # fmt: skip
            found = weighed([SeenSignal(name, count) for name, count in counts.items()], self.LIMITS, 2)
            self.assertEqual(found.stops, stops, counts)
            self.assertEqual({one.signal for one in found.counting}, {name for name, count in counts.items() if count >= 3})

    def test_a_limit_of_zero_is_none(self) -> None:
        limits = {name: SignalLimits(0, 0) for name in SIGNALS}
        self.assertFalse(weighed([SeenSignal(name, 1_000_000) for name in SIGNALS], limits, 2).stops)
        alone = weighed([SeenSignal("networks", 5)], {**limits, "networks": SignalLimits(0, 5)}, 2)
        self.assertEqual((alone.stops, alone.alone, len(alone.counting)), (True, "networks", 1))


class Records(SynchronousTestCase):
    def test_what_is_kept_is_read_as_it_was(self) -> None:
        stopped = StoppedAccount(ALICE, 5.0, (SeenSignal("networks", 2, ("a", "b")),), ("192.0.2.1",), "root", "why", True, True)
        self.assertEqual(read_stopped(key_of("stopped", ALICE), stopped.octets()), stopped)
        released = ReleasedAccount(ALICE, 5.0, "root")
        self.assertEqual(read_released(key_of("released", ALICE), released.octets()), released)

    @settings(max_examples=200, deadline=None)
    @given(any_octets(max_size=60))
    def test_whatever_stands_there_keeps_the_account_stopped(self, octets: bytes) -> None:
        for value in (octets, b'{"at": 1, "seen": ' + octets + b"}", b"[" * 100_000):
            self.assertEqual(read_stopped(key_of("stopped", ALICE), value).account, ALICE)
            self.assertEqual(read_released(key_of("released", ALICE), value).account, ALICE)

    def test_an_account_has_one_name(self) -> None:
        self.assertEqual([account_name(one) for one in ("Alice@EXAMPLE.org", " alice@example.org ", "Root")], [ALICE, ALICE, "root"])
        for text in ("", " ", "a\tb", "\x1b]0;x", "x" * 600):
            self.assertRaises(ValueError, account_name, text)

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=40))
    def test_a_name_is_one_or_none(self, text: str) -> None:
        try:
            self.assertNotIn("\t", account_name(text))
        except ValueError:
            pass


class GuardCase(FilterCase):
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.make()
        for user in USERS:  # each has been here for a while
            self.submit(user, "friend@elsewhere.example")
        self.clock.advance(8 * DAY)
        self.logged: dict[str, int] = {}

    def make(self, **options: Any) -> None:
        self.guard = self.build(factory, **{**self.options, **options})
        self.answer(self.guard.start())

    def envelope_of(self, login: str, *recipients: str, address: str = HOME, note: str = "") -> Any:
        peer = self.peer(address, service="submission", login=login)
        return self.envelope(login, recipients or ("friend@elsewhere.example",), peer=replace(peer, login_note=note))

    def submit(self, login: str, *recipients: str, **more: Any) -> Any:
        """What the account hears: the first verdict that is no Pass, or the last one."""
        envelope = self.envelope_of(login, *recipients, **more)
        verdict = self.judge(self.guard.judge_sender(envelope))
        if isinstance(verdict, Pass):
            verdict = self.judge(self.guard.judge_content(envelope, self.content()))
        self.clock.advance(0)
        return verdict

    def leave(self, login: str, message_id: str = "<1@example.org>", to: str = "friend@elsewhere.example") -> Any:
        envelope, address = self.envelope_of(login, to), Address.parse(to)
        content = self.content(f"Message-ID: {message_id}\n\nx\n".encode())
        answer = self.answer(self.guard.before_attempt(envelope, content, Destination(0, self.recipient(to), Remote(address))))
        return envelope.id, answer

    def complain(self, message_id: str, *findings: Finding, kind: str = "abuse", to: str = "abuse@example.org", login: str = "") -> Any:
        envelope = self.envelope("fbl@provider.example", (to,), peer=self.peer("203.0.113.5", login=login))
        content = self.content(complaint_about(message_id, kind))
        return self.judge(self.guard.judge_content(replace(envelope, findings=findings), content))

    def step(self, step: str, id: str = "C1", **fields: Any) -> None:
        self.guard.observe({"time": self.clock.seconds(), "id": id, "step": step, **fields})
        self.clock.advance(0)

    def unknown(self, login: str, *recipients: str, reply: str = NO_SUCH) -> None:
        self.step("login", f"C{login}", account=login)
        for one in recipients:
            self.step("refused", "M1", connection=f"C{login}", stage="rcpt", recipient=one, reply=reply)

    def refuse(self, login: str, *recipients: str, reply: str = "550 5.7.1 Spam") -> None:
        id, _ = self.leave(login)
        for one in recipients:
            self.step("failed", id, recipient=one, reply=reply)

    def order(self, command: str, **arguments: Any) -> Any:
        run = next(one.run for one in self.guard.commands() if one.name == command)
        return self.answer(run(**arguments))

    def run_round(self, seconds: float = 0) -> None:
        self.clock.advance(seconds)
        self.answer(self.guard.run_periodically())

    def assertFailure(self, guard: Any) -> None:
        self.clock.advance(10)
        with self.assertRaises(StorageBroken):
            self.answer(guard.run_periodically())

    @property
    def stopped(self) -> list[str]:
        return sorted(self.guard.book.stopped)

    def told(self, address: str) -> list[str]:
        return [one.content.decode() for one in self.send_mail.sent if str(one.recipients[0]) == address]


class Contract(FilterContract, FilterCase):
    def make(self) -> Any:
        component = self.build(factory, networks_alone=2, recipients_alone=2)
        self.answer(component.start())
        return component


class Each(GuardCase):
    """No signal alone stops an account."""

    def all_signals(self, login: str) -> dict[str, Any]:
        for n in range(1, 4):
            self.leave(login, f"<{n}-{login}>")
        return {
            "networks": lambda: self.submit(login, address=ABROAD),
            "recipients": lambda: self.submit(login, *MANY),
            "unknown": lambda: self.unknown(login, *[f"no{n}@example.org" for n in range(12)]),
            "refusals": lambda: self.refuse(login, *MANY[:12]),
            "complaints": lambda: [self.complain(f"<{n}-{login}>", DKIM) for n in range(1, 4)],
        }

    def test_each_alone_does_not_stop_an_account(self) -> None:
        for user, signal in zip(USERS, SIGNALS, strict=True):
            self.all_signals(user)[signal]()
            self.assertIsInstance(self.submit(user), Pass)
            (found,) = self.submit(user).findings
            self.assertEqual((found.properties["result"], [name for name in SIGNALS if name in found.properties]), ("suspicious", [signal]))
        self.assertEqual((self.stopped, self.send_mail.sent, self.waiting_mail.done), ([], [], []))

    def test_any_two_do_and_the_others_go_on(self) -> None:
        pairs = [("networks", "recipients"), ("refusals", "unknown"), ("complaints", "networks"), ("recipients", "complaints")]
        for user, (one, other) in zip(USERS, pairs, strict=False):
            signals = self.all_signals(user)
            signals[one]()
            self.assertNotIn(user, self.stopped)
            signals[other]()
            self.assertIn(user, self.stopped)
            self.assertIsInstance(self.submit(user), Defer)
            self.assertIsInstance(self.submit(ERIN), Pass)
        self.assertEqual(self.stopped, sorted(USERS[:4]))
        self.assertEqual({login for _, login, _ in self.waiting_mail.done}, set(USERS[:4]))

    def test_a_holiday_is_none(self) -> None:
        for day in range(20):
            self.clock.advance(DAY)
            for address in (ABROAD, "203.0.113.9", "2001:db8:1::1"):
                self.assertIsInstance(self.submit(ALICE, f"postcard{day}@elsewhere.example", address=address), Pass)
        self.assertEqual(self.stopped, [])

    def test_one_beyond_its_own_limit_is_enough(self) -> None:
        self.make(recipients_alone=55)
        verdict = self.submit(ALICE, *MANY)
        self.assertIsInstance(verdict, Defer)  # the very message: it is not taken any more
        self.assertRegex(verdict.why, "60 recipients it has never written to")
        self.assertEqual(self.stopped, [ALICE])

    def test_what_is_over_counts_no_more(self) -> None:
        self.submit(ALICE, address=ABROAD)
        self.clock.advance(DAY + 1)
        self.assertIsInstance(self.submit(ALICE, *MANY), Pass)
        self.assertEqual(self.stopped, [])


class WhatCounts(GuardCase):
    def counts(self, login: str = ALICE) -> dict[str, int]:
        return {one.signal: one.count for one in self.answer(self.guard._memory.seen(login))}

    def test_a_network_is_new_once_within_thirty_days(self) -> None:
        for address in (HOME, "192.0.255.1", ABROAD, "198.51.3.4", "2001:db8:1::1", "2001:db8:ffff::1"):
            self.submit(ALICE, address=address)
        self.assertEqual(self.counts(), {"networks": 2})
        for _ in range(3):
            self.clock.advance(20 * DAY)
            self.submit(ALICE, address=ABROAD)
        self.assertEqual(self.counts(), {})
        self.clock.advance(31 * DAY)
        self.submit(ALICE, address=ABROAD)
        self.assertEqual(self.counts(), {"networks": 1})

    def test_webmail_unix_and_programs_of_this_host_are_no_networks(self) -> None:
        self.make(exempt=["203.0.113.0/24"])
        for address in ("203.0.113.9", "unix", "proxy:198.51.100.1", "local"):
            self.submit(ALICE, address=address)
        self.assertEqual(self.counts(), {})

    def test_a_new_account_is_learnt_but_has_its_hard_limits(self) -> None:
        for address in (HOME, ABROAD, "203.0.113.1"):
            self.assertIsInstance(self.submit("new@example.org", *MANY, address=address), Pass)
        self.refuse("new@example.org", *MANY[:12])
        self.assertEqual(self.stopped, [])
        self.make(recipients_alone=70)
        self.assertIsInstance(self.submit("new@example.org", *[f"x{n}@far.example" for n in range(20)]), Defer)

    def test_a_recipient_is_new_once(self) -> None:
        for _ in range(3):
            self.submit(ALICE, "New@elsewhere.example", "friend@elsewhere.example", ALICE)
        self.assertEqual(self.counts(), {"recipients": 1})

    def test_only_users_who_do_not_exist_count_as_unknown_each_once(self) -> None:
        for reply in ("550 5.7.1 no", "450 4.1.1 later", "452 4.5.3 many"):
            self.unknown(ALICE, "x@example.org", reply=reply)
        self.assertEqual(self.counts(), {})
        self.unknown(ALICE, *["x@example.org"] * 20)
        self.assertEqual(self.counts(), {"unknown": 1})
        self.step("closed", f"C{ALICE}")
        self.step("refused", "M1", connection=f"C{ALICE}", stage="rcpt", recipient="y@example.org", reply=NO_SUCH)
        self.step("refused", "M1", connection="C-mx", stage="rcpt", recipient="y@example.org", reply=NO_SUCH)
        self.assertEqual(self.counts(), {"unknown": 1})

    def test_only_what_another_host_has_refused_counts(self) -> None:
        for reply in ("450 4.2.0 later", "552 5.3.4 too large", "554 5.4.6 loop", "550 5.7.1 Refused by a policy of this host (x)", "", "250 ok"):
            self.refuse(ALICE, "x@elsewhere.example", reply=reply)
        self.refuse(ALICE, "bob@example.org")
        self.step("failed", "another", recipient="x@elsewhere.example", reply="550 5.1.1 no")
        self.assertEqual(self.counts(), {})
        self.refuse(ALICE, "x@elsewhere.example", "x@elsewhere.example", "y@elsewhere.example", reply="550 No such user")
        self.assertEqual(self.counts(), {"refusals": 2})

    def test_a_complaint_counts_where_it_is_shown_whose_and_what_it_is_about(self) -> None:
        self.leave(ALICE, "<1@example.org>")
        self.leave(ALICE, "<2@example.org>")
        self.complain("<1@example.org>")  # anybody may have written that
        self.complain("<3@example.org>", DKIM)  # no message of ours
        self.complain("<1@example.org>", DKIM, kind="not-spam")
        self.complain("<1@example.org>", DKIM, to="alice@example.org")
        self.complain("<1@example.org>", DKIM, login=BOB)
        self.assertEqual(self.counts(), {})
        for _ in range(3):
            self.assertIsInstance(self.complain("<1@example.org>", DKIM), Pass)  # a person reads it, too
        self.complain("<2@example.org>", DKIM, to="fbl@example.org")
        self.assertEqual((self.counts(), self.counts(BOB)), ({"complaints": 2}, {"recipients": 1}))
        self.assertIsInstance(self.answer(self.guard.read(self.envelope(), self.content(), Address.parse("fbl@example.org"))), Delivered)

    def test_reporters_may_be_named(self) -> None:
        self.make(reporters=["other.example"], complaints_to="")
        self.assertEqual(self.guard.reads, ())
        self.leave(ALICE)
        self.complain("<1@example.org>", DKIM)
        self.assertEqual(self.counts(), {})
        self.complain("<1@example.org>", replace(DKIM, properties={"result": "pass", "domain": "other.example"}))
        self.assertEqual(self.counts(), {"complaints": 1})

    def test_of_some_nothing_is_counted(self) -> None:
        self.make(without=["News@example.org"], recipients_alone=5, unknown_alone=5)
        self.assertIsInstance(self.submit("news@example.org", *MANY, address=ABROAD), Pass)
        self.unknown("news@example.org", *[f"no{n}@example.org" for n in range(12)])
        self.assertEqual((self.counts("news@example.org"), self.stopped), ({}, []))

    def test_a_broken_store_counts_nothing_and_stops_nobody(self) -> None:
        self.state.failing.add("*")
        self.assertIsInstance(self.submit(ALICE, *MANY, address=ABROAD), Pass)
        self.assertIsInstance(self.leave(ALICE)[1], Proceed)
        self.unknown(ALICE, "x@example.org")
        self.refuse(ALICE, "x@elsewhere.example")
        self.assertIsInstance(self.complain("<1@example.org>", DKIM), Pass)
        self.flushLoggedErrors()

    def test_odd_steps_are_none(self) -> None:
        for step in ({}, {"step": "login"}, {"step": "failed", "reply": None}, {"step": "refused", "stage": "rcpt", "reply": 5},
                     {"step": "failed", "id": 5, "reply": "550 x", "recipient": "\x00@@"}):  # fmt: skip
            self.guard.observe(step)


class Book(FilterCase):
    """What is read while something is written."""

    def setUp(self) -> None:
        super().setUp()
        self.reading: list[Deferred[Any]] = []
        self.book = AccountBook(self)  # type: ignore[arg-type]
        self.kept: dict[str, bytes] = {}

    def items(self, first: str, before: str, most: int) -> Deferred[Any]:
        """Answers as it is now, when the test says so."""
        found = [(key, value) for key, value in sorted(self.kept.items()) if first <= key < before]
        answer: Deferred[Any] = Deferred()
        answer.addCallback(lambda _: found)
        self.reading.append(answer)
        return answer

    async def put(self, key: str, value: bytes) -> None:
        self.kept[key] = value

    async def drop(self, key: str) -> None:
        self.kept.pop(key, None)

    async def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def read_on(self) -> None:
        while self.reading:
            self.reading.pop(0).callback(None)

    def test_who_is_stopped_while_it_is_read_stays_so(self) -> None:
        reading = Deferred.fromCoroutine(self.book.read())
        self.answer(self.book.keep(StoppedAccount(ALICE, 5.0)))
        self.read_on()
        self.successResultOf(reading)
        self.assertEqual(list(self.book.stopped), [ALICE])

    def writing_later(self) -> list[Deferred[None]]:
        """From now on a put is done when the test says so."""
        waiting: list[Deferred[None]] = []
        put = self.put

        async def put_later(key: str, value: bytes) -> None:
            waiting.append(Deferred())
            await waiting[-1]
            await put(key, value)

        self.patch(self, "put", put_later)
        return waiting

    def test_who_is_written_while_others_are_read_stays_stopped(self) -> None:
        waiting = self.writing_later()
        self.book._unwritten = {BOB: StoppedAccount(BOB, 5.0)}
        reading = Deferred.fromCoroutine(self.book.read())
        keeping = Deferred.fromCoroutine(self.book.keep(StoppedAccount(ALICE, 5.0)))
        waiting[0].callback(None)  # bob's; now it is read, without alice
        waiting[1].callback(None)
        self.successResultOf(keeping)
        while self.reading:
            self.read_on()
        self.successResultOf(reading)
        self.assertEqual(sorted(self.book.stopped), [ALICE, BOB])

    def test_who_is_let_go_while_another_is_written_stays_so(self) -> None:
        waiting = self.writing_later()
        self.book._unwritten = {user: StoppedAccount(user, 5.0) for user in (BOB, ALICE)}
        self.book.stopped = dict(self.book._unwritten)
        reading = Deferred.fromCoroutine(self.book.read())
        going = Deferred.fromCoroutine(self.book.let_go(ReleasedAccount(ALICE, 6.0, "root")))
        waiting[1].callback(None)
        self.successResultOf(going)
        waiting[0].callback(None)
        for one in waiting[2:]:
            one.callback(None)
        while self.reading:
            self.read_on()
        self.successResultOf(reading)
        self.assertEqual((list(self.book.stopped), sorted(self.kept)), ([BOB], [f"released\t{ALICE}", f"stopped\t{BOB}"]))

    def test_who_is_let_go_while_it_is_read_stays_so(self) -> None:
        self.answer(self.book.keep(StoppedAccount(ALICE, 5.0)))
        reading = Deferred.fromCoroutine(self.book.read())
        self.assertTrue(self.answer(self.book.let_go(ReleasedAccount(ALICE, 6.0, "root"))))
        self.read_on()
        self.successResultOf(reading)
        self.assertEqual((list(self.book.stopped), list(self.book.released)), ([], [ALICE]))

    def test_what_could_not_be_written_is_not_written_once_it_was_let_go(self) -> None:
        stopped = StoppedAccount(ALICE, 5.0)
        self.book._unwritten = {ALICE: stopped}
        self.book.stopped = {ALICE: stopped}
        self.assertTrue(self.answer(self.book.let_go(ReleasedAccount(ALICE, 6.0, "root"))))
        reading = Deferred.fromCoroutine(self.book.read())
        self.read_on()
        self.successResultOf(reading)
        self.assertEqual((list(self.book.stopped), list(self.kept)), ([], [f"released\t{ALICE}"]))

    def test_one_that_is_let_go_twice_is_released_twice(self) -> None:
        first, second = ReleasedAccount(ALICE, 6.0, "root"), ReleasedAccount(ALICE, 7.0, "root")
        self.kept[key_of("released", ALICE)] = second.octets()
        self.answer(self.book.done(first))
        self.assertEqual(list(self.kept), [f"released\t{ALICE}"])


class Stopped(GuardCase):
    def setUp(self) -> None:
        super().setUp()
        self.waiting_mail.waiting = {ALICE: 3, BOB: 2}

    def take_over(self, login: str = ALICE) -> Any:
        self.submit(login, address=ABROAD, note="app password phone")
        return self.submit(login, *MANY, address=ABROAD, note="app password phone")

    def test_the_account_hears_why_its_mail_is_held_and_people_are_told(self) -> None:
        verdict = self.take_over()
        self.assertIsInstance(verdict, Defer)
        self.assertEqual(verdict.reply, TAKEN_OVER)
        self.assertIn("198.51.0.0/16: 198.51.100.7, app password phone", verdict.why)
        self.assertEqual(verdict.findings[0].properties, {"result": "stopped", "networks": 1, "recipients": 60})
        self.assertEqual([one[:2] for one in self.waiting_mail.done], [("hold", ALICE)])
        self.assertEqual(self.waiting_mail.held, {ALICE: 3})
        (user,), (postmaster,) = self.told(ALICE), self.told("postmaster")
        for text in (user, postmaster):
            self.assertIn("198.51.100.7, app password phone", text)
            self.assertIn("60 recipients it has never written to", text)
        self.assertIn(f"mailserver user unlock {ALICE}", postmaster)
        self.assertIsInstance(self.leave(ALICE)[1], Postpone)
        self.assertIsInstance(self.leave(BOB)[1], Proceed)
        self.run_round()
        self.assertEqual((len(self.send_mail.sent), len(self.waiting_mail.done)), (2, 2))  # once more: something was about to leave
        self.run_round()
        self.assertEqual((len(self.send_mail.sent), len(self.waiting_mail.done)), (2, 2))

    def test_it_is_stopped_over_a_restart_and_what_is_owed_is_done_then(self) -> None:
        self.send_mail.failing = StorageFull("full")
        self.take_over()
        self.assertEqual((self.send_mail.sent, self.waiting_mail.done), ([], []))
        self.send_mail.failing = None
        self.make()
        self.assertIsInstance(self.submit(ALICE), Defer)
        self.run_round()
        self.assertEqual((len(self.send_mail.sent), self.waiting_mail.held), (2, {ALICE: 3}))

    def test_it_is_stopped_where_that_cannot_be_written_yet(self) -> None:
        self.records.failing.add("put")
        self.assertIsInstance(self.take_over(), Defer)
        self.assertIsInstance(self.submit(BOB), Pass)
        self.records.failing.clear()
        self.run_round()
        self.make()
        self.assertEqual(self.stopped, [ALICE])

    def test_what_is_being_delivered_is_held_the_next_time(self) -> None:
        self.waiting_mail.busy = {ALICE: 1}
        self.take_over()
        self.assertEqual(self.waiting_mail.held, {ALICE: 2})
        self.waiting_mail.busy = {}
        self.run_round()
        self.assertEqual(self.waiting_mail.held, {ALICE: 3})
        self.run_round()
        self.assertEqual(len(self.waiting_mail.done), 2)

    def test_unlocked_it_sends_again_and_what_was_counted_is_forgotten(self) -> None:
        self.take_over()
        self.assertIn("released", self.order("unlock", account="Alice@example.org", by="root"))
        self.assertEqual(self.waiting_mail.done[-1], ("release", ALICE, "root"))
        self.assertEqual((self.stopped, self.guard.book.released, self.waiting_mail.held), ([], {}, {}))
        self.assertIsInstance(self.submit(ALICE, *MANY, address=ABROAD), Pass)
        self.assertIsInstance(self.leave(ALICE)[1], Proceed)
        with self.assertRaisesRegex(CannotDo, "not stopped"):
            self.order("unlock", account=ALICE)
        self.make()
        self.assertEqual(self.stopped, [])

    def test_what_was_sent_before_it_was_unlocked_goes_on_being_refused_and_does_not_count(self) -> None:
        id, _ = self.leave(ALICE)
        self.take_over()
        self.clock.advance(60)
        self.order("unlock", account=ALICE)
        for one in MANY:
            self.step("failed", id, recipient=one, reply="550 5.7.1 Spam")
        self.submit(ALICE, address="203.0.113.1")
        self.assertEqual(self.stopped, [])

    def test_it_may_be_stopped_again(self) -> None:
        self.take_over()
        self.order("unlock", account=ALICE)
        self.submit(ALICE, address="203.0.113.1")
        self.submit(ALICE, *[f"again{n}@elsewhere.example" for n in range(60)])
        self.assertEqual(self.stopped, [ALICE])
        self.assertEqual([verb for verb, _, _ in self.waiting_mail.done], ["hold", "release", "hold"])

    def test_a_queue_that_fails_releases_later(self) -> None:
        self.take_over()
        self.waiting_mail.failing = StorageFull("full")
        self.assertIn("in a moment", self.order("unlock", account=ALICE))
        self.assertIsInstance(self.submit(ALICE), Pass)
        self.waiting_mail.failing = None
        self.make()
        self.run_round()
        self.assertEqual(self.waiting_mail.done[-1][:2], ("release", ALICE))
        self.run_round()
        self.assertEqual(len(self.waiting_mail.done), 2)

    def test_a_person_stops_and_shows_it(self) -> None:
        self.assertIn("is held", self.order("lock", account="Bob@example.org", why="he asked", by="root"))
        verdict = self.submit(BOB)
        self.assertIn("postmaster", verdict.reply.lines[0])
        self.assertEqual((self.stopped, self.waiting_mail.held), ([BOB], {BOB: 2}))
        self.assertIn("he asked", self.told(BOB)[0])
        with self.assertRaisesRegex(CannotDo, "already"):
            self.order("lock", account=BOB)
        (row,) = self.order("list")
        self.assertEqual((row["account"], row["why"], row["held"]), (BOB, "root has stopped it: he asked", True))
        self.assertEqual(self.order("show", account=BOB), row)
        self.assertEqual(self.order("show", account=ALICE), {})
        for account in ("", "\x1b]0;x"):
            self.assertRaises(CannotDo, self.order, "lock", account=account)

    def test_it_may_only_tell(self) -> None:
        self.make(action="tell")
        self.send_mail.failing = StorageFull("full")
        self.assertIsInstance(self.take_over(), Pass)
        self.send_mail.failing = None  # it is told with the next message
        self.assertIsInstance(self.submit(ALICE, "y@elsewhere.example"), Pass)
        self.assertIsInstance(self.submit(ALICE, "x@elsewhere.example"), Pass)
        self.assertEqual((self.stopped, self.waiting_mail.done, len(self.send_mail.sent)), ([], [], 1))
        self.assertIn("may have been taken over", self.told("postmaster")[0])
        self.order("lock", account=ALICE)
        self.assertIsInstance(self.submit(ALICE), Defer)

    def test_a_damaged_record_keeps_its_account_stopped_and_no_other(self) -> None:
        for user in (ALICE, BOB):
            self.take_over(user)
        self.answer(self.records.put(key_of("stopped", ALICE), b"\xff{"))
        self.answer(self.records.put("stopped\todd\tkey", b"x"))
        self.make()
        self.run_round()
        self.assertEqual(self.stopped, [ALICE, BOB])
        self.assertIn("cannot be read", self.submit(ALICE).why)
        self.assertIsInstance(self.submit(CAROL), Pass)
        self.order("unlock", account=ALICE)
        self.assertIsInstance(self.submit(ALICE), Pass)

    def test_where_nobody_can_read_who_is_stopped_users_wait_and_others_do_not(self) -> None:
        self.take_over()
        self.records.failing.add("items")
        self.make()
        judging = self.configured(self.guard)
        self.assertDeferred(judging.sender(self.envelope_of(BOB)).verdict)
        self.assertPassed(judging.sender(self.envelope()).verdict)
        self.records.failing.clear()
        self.assertPassed(judging.sender(self.envelope_of(BOB)).verdict)
        self.assertDeferred(judging.sender(self.envelope_of(ALICE)).verdict)

    def test_broken_records_keep_nobodys_mail_from_being_held(self) -> None:
        self.records.failing.update(("put", "items"))
        self.take_over()
        self.assertFailure(self.guard)
        self.assertEqual(self.waiting_mail.held, {ALICE: 3})
        self.assertEqual(len(self.send_mail.sent), 2)

    def test_a_person_hears_what_could_not_be_written(self) -> None:
        self.records.failing.add("put")
        with self.assertRaisesRegex(CannotDo, "until the server ends"):
            self.order("lock", account=ALICE)
        self.assertIsInstance(self.submit(ALICE), Defer)
        with self.assertRaisesRegex(CannotDo, "still stopped"):
            self.order("unlock", account=ALICE)
        self.assertIsInstance(self.submit(ALICE), Defer)

    def test_a_kill_between_the_two_records_of_an_unlock_keeps_it_stopped_and_held(self) -> None:
        self.take_over()
        self.answer(self.records.put(key_of("released", ALICE), ReleasedAccount(ALICE, 6.0, "root").octets()))
        self.make()
        self.run_round()
        self.assertEqual((self.stopped, self.waiting_mail.held, self.guard.book.released), ([ALICE], {ALICE: 3}, {}))
        self.order("unlock", account=ALICE)
        self.assertEqual((self.stopped, self.waiting_mail.held), ([], {}))

    def test_a_fault_about_one_account_is_no_other_accounts_matter(self) -> None:
        hold = self.waiting_mail.hold

        async def broken(login: str, why: str) -> tuple[int, int]:
            if login == ALICE:
                raise TypeError("nobody foresaw that")
            return await hold(login, why)

        self.patch(self.waiting_mail, "hold", broken)
        for user in (ALICE, BOB):
            self.order("lock", account=user)
        self.run_round()
        self.assertEqual(self.waiting_mail.held, {BOB: 2})
        self.assertEqual([self.guard.book.stopped[user].is_held for user in (ALICE, BOB)], [False, True])
        self.assertGreaterEqual(len(self.flushLoggedErrors(TypeError)), 2)

    def test_what_is_under_way_at_the_stop_is_done_after_the_next_start(self) -> None:
        waiting: list[Deferred[Any]] = []

        def hang(login: str, why: str) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        self.patch(self.waiting_mail, "hold", hang)
        self.take_over()
        self.answer(self.guard.stop())
        self.assertEqual(len(waiting), 1)
        self.patch(self.waiting_mail, "hold", MemoryWaitingMail.hold.__get__(self.waiting_mail))
        self.make()
        self.run_round()
        self.assertEqual((self.waiting_mail.held, len(self.send_mail.sent)), ({ALICE: 3}, 2))

    def test_a_note_that_leads_nowhere_keeps_nothing_else_waiting(self) -> None:
        self.send_mail.failing = ValueError("nobody")
        self.take_over()
        self.assertEqual(self.waiting_mail.held, {ALICE: 3})

    def test_what_others_write_is_one_line_of_a_note(self) -> None:
        self.submit(ALICE, address=ABROAD)
        self.refuse(ALICE, *MANY[:12], reply="550 5.7.1 \x1b[31mX\r\nSubject: evil\u202e see https://evil.example/")
        note = self.told("postmaster")[0]
        self.assertNotIn("\nSubject: evil", note)
        self.assertNotIn("\x1b", note)
        self.assertNotIn("https://evil", note)
        self.assertEqual(self.stopped, [ALICE])


@implementer(IContentFilter)
class Signed:
    """As `dkim`: it finds at the data that a signature verifies."""

    cost = 1.0

    async def judge_content(self, envelope: Any, content: Any) -> Pass:
        return Pass(findings=(replace(DKIM, source=""),))


@implementer(IComponentFactory)
class SignedFactory:
    name = "signed"
    summary = "Says that a signature verifies."
    api_version = "1.0"
    provides = (IContentFilter,)
    options = Options

    def build(self, options: Any, services: Any) -> Signed:
        return Signed()


class InAServer(MailCase):
    def test_a_complaint_counts_by_what_is_found_of_its_signature_whatever_the_order_of_the_file(self) -> None:
        self.serve('[[filter]]\nuse = "account_guard"\ncomplaints_alone = 1\n[[filter]]\nuse = "signed"\n', SignedFactory())
        message = f"From: {ALICE}\nMessage-ID: <1@example.org>\nSubject: x\n\nx\n".encode()
        self.assertEqual(self.send(message, sender=ALICE, recipients=MANY[:1], login=ALICE, service="submission", tls=True).code, 250)
        self.assertEqual(len(self.sent_to(MANY[0])), 1)
        found = self.send(complaint_about("<1@example.org>"), sender=None, recipients=["abuse@example.org"])
        self.assertEqual(found.code, 250)
        self.clock.advance(0)
        self.assertEqual(self.waiting_mail.done, [("hold", ALICE, "the account is stopped")])

    def test_the_message_that_is_one_too_many_is_deferred_with_words_and_others_go_their_own_ways(self) -> None:
        self.serve('[[filter]]\nuse = "account_guard"\nlearning = "0s"\nrecipients = 4\n')
        users = (ALICE, BOB, CAROL)

        def submit(user: str, *to: str, address: str = HOME) -> Any:
            message = f"From: {user}\nSubject: x\n\nx\n".encode()
            return self.send(message, sender=user, recipients=to, login=user, service="submission", address=address, tls=True)

        for user in users:
            self.assertEqual(submit(user, "a@elsewhere.example").code, 250)  # its first network, and one recipient
        self.clock.advance(DAY + 1)
        self.assertEqual(submit(ALICE, *MANY[:4], address=ABROAD).code, 450)  # a new network, and four new recipients
        self.assertEqual(submit(BOB, *MANY[:4]).code, 250)  # four new recipients
        self.assertEqual(submit(CAROL, "a@elsewhere.example", address=ABROAD).code, 250)  # a new network
        dialogue = self.connect(HOME, service="submission", login=ALICE, tls=True)
        heard = dialogue.say(f"MAIL FROM:<{ALICE}>")
        self.assertEqual((heard.code, heard.lines[0]), (450, "4.7.1 Sending is stopped for this account: it looks as if others used it."))
        self.assertEqual(self.send(recipients=[ALICE]).code, 250)  # she receives
        self.assertEqual(len(self.mailbox(ALICE)), 1)
        self.assertEqual(self.sent_to(MANY[0]), self.sent_to(MANY[1]))
        self.assertEqual(self.waiting_mail.done, [("hold", ALICE, "the account is stopped")])
        said = [one for one in self.steps("filter") if one["verdict"] == "Defer"]
        self.assertEqual([one["stage"] for one in said], ["content", "sender"])
        self.assertIn("4 recipients it has never written to", said[0]["why"])

    def test_a_complaint_counts_by_what_spf_has_found_of_it(self) -> None:
        self.serve('[[filter]]\nuse = "account_guard"\ncomplaints_alone = 1\n[[filter]]\nuse = "spf"\n')
        self.resolver.zones["provider.example"] = {"TXT": ["v=spf1 ip4:203.0.113.5 -all"]}
        message = f"From: {ALICE}\nMessage-ID: <1@example.org>\nSubject: x\n\nx\n".encode()
        sent = self.send(message, sender=ALICE, recipients=MANY[:1], login=ALICE, service="submission", tls=True)
        self.assertEqual(sent.code, 250)
        self.assertEqual(len(self.sent_to(MANY[0])), 1)

        def complain(address: str, to: str) -> int:
            found = self.send(complaint_about("<1@example.org>"), sender="fbl@provider.example", recipients=[to], address=address)
            return int(found.code)

        self.assertEqual(complain("198.51.100.9", "abuse@example.org"), 250)
        self.assertEqual(self.waiting_mail.done, [])
        self.assertEqual(complain("203.0.113.5", "fbl@example.org"), 250)
        self.clock.advance(0)
        self.assertEqual(self.waiting_mail.done, [("hold", ALICE, "the account is stopped")])
        said = str([one["findings"] for one in self.steps("filter") if one.get("filter") == "account_guard"])
        self.assertIn("nothing shows whose", said)
        self.assertIn("provider.example about <1@example.org>", said)
