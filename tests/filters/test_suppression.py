"""Addresses that an account writes to no more: learnt over two days, told at RCPT, undone by a command."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.filters.suppression import factory
from mailserver.filters.suppression_book import Suppression, _suppression, account_named
from mailserver.interfaces import CannotDo
from mailserver.mail.address import Address
from mailserver.mail.answers import Pass, Remote
from mailserver.mail.outbound_answers import Proceed
from mailserver.mail.parcel import Destination
from mailserver.testing import ComponentCase, FilterCase, FilterContract, FollowerContract
from tests.any_octets import any_octets

ALICE, BOB = "alice@example.org", "bob@example.net"
DAY = 86_400.0
NO_USER = "550 5.1.1 No such user here \x1b[31m"


class SuppressionCase(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(20_000 * DAY + 43_200 - self.clock.seconds())  # noon
        self.ids = itertools.count()
        self.make()

    def make(self, **options: Any) -> None:
        self.filter = self.build(factory, **options)

    def order(self, command: str, **arguments: Any) -> Any:
        run = next(one.run for one in self.filter.commands() if one.name == command)
        return self.answer(run(**arguments))

    def at_rcpt(self, recipient: str = BOB, login: str = ALICE, sender: str | None = ALICE) -> Any:
        envelope = self.envelope(peer=self.peer(login=login), sender=sender)
        return self.judge(self.filter.judge_recipient(envelope, self.recipient(recipient)))

    def send(
        self, reply: str = NO_USER, recipient: str = BOB, *, login: str = ALICE, sender: str | None = ALICE, to: str = "",
        step: str = "failed", peer: str = "mx.example.net", phase: str = "RCPT",
    ) -> None:  # fmt: skip
        """A message leaves, and this comes of it."""
        envelope = self.envelope(peer=self.peer(login=login), sender=sender)
        destination = Destination(0, self.recipient(recipient), Remote(Address.parse(to or recipient, utf8=True)))
        content = self.content(b"Subject: x\n\nx\n")
        self.assertEqual(self.answer(self.filter.before_attempt(envelope, content, destination)), Proceed())
        fields = {"recipient": recipient, "reply": reply} if step == "failed" else {"recipient": recipient}
        said = {"peer": peer, "phase": phase} if peer else {}
        self.filter.observe({"time": self.clock.seconds(), "id": envelope.id, "step": step, **fields, **said})

    def twice(self, reply: str = NO_USER, **more: Any) -> None:
        self.send(reply, **more)
        self.clock.advance(DAY)
        self.send(reply, **more)

    def rows(self, **arguments: Any) -> list[tuple[Any, ...]]:
        return [(row["user"], row["address"], row["state"], row["status"]) for row in self.order("list", **arguments)]


class Contract(FilterContract, FilterCase):
    def make(self) -> Any:
        return self.build(factory)


class KeepsTheContract(FollowerContract, ComponentCase):
    def make(self) -> Any:
        return self.build(factory)

    async def keep(self, component: Any, account: str) -> None:
        await next(one.run for one in component.commands() if one.name == "add")(user=account, address=BOB)


class Learnt(SuppressionCase):
    def test_twice_on_two_days_and_the_account_hears_so_at_rcpt(self) -> None:
        self.send()
        self.assertEqual(self.rows(), [(ALICE, BOB, "refused once", "5.1.1")])
        self.assertPassed(self.at_rcpt())
        self.clock.advance(DAY)
        self.send()
        verdict = self.at_rcpt("Bob@EXAMPLE.net")
        self.assertRefused(verdict)
        reply = verdict.reply
        self.assertEqual((reply.code, reply.enhanced), (550, "5.1.1"))
        text = " ".join(reply.lines)
        for words in ("2024-10-04", "2024-10-05", "5.1.1, no such mailbox", "Until 2025-01-03", f"mailserver suppression remove {ALICE} {BOB}"):
            self.assertIn(words, text)
        self.assertNotIn("\x1b", text)
        self.assertNotIn("No such user here", text)

    def test_twice_on_one_day_is_once(self) -> None:
        self.send()
        self.clock.advance(43_000)
        self.send()
        self.assertEqual(self.rows()[0][2], "refused once")
        self.clock.advance(1000)  # midnight of UTC
        self.send()
        self.assertEqual(self.rows()[0][2], "suppressed")

    def test_only_what_the_host_says_of_the_very_mailbox_counts(self) -> None:
        for reply, more in (
            ("550 5.7.1 Policy", {}),
            ("550 5.7.26 Unauthenticated", {}),
            ("550 5.2.1 Disabled", {}),
            ("552 5.2.2 Full", {}),
            ("550 5.1.0 Address rejected", {}),
            ("550 5.1.11 No such thing", {}),
            ("550 5.4.1 Recipient address rejected", {}),
            ("450 5.1.1 Later", {}),
            ("550 No such user", {}),
            (NO_USER, {"phase": "DATA"}),
            (NO_USER, {"phase": "END"}),
            (NO_USER, {"phase": "MAIL"}),
            (NO_USER, {"peer": ""}),  # our own words
            (NO_USER, {"step": "deferred"}),
            (NO_USER, {"to": "carol@example.net"}),  # a member of an alias
            (NO_USER, {"login": "", "sender": "x@elsewhere.example"}),
            (NO_USER, {"login": "", "sender": None}),
        ):
            self.twice(reply, **more)
            self.assertEqual(self.rows(), [], (reply, more))
        for n, status in enumerate(("5.1.1", "5.1.2", "5.1.6", "5.1.10")):
            self.twice(f"55{n} {status} No", recipient=f"user{n}@example.net")
        self.assertEqual({row[3] for row in self.rows()}, {"5.1.1", "5.1.2", "5.1.6", "5.1.10"})

    def test_one_accounts_matter_is_nobody_elses(self) -> None:
        self.twice()
        self.assertRefused(self.at_rcpt())
        for login, sender in (("carol@example.org", "carol@example.org"), ("", ALICE), ("", "x@elsewhere.example")):
            self.assertPassed(self.at_rcpt(login=login, sender=sender))
        self.assertPassed(self.at_rcpt("carol@example.net"))

    def test_mail_without_a_login_counts_for_the_domain_of_a_sender_of_ours(self) -> None:
        self.twice(login="", sender="cron@example.org")
        self.assertEqual(self.rows(), [("@example.org", BOB, "suppressed", "5.1.1")])
        self.assertRefused(self.at_rcpt(login="", sender="other@example.org"))
        self.assertPassed(self.at_rcpt())
        self.assertIn("may write", self.order("remove", user="@example.org", address=BOB))

    def test_a_message_that_arrives_ends_it(self) -> None:
        self.send()
        self.clock.advance(DAY)
        self.send(step="delivered", peer="")
        self.assertEqual(self.rows(), [])
        self.clock.advance(DAY)
        self.twice()
        self.send(step="delivered", peer="")  # one that had left before
        self.assertPassed(self.at_rcpt())

    def test_a_first_refusal_is_forgotten_after_its_time_and_so_is_what_was_learnt(self) -> None:
        self.make(within="10d", expire="20d")
        self.send()
        self.clock.advance(10 * DAY)
        self.send()
        self.assertEqual(self.rows()[0][2], "refused once")
        self.clock.advance(9 * DAY)
        self.send()
        self.assertRefused(self.at_rcpt())
        self.clock.advance(20 * DAY - 1)
        self.assertRefused(self.at_rcpt())
        self.clock.advance(1)
        self.assertPassed(self.at_rcpt())
        self.assertEqual(self.rows(), [])

    def test_a_clock_that_goes_back_makes_no_second_day(self) -> None:
        self.send()
        self.clock.rightNow -= 3 * DAY
        self.send()
        self.assertPassed(self.at_rcpt())

    def test_they_are_bounded_for_each_account_and_those_leave_that_were_refused_once(self) -> None:
        self.make(addresses=10)
        self.twice(recipient="kept@example.net")
        for n in range(15):
            self.clock.advance(1)
            self.send(recipient=f"user{n}@example.net")
        rows = self.rows()
        self.assertEqual(len(rows), 10)
        self.assertEqual(rows[0][1:3], ("kept@example.net", "suppressed"))
        self.assertEqual(rows[1][1], "user14@example.net")
        for n in range(9):
            self.order("add", user=ALICE, address=f"other{n}@example.net")
        self.assertRefused(self.at_rcpt("kept@example.net"))
        self.order("add", user=ALICE, address="last@example.net")
        self.assertRaises(CannotDo, self.order, "add", user=ALICE, address="one-more@example.net")
        self.send(recipient="new@example.net")  # no room, and no harm
        self.assertEqual({row[3] for row in self.rows()}, {""})
        self.send(recipient="new@example.net", login="carol@example.org")
        self.assertEqual(len(self.rows()), 11)


class Undone(SuppressionCase):
    def test_who_removes_it_may_write_again_and_two_days_are_needed_anew(self) -> None:
        self.twice()
        self.assertEqual(self.order("remove", user=ALICE, address="BOB@example.net", by="root"), f"{ALICE} may write to {BOB} again")
        self.assertPassed(self.at_rcpt())
        self.send()
        self.assertPassed(self.at_rcpt())
        self.clock.advance(DAY)
        self.send()
        self.assertRefused(self.at_rcpt())

    def test_what_a_person_adds_stays(self) -> None:
        self.assertIn("no more", self.order("add", user=ALICE, address=BOB, by="root"))
        self.clock.advance(4000 * DAY)
        verdict = self.at_rcpt()
        self.assertIn("was put on your list on 2024-10-04", verdict.reply.lines[0])
        self.send(step="delivered", peer="")
        self.assertRefused(self.at_rcpt())
        row = self.order("list", user=ALICE)[0]
        self.assertEqual((row["state"], row["by"], row["until"], row["first"]), ("suppressed", "root", None, None))

    def test_each_account_sees_its_own(self) -> None:
        self.twice()
        self.twice(recipient="x@example.com", login="carol@example.org")
        self.assertEqual([row[1] for row in self.rows(user=ALICE)], [BOB])
        self.assertEqual(len(self.rows()), 2)

    def test_what_makes_no_sense_is_said(self) -> None:
        for command, arguments in (
            ("remove", {"user": ALICE, "address": BOB}), ("remove", {"user": "alice", "address": "x"}), ("add", {"user": ALICE, "address": "x"}),
            ("add", {"user": "@", "address": BOB}), ("add", {"user": "a\tb@example.org", "address": BOB}), ("list", {"user": "@a b"}),
        ):  # fmt: skip
            self.assertRaises(CannotDo, self.order, command, **arguments)

    def test_an_address_outside_ascii_is_refused_in_words_that_a_reply_can_have(self) -> None:
        self.order("add", user=ALICE, address="jörg@example.net")
        self.assertIn("mailserver suppression remove", self.at_rcpt("jörg@example.net").reply.lines[1])


class Faults(SuppressionCase):
    def test_while_the_records_cannot_be_read_everybody_may_write(self) -> None:
        self.twice()
        self.filter = self.build(factory)
        self.records.failing = {"get", "items", "put"}
        self.assertIs(type(self.at_rcpt()), Pass)
        self.send()  # nothing is learnt, and nothing stumbles
        self.records.failing = set()
        self.assertRefused(self.at_rcpt())

    def test_a_local_delivery_is_no_hosts_word(self) -> None:
        envelope = self.envelope(peer=self.peer(login=ALICE))  # of it nobody is asked before an attempt
        self.filter.observe({"id": envelope.id, "step": "failed", "recipient": "bob@example.org", "reply": NO_USER, "peer": "store", "phase": "RCPT"})
        self.assertEqual(self.rows(), [])

    def test_odd_steps_are_passed_over(self) -> None:
        for step in ({}, {"step": "failed"}, {"step": "failed", "reply": None, "peer": 7, "phase": "RCPT"}, {"step": "delivered", "recipient": None}):
            self.filter.observe(step)
        self.assertEqual(self.rows(), [])

    def test_a_damaged_record_does_nothing_and_is_told_once(self) -> None:
        self.twice()
        (key, _), = self.answer(self.records.items())
        self.answer(self.records.put(key, b"{"))
        for _ in range(3):
            self.assertPassed(self.at_rcpt())
        self.assertEqual(self.rows(), [])

    @settings(max_examples=200, deadline=None)
    @given(any_octets(max_size=80), st.text(max_size=20))
    def test_whatever_stands_there_is_read_or_refused(self, octets: bytes, text: str) -> None:
        for key in (f"address\t{ALICE}\t{BOB}", f"address\t{text}\t{text}", text):
            for value in (octets, b'{"since": 1, "by": ' + octets + b"}"):
                try:
                    found = _suppression(key, value)
                except ValueError:
                    continue
                self.assertEqual(_suppression(found.key, found.octets()), found)

    def test_what_is_nested_too_deep_is_refused(self) -> None:
        self.assertRaises(ValueError, _suppression, f"address\t{ALICE}\t{BOB}", b"[" * 100_000)

    def test_what_is_kept_is_read_as_it_was(self) -> None:
        for one in (Suppression(ALICE, BOB, "5.1.1", 5.0, 9.0), Suppression("@example.org", BOB, "5.1.10", 5.0), Suppression(ALICE, BOB, since=5.0, by="root")):
            self.assertEqual(_suppression(one.key, one.octets()), one)
        self.assertEqual((account_named("Alice@EXAMPLE.org"), account_named("@Example.ORG")), (ALICE, "@example.org"))
