"""What a submission server asks of a message and does for it."""

from __future__ import annotations

import email
import errno
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Remote, Route
from mailserver.mail.content import Content
from mailserver.mail.envelope import Peer
from mailserver.mail.mending import mended
from mailserver.receive.submission.allowance import Allowance, AllowanceLimits
from mailserver.receive.submission.rules import Objection, Posting, Submission
from mailserver.receive.submission.sender_rights import SenderRights
from mailserver.testing.state import MemoryState
from tests.at_once import at_once

ID = "06ABCDEFGHJKMNPQ"
ALICE = "alice@example.org"
BOTH = b"Date: Mon, 23 Nov 2026 01:02:47 +0000\r\nMessage-ID: <1@x.example>\r\n"
PEER = Peer("192.0.2.1", 1, "submission", login=ALICE)


class SubmissionCase(TestCase):
    timeout = 10

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = 1_800_000_000.0
        self.is_broken = False
        self.state = MemoryState(self.clock)

    async def route(self, address: Address) -> Sequence[Route]:
        if self.is_broken:
            raise OSError("no directory")
        if address.domain == "example.org" and address.local in ("alice", "sales", "alice+x"):
            return (Local(address if address.local != "sales" else Address("alice", "example.org"), Mailbox("alice", "example.org")),)
        return (Remote(address),)

    async def granted(self, account: str) -> Sequence[str]:
        return ["@club.example"]

    def policy(self, **changes: Any) -> Submission:
        options: dict[str, Any] = {
            "hostname": "mail.example.org",
            "clock": self.clock,
            "rights": SenderRights(route=self.route, granted_senders=self.granted, clock=self.clock),
            "allowance": Allowance(clock=self.clock, spaces=self.state.space, limits=AllowanceLimits()),
        }
        return Submission(**(options | changes))

    def posting(self, peer: Peer = PEER, **changes: Any) -> Posting:
        posting = self.policy(**changes).posting(ID, peer)
        self.assertIsNotNone(posting)
        return posting  # type: ignore[return-value]

    def hears(self, answer: object, reply: str) -> None:
        self.assertIsInstance(answer, Objection)
        self.assertEqual(str(answer.reply), f"{reply} ({ID})")  # type: ignore[attr-defined]

    async def completed(self, head: bytes, posting: Posting | None = None, **changes: Any) -> bytes:
        """The message's header section after the submission; an objection fails the test."""
        answer = await (posting or self.posting(**changes)).content(Content.of(head + b"\r\nbody\r\n"))
        self.assertIsInstance(answer, Content, answer)
        return answer.head  # type: ignore[union-attr]

    async def refused(self, head: bytes, reply: str, **changes: Any) -> None:
        self.hears(await self.posting(**changes).content(Content.of(head + b"\r\nbody\r\n")), reply)


class WhomItConcerns(SubmissionCase):
    def test_strangers_on_port_25_are_not_concerned(self) -> None:
        policy = self.policy()
        self.assertIsNone(policy.posting(ID, Peer("192.0.2.1", 1, "mx")))
        self.assertIsNone(policy.posting(ID, Peer("unix", 0, "lmtp")))
        self.assertIsNotNone(policy.posting(ID, Peer("192.0.2.1", 1, "mx", login=ALICE)))

    async def test_relay_networks_and_local_programs_send_as_anybody_and_are_completed(self) -> None:
        for peer in (Peer("192.0.2.1", 1, "submission"), Peer("local", 0, "submission", login="root")):
            posting = self.posting(peer)
            self.assertIsNone(await posting.mail(Address("x", "y.example")))
            self.assertIsNone(await posting.recipient(Address("x", "y.example")))
            head = await self.completed(b"From: x@y.example, z@y.example\r\n", posting)
            self.assertEqual(head.count(b"\r\n"), 4)
            head = await self.completed(b"", posting)
            self.assertNotIn(b"From", head)
            self.assertIsNone(await posting.charge())
            posting.settle(True)
        for name in ("allowance", "allowance.known"):
            self.assertEqual(at_once(self.state.space(name).items()), [], "nothing is counted")


class Senders(SubmissionCase):
    FOREIGN = "553 5.7.1 The sender's address is not yours to use"

    async def test_own_granted_and_null_senders_may_be_used(self) -> None:
        for sender in (None, Address("ALICE", "example.org"), Address("sales", "example.org"), Address("x", "club.example")):
            self.assertIsNone(await self.posting().mail(sender))

    async def test_any_other_sender_hears_553(self) -> None:
        for sender in (Address("bob", "example.org"), Address("ceo", "bank.example"), Address("alice", "example.net")):
            self.hears(await self.posting().mail(sender), self.FOREIGN)

    async def test_where_anybody_may_send_as_anybody_nothing_is_asked(self) -> None:
        self.assertIsNone(await self.posting(rights=None).mail(Address("ceo", "bank.example")))
        self.assertIn(b"ceo", await self.completed(b"From: ceo@bank.example\r\n", rights=None))

    async def test_where_the_accounts_cannot_be_asked_it_is_later(self) -> None:
        self.is_broken = True
        self.assertIsNone(await self.posting().mail(Address("alice", "example.org")), "needs no question")
        later = "451 4.3.0 The sender cannot be checked now, please try again later"
        self.hears(await self.posting().mail(Address("sales", "example.org")), later)
        await self.refused(b"From: sales@example.org, ceo@bank.example\r\n", later)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)


class Authors(SubmissionCase):
    FOREIGN = "550 5.7.1 The address in the From or Sender field is not yours to use"

    async def test_own_authors_may_be_used(self) -> None:
        for field in (
            b"From: alice@example.org",
            b'From: "The CEO" <alice+x@example.org>',
            b"From: sales@example.org, alice@example.org, x@club.example",
            b"From: sales@example.org, x@club.example\r\nSender: alice@example.org",
            b"From: alice@example.org\r\nSender: sales@example.org",
        ):
            self.assertIn(field, await self.completed(field + b"\r\n"))

    async def test_others_hear_550(self) -> None:
        for field in (
            b"From: ceo@bank.example",
            b"From: alice@example.org <ceo@bank.example>".replace(b"alice@example.org", b'"alice@example.org"'),
            b"From: alice@example.org, ceo@bank.example",
            b"From: ceo@bank.example\r\nSender: alice@example.org",
            b"From: ceo@bank.example, sales@example.org\r\nSender: alice@example.org",
            b"From: alice@example.org <ceo@bank.example>",
            b"From: ceo@bank.example, chair@bank.example\r\nSender: alice@example.org",
            b"From: alice@example.org\r\nSender: ceo@bank.example",
            b"From: alice@example.org, ceo@bank.example\r\nSender: ceo@bank.example",
            b"Sender: ceo@bank.example",
        ):
            await self.refused(field + b"\r\n", self.FOREIGN)

    async def test_what_can_be_read_in_two_ways_is_refused_with_the_reason(self) -> None:
        for head, words in {
            b"From: alice@example.org\r\nFrom: ceo@bank.example\r\n": "There is more than one From field",
            b"From: alice@example.org, x <ceo@bank.example> y\r\n": "The From field cannot be understood",
            b"From: ceo@bank.example Boss, Alice <alice@example.org>\r\n": "The From field cannot be understood",
            b'From: "<ceo@bank.example>" <alice@example.org>\r\n': "The From field has a name that looks like an address",
            b"nonsense\r\nFrom: alice@example.org\r\n": "The header section has a line that is no field",
        }.items():
            await self.refused(head, f"550 5.6.0 {words}")

    async def test_a_name_without_its_quotes_and_a_comma_too_much_are_mended_in_place(self) -> None:
        path = self.mktemp()
        for field, expected in (
            (b"From: Clark, Alice\r\n <alice@example.org>", b'From: "Clark, Alice" <alice@example.org>'),
            (b"FROM :alice@example.org,", b"From: alice@example.org"),
            (b"From: =?utf-8?Q?Alice_=3Calice=40example=2Eorg=3E?=", b'From: "Alice" <alice@example.org>'),
            (b"From: alice@example.org\r\nSender: Clark, Alice <sales@example.org>", b'From: alice@example.org\r\nSender: "Clark, Alice" <sales@example.org>'),
        ):
            message = b"Subject: x\r\n" + field + b"\r\n" + BOTH + b"\r\nFrom: text\r\n"
            with open(path, "wb") as file:
                file.write(message)
            for content in (Content.of(message), Content.at(path, len(message))):
                steps: list[tuple[str, dict[str, Any]]] = []
                posting = self.policy().posting(ID, PEER, lambda step, _steps=steps, **fields: _steps.append((step, fields)))
                result = await posting.content(content)  # type: ignore[union-attr]
                self.assertEqual(b"".join(result.chunks()), b"Subject: x\r\n" + expected + b"\r\n" + BOTH + b"\r\nFrom: text\r\n")  # type: ignore[union-attr]
                self.assertEqual([step for step, _ in steps], ["mended"])

    async def test_an_address_of_another_domain_in_the_name_is_recorded(self) -> None:
        steps: list[tuple[str, dict[str, Any]]] = []
        posting = self.policy().posting(ID, PEER, lambda step, **fields: steps.append((step, fields)))
        self.assertIsInstance(await posting.content(Content.of(BOTH + b'From: "ceo@bank.example" <alice@example.org>\r\n\r\n')), Content)  # type: ignore[union-attr]
        ((step, fields),) = steps
        self.assertEqual((step, fields["addresses"]), ("noticed", ["ceo@bank.example"]))

    async def test_a_message_of_the_null_sender_has_an_own_author_too(self) -> None:
        posting = self.posting()
        self.assertIsNone(await posting.mail(None))
        self.hears(await posting.content(Content.of(b"From: ceo@bank.example\r\n\r\n")), self.FOREIGN)

    async def test_a_missing_author_is_added_or_missed(self) -> None:
        self.assertIn(b"From: alice@example.org\r\n", await self.completed(BOTH))
        await self.refused(BOTH, "550 5.6.0 There is no From field", complete=False)
        await self.refused(BOTH + b"Sender: alice@example.org\r\n", "550 5.6.0 There is no From field", complete=False)

    async def test_the_header_is_not_looked_at_where_it_need_not_name_an_own_address(self) -> None:
        head = BOTH + b"From: ceo@bank.example\r\n"
        self.assertEqual(await self.completed(head, header_from=False), head + b"\r\n")

    async def test_no_reply_repeats_what_the_client_has_written(self) -> None:
        answer = await self.posting().content(Content.of(b"From: \xff\xfe<secret@bank.example>\r\n\r\n"))
        self.assertIsInstance(answer, Objection)
        self.assertNotIn("secret", str(answer.reply))  # type: ignore[union-attr]


class CompletionOfMessages(SubmissionCase):
    async def test_date_and_message_id_are_added(self) -> None:
        head = await self.completed(b"From: alice@example.org\r\n")
        self.assertEqual(
            head,
            b"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\nMessage-ID: <06ABCDEFGHJKMNPQ@mail.example.org>\r\nFrom: alice@example.org\r\n\r\n",
        )

    async def test_a_complete_message_stays_the_same_object(self) -> None:
        content = Content.of(BOTH + b"From: alice@example.org\r\n\r\n")
        self.assertIs(await self.posting().content(content), content)
        content = Content.of(b"From: alice@example.org\r\n\r\n")
        self.assertIs(await self.posting(complete=False).content(content), content)

    async def test_blind_copies_are_taken_away_whoever_hands_in(self) -> None:
        fields = BOTH + b"From: alice@example.org\r\n"
        message = b"BCC: secret@x.example,\r\n\tother@x.example\r\n" + fields + b"Bcc : a@x\r\nresent-bcc: b@x\r\nX-Bcc: c\r\n\r\nBcc: text\r\n"
        kept = fields + b"X-Bcc: c\r\n\r\nBcc: text\r\n"
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(message)
        for peer in (PEER, Peer("192.0.2.1", 1, "mx", login=ALICE), Peer("local", 0, "submission", login="alice"), Peer("192.0.2.9", 1, "submission")):
            for complete in (True, False):
                for content in (Content.of(message), Content.at(path, len(message))):
                    result = await self.posting(peer, complete=complete).content(content)
                    self.assertIsInstance(result, Content)
                    self.assertEqual(b"".join(result.chunks()), kept)  # type: ignore[union-attr]

    async def test_fields_where_nobody_sees_them_are_refused_whoever_hands_in(self) -> None:
        head = b"From: alice@example.org\r\n" + b"X: y\r\n" * 44_000
        for hidden in (b"From: ceo@elsewhere.example\r\n", b"Bcc: carol@example.net\r\n"):
            await self.refused(head + hidden, "550 5.6.0 The header section is too long")
            path = self.mktemp()
            with open(path, "wb") as file:
                size = file.write(head + hidden + b"\r\nbody\r\n")
            posting = self.policy().posting(ID, Peer("local", 0, "submission", login="user1000"))
            assert posting is not None
            self.hears(await posting.content(Content.at(path, size)), "550 5.6.0 The header section is too long")

    async def test_separator_lines_push_no_field_out_of_sight(self) -> None:
        content, _ = mended(Content.of(b"From x\r\n" * 20_000 + b"From: ceo@elsewhere.example\r\n\r\nbody\r\n"))
        answer = await self.posting().content(content)
        self.assertIsInstance(answer, Content)
        self.assertEqual(answer.headers.get_all("From"), [ALICE])
        self.assertTrue(answer.head.endswith(b"\r\n\r\n"), "all fields are in view")

    async def test_lines_that_are_too_long_are_encoded_whoever_hands_in_and_files_in_a_thread(self) -> None:
        data = BOTH + b"From: alice@example.org\r\n\r\n" + b"<p>" * 500 + b"\r\n"
        in_threads: list[object] = []

        async def in_thread(function: Any, *arguments: Any) -> Any:
            in_threads.append(function)
            return function(*arguments)

        for peer in (PEER, Peer("local", 0, "submission", login="alice"), Peer("192.0.2.9", 1, "submission")):
            for complete in (True, False):
                path = self.mktemp()
                with open(path, "wb") as file:
                    file.write(data)
                for content in (Content.of(data), Content.at(path, len(data))):
                    notes: list[str] = []
                    policy = self.policy(complete=complete, run_in_thread=in_thread)
                    posting = policy.posting(ID, peer, lambda step, *, what, kept=notes: kept.append(f"{step}: {what}"))
                    assert posting is not None
                    result = await posting.content(content)
                    assert isinstance(result, Content)
                    octets = b"".join(result.chunks())
                    self.assertLessEqual(max(map(len, octets.split(b"\r\n"))), 76)
                    self.assertEqual(email.message_from_bytes(octets).get_payload(decode=True), b"<p>" * 500 + b"\r\n")
                    self.assertEqual(notes, ["mended: lines of more than 998 octets"])
        self.assertEqual(len(in_threads), 6)

    async def test_a_disk_that_does_not_take_what_is_encoded_is_answered_with_later(self) -> None:
        async def in_thread(function: Any, *arguments: Any) -> Any:
            raise OSError(number, "no")

        for number, reply in ((errno.ENOSPC, "452 4.3.1"), (errno.EIO, "451 4.3.0")):
            path = self.mktemp()
            with open(path, "wb") as file:
                file.write(BOTH + b"From: alice@example.org\r\n\r\n")
            answer = await self.posting(run_in_thread=in_thread).content(Content.at(path, len(BOTH) + 27))
            assert isinstance(answer, Objection)
            self.assertTrue(str(answer.reply).startswith(reply), answer.reply)

    async def test_text_right_behind_the_fields_is_no_fault_once_it_is_mended(self) -> None:
        content, _ = mended(Content.of(BOTH + b"From: alice@example.org\r\nDisk full on srv1\r\n"))
        self.assertIsInstance(await self.posting().content(content), Content)


class Amounts(SubmissionCase):
    async def test_the_message_above_the_limit_hears_450_at_mail(self) -> None:
        policy = self.policy(allowance=Allowance(clock=self.clock, spaces=self.state.space, limits=AllowanceLimits(messages_per_hour=2)))
        answers = []
        for _ in range(3):
            posting = policy.posting(ID, PEER)
            assert posting is not None
            answers.append(await posting.mail(None))
            if answers[-1] is None:
                self.assertIsNone(await posting.recipient(Address("x", "y.example")))
                self.assertIsNone(await posting.charge())
                posting.settle(True)
        self.assertEqual(answers[:2], [None, None])
        self.hears(answers[2], "450 4.7.1 You may not send more than 2 messages within an hour, please try again later")
        self.assertEqual(answers[2].why, "alice@example.org has sent 2 messages within an hour")  # type: ignore[union-attr]

    async def test_the_recipient_above_the_limit_hears_450_and_so_does_a_commit_that_comes_too_late(self) -> None:
        policy = self.policy(allowance=Allowance(clock=self.clock, spaces=self.state.space, limits=AllowanceLimits(recipients_per_hour=2)))
        one, other = policy.posting(ID, PEER), policy.posting(ID, PEER)
        assert one is not None and other is not None
        for posting in (one, other):
            answers = [await posting.recipient(Address(f"u{n}", "y.example")) for n in range(3)]
            self.assertEqual(answers[:2], [None, None])
            self.hears(answers[2], "450 4.7.1 You may not send more than 2 recipients within an hour, please try again later")
        self.assertIsNone(await one.charge())
        self.hears(await other.charge(), "450 4.7.1 You may not send more than 2 recipients within an hour, please try again later")
        one.settle(False)
        other.settle(False)
        self.assertIsNone(await other.charge())
