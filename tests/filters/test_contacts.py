"""Contacts: who is learnt, who is a stranger, what each user decides, and that nobody else decides for him."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.filters import contact_book, contact_rounds
from mailserver.filters.contact_claims import Claims
from mailserver.filters.contact_records import (
    Contact,
    HeldOrder,
    Window,
    contact_key,
    expected_key,
    order_key,
    owner_of,
    read_contact,
    read_hold,
    read_order,
    read_window,
)
from mailserver.filters.contacts import factory
from mailserver.interfaces import CannotDo, TransactionEnd
from mailserver.mail.address import Address
from mailserver.mail.answers import Delivered, Failed, Finding, Pass, Quarantine
from mailserver.mail.faults import StorageBroken
from mailserver.testing import FilterCase, MailCase
from tests.any_octets import any_octets

SPF = Finding("spf", 0.0, "", {"result": "pass", "domain": "example.net", "scope": "mfrom"}, "spf")
DMARC_FAIL = Finding("dmarc", 0.0, "", {"result": "fail", "domain": "example.net"}, "dmarc")
ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@example.org"
SENDER = "sender@example.net"
MESSAGE = b"From: sender@example.net\nSubject: hello\n\nx\n"
DAY = 86_400.0


class Records(SynchronousTestCase):
    def test_what_is_kept_is_read_as_it_was(self) -> None:
        contact = Contact(ALICE, "domain:.example.net", "accepted", needs_evidence=False, at=5.0, by="root")
        self.assertEqual(read_contact(contact_key(ALICE, contact.subject), contact.octets()), contact)
        window = Window(ALICE, "example.net", 60.0, 5.0, "root")
        self.assertEqual(read_window(expected_key(ALICE, "example.net"), window.octets()), window)
        order = HeldOrder(ALICE, f"address:{SENDER}", "junk", 5.0, "alice")
        self.assertEqual(read_order(order_key(ALICE, order.subject), order.octets()), order)

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=30), any_octets(max_size=40))
    def test_whatever_stands_in_the_records_is_read_or_a_value_error(self, text: str, octets: bytes) -> None:
        for read, key in (
            (read_contact, f"contact\t{ALICE}\taddress:{SENDER}"), (read_contact, f"contact\t{text}\t{text}"), (read_hold, f"hold\t{text}"),
            (read_hold, "hold\t"), (read_window, f"expected\t{ALICE}\t{text}"), (read_window, f"expected\t{ALICE}\t"), (read_order, text),
            (read_order, f"order\t{ALICE}\taddress:{SENDER}"),
        ):  # fmt: skip
            for value in (octets, b'{"is": "accepted", "at": ' + octets + b"}"):
                try:
                    read(key, value)
                except ValueError:
                    pass

    def test_values_that_no_command_writes_are_none(self) -> None:
        for value in (b"[]", b"1", b"{}", b'{"is": "x"}', b'{"is": ["written"]}', b'{"is": "written", "at": 1e999}', b"[" * 100_000,
                      b'{"is": "written", "at": true}', b'{"is": "written", "by": 1}'):  # fmt: skip
            self.assertRaises(ValueError, read_contact, contact_key(ALICE, f"address:{SENDER}"), value)
        for key in ("contact\tAlice@example.org\taddress:a@b.example", f"contact\t{ALICE}\thelo:x.example", f"contact\t{ALICE}"):
            self.assertRaises(ValueError, read_contact, key, b'{"is": "written"}')

    def test_a_detail_is_the_users_and_case_does_not_count(self) -> None:
        for text in ("alice@example.org", "Alice+Shop@EXAMPLE.org", "alice+@example.org"):
            self.assertEqual(owner_of(Address.parse(text), "+"), ALICE)
        self.assertEqual(owner_of(Address.parse("alice+shop@example.org"), ""), "alice+shop@example.org")
        self.assertEqual(owner_of(Address.parse("+shop@example.org"), "+"), "+shop@example.org")
        self.assertEqual(owner_of(Address("postmaster", ""), "+"), "")


class Whose(SynchronousTestCase):
    """Which contact a message claims to be from."""

    def contact(self, claims: Claims, **states: Any) -> Any:
        contacts = {}
        for name, state in states.items():
            kind = "address" if "@" in name else "domain"
            contacts[f"{kind}:{name}"] = Contact(ALICE, f"{kind}:{name}", state)
        found = claims.contact(contacts)
        return None if found is None else (found.subject.partition(":")[2], found.state)

    def test_an_address_goes_before_its_domain_and_a_refusal_before_a_yes(self) -> None:
        claims = Claims(("a@mail.example.net", "bounce@lists.example"), frozenset({"example.net"}), False)
        self.assertEqual(self.contact(claims, **{"a@mail.example.net": "accepted", "mail.example.net": "refused"})[1], "accepted")
        self.assertEqual(self.contact(claims, **{"a@mail.example.net": "accepted", "bounce@lists.example": "refused"})[1], "refused")
        self.assertEqual(self.contact(claims, **{".example.net": "refused", "mail.example.net": "accepted"})[1], "accepted")
        self.assertEqual(self.contact(claims, **{"example.net": "refused"}), None)

    def test_who_is_shown_goes_before_who_only_says_so(self) -> None:
        claims = Claims(("friend@example.com", "a@example.net"), frozenset({"example.net"}), False)
        states = {"friend@example.com": "accepted", "a@example.net": "written"}
        self.assertEqual(self.contact(claims, **states), ("a@example.net", "written"))
        self.assertEqual(self.contact(claims, **{"friend@example.com": "accepted", "example.com": "refused"})[1], "refused")
        self.assertEqual(self.contact(claims, **{"friend@example.com": "accepted"}), ("friend@example.com", "accepted"))


class ContactsCase(FilterCase):
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.make()

    def make(self, **options: Any) -> None:
        self.filter = self.build(factory, **{"hold": True, **self.options, **options})
        self.answer(self.filter.start())

    def order(self, command: str, **arguments: Any) -> Any:
        run = next(one.run for one in self.filter.commands() if one.name == command)
        return self.answer(run(**arguments))

    def at_rcpt(self, recipient: str = ALICE, *findings: Finding, **more: Any) -> Any:
        peer = more.pop("peer", None) or self.peer("11.2.3.4")
        envelope = replace(self.envelope(peer=peer, **more), findings=findings)
        return self.judge(self.filter.judge_recipient(envelope, self.recipient(recipient)))

    def after_data(self, recipient: str = ALICE, *findings: Finding, message: bytes = MESSAGE, **more: Any) -> Any:
        peer = more.pop("peer", None) or self.peer("11.2.3.4")
        envelope = replace(self.envelope(peer=peer, **more), findings=findings)
        return self.judge(self.filter.judge_content_for(envelope, self.content(message), self.recipient(recipient)))

    def hold(self, recipient: str = ALICE, *findings: Finding, subject: str = "hello", **more: Any) -> str:
        """A message that is judged and then held, as the queue does; its id."""
        verdict = self.after_data(recipient, *findings, **more)
        self.assertIsInstance(verdict, Quarantine)
        self.assertTrue(verdict.hold)
        found = tuple([replace(one, source="tested") for one in verdict.findings])
        return self.quarantine.hold(recipient=recipient, subject=subject, findings=found, why=verdict.why)

    def sent(self, login: str, *recipients: str, how: Any = TransactionEnd.ACCEPTED, sender: str | None = "") -> None:
        envelope = self.envelope(login if sender == "" else sender, recipients, peer=self.peer("11.2.3.9", service="submission", login=login))
        self.answer(self.filter.ended(envelope, how))

    def contacts(self, user: str = ALICE) -> list[str]:
        return sorted([f"{row['contact']} {row['state']}" for row in self.order("list", user=user)])

    def run_round(self, seconds: float = 0) -> None:
        self.clock.advance(seconds)
        self.answer(self.filter.run_periodically())


class Learning(ContactsCase):
    def test_those_become_contacts_to_whom_a_user_writes_who_has_logged_in(self) -> None:
        self.sent(ALICE, "Bob@Example.NET", "x@example.com", ALICE, "decide+" + "a" * 25 + "@example.org")
        self.assertEqual(self.contacts(), ["bob@example.net written", "x@example.com written"])
        self.assertEqual(self.contacts(BOB), [])
        self.sent("j\u00fcrgen@example.org", "x@example.com", sender="sales@example.org")
        self.assertEqual(self.contacts("j\u00fcrgen@example.org"), ["x@example.com written"])

    def test_what_is_refused_or_comes_from_strangers_or_programs_teaches_nothing(self) -> None:
        for how in (TransactionEnd.REFUSED, TransactionEnd.RESET, TransactionEnd.LOST):
            self.sent(ALICE, "x@example.com", how=how)
        self.sent("", "x@example.com", sender=ALICE)
        self.sent(ALICE, "x@example.com", sender=None)
        self.sent(ALICE, *[f"x{n}@example.com" for n in range(101)])
        self.answer(self.filter.ended(self.envelope(ALICE, ["x@example.com"], peer=self.peer("local", login=ALICE)), TransactionEnd.ACCEPTED))
        self.assertEqual(self.contacts(), [])
        self.make(learn=False)
        self.sent(ALICE, "x@example.com")
        self.assertEqual(self.contacts(), [])

    def test_mail_that_is_sent_as_an_alias_teaches_the_alias_too(self) -> None:
        self.sent(ALICE, "x@example.com", sender="sales+a@example.org")
        self.assertEqual((self.contacts(), self.contacts("sales@example.org")), (["x@example.com written"], ["x@example.com written"]))

    def test_beyond_the_bound_those_leave_who_were_written_to_first_and_never_a_decision(self) -> None:
        self.make(contacts=10)
        self.order("accept", user=ALICE, sender="friend@example.com")
        for n in range(12):
            self.clock.advance(1)
            self.sent(ALICE, f"x{n}@example.com")
        self.assertEqual(len(self.contacts()), 10)
        self.assertIn("friend@example.com accepted", self.contacts())
        self.assertNotIn("x2@example.com written", self.contacts())
        for n in range(9):
            self.order("accept", user=ALICE, sender=f"y{n}@example.com")
        with self.assertRaises(CannotDo):
            self.order("accept", user=ALICE, sender="z@example.com")
        self.sent(ALICE, "z@example.com")
        self.assertEqual(len(self.contacts()), 10)

    def test_writing_again_keeps_a_contact_young_and_changes_no_decision(self) -> None:
        self.order("refuse", user=ALICE, sender="x@example.com")
        self.sent(ALICE, "x@example.com", "y@example.com")
        first = self.order("list", user=ALICE)
        self.clock.advance(31 * DAY)
        self.sent(ALICE, "x@example.com", "y@example.com")
        again = self.order("list", user=ALICE)
        self.assertEqual([row["state"] for row in again if row["contact"] == "x@example.com"], ["refused"])
        self.assertGreater(again[0]["since"], first[0]["since"])

    def test_contacts_outlive_the_component_and_an_import_is_read(self) -> None:
        self.sent(ALICE, SENDER)
        self.make()
        self.assertIs(type(self.after_data(ALICE, SPF)), Pass)
        contact = Contact(ALICE, "address:new@example.com", "accepted")
        self.answer(self.records.put(contact_key(ALICE, contact.subject), contact.octets()))
        self.clock.advance(61)
        self.assertIn("new@example.com accepted", self.contacts())

    def test_a_contact_that_is_learnt_while_all_are_read_is_not_lost(self) -> None:
        items, gate = self.records.items, Deferred[None]()

        async def slow(*first: Any) -> Any:
            found = await items(*first)
            if not gate.called:
                await gate
            return found

        self.patch(self.records, "items", slow)
        reading = self.begin(self.filter._book.contacts_of(ALICE))
        self.answer(self.records.put_if_absent("x", b""))
        contact = Contact(ALICE, f"address:{SENDER}", "written")
        self.answer(self.records.put(contact_key(ALICE, contact.subject), contact.octets()))
        self.filter._book._changed(ALICE, contact.subject, contact)
        gate.callback(None)
        self.assertIn(contact.subject, self.answer(reading))

    def test_the_contacts_of_so_many_users_and_no_more_stand_in_memory(self) -> None:
        for most, contacts in (("USERS_MOST", 3), ("CONTACTS_MOST", 6)):
            self.make()
            self.patch(contact_book, most, contacts)
            for n in range(9):
                self.sent(f"u{n}@example.org", "x@example.com", "y@example.com")
            self.assertLessEqual(len(self.filter._book._users), 3)
            self.assertEqual(self.contacts("u0@example.org"), ["x@example.com written", "y@example.com written"])

    def test_damaged_records_do_nothing_and_stop_nothing(self) -> None:
        self.sent(ALICE, SENDER)
        for key in (f"contact\t{ALICE}\taddress:x", f"contact\t{ALICE}\taddress:y@example.com", "hold\tx y", "hold\t", "expected\t\t",
                    f"order\t{ALICE}\tx", "token\tx", f"digest\t{ALICE}"):  # fmt: skip
            self.answer(self.records.put(key, b"\xff{"))
        self.make()
        self.hold(BOB)
        self.hold(ALICE)
        self.run_round()
        self.assertEqual(self.contacts(), ["sender@example.net written"])
        self.assertIs(type(self.after_data(ALICE, SPF)), Pass)
        self.assertEqual(len(self.send_mail.sent), 2)
        self.assertIsNone(self.answer(self.records.get("token\tx")))


class Strangers(ContactsCase):
    def test_nobody_is_held_where_no_rule_says_so(self) -> None:
        self.make(hold=False)
        self.assertPassed(self.after_data())

    def test_the_nearest_rule_decides_user_domain_site(self) -> None:
        self.make(hold=False)
        self.order("hold", scope="@example.org", holds="on")
        self.order("hold", scope="Bob+x@example.org", holds="off")
        self.assertIsInstance(self.after_data(ALICE), Quarantine)
        self.assertPassed(self.after_data(BOB))
        self.assertPassed(self.after_data("alice@example.com"))
        self.order("hold", scope="site", holds="on")
        self.assertIsInstance(self.after_data("alice@example.com"), Quarantine)
        self.assertEqual(self.order("rules"), [{"scope": "site", "hold": True}, {"scope": "@example.org", "hold": True}, {"scope": BOB, "hold": False}])
        for scope in ("site", "@example.org"):
            self.order("hold", scope=scope, holds="default")
        self.assertPassed(self.after_data(ALICE))
        self.make(hold=True)  # what was said is kept
        self.assertPassed(self.after_data(BOB))

    def test_a_stranger_is_held_with_whom_there_is_to_decide_about(self) -> None:
        verdict = self.after_data("Alice+Shop@example.org", SPF)
        self.assertQuarantined(verdict, "sender@example.net has never written to alice@example.org")
        self.assertEqual(
            dict(verdict.findings[0].properties), {"result": "new", "user": ALICE, "sender": f"address:{SENDER}", "evidence": "pass"}
        )
        self.assertEqual(self.after_data(ALICE, DMARC_FAIL).findings[0].properties["evidence"], "fail")

    def test_a_contact_is_no_stranger_where_it_is_shown_that_it_is_he(self) -> None:
        self.sent(ALICE, SENDER)
        for recipient in (ALICE, "alice+shop@example.org"):
            found = self.after_data(recipient, SPF)
            self.assertIs(type(found), Pass)
            self.assertEqual((found.findings[0].name, found.findings[0].properties["aligned"]), ("contact", True))
        self.assertQuarantined(self.after_data(ALICE), "nothing shows that it is from sender@example.net, a contact of alice")
        self.assertQuarantined(self.after_data(BOB, SPF), "never written to bob")

    def test_at_rcpt_a_claim_is_enough_to_be_no_stranger_to_the_greylist(self) -> None:
        self.sent(ALICE, SENDER)
        [found] = self.at_rcpt().findings
        self.assertEqual((found.name, found.properties["result"], found.properties["aligned"], found.score), ("contact", "pass", False, 0.0))
        self.assertPassed(self.at_rcpt(BOB))

    def test_a_contact_may_have_a_score_where_it_is_shown(self) -> None:
        self.make(score=-2.0)
        self.sent(ALICE, SENDER)
        self.assertEqual(self.after_data(ALICE, SPF).findings[0].score, -2.0)
        self.assertEqual(self.at_rcpt(ALICE, SPF).findings[0].score, 0.0)  # it is counted once
        self.order("accept", user=BOB, sender=SENDER, evidence="none")
        self.assertEqual(self.after_data(BOB).findings[0].score, 0.0)

    def test_our_own_users_local_programs_exempt_networks_and_roles_are_never_held(self) -> None:
        self.make(exempt=["11.2.0.0/16"])
        self.assertPassed(self.after_data())
        for peer in (self.peer("unix"), self.peer("local"), self.peer("127.0.0.1"), self.peer("::1"), self.peer("10.1.2.3"),
                     self.peer("11.3.2.3", login=BOB), self.peer("11.3.2.3", service="submission")):  # fmt: skip
            self.assertPassed(self.after_data(peer=peer))
        stranger = self.peer("11.3.2.3")
        for role in ("postmaster@example.org", "Abuse@example.org"):
            self.assertPassed(self.after_data(role, peer=stranger))
        self.assertIsInstance(self.after_data(peer=stranger), Quarantine)
        self.assertIsInstance(self.after_data(peer=self.peer("11.3.2.3", service="lmtp")), Quarantine)

    def test_a_report_on_somebodys_mail_is_not_held_and_other_mail_without_a_sender_is(self) -> None:
        report = b"From: MAILER-DAEMON@example.com\nContent-Type: multipart/report; report-type=delivery-status; boundary=x\n\n--x--\n"
        self.assertPassed(self.after_data(sender=None, message=report))
        self.assertIsInstance(self.after_data(message=report), Quarantine)
        self.assertIsInstance(self.after_data(sender=None), Quarantine)

    def test_about_nobody_there_is_nothing_to_decide(self) -> None:
        for message in (b"Subject: x\n\nx\n", b"From: a@example.net, b@example.net\n\nx\n", b"From: \xff<\n\nx\n"):
            verdict = self.after_data(sender=None, message=message)
            self.assertEqual((type(verdict), verdict.hold, verdict.findings), (Quarantine, False, ()))
            self.assertTrue(self.after_data(message=message).hold)  # the reverse-path then

    def test_who_has_written_before_is_no_stranger_when_a_rule_begins(self) -> None:
        self.make(hold=False)
        self.assertPassed(self.after_data(ALICE, SPF))
        self.assertPassed(self.after_data(BOB))
        self.assertPassed(self.after_data(CAROL, SPF, replace(SPF, name="dnsbl", score=3.0)))
        self.make(hold=True)
        self.assertIs(type(self.after_data(ALICE, SPF)), Pass)
        for recipient, proof in ((ALICE, ()), (BOB, (SPF,)), (CAROL, (SPF,))):
            self.assertIsInstance(self.after_data(recipient, *proof), Quarantine, recipient)

    def test_a_store_that_remembers_nothing_stops_no_mail(self) -> None:
        self.state.failing.add("*")
        self.make(hold=False)
        self.assertPassed(self.after_data(ALICE, SPF))
        self.make(hold=True)
        self.assertIsInstance(self.after_data(ALICE, SPF), Quarantine)

    def test_records_that_cannot_be_read_are_the_filters_failure(self) -> None:
        self.records.failing.add("items")
        with self.assertRaises(StorageBroken):
            self.after_data()


class Deciding(ContactsCase):
    def done(self) -> list[tuple[str, str]]:
        return [(verb, id) for verb, id, _ in self.quarantine.done]

    def test_accept_delivers_what_is_held_and_what_comes(self) -> None:
        ids = [self.hold(ALICE, SPF) for _ in range(2)]
        other = self.hold(BOB, SPF)
        words = self.order("accept", user=ALICE, sender=SENDER, by="root")
        self.assertEqual(words, "alice@example.org takes mail from sender@example.net; 2 held messages delivered")
        self.assertEqual(self.done(), [("release", id) for id in ids])
        self.assertIs(type(self.after_data(ALICE, SPF)), Pass)
        self.assertIsInstance(self.after_data(ALICE), Quarantine)
        self.assertIsInstance(self.after_data(BOB, SPF), Quarantine)
        self.assertEqual([row["id"] for row in self.order("pending", user=BOB)], [other])

    def test_once_delivers_what_is_held_and_nothing_more(self) -> None:
        id = self.hold(ALICE, SPF)
        self.assertIn("1 held message delivered", self.order("accept", user=ALICE, sender=SENDER, once=True))
        self.assertEqual((self.done(), self.contacts()), ([("release", id)], []))
        self.clock.advance(1)
        self.hold(ALICE, SPF)
        self.run_round()
        self.assertEqual(len(self.done()), 1)

    def test_refuse_puts_what_is_held_into_junk_and_refuses_what_comes(self) -> None:
        id = self.hold(ALICE, SPF)
        self.order("refuse", user=ALICE, sender=SENDER)
        self.assertEqual(self.done(), [("to_junk", id)])
        self.assertRefused(self.at_rcpt(), "alice@example.org has refused sender@example.net")
        self.assertPassed(self.at_rcpt(BOB))
        self.assertRefused(self.after_data(sender="other@example.com"))  # the author
        self.assertPassed(self.at_rcpt(peer=self.peer(login=BOB)))

    def test_what_another_filter_holds_too_is_left_to_it_whatever_is_decided(self) -> None:
        found = tuple([replace(one, source="tested") for one in self.after_data().findings])
        ids = [self.quarantine.hold(recipient=ALICE, findings=found, held_by=["tested", "rspamd"]) for _ in range(2)]
        self.order("refuse", user=ALICE, sender=SENDER)
        self.assertEqual(self.done(), [("release", id) for id in ids])
        self.assertEqual([one.id for one in self.answer(self.quarantine.space("rspamd").held())], ids)

    def test_a_user_of_a_domain_with_other_letters_is_found_however_his_address_was_written(self) -> None:
        ids = [self.hold(f"alice@{domain}", SPF) for domain in ("b\u00fccher.example", "xn--bcher-kva.example")]
        self.order("accept", user="Alice@b\u00fccher.example", sender=SENDER)
        self.assertEqual(self.done(), [("release", id) for id in ids])

    def test_refuse_once_refuses_nothing_that_comes_and_drop_is_an_option(self) -> None:
        self.make(refused="drop")
        id = self.hold()
        self.order("refuse", user=ALICE, sender=SENDER, once=True)
        self.assertEqual((self.done(), self.contacts()), ([("drop", id)], []))
        self.assertPassed(self.at_rcpt())

    def test_a_domain_is_all_its_addresses_and_with_a_dot_all_below_it(self) -> None:
        ids = [self.hold(), self.hold(sender="b@example.net", message=b"From: b@example.net\n\nx\n")]
        self.hold(sender="b@mail.example.net", message=b"From: b@mail.example.net\n\nx\n")
        self.order("accept", user=ALICE, sender="example.net")
        self.assertEqual(self.done(), [("release", id) for id in ids])
        self.order("refuse", user=ALICE, sender=".example.net")
        self.assertEqual(len(self.done()), 3)

    def test_whose_accepted_mail_showed_nothing_is_believed_and_who_was_denied_is_not(self) -> None:
        self.hold(ALICE)
        self.assertIn("is believed", self.order("accept", user=ALICE, sender=SENDER))
        self.assertIs(type(self.after_data()), Pass)
        self.hold(BOB, DMARC_FAIL)
        self.order("accept", user=BOB, sender=SENDER)
        self.hold(CAROL)
        self.order("accept", user=CAROL, sender=SENDER, evidence="aligned")
        self.order("accept", user=CAROL, sender="example.com")
        self.hold("dave@example.org")
        self.order("accept", user="dave@example.org", sender="example.net")  # of a whole domain nobody is believed
        self.assertIsInstance(self.after_data("dave@example.org"), Quarantine)
        for user in (BOB, CAROL):
            self.assertIsInstance(self.after_data(user), Quarantine)
            self.assertIs(type(self.after_data(user, SPF)), Pass)
        self.order("accept", user=CAROL, sender=SENDER, evidence="none")
        self.assertIs(type(self.after_data(CAROL)), Pass)

    def test_forget_makes_a_stranger_of_him(self) -> None:
        self.order("accept", user=ALICE, sender=SENDER)
        self.assertIs(type(self.after_data(ALICE, SPF)), Pass)
        self.order("forget", user=ALICE, sender=SENDER)
        self.assertIsInstance(self.after_data(ALICE, SPF), Quarantine)
        with self.assertRaises(CannotDo):
            self.order("forget", user=ALICE, sender=SENDER)

    def test_clear_forgets_all_that_is_kept_of_one_user_and_nothing_of_another(self) -> None:
        for user in (ALICE, BOB):
            self.order("hold", scope=user, holds="on")
            self.order("expect", user=user, minutes=5, domain="example.com")
            self.order("refuse", user=user, sender=SENDER)
        self.hold("alice@example.org", SPF, sender="y@example.net", message=b"From: y@example.net\n\nx\n")
        self.run_round()
        kept = [key for key, _ in self.answer(self.records.items())]
        self.assertEqual(self.order("clear", user=ALICE), "forgotten: 6 records of alice@example.org")
        left = [key for key, _ in self.answer(self.records.items())]
        self.assertEqual(left, [key for key in kept if BOB in key])
        self.assertEqual(([row["user"] for row in self.order("expected")], self.contacts()), ([BOB], []))
        self.assertRefused(self.at_rcpt(BOB))
        self.assertPassed(self.at_rcpt())

    def test_a_copy_that_was_on_its_way_when_the_decision_was_made_follows_it(self) -> None:
        verdict = self.after_data(ALICE, SPF)
        self.order("accept", user=ALICE, sender=SENDER)
        found = tuple([replace(one, source="tested") for one in verdict.findings])
        id = self.quarantine.hold(recipient=ALICE, findings=found)
        self.run_round()
        self.assertEqual(self.done(), [("release", id)])
        later = self.quarantine.hold(recipient=ALICE, findings=found)  # received before, committed behind a slow scanner
        self.run_round()
        self.assertEqual(self.done(), [("release", id), ("release", later)])
        self.run_round(601)
        self.assertEqual(self.answer(self.records.items("order")), [])

    def test_one_users_decision_moves_nobody_elses_mail_whose_name_begins_alike(self) -> None:
        mine, detail = self.hold(ALICE, SPF), self.hold("alice+x@example.org", SPF)
        self.hold("alice2@example.org", SPF)
        self.order("accept", user=ALICE, sender=SENDER)
        self.assertEqual(sorted(self.done()), sorted([("release", mine), ("release", detail)]))

    def test_a_decision_outlives_a_queue_that_fails_and_a_server_that_dies_before_it_was_carried_out(self) -> None:
        id, other = self.hold(ALICE, SPF), self.hold(BOB, SPF)
        self.quarantine.failing.add("release")
        words = self.order("accept", user=ALICE, sender=SENDER)
        self.assertIn("what is held waits", words)
        self.order("accept", user=BOB, sender=SENDER, once=True)
        self.make()  # another process
        self.run_round()
        self.assertEqual(self.done(), [])
        self.quarantine.failing.clear()
        self.run_round()
        self.assertEqual(sorted(self.done()), [("release", id), ("release", other)])

    def test_one_order_that_fails_stops_no_other(self) -> None:
        self.hold(ALICE, SPF)
        second = self.hold(BOB, SPF)
        self.quarantine.failing.add("*")
        self.order("accept", user=ALICE, sender=SENDER, once=True)
        self.order("refuse", user=BOB, sender=SENDER, once=True)
        self.quarantine.failing = {"release"}
        self.run_round()
        self.assertEqual(self.done(), [("to_junk", second)])

    def test_how_many_were_held_is_said(self) -> None:
        for count, words in ((0, "; 0 held messages "), (1, "; 1 held message "), (2, "; 2 held messages ")):
            for _ in range(count):
                self.hold(BOB, SPF)
            self.assertIn(words, self.order("accept", user=BOB, sender=SENDER, once=True))

    def test_a_decision_that_was_not_kept_is_not_said_to_be_made(self) -> None:
        self.hold(ALICE, SPF)
        self.records.failing.add("put")
        with self.assertRaises(StorageBroken):
            self.order("accept", user=ALICE, sender=SENDER)
        self.records.failing.clear()
        self.assertEqual((self.done(), self.contacts()), ([], []))
        self.assertIsInstance(self.after_data(ALICE, SPF), Quarantine)

    def test_what_makes_no_sense_is_refused_in_words(self) -> None:
        for command, arguments in (
            ("list", {"user": "alice"}), ("pending", {"user": ""}), ("accept", {"user": ALICE, "sender": "helo:x.example"}),
            ("accept", {"user": ALICE, "sender": "192.0.2.1"}), ("accept", {"user": ALICE, "sender": SENDER, "once": True, "evidence": "none"}),
            ("refuse", {"user": "@example.org", "sender": SENDER}), ("hold", {"scope": "alice", "holds": "on"}),
            ("expect", {"user": ALICE, "minutes": 0}), ("expect", {"user": ALICE, "minutes": 1441}),
            ("expect", {"user": ALICE, "minutes": float("nan")}), ("expect", {"user": ALICE, "minutes": 5, "domain": "a b"}),
            ("unexpect", {"user": ALICE}),
        ):  # fmt: skip
            with self.assertRaises(CannotDo, msg=(command, arguments)):
                self.order(command, **arguments)


class Expected(ContactsCase):
    def test_who_expects_mail_from_anybody_gets_it_without_delay_for_a_while(self) -> None:
        self.assertEqual(self.order("expect", user=ALICE, minutes=30, by="root"), f"{ALICE} expects mail from anybody for 30 minutes")
        for verdict in (self.at_rcpt(), self.after_data(), self.after_data("alice+x@example.org")):
            self.assertAccepted(verdict, "alice@example.org expects mail")
            self.assertEqual(verdict.findings[0].name, "expected")
        self.assertIsInstance(self.after_data(BOB), Quarantine)
        [row] = self.order("expected")
        self.assertEqual((row["user"], row["domain"], row["until"] - row["since"], row["by"]), (ALICE, "", 1800.0, "root"))
        self.clock.advance(1800)
        self.assertIsInstance(self.after_data(), Quarantine)
        self.assertEqual(self.order("expected"), [])
        self.run_round()
        self.assertEqual(self.answer(self.records.items("expected")), [])

    def test_from_a_domain_and_those_below_it_a_claim_is_spared_the_delay_and_a_proof_is_accepted(self) -> None:
        self.order("expect", user=ALICE, minutes=30, domain="@example.net")
        claimed = self.at_rcpt()
        self.assertEqual((type(claimed), claimed.findings[0].properties["aligned"]), (Pass, False))
        self.assertAccepted(self.at_rcpt(ALICE, SPF))
        below = replace(SPF, properties={**SPF.properties, "domain": "mail.example.net"})
        self.assertAccepted(self.after_data(ALICE, below, sender="x@mail.example.net", message=b"\n\nx\n"))
        self.assertIs(type(self.after_data()), Pass)
        other = {"sender": "x@example.com", "message": b"From: x@example.com\n\nx\n"}
        self.assertIsInstance(self.after_data(ALICE, **other), Quarantine)
        self.assertPassed(self.at_rcpt(ALICE, sender="x@example.com"))
        self.assertPassed(self.at_rcpt(ALICE, sender="x@notexample.net"))

    def test_it_is_ended_by_a_command_and_outlives_a_restart(self) -> None:
        self.order("expect", user=ALICE, minutes=30, domain="example.net")
        self.order("expect", user=ALICE, minutes=30)
        self.make()
        self.assertEqual([row["domain"] for row in self.order("expected", user=ALICE)], ["", "example.net"])
        self.order("unexpect", user=ALICE, domain="example.net")
        self.assertAccepted(self.at_rcpt())
        self.order("expect", user=ALICE, minutes=30, domain="example.net")
        self.assertIn("from anybody, example.net", self.order("unexpect", user=ALICE))
        self.assertIsInstance(self.after_data(), Quarantine)

    def test_it_is_bounded(self) -> None:
        for n in range(20):
            self.order("expect", user=ALICE, minutes=30, domain=f"d{n}.example")
        with self.assertRaises(CannotDo):
            self.order("expect", user=ALICE, minutes=30)
        self.order("expect", user=ALICE, minutes=60, domain="d1.example")
        self.order("expect", user=BOB, minutes=30)

    def test_who_was_refused_is_not_expected(self) -> None:
        self.order("refuse", user=ALICE, sender=SENDER)
        self.order("expect", user=ALICE, minutes=30)
        self.assertRefused(self.at_rcpt())
        self.assertRefused(self.after_data())


class TimeAndDigest(ContactsCase):
    def digest(self, number: int = -1) -> str:
        return self.send_mail.sent[number].content.decode()

    def test_what_nobody_decides_about_goes_to_junk_after_so_many_days(self) -> None:
        self.make(junk_after="3d", digest=0)
        first = self.hold()
        self.clock.advance(2 * DAY)
        second = self.hold(BOB)
        self.run_round(DAY - 1)
        self.assertEqual(self.quarantine.done, [])
        self.run_round(601)
        self.assertEqual(self.quarantine.done, [("to_junk", first, "nobody has decided in time")])
        self.run_round(2 * DAY)
        self.assertEqual([id for _, id, _ in self.quarantine.done], [first, second])
        self.assertEqual(self.send_mail.sent, [])

    def test_what_others_hold_and_what_is_no_strangers_is_left_alone(self) -> None:
        self.quarantine.hold(recipient=ALICE, held_by=["rspamd"], findings=(Finding("contact", 0.0, "", {"result": "new"}, "tested"),))
        self.quarantine.hold(recipient=ALICE, findings=(Finding("contact", 0.0, "", {"result": "pass"}, "tested"),))
        self.run_round(40 * DAY)
        self.assertEqual((self.quarantine.done, self.send_mail.sent), ([], []))

    def test_each_user_is_told_once_a_day_of_what_is_new_and_of_his_own_alone(self) -> None:
        self.hold(ALICE, SPF, subject="an invoice")
        self.hold(ALICE, subject="another")
        self.hold(BOB, DMARC_FAIL, subject="for bob")
        self.run_round()
        to = [(str(one.recipients[0]), one.sender) for one in self.send_mail.sent]
        self.assertEqual(to, [(ALICE, None), (BOB, None)])
        self.assertIn("2 messages wait for your decision", self.digest(0))
        self.assertIn("another", self.digest(0))
        self.assertNotIn("for bob", self.digest(0))
        self.assertIn("BEWARE: example.net says that this is not from there.", self.digest(1))
        self.assertNotIn("accept all of", self.digest(0))
        for _ in range(30):
            self.run_round(3600)
        self.assertEqual(len(self.send_mail.sent), 2)
        self.hold(ALICE, SPF)
        self.run_round(601)
        self.assertEqual(len(self.send_mail.sent), 3)
        self.hold(ALICE, SPF)
        self.run_round(601)
        self.assertEqual(len(self.send_mail.sent), 3)

    def test_what_strangers_write_breaks_no_line_and_turns_none_round(self) -> None:
        self.hold(ALICE, SPF, subject="https://evil.example/ x\r\nBcc: evil@example.com\x1b[2J\u202e" + "y" * 1000)
        self.run_round()
        digest = self.digest()
        for octet in ("\x1b", "\u202e", "\nBcc", "https://"):
            self.assertNotIn(octet, digest)
        self.assertLess(max(map(len, digest.split("\r\n"))), 500)

    def test_whom_no_message_reaches_keeps_no_other_from_being_told(self) -> None:
        self.hold("gone@example.org")
        self.hold(BOB)
        failing = self.send_mail.__class__.__call__

        async def send(fake: Any, content: bytes, **more: Any) -> str:
            if str(more["recipients"][0]) == "gone@example.org":
                raise ValueError("there is no user gone")
            return await failing(fake, content, **more)

        self.patch(self.send_mail.__class__, "__call__", send)
        self.run_round()
        self.assertEqual([str(one.recipients[0]) for one in self.send_mail.sent], [BOB])

    def test_a_digest_that_cannot_be_sent_now_is_sent_later(self) -> None:
        self.hold(ALICE)
        self.send_mail.failing = StorageBroken("full")
        self.run_round()
        self.send_mail.failing = None
        self.run_round(601)
        self.assertEqual(len(self.send_mail.sent), 1)

    def test_of_more_senders_than_one_digest_holds_all_are_told_of_in_turn(self) -> None:
        for n in range(90):
            self.hold(ALICE, sender=f"s{n}@example.net", message=f"From: s{n}@example.net\n\nx\n".encode())
        named: set[str] = set()
        for number, count in ((1, 40), (2, 80), (3, 90)):
            self.run_round(DAY + 601)
            self.assertEqual(len(self.send_mail.sent), number)
            digest = self.digest()
            self.assertIn("There are 50 more senders", digest)
            named |= set(re.findall(r"(?m)^(s\d+@example\.net)\r", digest))
            self.assertEqual(len(named), count)

    def test_of_more_messages_than_anybody_reads_the_oldest_go_to_junk(self) -> None:
        self.patch(contact_rounds, "HELD_OF_ONE_MOST", 3)
        ids = []
        for _ in range(5):
            self.clock.advance(1)
            ids.append(self.hold(ALICE, SPF))
        other = self.hold(BOB, SPF)
        self.run_round()
        self.assertEqual([id for _, id, _ in self.quarantine.done], ids[:2])
        self.assertEqual([row["id"] for row in self.order("pending", user=BOB)], [other])

    def test_a_queue_that_fails_keeps_nobody_from_being_told_and_the_next_round_does_the_rest(self) -> None:
        id = self.hold(ALICE)
        self.clock.advance(14 * DAY)
        self.hold(BOB)
        self.quarantine.failing.add("to_junk")
        self.run_round()
        self.assertEqual(([str(one.recipients[0]) for one in self.send_mail.sent], self.quarantine.done), ([BOB], []))
        self.quarantine.failing.clear()
        self.run_round(601)
        self.assertEqual([one[1] for one in self.quarantine.done], [id])

    def test_what_was_on_its_way_to_another_host_goes_there_and_is_not_lost(self) -> None:
        self.make(junk_after="3d")
        verdict = self.after_data()
        found = tuple([replace(one, source="tested") for one in verdict.findings])
        ids = [self.quarantine.hold(recipient=ALICE, findings=found, is_remote=True) for _ in range(2)]
        self.run_round(3 * DAY + 601)
        self.assertEqual([(verb, id) for verb, id, _ in self.quarantine.done], [("release", id) for id in ids])
        refused = self.quarantine.hold(recipient=ALICE, findings=found, is_remote=True)
        self.order("refuse", user=ALICE, sender=SENDER)
        self.assertEqual(self.quarantine.done[-1][:2], ("drop", refused))

    def test_a_clock_that_was_ahead_silences_nobody(self) -> None:
        self.hold(ALICE)
        self.clock.rightNow += 3650 * DAY
        self.hold(BOB)
        self.run_round()
        self.assertEqual([str(one.recipients[0]) for one in self.send_mail.sent], [BOB])
        self.clock.rightNow -= 3650 * DAY
        self.hold(BOB)
        self.run_round()
        self.assertEqual([str(one.recipients[0]) for one in self.send_mail.sent], [BOB, BOB])


class Tokens(ContactsCase):
    def addresses(self, user: str = ALICE, *findings: Finding) -> dict[str, str]:
        """What the newest digest offers, by the letter."""
        self.hold(user, *(findings or (SPF,)))
        self.run_round(DAY + 601)
        content = self.send_mail.sent[-1].content.decode()
        return {found[-len("@example.org") - 1]: found for found in re.findall(r"<mailto:(decide\+[a-z2-7]+@example\.org)>", content)}

    def reply(self, to: str, login: str = "", sender: str | None = ALICE, author: str = ALICE, findings: Any = (), fields: str = "") -> Any:
        """What the sender hears, and what is read then: a verdict, or an outcome."""
        peer = self.peer("11.2.3.4", service="submission" if login else "mx", login=login)
        envelope = replace(self.envelope(sender, [to], peer=peer), findings=tuple(findings))
        content = self.content(f"From: {author}\nTo: <{to}>\n{fields}\n\n".encode())
        for verdict in (
            self.answer(self.filter.judge_recipient(envelope, self.recipient(to))),
            self.answer(self.filter.judge_content_for(envelope, content, self.recipient(to))),
        ):
            if not isinstance(verdict, Pass):
                return verdict
        return self.answer(self.filter.read(replace(envelope, findings=()), content, Address.parse(to)))

    def test_each_address_decides_what_it_says(self) -> None:
        for letter, verb, contacts in (("a", "release", ["sender@example.net accepted"]), ("d", "release", ["example.net accepted"]),
                                       ("o", "release", []), ("r", "to_junk", ["sender@example.net refused"]), ("n", "to_junk", [])):  # fmt: skip
            self.make()
            self.records._records.clear()
            self.quarantine.done.clear()
            self.make()
            outcome = self.reply(self.addresses()[letter].upper().replace("EXAMPLE.ORG", "example.org"), login=ALICE)
            self.assertIsInstance(outcome, Delivered)
            self.assertEqual(([one[0] for one in self.quarantine.done], self.contacts()), ([verb], contacts), letter)

    def test_one_is_used_once_whatever_is_decided_with_it(self) -> None:
        addresses = self.addresses()
        self.assertIsInstance(self.reply(addresses["a"], login=ALICE), Delivered)
        for letter in "arond":
            self.assertRefused(self.reply(addresses[letter], login=ALICE), "decided already")
        self.assertEqual(self.contacts(), ["sender@example.net accepted"])

    def test_two_at_once_are_one_decision_and_the_same_message_again_is_the_same(self) -> None:
        addresses = self.addresses()
        envelopes = [replace(self.envelope(ALICE), peer=self.peer(service="submission", login=ALICE)) for _ in range(2)]
        to = [Address.parse(addresses[letter]) for letter in "ar"]
        outcomes = [self.answer(self.filter.read(one, None, address)) for one, address in zip(envelopes, to, strict=True)]
        self.assertEqual([type(one) for one in outcomes], [Delivered, Failed])
        self.assertIsInstance(self.answer(self.filter.read(envelopes[0], None, to[0])), Delivered)
        self.assertEqual(self.contacts(), ["sender@example.net accepted"])

    def test_of_two_that_are_read_side_by_side_one_marks_the_token_and_the_other_is_too_late(self) -> None:
        addresses = self.addresses()
        get, gates = self.records.get, list[Deferred[None]]()

        async def slow(key: str) -> Any:
            found = await get(key)
            gates.append(Deferred())
            await gates[-1]
            return found

        self.patch(self.records, "get", slow)
        peer = self.peer(service="submission", login=ALICE)
        to = [Address.parse(addresses[letter]) for letter in "ar"]
        reading = [self.begin(self.filter.read(self.envelope(ALICE, peer=peer), None, one)) for one in to]
        for number in range(4):  # both have read the token, then both have read it again, and neither has marked it
            gates[number].callback(None)
        self.assertEqual([type(self.answer(one)) for one in reading], [Delivered, Failed])
        self.patch(self.records, "get", get)
        self.assertEqual(self.contacts(), ["sender@example.net accepted"])
        after_the_data = self.after_data(str(to[1]), peer=self.peer("11.2.3.4", login=ALICE))
        self.assertRefused(after_the_data, "decided already")

    def test_a_server_that_dies_between_the_mark_and_the_decision_makes_it_when_the_message_comes_again(self) -> None:
        address = Address.parse(self.addresses()["a"])
        envelope = replace(self.envelope(ALICE), peer=self.peer(service="submission", login=ALICE))
        keep = self.filter._book.keep

        async def dies(contact: Contact) -> None:
            raise StorageBroken("the disk is gone")

        self.filter._book.keep = dies
        with self.assertRaises(StorageBroken):
            self.answer(self.filter.read(envelope, None, address))
        self.filter._book.keep = keep
        self.clock.advance(60)
        self.assertIsInstance(self.answer(self.filter.read(envelope, None, address)), Delivered)
        self.assertEqual((self.contacts(), [one[0] for one in self.quarantine.done]), (["sender@example.net accepted"], ["release"]))

    def test_nobody_else_decides(self) -> None:
        addresses = self.addresses()
        dmarc = Finding("dmarc", 0.0, "", {"result": "pass", "domain": "example.org"}, "dmarc")
        for refused in (
            self.reply(addresses["a"], login=BOB, sender=BOB, author=BOB),  # another user
            self.reply(addresses["a"], login=BOB, sender=BOB),  # who writes alice into From
            self.reply(addresses["a"]),  # a forger
            self.reply(addresses["a"], findings=[replace(SPF, properties={**SPF.properties, "domain": "example.org"})]),
            self.reply(addresses["a"], findings=[replace(dmarc, properties={"result": "fail", "domain": "example.org"})]),
            self.reply(addresses["a"], author=BOB, findings=[dmarc]),
            self.reply(addresses["a"], author=f"{ALICE}, {BOB}", findings=[dmarc]),
            self.reply(addresses["a"], findings=[replace(dmarc, properties={"result": "pass", "domain": "example.net"})]),
        ):
            self.assertRefused(refused, "only alice@example.org may decide")
        self.assertEqual((self.contacts(), self.quarantine.done), ([], []))
        self.assertIsInstance(self.reply(addresses["a"], findings=[dmarc]), Delivered)

    def test_what_the_user_has_written_to_somebody_else_decides_nothing_when_it_is_sent_on(self) -> None:
        accept = self.addresses()["a"]
        dmarc = Finding("dmarc", 0.0, "", {"result": "pass", "domain": "example.org"}, "dmarc")
        envelope = replace(self.envelope(SENDER, [accept], peer=self.peer("11.2.3.4")), findings=(dmarc,))
        for to in (b"To: sender@example.net\n", b"", b"Subject: " + accept.encode() + b"\n"):
            content = self.content(b"From: alice@example.org\n" + to + b"\nx\n")
            self.assertRefused(self.answer(self.filter.judge_content_for(envelope, content, self.recipient(accept))), "only alice")
        weak = replace(dmarc, properties={**dmarc.properties, "weak": True})
        self.assertRefused(self.reply(accept, findings=[weak]), "only alice")
        self.assertIsInstance(self.reply(accept, findings=[dmarc]), Delivered)

    def test_neither_a_bounce_nor_the_answer_of_who_is_away_decides(self) -> None:
        accept = self.addresses()["a"]
        for fields in ("Auto-Submitted: auto-replied\n", "Auto-Submitted: auto-generated (x); y\n", "Precedence: bulk\n",
                       "Content-Type: Multipart/Report; report-type=disposition-notification\n"):  # fmt: skip
            self.assertRefused(self.reply(accept, login=ALICE, fields=fields), "automatic")
        self.assertRefused(self.reply(accept, login=ALICE, sender=None), "automatic")
        self.assertEqual(self.contacts(), [])
        self.assertIsInstance(self.reply(accept, login=ALICE, fields="Auto-Submitted: no\n"), Delivered)

    def test_of_several_addresses_that_one_message_names_the_first_decides(self) -> None:
        addresses = self.addresses()
        envelope = self.envelope(ALICE, peer=self.peer(service="submission", login=ALICE))
        read = [self.answer(self.filter.read(envelope, None, Address.parse(addresses[one]))) for one in "arona"]
        self.assertEqual([type(one) for one in read], [Delivered, Failed, Failed, Failed, Delivered])
        self.assertEqual((self.contacts(), {one[0] for one in self.quarantine.done}), (["sender@example.net accepted"], {"release"}))

    def test_an_account_is_compared_in_the_form_in_which_users_are_named(self) -> None:
        replies = self.filter._replies
        for login, user, sender, is_his in (
            ("Alice@EXAMPLE.org", ALICE, BOB, True), ("alice@b\u00fccher.example", "alice@xn--bcher-kva.example", BOB, True),
            ("alice+x@example.org", ALICE, BOB, False), ("alice", ALICE, BOB, False), (BOB, ALICE, "alice+x@example.org", True),
            ("", ALICE, ALICE, False), (BOB, ALICE, None, False),
        ):  # fmt: skip
            envelope = self.envelope(sender, peer=self.peer(login=login))
            self.assertIs(replies._is_logged_in(envelope, user), is_his, (login, user, sender))

    def test_where_there_is_no_room_for_a_contact_its_user_is_told(self) -> None:
        self.make(contacts=10)
        accept = self.addresses()["a"]
        for n in range(10):
            self.order("accept", user=ALICE, sender=f"y{n}@example.com")
        outcome = self.reply(accept, login=ALICE)
        self.assertEqual((type(outcome), outcome.reports), (Failed, True))

    def test_what_was_not_shown_when_it_came_decides_nothing_when_it_is_read(self) -> None:
        to = Address.parse(self.addresses()["a"])
        for login in ("", BOB):  # a user hears of it
            envelope = self.envelope(BOB if login else ALICE, peer=self.peer(login=login))
            outcome = self.answer(self.filter.read(envelope, None, to))
            self.assertEqual((type(outcome), outcome.reports), (Failed, bool(login)))
        self.assertEqual(self.contacts(), [])

    def test_its_time_ends_with_that_of_the_mail(self) -> None:
        addresses = self.addresses()
        self.clock.advance(14 * DAY)
        self.assertRefused(self.reply(addresses["a"], login=ALICE), "not any more")
        self.run_round(2 * DAY)
        self.assertEqual(self.answer(self.records.items("token")), [])

    def test_what_is_no_token_is_refused_at_rcpt_and_what_is_no_such_address_decides_nothing(self) -> None:
        good = self.addresses()["a"]
        verdict = self.at_rcpt("decide+" + "a" * 25 + "@example.org")
        self.assertRefused(verdict)
        self.assertEqual(verdict.enhanced, "5.1.1")
        outcome = self.answer(self.filter.read(self.envelope(), None, Address.parse("decide+" + "a" * 25 + "@example.org")))
        self.assertEqual((type(outcome), outcome.reports), (Failed, False))
        # What has not their form may be somebody's, who is called so; where it is nobody's, nothing is decided.
        for other in ("decide@example.org", "decide+x@example.org", good.replace("decide+", "decide+a", 1), good.replace("a@", "z@"),
                      good.replace("@", ".x@")):  # fmt: skip
            self.make(hold=False)
            self.assertPassed(self.at_rcpt(other))
            self.assertPassed(self.after_data(other))
            outcome = self.answer(self.filter.read(self.envelope(), None, Address.parse(other)))
            self.assertEqual((type(outcome), outcome.reports), (Failed, False))

    def test_the_records_have_no_token_that_could_be_used(self) -> None:
        secret = self.addresses()["a"].partition("+")[2][:24]
        for key, value in self.answer(self.records.items()):
            self.assertNotIn(secret, key + value.decode())


class Mail(MailCase):
    TABLES = '[[filter]]\nuse = "spf"\n[[filter]]\nuse = "contacts"\nhold = true\n'

    def serve_contacts(self, more: str = "") -> None:
        self.resolver.zones["example.net"] = {"TXT": ["v=spf1 ip4:11.2.3.25 -all"]}
        self.serve(self.TABLES + more)

    def send(self, message: bytes = MESSAGE, *, address: str = "11.2.3.25", **more: Any) -> Any:
        return super().send(message, address=address, **more)

    def order(self, command: str, **arguments: Any) -> Any:
        run = next(one.run for one in self.component("contacts").commands() if one.name == command)
        return self.answer(run(**arguments))

    def boxes(self, folder: str = "") -> list[int]:
        return [len(self.mailbox(user, folder)) for user in (ALICE, BOB, CAROL)]

    def test_three_users_decide_about_one_message_and_each_sees_his_own_outcome(self) -> None:
        self.serve_contacts()
        self.assertEqual(self.send(MESSAGE, recipients=(ALICE, BOB, CAROL)).code, 250)
        self.assertEqual(self.boxes(), [0, 0, 0])
        self.order("accept", user=ALICE, sender=SENDER)
        self.assertEqual((self.boxes(), self.boxes("Junk")), ([1, 0, 0], [0, 0, 0]))
        self.order("refuse", user=BOB, sender=SENDER)
        self.assertEqual((self.boxes(), self.boxes("Junk")), ([1, 0, 0], [0, 1, 0]))
        sent = self.send(MESSAGE, recipients=(ALICE, BOB, CAROL))
        self.assertEqual([one.code for one in sent.recipients.values()], [250, 550, 250])
        self.assertEqual(self.boxes(), [2, 0, 0])
        self.order("accept", user=CAROL, sender=SENDER, once=True)
        self.assertEqual(self.boxes(), [2, 0, 2])
        self.clock.advance(1)
        self.send(MESSAGE, recipients=(CAROL,))
        self.assertEqual(self.boxes(), [2, 0, 2])
        self.clock.advance(15 * DAY)
        self.answer(self.component("contacts").run_periodically())
        self.assertEqual((self.boxes(), self.boxes("Junk")), ([2, 0, 2], [0, 1, 1]))

    def test_who_gets_an_answer_to_what_he_wrote_has_it_at_once(self) -> None:
        self.serve_contacts()
        self.assertEqual(self.send(b"From: alice@example.org\n\nx\n", sender=ALICE, recipients=(SENDER,), service="submission", login=ALICE).code, 250)
        self.send(MESSAGE, recipients=(ALICE, BOB))
        self.assertEqual(self.boxes(), [1, 0, 0])
        self.send(MESSAGE, recipients=(ALICE,), address="11.2.3.66")
        self.assertEqual(self.boxes(), [1, 0, 0])

    def test_an_answer_of_who_is_away_makes_no_contact_of_a_stranger(self) -> None:
        self.serve_contacts()
        mine = {"sender": ALICE, "recipients": (SENDER,), "service": "submission", "login": ALICE}
        self.send(b"From: alice@example.org\nAuto-Submitted: auto-replied\n\nx\n", **mine)
        self.assertEqual(self.order("list", user=ALICE), [])
        self.assertEqual(self.component("contacts")._automatic, {})
        self.send(b"From: alice@example.org\n\nx\n", **mine)
        self.assertEqual(len(self.order("list", user=ALICE)), 1)

    def test_a_claimed_contact_is_spared_the_greylist_and_not_the_judgement(self) -> None:
        self.serve_contacts('[[filter]]\nuse = "greylist"\neverybody = true\n[[filter]]\nuse = "scores"\n')
        stranger = {"address": "11.2.3.66", "recipients": (ALICE,)}
        self.send(b"From: alice@example.org\n\nx\n", sender=ALICE, recipients=(SENDER,), service="submission", login=ALICE)
        self.assertEqual(self.send(MESSAGE, **stranger, sender="other@example.net").code, 450)
        self.assertEqual(self.send(MESSAGE, **stranger).code, 250)
        self.assertEqual(self.boxes(), [0, 0, 0])
        self.assertEqual(self.send(MESSAGE, address="11.2.3.66", recipients=(BOB,)).code, 450)
        for more, counts in (({"domain": "example.net"}, [0, 1, 0]), ({}, [0, 2, 0])):
            self.order("expect", user=BOB, minutes=30, **more)
            self.assertEqual(self.send(MESSAGE, address="11.2.3.66", recipients=(BOB,)).code, 250)
            self.assertEqual(self.boxes(), counts)
            self.order("unexpect", user=BOB)

    def test_a_users_allow_entry_spares_his_mail_the_hold_and_nobody_elses(self) -> None:
        self.serve_contacts('[[filter]]\nuse = "lists"\n')
        run = next(one.run for one in self.component("lists").commands() if one.name == "add")
        self.answer(run(colour="white", entry=SENDER, scope=ALICE))
        self.send(MESSAGE, recipients=(ALICE, BOB))
        self.assertEqual(self.boxes(), [1, 0, 0])

    def test_about_what_another_filter_has_put_aside_nobody_is_asked(self) -> None:
        self.serve_contacts('[[filter]]\nuse = "lists"\nblack = "quarantine"\n')
        run = next(one.run for one in self.component("lists").commands() if one.name == "add")
        self.answer(run(colour="black", entry=SENDER, scope=ALICE))
        self.send(MESSAGE, recipients=(ALICE, BOB))
        self.answer(self.component("contacts").run_periodically())
        self.assertEqual([one[0] for one in self.quarantine.done], ["release"])  # the hold of `lists` stands
        self.assertEqual([str(one.recipients[0]) for one in self.send_mail.sent], [BOB])
        self.assertEqual((len(self.order("pending", user=ALICE)), len(self.order("pending", user=BOB))), (0, 1))

    def test_a_reply_decides_and_a_strangers_does_not(self) -> None:
        self.serve_contacts()
        self.send(MESSAGE, recipients=(ALICE, BOB))
        self.answer(self.component("contacts").run_periodically())
        digest = next(one.content.decode() for one in self.send_mail.sent if str(one.recipients[0]) == ALICE)
        accept = re.findall(r"decide\+[a-z2-7]+a@example\.org", digest)[0]
        forged = self.send(b"From: alice@example.org\n\nx\n", sender=ALICE, recipients=(accept,))
        self.assertEqual(forged.code, 550)
        bobs = {"service": "submission", "login": BOB, "recipients": (accept,)}
        self.assertEqual(self.send(b"From: bob@example.org\n\nx\n", sender=BOB, **bobs).code, 550)
        self.assertEqual(self.boxes(), [0, 0, 0])
        mine = {"service": "submission", "login": ALICE, "recipients": (accept,)}
        self.assertEqual(self.send(b"From: alice@example.org\n\nx\n", sender=ALICE, **mine).code, 250)
        self.assertEqual(self.boxes(), [1, 0, 0])
        self.assertEqual(self.send(b"From: alice@example.org\n\nx\n", sender=ALICE, **mine).code, 550)

    def test_a_reply_from_elsewhere_decides_where_dmarc_shows_that_it_is_the_users(self) -> None:
        self.resolver.zones["example.org"] = {"TXT": ["v=spf1 ip4:11.2.3.9 -all"]}
        self.resolver.zones["_dmarc.example.org"] = {"TXT": ["v=DMARC1; p=none"]}
        self.serve_contacts('[[filter]]\nuse = "dmarc"\nafter = ["spf"]\n')
        self.send(MESSAGE, recipients=(ALICE, BOB))
        self.answer(self.component("contacts").run_periodically())
        digest = next(one.content.decode() for one in self.send_mail.sent if str(one.recipients[0]) == ALICE)
        accept = re.findall(r"decide\+[a-z2-7]+a@example\.org", digest)[0]
        for sender, author, address, code in (
            (ALICE, ALICE, "11.2.3.10", 550), (BOB, BOB, "11.2.3.9", 550), (ALICE, BOB, "11.2.3.9", 550), (BOB, ALICE, "11.2.3.9", 250),
        ):  # fmt: skip
            message = f"From: {author}\nTo: {accept}\n\nx\n".encode()
            self.assertEqual(self.send(message, sender=sender, recipients=(accept,), address=address).code, code, (sender, author, address))
        self.assertEqual(self.boxes(), [1, 0, 0])
