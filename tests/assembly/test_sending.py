"""Messages of components: routed, completed, signed, in the queue when the id is there."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.sending import AT_ONCE, WAITING_MOST, OwnMail
from mailserver.interfaces import CannotTell
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Refused, Remote
from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.mail.reply import Reply
from mailserver.plugins.awaiting import now_or_later

ALICE, FAR, NOBODY = Address("alice", "example.org"), Address("far", "example.net"), Address("nobody", "example.org")
MESSAGE = b"From: <decide@example.org>\nSubject: x\n\nbody\n"


class OwnMailCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.committed: list[Any] = []
        self.steps: list[tuple[str, str, dict[str, Any]]] = []
        self.has_room = self.signs = True
        self.fault: Exception | None = None
        self.hangs = False
        self.notes_fail = False
        self.send = self.own_mail().lend("digests")

    def own_mail(self, *, relays: bool = True) -> OwnMail:
        return OwnMail(
            hostname="mx.example.org", clock=self.clock, route=self.route, relays=relays, sign=self.sign, commit=self.commit,
            has_room=lambda octets: self.has_room, next_id=lambda: "0" * 16, note=self.note,
            run_in_thread=maybeDeferred,
        )  # fmt: skip

    async def route(self, address: Address) -> Any:
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.hangs:
            await Deferred()
        if address == ALICE:
            return [Local(address, Mailbox("alice", "example.org"))]
        return [Remote(address)] if address == FAR else [Refused(Reply.of(550, "5.1.1", "no"), f"there is no user {address}")]

    async def sign(self, envelope: Any, content: Any) -> Any:
        return content.with_prefix(b"DKIM-Signature: x\r\n") if self.signs else None

    async def commit(self, *message: Any) -> None:
        if isinstance(self.commit_fault, Exception):
            raise self.commit_fault
        self.committed.append(message)

    commit_fault: Exception | None = None
    reports = True

    def note(self, id: str, step: str, **fields: Any) -> None:
        if self.notes_fail:
            raise RuntimeError("the log")
        self.steps.append((id, step, fields))

    def sent(self, content: Any = MESSAGE, *to: Any, sender: Any = None) -> Any:
        seen: list[Any] = []
        answer = now_or_later(self.send(content, sender=sender, recipients=to or (ALICE,), reports=self.reports))
        if not isinstance(answer, Deferred):
            return answer
        answer.addBoth(seen.append)
        self.assertTrue(seen, "it waits")
        if hasattr(seen[0], "raiseException"):
            seen[0].raiseException()
        return seen[0]


class Sent(OwnMailCase):
    def test_it_is_routed_completed_signed_and_in_the_queue_when_its_id_is_there(self) -> None:
        self.assertEqual(self.sent(MESSAGE, ALICE, FAR, ALICE), "0" * 16)
        ((envelope, content, destinations),) = self.committed
        octets = b"".join(content.chunks())
        self.assertTrue(octets.startswith(b"DKIM-Signature: x\r\nDate: "), octets)
        self.assertTrue(octets.endswith(b"Message-ID: <0000000000000000@mx.example.org>\r\n" + MESSAGE.replace(b"\n", b"\r\n")), octets)
        self.assertEqual([str(one.recipient.address) for one in destinations], ["alice@example.org", "far@example.net"])
        self.assertEqual((envelope.sender, envelope.parameters.body, envelope.peer.service), (None, "7BIT", "report"))
        self.assertEqual([(step, fields["about"]) for _, step, fields in self.steps], [("accepted", "digests")])

    def test_without_reports_nobody_hears_of_a_failure(self) -> None:
        self.reports = False
        self.sent(sender=ALICE)
        self.assertEqual(self.committed[0][0].recipients[0].parameters.notify, {"NEVER"})

    def test_octets_above_127_are_encoded_before_it_is_signed(self) -> None:
        self.sent(b"From: <a@b.example>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ngr\xc3\xbcn\r\n")
        ((envelope, content, _),) = self.committed
        octets = b"".join(content.chunks())
        self.assertTrue(octets.startswith(b"DKIM-Signature: x\r\n"))
        self.assertIn(b"gr=C3=BCn", octets)
        self.assertEqual(envelope.parameters.body, "7BIT")

    def test_where_they_cannot_be_encoded_they_are_told_to_other_hosts(self) -> None:
        self.sent(b"From: <a@b.example>\r\nContent-Type: multipart/mixed\r\n\r\n\xc3\xa4")
        self.assertEqual(self.committed[0][0].parameters.body, "8BITMIME")

    def test_who_leads_nowhere_keeps_no_other_from_getting_it(self) -> None:
        self.sent(MESSAGE, NOBODY, ALICE)
        self.assertEqual([str(one.recipient.address) for one in self.committed[0][2]], ["alice@example.org"])
        error = self.assertRaises(ValueError, self.sent, MESSAGE, NOBODY)
        self.assertIn("there is no user", str(error))

    def test_without_a_relay_nothing_is_sent_to_other_hosts(self) -> None:
        self.send = self.own_mail(relays=False).lend("digests")
        self.assertRaises(ValueError, self.sent, MESSAGE, FAR)

    def test_what_is_no_message_is_not_taken(self) -> None:
        for wrong in (b"", b"Subject: x\n\n", b"From: a@b.example\nSubject: \xc3\xa4\n\n", b"From: a@b.example\n\n" + b"x" * 999,
                      b"From: a@b.example\n\na\rb", b"From: a@b.example\n\n\0", b"From: a@b.example\n\n" + b"x\n" * (6 << 20)):  # fmt: skip
            self.assertRaises(ValueError, self.sent, wrong)
        for wrong_type, to in (("From: a@b.example\n\n", (ALICE,)), (MESSAGE, ("alice@example.org",))):
            self.assertRaises(TypeError, self.sent, wrong_type, *to)
        self.assertRaises(TypeError, self.sent, MESSAGE, ALICE, sender="a@example.org")
        self.assertRaises(ValueError, self.sent, MESSAGE, *[Address(f"a{n}", "example.org") for n in range(101)])
        self.assertEqual(self.committed, [])

    def test_what_cannot_be_now_is_told_and_nothing_is_taken(self) -> None:
        self.has_room = False
        self.assertRaises(StorageFull, self.sent)
        self.has_room, self.signs = True, False
        self.assertRaises(CannotTell, self.sent)
        self.signs, self.fault = True, RuntimeError("a directory")
        self.assertRaises(CannotTell, self.sent)
        self.fault, self.commit_fault = None, StorageBroken("no")
        self.assertRaises(StorageBroken, self.sent)
        self.assertEqual((self.committed, self.steps), ([], []))

    def test_once_it_is_in_the_queue_nothing_turns_that_into_an_error(self) -> None:
        self.notes_fail = True
        self.assertEqual(self.sent(), "0" * 16)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_of_many_at_once_a_thousand_wait_and_the_next_hears_so(self) -> None:
        self.hangs = True
        waiting = [now_or_later(self.send(MESSAGE, sender=None, recipients=[ALICE])) for _ in range(AT_ONCE + WAITING_MOST)]
        self.assertRaises(CannotTell, self.sent)
        another = self.own_mail().lend("reports")  # nobody else waits with them
        self.hangs = False
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(another(MESSAGE, sender=None, recipients=[ALICE]))), "0" * 16)
        waiting[-1].cancel()
        self.failureResultOf(waiting[-1], CancelledError)
        self.has_room = False  # they hear so one after the other
        self.clock.advance(121)
        for one in waiting[:AT_ONCE]:
            self.failureResultOf(one, CannotTell)
        for one in waiting[AT_ONCE:-1]:
            self.failureResultOf(one, StorageFull)
        self.has_room = True
        self.assertEqual([self.sent() for _ in range(AT_ONCE + 1)], ["0" * 16] * (AT_ONCE + 1))

    def test_a_router_that_hangs_has_its_time_and_then_gives_its_turn_back(self) -> None:
        self.hangs = True
        waiting = [now_or_later(self.send(MESSAGE, sender=None, recipients=[ALICE])) for _ in range(11)]
        self.assertEqual(self.committed, [])
        self.clock.advance(121)
        self.hangs = False
        for one in waiting[:10]:
            self.failureResultOf(one, CannotTell)
        self.clock.advance(121)  # the eleventh had its turn while the router still hung
        self.failureResultOf(waiting[10], CannotTell)
        self.assertEqual(self.sent(), "0" * 16)
