"""Addresses that can be burnt: given to one sender, known when somebody else has them, closed by one command."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.filters.subaddress_book import Subaddress, _subaddress, split_subaddress
from mailserver.filters.subaddresses import factory
from mailserver.interfaces import CannotDo
from mailserver.mail.address import Address
from mailserver.mail.answers import Finding, Pass
from mailserver.mail.faults import StorageBroken
from mailserver.testing import FilterCase, MailCase
from tests.any_octets import any_octets

SHOP = "alice+shop@example.org"
SPF = Finding("spf", 0.0, "", {"result": "pass", "domain": "shop.example", "scope": "mfrom"}, "spf")
FROM_SHOP: dict[str, Any] = {"sender": "news@shop.example", "message": b"From: news@shop.example\n\nx\n"}


class SubaddressCase(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.make()

    def make(self, **options: Any) -> None:
        self.filter = self.build(factory, **options)

    def order(self, command: str, **arguments: Any) -> Any:
        run = next(one.run for one in self.filter.commands() if one.name == command)
        return self.answer(run(**arguments))

    def at_rcpt(self, recipient: str = SHOP, **more: Any) -> Any:
        return self.judge(self.filter.judge_recipient(self.envelope(**more), self.recipient(recipient)))

    def after_data(self, recipient: str = SHOP, *findings: Finding, message: bytes = b"From: sender@example.net\n\nx\n", **more: Any) -> Any:
        envelope = replace(self.envelope(**more), findings=findings)
        return self.judge(self.filter.judge_content_for(envelope, self.content(message), self.recipient(recipient)))

    def row(self, number: int = 0) -> Any:
        return self.order("list")[number]


class Given(SubaddressCase):
    def test_mail_from_whom_it_was_given_to_passes_and_from_another_domain_it_is_a_finding(self) -> None:
        self.assertEqual(self.order("open", address="Alice+Shop@example.org", domain="shop.example", by="root"), f"{SHOP} is for shop.example")
        for domain in ("shop.example", "mail.shop.example"):
            found = self.after_data(sender=f"news@{domain}", message=f"From: news@{domain}\n\nx\n".encode())
            self.assertEqual((type(found), found.findings[0].properties["result"], found.findings[0].score), (Pass, "pass", 0.0))
        self.assertTrue(self.after_data(SHOP, SPF, **FROM_SHOP).findings[0].properties["aligned"])
        found = self.after_data()
        self.assertEqual((type(found), found.findings[0].properties["result"], found.findings[0].score), (Pass, "fail", 3.0))
        self.assertIn("was given to shop.example", found.findings[0].evidence)
        row = self.row()
        self.assertEqual([row[name] for name in ("address", "domain", "state", "right", "other", "refused", "by")], [SHOP, "shop.example", "open", 3, 1, 0, "root"])

    def test_the_author_counts_where_somebody_else_sends_for_him(self) -> None:
        self.order("open", address=SHOP, domain="shop.example")
        found = self.after_data(sender="bounce-7@esp.example", message=FROM_SHOP["message"])
        self.assertEqual(found.findings[0].properties["result"], "pass")

    def test_another_domains_mail_may_be_put_aside_or_refused_but_not_a_friends(self) -> None:
        for other, check in (("quarantine", self.assertQuarantined), ("refuse", self.assertRefused)):
            self.make(other=other)
            self.order("open", address=SHOP, domain="shop.example")
            check(self.after_data(), "was given to shop.example")
            self.assertIs(type(self.after_data(SHOP, Finding("accepted", source="lists"))), Pass)
            self.assertIs(type(self.after_data(SHOP, **FROM_SHOP)), Pass)
            self.assertIs(type(self.after_data(SHOP, sender=None, message=b"Subject: x\n\nx\n")), Pass)

    def test_addresses_of_others_and_those_of_which_nothing_is_known_are_not_touched(self) -> None:
        self.order("open", address=SHOP, domain="shop.example")
        for recipient in ("alice@example.org", "alice+other@example.org", "bob+shop@example.org", "alice+shop@example.com", "+shop@example.org",
                          "alice+@example.org", "postmaster@example.org"):  # fmt: skip
            self.assertPassed(self.after_data(recipient))
            self.assertPassed(self.at_rcpt(recipient))
        self.assertPassed(self.after_data(peer=self.peer(login="bob@example.org")))

    def test_one_that_anybody_may_use_is_only_counted(self) -> None:
        self.order("open", address=SHOP, domain="*")
        self.assertEqual(self.after_data().findings[0].properties["result"], "pass")
        self.assertEqual(self.row()["right"], 1)

    def test_a_top_level_domain_is_not_the_sender_of_all_below_it(self) -> None:
        self.assertFalse(Subaddress("a@b.example", "x", "shop.example").is_for("example"))
        self.assertFalse(Subaddress("a@b.example", "x", "shop.example").is_for("notshop.example"))
        self.assertTrue(Subaddress("a@b.example", "x", "news.shop.example").is_for("shop.example"))


class Learnt(SubaddressCase):
    def test_it_is_for_who_writes_first_where_that_is_shown(self) -> None:
        self.order("open", address=SHOP)
        self.assertPassed(self.after_data())
        self.assertEqual(self.row()["domain"], "")
        self.assertEqual(self.after_data(SHOP, SPF, **FROM_SHOP).findings[0].properties["domain"], "shop.example")
        self.assertEqual((self.row()["domain"], self.row()["how"], self.row()["right"]), ("shop.example", "opened", 1))
        self.assertEqual(self.after_data().findings[0].properties["result"], "fail")

    def test_where_all_are_learnt_nobody_has_to_open_one(self) -> None:
        self.assertPassed(self.after_data(SHOP, SPF, **FROM_SHOP))
        self.make(learn=True)
        self.after_data(SHOP, SPF, **FROM_SHOP)
        self.assertEqual((self.row()["domain"], self.row()["how"]), ("shop.example", "learnt"))
        self.assertPassed(self.after_data("alice@example.org", SPF, **FROM_SHOP))
        self.assertEqual(len(self.order("list", user="bob@example.org")), 0)
        report = {"sender": None, "message": b"From: x@shop.example\nContent-Type: multipart/report\n\nx\n"}
        self.assertPassed(self.after_data("alice+x@example.org", replace(SPF, name="dkim"), **report))

    def test_of_two_who_write_at_once_one_is_the_first(self) -> None:
        self.make(learn=True)
        book = self.filter._book
        for domain, is_first in (("shop.example", True), ("other.example", False)):
            self.assertIs(self.answer(book.learn(Subaddress("alice@example.org", "shop", domain, "learnt"), None)), is_first)
        self.assertEqual(self.row()["domain"], "shop.example")

    def test_they_are_bounded_and_those_leave_that_were_only_learnt(self) -> None:
        self.make(learn=True, addresses=10)
        self.order("open", address=SHOP, domain="shop.example")
        for n in range(12):
            self.clock.advance(1)
            self.after_data(f"alice+x{n}@example.org", SPF, **FROM_SHOP)
        kept = [row["address"] for row in self.order("list")]
        self.assertEqual(len(kept), 10)
        self.assertIn(SHOP, kept)
        self.assertNotIn("alice+x0@example.org", kept)
        for n in range(9):
            self.order("close", address=f"alice+y{n}@example.org")
        with self.assertRaises(CannotDo):
            self.order("open", address="alice+z@example.org")
        self.assertPassed(self.after_data("alice+z@example.org", **FROM_SHOP))
        self.assertEqual(len(self.order("list")), 10)


class Closed(SubaddressCase):
    def test_it_is_refused_at_rcpt_as_an_address_that_is_not_there(self) -> None:
        self.order("open", address=SHOP, domain="shop.example")
        self.assertEqual(self.order("close", address=SHOP, by="alice"), f"{SHOP} takes no more mail")
        for verdict in (self.at_rcpt(), self.at_rcpt("ALICE+SHOP@example.org"), self.after_data(SHOP, SPF, **FROM_SHOP)):
            self.assertRefused(verdict, "closed")
            self.assertEqual(verdict.enhanced, "5.1.1")
        self.assertPassed(self.at_rcpt("alice@example.org"))
        row = self.row()
        self.assertEqual((row["state"], row["refused"], row["by"]), ("closed", 2, "alice"))
        self.order("open", address=SHOP)
        self.assertPassed(self.at_rcpt())
        self.assertEqual(self.row()["domain"], "shop.example")

    def test_one_of_which_nothing_is_known_can_be_closed_and_forgotten(self) -> None:
        self.order("close", address="alice+a+b@example.org")
        self.assertRefused(self.at_rcpt("alice+a+b@example.org"))
        self.make()
        self.assertRefused(self.at_rcpt("alice+a+b@example.org"))
        self.order("forget", address="alice+a+b@example.org")
        self.assertPassed(self.at_rcpt("alice+a+b@example.org"))
        with self.assertRaises(CannotDo):
            self.order("forget", address="alice+a+b@example.org")
        self.order("close", address="alice+a+b@example.org")
        self.assertEqual(self.row()["refused"], 0)

    def test_what_cannot_be_counted_is_refused_all_the_same(self) -> None:
        self.state.failing.add("*")
        self.order("close", address=SHOP)
        self.assertRefused(self.at_rcpt())
        self.assertIsNone(self.row()["refused"])

    def test_what_was_not_kept_is_not_said_to_be_closed(self) -> None:
        self.records.failing.add("put")
        with self.assertRaises(StorageBroken):
            self.order("close", address=SHOP)

    def test_what_makes_no_sense_is_refused_in_words(self) -> None:
        for command, arguments in (
            ("open", {"address": "alice@example.org"}), ("close", {"address": "alice+@example.org"}), ("close", {"address": "+x@example.org"}),
            ("open", {"address": "alice"}), ("open", {"address": SHOP, "domain": "a b"}), ("open", {"address": SHOP, "domain": "example"}),
            ("list", {"user": "alice"}), ("forget", {"address": "a b"}),
        ):  # fmt: skip
            with self.assertRaises(CannotDo, msg=(command, arguments)):
                self.order(command, **arguments)
        self.assertEqual(self.order("list"), [])


class Kept(SubaddressCase):
    def test_it_is_read_as_it_was_kept(self) -> None:
        for address in (
            Subaddress("alice@example.org", "a+b", "shop.example", "opened", 5.0, "root"), Subaddress("alice@example.org", "x", "*", "learnt"),
            Subaddress("alice@example.org", "x", "", "closed"),
        ):  # fmt: skip
            self.assertEqual(_subaddress(address.key, address.octets()), address)

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=30), any_octets(max_size=40))
    def test_whatever_stands_in_the_records_is_read_or_a_value_error(self, text: str, octets: bytes) -> None:
        for key in (text, "address\talice@example.org\tshop", f"address\t{text}\t{text}"):
            for value in (octets, b'{"is": "opened", "domain": ' + octets + b"}", b'{"is": "opened", "at": ' + octets + b"}"):
                try:
                    _subaddress(key, value)
                except ValueError:
                    pass

    def test_a_damaged_record_does_nothing_and_hides_no_other(self) -> None:
        self.order("close", address=SHOP)
        for key in ("address\talice@example.org\tx", "address\tx\ty", "address\t\t"):
            self.answer(self.records.put(key, b"\xff{"))
        self.assertEqual(len(self.order("list")), 1)
        self.assertPassed(self.at_rcpt("alice+x@example.org"))

    def test_a_detail_is_what_stands_behind_the_first_separator(self) -> None:
        for text, found in (("Alice+Shop@EXAMPLE.org", ("alice@example.org", "shop")), ("a+b+c@d.example", ("a@d.example", "b+c")),
                            ("a@d.example", None), ("a+@d.example", None), ("+a@d.example", None)):  # fmt: skip
            self.assertEqual(split_subaddress(Address.parse(text), "+"), found)
        self.assertEqual(split_subaddress(Address.parse("a-b@d.example"), "-"), ("a@d.example", "b"))


class Mail(MailCase):
    def test_three_recipients_of_one_message_and_a_closed_address_among_them(self) -> None:
        self.serve('[[filter]]\nuse = "subaddresses"\nother = "refuse"\n[[filter]]\nuse = "lists"\n')
        for name, order in (("subaddresses", {"address": SHOP}), ("lists", {"colour": "white", "entry": "192.0.2.25", "scope": ""})):
            run = next(one.run for one in self.component(name).commands() if one.name in ("close", "add"))
            self.answer(run(**order))
        opened = next(one.run for one in self.component("subaddresses").commands() if one.name == "open")
        self.answer(opened(address="bob+shop@example.org", domain="shop.example"))
        sent = self.send(recipients=(SHOP, "alice@example.org", "bob+shop@example.org", "carol@example.org"), address="192.0.2.66")
        self.assertEqual([one.code for one in sent.recipients.values()], [550, 250, 250, 250])
        self.assertIn("5.1.1", " ".join(sent.recipients[SHOP].lines))
        self.assertEqual(sent.code, 250)
        self.assertEqual([len(self.mailbox(f"{name}@example.org")) for name in ("alice", "bob", "carol")], [1, 0, 1])
        self.assertEqual(self.mailbox("bob@example.org", "shop"), [])
        sent = self.send(recipients=(SHOP, "bob+shop@example.org"))  # a friend of the site's
        self.assertEqual([one.code for one in sent.recipients.values()], [550, 250])
        self.assertEqual(len(self.mailbox("bob@example.org", "shop")), 1)
