"""The filter that looks at what a peer shows of itself."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import fail

from mailserver.api import (
    ConfigurationError,
    Defer,
    Envelope,
    Finding,
    LookupFailed,
    Pass,
    Peer,
    Refuse,
    TLSFacts,
)
from mailserver.filters.peer_rules import factory
from mailserver.testing import FilterCase, FilterContract, MailCase
from tests.documents import blocks, page_text

ADDRESS, NAME = "8.4.4.8", "client.example.net"
REVERSE = "8.4.4.8.in-addr.arpa"
TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")


class Rules(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.resolver.zones[REVERSE] = {"PTR": [NAME]}
        self.resolver.zones[NAME] = {"A": [ADDRESS]}

    def said(self, component: Any, address: str = ADDRESS, tls: TLSFacts | None = TLS, **facts: Any) -> Any:
        return self.judge(component.judge_sender(self.envelope(peer=self.peer(address, tls=tls, **facts))))

    def broken(self, component: Any, **facts: Any) -> list[tuple[str, float]]:
        """Name (or rule) and score of what speaks against the peer."""
        findings = self.said(component, **facts).findings
        return [(one.properties.get("rule", one.name), one.score) for one in findings if one.properties.get("result") != "pass"]

    def test_who_is_as_he_should_be_breaks_nothing_and_his_name_is_found(self) -> None:
        verdict = self.said(self.build(factory))
        self.assertIs(type(verdict), Pass)
        [finding] = verdict.findings
        self.assertEqual((finding.name, finding.score, finding.evidence), ("reverse-name", 0.0, NAME))
        self.assertEqual({**finding.properties}, {"result": "pass", "name": NAME})

    def test_names_that_are_not_confirmed_are_none(self) -> None:
        component = self.build(factory, reverse_name=1.25)
        for zones, broken in (
            ({}, [("reverse-name", 1.25)]),
            ({REVERSE: {"PTR": [NAME]}, NAME: {"A": ["8.4.4.9"]}}, [("reverse-name", 1.25)]),
            ({REVERSE: {"PTR": ["other.example.net"]}, NAME: {"A": [ADDRESS]}}, [("reverse-name", 1.25)]),
            ({REVERSE: {"PTR": ["x.example", NAME]}, NAME: {"A": [ADDRESS]}}, []),
        ):
            self.resolver.zones = {NAME: {"A": [ADDRESS]}, **zones}
            self.assertEqual(self.broken(component), broken, zones)

    def test_a_dns_that_cannot_tell_breaks_no_rule(self) -> None:
        component = self.build(factory, refuse=["reverse_name", "hello_unknown"], wait="2s")
        self.resolver.failing |= {REVERSE, "other.example.net"}
        verdict = self.said(component, hello="other.example.net")
        self.assertIs(type(verdict), Pass)
        self.assertEqual([one.properties["result"] for one in verdict.findings], ["temperror"])
        self.resolver.failing.clear()
        self.resolver.silent |= {REVERSE, "other.example.net"}
        waiting = self.begin(component.judge_sender(self.envelope(peer=self.peer(ADDRESS, hello="other.example.net"))))
        self.clock.advance(2)
        self.assertNoResult(waiting)
        self.clock.advance(2)
        self.assertIs(type(self.judge(waiting)), Pass)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_names_are_looked_up_once_for_a_connection(self) -> None:
        component = self.build(factory)
        peer = self.peer(ADDRESS, hello="")
        verdict = self.judge(component.judge_peer(peer))
        self.assertEqual((type(verdict), verdict.findings), (Pass, ()))
        peer.notes.keep("tested", verdict.notes)
        self.resolver.zones.pop(REVERSE)
        later = Peer(ADDRESS, 1, "mx", NAME, "EHLO", TLS, notes=peer.notes, look_up=self.resolver.query)
        self.assertEqual(self.judge(component.judge_peer(later)), Pass())
        verdict = self.judge(component.judge_sender(self.envelope(peer=later)))
        self.assertEqual([one.properties["result"] for one in verdict.findings], ["pass"])

    def test_each_rule_of_the_name_given_has_its_score(self) -> None:
        component = self.build(
            factory, hello_syntax=11, hello_short=12, hello_own=13, hello_address=14, hello_other_address=15, hello_unknown=16,
            own_names=["Example.org"], own_networks=["5.9.1.0/28"],
        )  # fmt: skip
        for hello, broken in (
            (NAME, []),
            ("[8.4.4.8]", []),
            ("my host", [("hello_syntax", 11)]),
            ("mailhost", [("hello_short", 12)]),
            ("mail.example.test", [("hello_own", 13)]),
            ("example.org", [("hello_own", 13)]),
            ("[5.9.1.2]", [("hello_own", 13)]),
            ("8.4.4.8", [("hello_address", 14)]),
            ("[8.4.4.9]", [("hello_other_address", 15)]),
            ("nowhere.example", [("hello_unknown", 16)]),
        ):
            self.assertEqual(self.broken(component, hello=hello), broken, hello)

    def test_a_host_is_known_by_an_address_or_a_mail_exchanger(self) -> None:
        component = self.build(factory)
        for types, known in (
            ({"A": ["8.8.4.4"]}, True), ({"AAAA": ["2001:db8::1"]}, True), ({"MX": ["1 mx.example"]}, True), ({"TXT": ["x"]}, False),
        ):  # fmt: skip
            self.resolver.zones["host.example"] = types
            self.assertEqual(self.broken(component, hello="host.example"), [] if known else [("hello_unknown", 0.5)])

    def test_a_name_that_does_not_exist_is_asked_for_once_and_one_failed_answer_is_not_the_end(self) -> None:
        component = self.build(factory)
        self.assertEqual(self.broken(component, hello="nowhere.example"), [("hello_unknown", 0.5)])
        self.assertEqual([kind for name, kind in self.resolver.asked if name == "nowhere.example"], ["A"])
        query = self.resolver.query

        def half_dead(name: str, record_type: str) -> Any:
            return fail(LookupFailed("dead")) if record_type == "A" and name == "six.example" else query(name, record_type)

        self.resolver.query = half_dead  # type: ignore[method-assign]
        asked = self.resolver.asked
        for types, last in (({"AAAA": ["2001:db8::1"]}, "AAAA"), ({"MX": ["1 mx.example"]}, "MX"), ({"TXT": ["x"]}, "MX")):
            self.resolver.zones["six.example"] = types
            self.assertEqual(self.broken(self.build(factory), hello="six.example"), [])
            self.assertEqual([kind for name, kind in asked if name == "six.example"][-1], last)

    def test_nobody_asks_for_the_name_given_where_it_does_not_count(self) -> None:
        self.said(self.build(factory, hello_unknown=0), hello="nowhere.example")
        self.assertNotIn("nowhere.example", [name for name, _ in self.resolver.asked])
        said = self.said(self.build(factory, hello_unknown=0, defer=["hello_unknown"]), hello="nowhere.example")
        self.assertDeferred(said, "no such host")

    def test_verdicts_by_rule_have_the_code_that_says_it_best(self) -> None:
        self.resolver.zones.pop(REVERSE)
        for options, facts, kind, enhanced in (
            ({"refuse": ["reverse_name"]}, {}, Refuse, "5.7.25"),
            ({"defer": ["reverse_name"]}, {}, Defer, "4.7.25"),
            ({"refuse": ["cleartext"]}, {"tls": None}, Refuse, "5.7.10"),
            ({"defer": ["cleartext"]}, {"tls": None}, Defer, "4.7.10"),
            ({"refuse": ["hello_short"]}, {"hello": "host"}, Refuse, "5.7.1"),
            ({"defer": ["reverse_name"], "refuse": ["cleartext"]}, {"tls": None}, Refuse, "5.7.10"),
        ):
            verdict = self.said(self.build(factory, **options), **facts)  # type: ignore[arg-type]
            self.assertEqual((type(verdict), verdict.enhanced), (kind, enhanced), options)
            self.assertTrue(verdict.findings)
        self.assertIs(type(self.said(self.build(factory, refuse=["cleartext"]))), Pass)

    def test_cleartext_is_a_finding_with_its_score(self) -> None:
        self.assertEqual(self.broken(self.build(factory, cleartext=0.7), tls=None), [("cleartext", 0.7)])

    def test_no_rule_applies_to_log_ins_our_own_networks_and_accepted_peers(self) -> None:
        component = self.build(factory, refuse=["reverse_name", "cleartext", "hello_own"], exempt=["8.4.0.0/16"])
        for address, facts in (
            ("127.0.0.1", {}), ("10.0.0.9", {}), ("fd00::9", {}), ("unix", {}), ("local", {}), ("proxy:9.9.9.9", {}),
            ("8.4.4.8", {}), ("9.9.9.9", {"login": "user"}), ("9.9.9.9", {"service": "submission"}), ("9.9.9.9", {"service": "lmtp"}),
        ):  # fmt: skip
            more: dict[str, Any] = {"hello": "localhost", **facts}
            self.assertEqual(self.said(component, address, None, **more), Pass(), address)
            self.assertEqual(self.judge(component.judge_peer(self.peer(address, **{**more, "hello": ""}))), Pass())
        accepted = Envelope("1", self.peer("9.9.9.9", tls=TLS), None, (), 0.0, findings=(Finding("accepted", source="lists"),))
        self.assertEqual(self.judge(component.judge_sender(accepted)), Pass())
        self.assertEqual(self.resolver.asked, [])

    def test_who_has_been_accepted_still_has_to_encrypt(self) -> None:
        component = self.build(factory, refuse=["reverse_name", "cleartext"])
        accepted = Envelope("1", self.peer("9.9.9.9"), None, (), 0.0, findings=(Finding("accepted", source="lists"),))
        verdict = self.judge(component.judge_sender(accepted))
        self.assertRefused(verdict, "encryption")
        self.assertEqual([one.name for one in verdict.findings], ["cleartext"])
        self.assertEqual(self.resolver.asked, [])

    def test_faults_of_the_configuration_are_named(self) -> None:
        for options, words in (
            ({"refuse": ["nonsense"]}, "refuse"),
            ({"refuse": ["cleartext"], "defer": ["cleartext"]}, "cannot do both"),
            ({"hello_own": float("inf")}, "hello_own"),
            ({"wait": 0}, "wait"),
        ):
            with self.assertRaisesRegex(ConfigurationError, words):
                self.build(factory, **options)  # type: ignore[arg-type]


class PeerRulesKeepTheContract(FilterContract, FilterCase):
    def make(self) -> Any:
        return self.build(factory)


class OverSMTP(MailCase):
    def test_who_takes_our_name_is_refused_at_mail_but_not_who_logs_in(self) -> None:
        self.serve('[[filter]]\nuse = "peer_rules"\nrefuse = ["hello_own"]\n')
        dialogue = self.connect(ADDRESS, hello="localhost")
        self.assertEqual(dialogue.say("MAIL FROM:<x@example.net>").code, 550)
        self.assertEqual(dialogue.say("EHLO client.example.net").code, 250)
        self.assertEqual(dialogue.say("MAIL FROM:<x@example.net>").code, 250)
        dialogue = self.connect(ADDRESS, hello="localhost", service="submission", login="alice@example.org")
        self.assertEqual(dialogue.say("MAIL FROM:<alice@example.org>").code, 250)

    def test_the_page_shows_a_table_that_loads(self) -> None:
        [page] = [block for block in blocks(page_text("filters.md"), "toml") if '"peer_rules"' in block]
        self.serve(page)
        self.assertEqual(self.component("peer_rules")._options.refuse, ("hello_own", "hello_address"))
