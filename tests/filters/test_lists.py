"""White, black and grey lists: what an entry names, which one decides, for whom, and on what evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.filters.list_entries import Entry, read_entry, read_scope, read_subject
from mailserver.filters.list_table import REMEMBERED, EntryTable, Subject
from mailserver.filters.lists import factory
from mailserver.interfaces import CannotDo
from mailserver.mail.answers import Accept, Finding, Pass, Quarantine, Refuse
from mailserver.mail.faults import StorageBroken
from mailserver.mail.networks import ip_of
from mailserver.testing import FilterCase, MailCase
from tests.any_octets import any_octets

SPF = Finding("spf", 0.0, "", {"result": "pass", "domain": "example.net", "scope": "mfrom"}, "spf")
DKIM = Finding("dkim", 0.0, "", {"result": "pass", "domain": "example.net"}, "dkim")
ALICE, BOB = "alice@example.org", "bob@example.org"


class Entries(SynchronousTestCase):
    def test_what_an_entry_names_is_seen_from_its_form(self) -> None:
        for text, found in (
            ("Bob@Example.NET", ("address", "bob@example.net")),
            ("example.net", ("domain", "example.net")),
            ("@example.net", ("domain", "example.net")),
            (".Example.net", ("domain", ".example.net")),
            ("b\u00fccher.example", ("domain", "xn--bcher-kva.example")),
            ("192.0.2.7", ("network", "192.0.2.7/32")),
            ("2001:db8::/32", ("network", "2001:db8::/32")),
            ("::ffff:192.0.2.0/120", ("network", "192.0.2.0/24")),
            ("helo:mail.example.net", ("helo", "mail.example.net")),
            ("ptr:.example.net", ("ptr", ".example.net")),
            ("dkim:example.net", ("dkim", "example.net")),
        ):
            self.assertEqual(read_subject(text), found, text)
        for text in ("", "a b", "192.0.2.7/24", "192.0.2.0/40", "x:y", "dkim:", "address:bob", "network:example.net", "@", "a@", "\x00",
                     "dkim:[192.0.2.1]", "a@b@c"):  # fmt: skip
            self.assertRaises(ValueError, read_subject, text)

    def test_an_entry_is_read_from_its_record_as_it_was(self) -> None:
        for entry in (
            Entry("", "domain", "example.net", "black", hard=True, until=5.0, comment="why", added_by="root", added=1.0),
            Entry(ALICE, "address", "bob@example.net", "white", needs_evidence=False),
            Entry("@example.org", "network", "192.0.2.0/24", "grey"),
        ):
            self.assertEqual(read_entry(entry.key, entry.octets()), entry)

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=40), any_octets(max_size=60))
    def test_whatever_stands_in_the_records_is_an_entry_or_a_value_error(self, text: str, octets: bytes) -> None:
        for key in (text, f"\tdomain\t{text}", f"{text}\tdomain\texample.net", "\tdomain\texample.net"):
            try:
                read_entry(key, octets)
            except ValueError:
                pass

    def test_values_that_no_command_writes_are_no_entries(self) -> None:
        for value in (b"[]", b"1", b"{}", b'{"colour": 1}', b'{"colour": "white", "until": "x"}', b'{"colour": "black", "until": 1e999}',
                      b'{"colour": "black", "comment": "a\\nb"}', b"[" * 100_000, b'{"colour": "black", "added": true}'):  # fmt: skip
            self.assertRaises(ValueError, read_entry, "\tdomain\texample.net", value)
        self.assertRaises(ValueError, read_entry, f"{ALICE}\tdomain\texample.net", b'{"colour": "black", "hard": true}')
        self.assertRaises(ValueError, read_entry, "\tdomain\tEXAMPLE.net", b'{"colour": "black"}')

    def test_an_allow_entry_for_half_the_world_is_a_mistake(self) -> None:
        for kind, value in (("network", "0.0.0.0/0"), ("network", "::/0"), ("domain", ".net"), ("domain", "net"), ("dkim", ".com")):
            self.assertRaises(ValueError, Entry, "", kind, value, "white")
            Entry("", kind, value, "black")

    def test_scopes_are_the_site_a_domain_or_a_user(self) -> None:
        self.assertEqual([read_scope(one) for one in ("site", "", "@Example.ORG", "Alice@example.org")], ["", "", "@example.org", ALICE])
        for text in ("alice", "@", "a b@example.org"):
            self.assertRaises(ValueError, read_scope, text)


class Order(SynchronousTestCase):
    def order(self, subject: Subject, *entries: Entry, scopes: Any = (ALICE, "@example.org", "")) -> list[str]:
        return [one.words for one in EntryTable(entries).matching(subject, scopes, 0.0)]

    def test_hard_comes_first_then_user_domain_and_site(self) -> None:
        subject = Subject(("bob@example.net",))
        entries = [Entry(scope, "domain", "example.net", "black") for scope in ("", "@example.org", ALICE)]
        hard = Entry("", "domain", ".net", "black", hard=True)
        found = self.order(subject, *entries, hard)
        self.assertEqual([one.split("(")[1] for one in found], ["site)", f"user {ALICE})", "domain @example.org)", "site)"])

    def test_within_a_scope_the_most_specific_comes_first(self) -> None:
        from ipaddress import ip_address

        subject = Subject(
            ("bob@a.example.net",), ip_address("192.0.2.7"), "mx.example.net", ("h.example.net",), frozenset({"example.net"})
        )
        names = [
            "address:bob@a.example.net", "domain:a.example.net", "domain:.example.net", "domain:.net", "dkim:example.net",
            "network:192.0.2.7/32", "network:192.0.0.0/16", "ptr:h.example.net", "ptr:.example.net", "helo:.example.net",
        ]  # fmt: skip
        entries = [Entry("", *read_subject(name), "black") for name in reversed(names)]
        self.assertEqual([one.split()[1] for one in self.order(subject, *entries)], names)

    def test_entries_of_other_users_and_other_domains_do_not_speak(self) -> None:
        subject = Subject(("bob@example.net",))
        others = [Entry(scope, "domain", "example.net", "black") for scope in (BOB, "@example.com")]
        self.assertEqual(self.order(subject, *others), [])

    def test_a_domain_is_not_all_below_it_and_all_below_it_is_not_the_domain(self) -> None:
        exact, below = Entry("", "domain", "example.net", "black"), Entry("", "domain", ".example.net", "black")
        self.assertEqual(self.order(Subject(("b@example.net",)), exact, below), [exact.words])
        self.assertEqual(self.order(Subject(("b@a.example.net",)), exact, below), [below.words])
        self.assertEqual(self.order(Subject(("b@notexample.net",)), exact, below), [])

    def test_what_was_removed_is_gone_and_what_was_replaced_is_replaced(self) -> None:
        table = EntryTable()
        one = Entry(ALICE, "network", "192.0.2.0/24", "black")
        table.add(one)
        table.add(replace(one, colour="grey"))
        self.assertEqual([entry.colour for entry in table], ["grey"])
        table.remove(one)
        table.remove(one)
        self.assertEqual((len(table), table.somebody_is_against(Subject(("a@b.example",)))), (0, False))

    def test_an_entry_of_a_new_kind_counts_for_whom_was_looked_for_before(self) -> None:
        table, subject = EntryTable(), Subject(("bob@example.net",), ip_of("192.0.2.7"), names=("a.example.net",))
        network, name = Entry("", "network", "192.0.2.0/24", "black"), Entry("", "ptr", ".example.net", "black")
        for entry in (network, name):
            self.assertEqual(table.matching(subject, [""], 0.0), [network][: len(table)])
            table.add(entry)
        table.remove(network)
        self.assertEqual(table.matching(subject, [""], 0.0), [name])


    def test_what_is_remembered_of_one_subject_is_not_said_of_another(self) -> None:
        one = Subject(
            ("bob@example.net",), ip_of("192.0.2.7"), "mx.example.net", ("h.example.net",), frozenset({"example.net"})
        )
        others: list[dict[str, Any]] = [
            {"senders": ("eve@example.com",)}, {"ip": ip_of("198.51.100.7")}, {"hello": "mx.example.com"},
            {"names": ("h.example.com",)}, {"signers": frozenset({"example.com"})},
        ]  # fmt: skip
        wanted = ["address:bob@example.net", "network:192.0.2.7/32", "helo:mx.example.net", "ptr:h.example.net", "dkim:example.net"]
        entries = [Entry("", *read_subject(name), "black") for name in wanted]
        table = EntryTable(entries)
        for other, entry in zip(others, entries, strict=True):
            self.assertIn(entry, table.matching(one, [""], 0.0))
            self.assertNotIn(entry, table.matching(replace(one, **other), [""], 0.0))
            self.assertEqual(table.matching(one, [ALICE], 0.0), [])

    def test_what_is_remembered_is_bounded(self) -> None:
        table = EntryTable([Entry("", "domain", "example.net", "black")])
        for n in range(2 * REMEMBERED + 10):
            table.matching(Subject((f"u{n}@example.net",)), [""], 0.0)
        self.assertLessEqual(len(table._remembered), REMEMBERED)
        before = len(table._remembered)
        table.matching(Subject(names=tuple([f"h{n}.example.net" for n in range(100)])), [""], 0.0)
        self.assertEqual(len(table._remembered), before)


class ListsCase(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.filter = self.build(factory)
        self.answer(self.filter.start())

    def order(self, command: str, **arguments: Any) -> Any:
        run = next(one.run for one in self.filter.commands() if one.name == command)
        return self.answer(run(**arguments))

    def add(self, colour: str, entry: str, scope: str = "", **more: Any) -> None:
        self.order("add", colour=colour, entry=entry, scope=scope, **more)

    def at_mail(self, *findings: Finding, **more: Any) -> Any:
        return self.judge(self.filter.judge_sender(replace(self.envelope(**more), findings=findings)))

    def at_rcpt(self, recipient: str = ALICE, *findings: Finding, **more: Any) -> Any:
        envelope = replace(self.envelope(**more), findings=findings)
        return self.judge(self.filter.judge_recipient(envelope, self.recipient(recipient)))

    def after_data(self, recipient: str = ALICE, *findings: Finding, message: bytes = b"From: sender@example.net\n\nx\n", **more: Any) -> Any:
        envelope = replace(self.envelope(**more), findings=findings)
        return self.judge(self.filter.judge_content_for(envelope, self.content(message), self.recipient(recipient)))


class Evidence(ListsCase):
    def test_an_allowed_address_helps_only_where_spf_dkim_or_dmarc_shows_it(self) -> None:
        self.add("white", "sender@example.net")
        self.assertPassed(self.at_mail())
        self.assertPassed(self.at_rcpt())
        forged = self.after_data()
        self.assertIs(type(forged), Pass)
        self.assertEqual(forged.findings[0].properties["result"], "unproved")
        for proof in (SPF, DKIM, replace(DKIM, name="dmarc")):
            self.assertAccepted(self.after_data(ALICE, proof), "white address:sender@example.net")
        self.assertAccepted(self.at_rcpt(ALICE, SPF))
        self.assertAccepted(self.at_mail(SPF))

    def test_a_pass_for_another_domain_shows_nothing(self) -> None:
        self.add("white", "example.net")
        for proof in (
            replace(SPF, properties={**SPF.properties, "domain": "evil.example"}),
            replace(SPF, properties={**SPF.properties, "domain": "evil.example.net"}),
            replace(SPF, properties={**SPF.properties, "domain": "net"}),
            replace(SPF, properties={**SPF.properties, "scope": "helo"}),
            replace(SPF, properties={**SPF.properties, "result": "softfail"}),
            replace(DKIM, properties={**DKIM.properties, "partial": True}),
            replace(DKIM, properties={**DKIM.properties, "testing": True}),
            replace(DKIM, name="rspamd"),
        ):
            self.assertIs(type(self.after_data(ALICE, proof)), Pass, proof)

    def test_a_domain_above_answers_for_those_below_it(self) -> None:
        self.add("white", "news.example.net")
        self.assertAccepted(self.after_data(ALICE, DKIM, sender="a@news.example.net", message=b"From: a@news.example.net\n\nx\n"))

    def test_an_entry_that_wants_no_evidence_believes_everybody(self) -> None:
        self.add("white", "sender@example.net", evidence="none")
        self.assertAccepted(self.at_rcpt())

    def test_the_author_counts_like_the_sender_where_a_signature_of_his_domain_verifies(self) -> None:
        self.add("white", "carol@example.net", ALICE)
        message = b"From: Carol <carol@example.net>\n\nx\n"
        self.assertAccepted(self.after_data(ALICE, DKIM, sender="bounce@lists.example", message=message))
        self.assertIs(type(self.after_data(ALICE, sender="bounce@lists.example", message=message)), Pass)
        for odd in (b"From: carol@example.net, evil@evil.example\n\nx\n", b"From: carol@example.net\nFrom: x@evil.example\n\nx\n",
                    b"From: \xff<\n\nx\n", b"\n\nx\n"):  # fmt: skip
            self.assertPassed(self.after_data(ALICE, DKIM, sender="bounce@lists.example", message=odd))

    def test_somebody_elses_signature_does_not_prove_the_sender(self) -> None:
        self.add("white", "sender@example.net")
        evil = replace(DKIM, properties={"result": "pass", "domain": "evil.example"})
        message = b"From: x@evil.example\n\nx\n"
        self.assertIs(type(self.after_data(ALICE, evil, message=message)), Pass)

    def test_networks_and_signers_are_their_own_evidence(self) -> None:
        self.add("white", "192.0.2.0/24", ALICE)
        self.assertAccepted(self.at_rcpt(), "network:192.0.2.0/24")
        self.assertAccepted(self.at_rcpt(peer=self.peer("::ffff:192.0.2.9")))
        self.assertPassed(self.at_rcpt(peer=self.peer("192.0.3.1")))
        self.assertPassed(self.at_rcpt(peer=self.peer("unix")))
        self.add("white", "dkim:example.net", BOB)
        self.assertAccepted(self.after_data(BOB, DKIM), "dkim:example.net")
        self.assertPassed(self.after_data(BOB))

    def test_a_confirmed_name_is_evidence_for_itself_and_for_hello(self) -> None:
        self.resolver.zones["25.2.0.192.in-addr.arpa"] = {"PTR": ["client.example.net"]}
        self.resolver.zones["client.example.net"] = {"A": ["192.0.2.25"]}
        self.add("white", "ptr:.example.net", ALICE)
        self.add("white", "helo:client.example.net", BOB)
        self.assertAccepted(self.at_rcpt(ALICE), "ptr")
        self.assertAccepted(self.at_rcpt(BOB), "helo")
        self.assertPassed(self.at_rcpt(BOB, peer=self.peer("192.0.2.26")))
        self.resolver.failing.add("26.2.0.192.in-addr.arpa")
        self.assertPassed(self.at_rcpt(ALICE, peer=self.peer("192.0.2.26")))
        helo = replace(SPF, properties={"result": "pass", "domain": "client.example.net", "scope": "helo"})
        self.assertAccepted(self.at_rcpt(BOB, helo, peer=self.peer("192.0.2.27")))

    def test_a_black_entry_needs_no_evidence(self) -> None:
        self.add("black", "sender@example.net")
        self.assertRefused(self.at_rcpt(), "black address")
        self.add("black", "helo:bad.example", ALICE)
        self.assertRefused(self.at_rcpt(sender=None, peer=self.peer(hello="bad.example")))

    def test_a_refusal_waits_for_the_message_where_a_signature_may_still_help(self) -> None:
        self.add("black", "example.net")
        self.add("white", "sender@example.net", ALICE)
        self.assertPassed(self.at_rcpt())
        self.assertRefused(self.at_rcpt(BOB))
        self.assertAccepted(self.after_data(ALICE, DKIM))
        self.assertRefused(self.after_data(ALICE))


class Decisions(ListsCase):
    def test_each_recipient_goes_by_his_own_entries(self) -> None:
        self.add("grey", "example.net")
        self.add("black", "sender@example.net", "@example.com")
        self.add("white", "sender@example.net", ALICE)
        self.add("black", "sender@example.net", BOB)
        self.add("white", "sender@example.net", "dave@example.com")
        for recipient, verdict in (
            (ALICE, Accept), ("alice+shop@example.org", Accept), ("ALICE@EXAMPLE.org", Accept), (BOB, Refuse),
            ("carol@example.org", Pass), ("carol@example.com", Refuse), ("dave@example.com", Accept), ("postmaster@example.org", Pass),
        ):  # fmt: skip
            self.assertIs(type(self.at_rcpt(recipient, SPF)), verdict, recipient)
            self.assertIs(type(self.after_data(recipient, SPF)), verdict, recipient)
        [grey] = self.at_rcpt("carol@example.org", SPF).findings
        self.assertEqual((grey.name, grey.score, grey.properties["colour"], grey.properties["scope"]), ("list", 3.0, "grey", "site"))

    def test_a_hard_entry_of_the_site_is_beyond_users(self) -> None:
        self.add("black", "example.net", hard=True)
        self.add("white", "sender@example.net", ALICE)
        self.assertRefused(self.at_mail(SPF), "hard black")
        self.assertRefused(self.at_rcpt(ALICE, SPF))
        self.order("remove", entry="example.net")
        self.assertPassed(self.at_mail(SPF))
        self.assertAccepted(self.at_rcpt(ALICE, SPF))

    def test_at_mail_an_allow_entry_of_the_site_stands_back_where_a_user_says_otherwise(self) -> None:
        self.add("white", "example.net")
        self.assertAccepted(self.at_mail(SPF))
        self.add("grey", "sender@example.net", ALICE)
        self.assertPassed(self.at_mail(SPF))
        self.assertAccepted(self.at_rcpt(BOB, SPF))
        self.assertIs(type(self.at_rcpt(ALICE, SPF)), Pass)
        self.add("white", "example.net", hard=True)
        self.assertAccepted(self.at_mail(SPF))

    def test_a_users_allow_entry_says_nothing_at_mail(self) -> None:
        self.add("white", "sender@example.net", ALICE)
        self.assertPassed(self.at_mail(SPF))

    def test_an_entry_ends(self) -> None:
        self.add("black", "example.net", seconds=60.0)
        self.clock.advance(59)
        self.assertRefused(self.at_rcpt())
        self.clock.advance(1)
        self.assertPassed(self.at_rcpt())
        self.assertTrue(self.order("show")[0]["ended"])
        self.answer(self.filter.run_periodically())
        self.assertEqual(self.order("show"), [])
        self.assertEqual(self.answer(self.records.items()), [])

    def test_a_decision_is_counted_and_weighed_once_for_a_message_and_a_recipient(self) -> None:
        self.add("grey", "example.net")
        [finding] = self.at_rcpt().findings
        self.assertPassed(self.after_data(ALICE, replace(finding, source="tested")))
        self.assertEqual(self.order("show")[0]["hits"], 1)
        self.at_rcpt(BOB)
        self.assertEqual(self.order("show", scope="site", entry="example.net")[0]["hits"], 2)
        self.order("remove", entry="example.net")
        self.add("grey", "example.net")
        self.assertEqual(self.order("show")[0]["hits"], 0)

    def test_mail_does_not_wait_for_a_store_that_counts_nothing(self) -> None:
        async def broken(*_: Any) -> int:
            raise StorageBroken("no disk")

        self.add("black", "example.net")
        self.patch(self.state, "add", broken)
        self.patch(self.state, "get", broken)
        self.assertRefused(self.at_rcpt())
        self.assertIsNone(self.order("show")[0]["hits"])

    def test_black_can_mean_quarantine(self) -> None:
        self.filter = self.build(factory, black="quarantine")
        self.answer(self.filter.start())
        self.add("black", "example.net")
        self.assertIs(type(self.at_rcpt()), Quarantine)

    def test_impossible_names_are_nobodys(self) -> None:
        self.add("black", "example.net")
        self.assertPassed(self.at_rcpt(sender="a@[192.0.2.1]", peer=self.peer(hello="\u00ad.\u2025")))
        self.assertPassed(self.at_rcpt(sender=None, peer=self.peer(hello="." * 300)))
        self.assertPassed(self.at_rcpt(sender="a@" + "a." * 100 + "example", peer=self.peer(hello="[192.0.2.1]")))


class Keeping(ListsCase):
    def test_entries_outlive_the_component_and_an_import_is_read(self) -> None:
        self.add("black", "example.net", comment="why", by="root")
        other = self.build(factory)
        self.answer(other.start())
        self.assertRefused(self.judge(other.judge_recipient(self.envelope(), self.recipient())))
        self.answer(self.records.drop("\tdomain\texample.net"))
        self.answer(other.run_periodically())
        self.assertPassed(self.judge(other.judge_recipient(self.envelope(), self.recipient())))

    def test_records_that_are_no_entries_do_nothing_and_stop_nothing(self) -> None:
        self.add("black", "example.net")
        for key in ("x", "\tdomain\texample.com", "a\tb\tc", "\t\t\t"):
            self.answer(self.records.put(key, b"\xff{"))
        self.answer(self.filter.run_periodically())
        self.assertRefused(self.at_rcpt())
        self.assertEqual(len(self.order("show")), 1)

    def test_an_entry_that_was_not_kept_does_not_count(self) -> None:
        async def broken(*_: Any) -> None:
            raise StorageBroken("no disk")

        self.patch(self.records, "put", broken)
        with self.assertRaises(StorageBroken):
            self.add("black", "example.net")
        self.assertPassed(self.at_rcpt())

    def test_an_entry_that_comes_while_all_are_read_is_not_lost(self) -> None:
        items, gate = self.records.items, Deferred[None]()

        async def slow(*first: Any, **most: Any) -> Any:
            found = await items(*first, **most)
            await gate
            return found

        self.patch(self.records, "items", slow)
        reading = self.begin(self.filter.run_periodically())
        self.add("black", "example.net")
        gate.callback(None)
        self.answer(reading)
        self.assertRefused(self.at_rcpt())

    def test_what_makes_no_sense_is_refused_in_words(self) -> None:
        for more in (
            {"entry": "192.0.2.1/24"}, {"entry": ""}, {"scope": "alice"}, {"hard": True, "scope": ALICE}, {"seconds": 0},
            {"seconds": -1.0}, {"comment": "a\nb"}, {"comment": "x" * 501}, {"comment": "\u202e"}, {"colour": "white", "entry": ".net"},
            {"seconds": 1e300},
        ):  # fmt: skip
            with self.assertRaises(CannotDo):
                self.order("add", **{"colour": "black", "entry": "example.net", **more})
        with self.assertRaises(CannotDo):
            self.order("remove", entry="example.net")
        self.assertEqual(self.order("show"), [])

    def test_what_need_not_be_said_of_an_entry_need_not_be_said(self) -> None:
        needed = {one.name: [each.name for each in one.arguments if each.required] for one in self.filter.commands()}
        self.assertEqual(needed, {"add": ["colour", "entry"], "remove": ["entry"], "show": [], "test": ["sender"]})

    def test_who_allows_without_evidence_what_anybody_can_say_is_warned(self) -> None:
        for colour, entry, evidence, is_warned in (
            ("white", "example.net", "none", True), ("white", "helo:mx.example.net", "none", True), ("white", "example.com", "aligned", False),
            ("white", "192.0.2.0/24", "none", False), ("white", "ptr:mx.example.net", "none", False), ("black", "example.org", "none", False),
        ):  # fmt: skip
            said = self.order("add", colour=colour, entry=entry, evidence=evidence)
            self.assertEqual("whoever says that he is the one" in said, is_warned, entry)

    def test_a_name_that_was_given_is_shown_by_spf_or_by_the_dns_and_not_by_a_signature(self) -> None:
        self.add("white", "helo:mx.example.net")
        for more, says in (
            ({}, "lacks evidence"), ({"spf": "mx.example.net"}, "decides"), ({"ptr": "mx.example.net"}, "decides"),
            ({"dkim": "mx.example.net"}, "lacks evidence"), ({"spf": "example.net"}, "lacks evidence"),
        ):  # fmt: skip
            rows = self.order("test", sender="bob@example.net", helo="mx.example.net", **more)
            self.assertEqual([row["says"] for row in rows], [says], more)
        peer = self.peer(hello="mx.example.net")
        signed = Finding("dkim", 0.0, "", {"result": "pass", "domain": "mx.example.net"}, "dkim")
        passed = Finding("spf", 0.0, "", {"result": "pass", "domain": "mx.example.net", "scope": "helo"}, "spf")
        for finding, kind in ((signed, Pass), (passed, Accept)):
            envelope = replace(self.envelope(peer=peer), findings=(finding,))
            self.assertIs(type(self.judge(self.filter.judge_content_for(envelope, self.content(), self.recipient()))), kind)

    def test_test_says_which_entry_decides(self) -> None:
        self.add("black", "example.net")
        self.add("white", "bob@example.net", ALICE)
        rows = self.order("test", sender="bob@example.net", recipient=ALICE)
        self.assertEqual([(row["says"], row["colour"]) for row in rows], [("lacks evidence", "white"), ("decides", "black")])
        rows = self.order("test", sender="bob@example.net", recipient=ALICE, spf="example.net")
        self.assertEqual([(row["says"], row["colour"]) for row in rows], [("decides", "white"), ("comes too late", "black")])
        self.assertEqual(self.order("show")[1]["hits"], 0)
        self.assertEqual([row["scope"] for row in self.order("test", sender="bob@example.net")], ["site"])
        for odd in ({"ip": "x"}, {"recipient": "x"}, {"sender": "x"}, {"helo": "a b"}):
            with self.assertRaises(CannotDo):
                self.order("test", **{"sender": "bob@example.net", **odd})


class Mail(MailCase):
    def serve_lists(self, more: str = "") -> None:
        self.resolver.zones["example.net"] = {"TXT": ["v=spf1 ip4:192.0.2.25 ip4:11.2.3.25 ip4:11.2.3.27 -all"]}
        text = '[[filter]]\nuse = "spf"\nfailed = 20.0\n[[filter]]\nuse = "scores"\n[[filter]]\nuse = "lists"\n'
        self.serve(text + more)

    def add(self, colour: str, entry: str, scope: str = "", **more: Any) -> None:
        run = next(one.run for one in self.component("lists").commands() if one.name == "add")
        self.answer(run(colour=colour, entry=entry, scope=scope, **more))

    def test_a_forged_allowed_sender_is_not_helped_and_the_true_one_is(self) -> None:
        self.serve_lists()
        self.add("white", "sender@example.net")
        self.assertEqual(self.send(address="198.51.100.66").code, 550)
        self.assertEqual(self.send().code, 250)

    def test_one_users_entry_never_helps_a_message_to_another(self) -> None:
        self.serve_lists()
        self.add("white", "198.51.100.0/24", "alice@example.org")
        sent = self.send(address="198.51.100.66", recipients=("alice@example.org", "bob@example.org"))
        self.assertEqual(sent.code, 250)
        self.assertEqual((len(self.mailbox("alice@example.org")), self.mailbox("bob@example.org")), (1, []))

    def test_a_change_counts_from_the_next_command_of_a_connection_on(self) -> None:
        self.serve_lists()
        dialogue = self.connect()
        dialogue.say("MAIL FROM:<sender@example.net>")
        self.assertEqual(dialogue.must("RCPT TO:<alice@example.org>").code, 250)
        self.add("black", "192.0.2.25", "bob@example.org")
        self.assertEqual(dialogue.must("RCPT TO:<bob@example.org>").code, 550)
        self.assertEqual(dialogue.must("RCPT TO:<alice@example.org>").code, 250)

    def test_who_is_allowed_is_spared_by_lists_in_the_dns_and_by_the_greylist(self) -> None:
        zones = self.resolver.zones
        for name in ("2.0.0.127", "25.3.2.11", "26.3.2.11"):
            zones[f"{name}.bl.example"] = {"A": ["127.0.0.2"]}
        self.serve_lists(
            '[[filter]]\nuse = "dnsbl"\nverdict = "refuse"\nthreshold = 3\n[[filter.list]]\nzone = "bl.example"\nscore = 30.0\n'
            '[[filter]]\nuse = "greylist"\neverybody = true\n'
        )
        self.assertEqual(self.send(address="11.2.3.25").code, 550)
        self.add("white", "sender@example.net")
        self.assertEqual(self.send(address="11.2.3.25").code, 250)
        self.assertEqual(self.send(address="11.2.3.26").code, 550)
        self.add("white", "11.2.3.27", "bob@example.org")
        dialogue = self.connect("11.2.3.27")
        dialogue.say("MAIL FROM:<other@example.net>")
        codes = [dialogue.must(f"RCPT TO:<{one}@example.org>").code for one in ("bob", "alice")]
        self.assertEqual(codes, [250, 450])

    def test_a_grey_entry_makes_a_sender_doubtful_for_the_greylist(self) -> None:
        self.serve_lists('[[filter]]\nuse = "greylist"\n')
        self.add("grey", "sender@example.net", "alice@example.org")
        dialogue = self.connect("11.2.3.25")
        dialogue.say("MAIL FROM:<sender@example.net>")
        codes = [dialogue.must(f"RCPT TO:<{one}@example.org>").code for one in ("bob", "alice")]
        self.assertEqual(codes, [250, 450])

    def test_each_of_three_recipients_has_his_own_outcome_on_every_way_in(self) -> None:
        wishes = {"alice": "black", "bob": "white", "carol": "grey"}
        for service, login in (("mx", ""), ("lmtp", ""), ("submission", "alice@example.org")):
            sender = "alice@example.org" if login else "sender@example.net"
            self.serve_lists()
            for user, colour in wishes.items():
                self.add(colour, sender, f"{user}@example.org", evidence="none")
            dialogue = self.connect(service=service, login=login)
            dialogue.say(f"MAIL FROM:<{sender}>")
            codes = [dialogue.must(f"RCPT TO:<{user}@example.org>").code for user in ("alice", "bob", "carol")]
            self.assertEqual(codes, [550, 250, 250], service)

    def test_what_is_hard_refuses_whom_an_entry_allows(self) -> None:
        for kind, code in (("hard", 550), ("skippable", 250)):
            table = f'use = "denylist"\nafter = ["lists"]\n{kind} = true\nsenders = ["sender@example.net"]\n'
            self.serve_lists(f"[[filter]]\n{table}")
            self.add("white", "192.0.2.25", hard=True)
            self.assertEqual(self.send().code, code)

    def test_an_author_whom_one_recipient_does_not_want_reaches_the_other(self) -> None:
        self.serve_lists()
        self.add("black", "author@elsewhere.example", "bob@example.org")
        message = b"From: author@elsewhere.example\nSubject: x\n\nx\n"
        both = ("alice@example.org", "bob@example.org")
        self.assertEqual(self.send(message, recipients=both).code, 250)
        self.assertEqual((len(self.mailbox("alice@example.org")), self.mailbox("bob@example.org")), (1, []))
        self.assertEqual(self.mailbox("bob@example.org", "Junk"), [])
        self.assertEqual(self.send(message, recipients=("bob@example.org",)).code, 550)
        self.assertEqual(self.sent_to("sender@example.net"), [])
