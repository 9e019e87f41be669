"""The filter that asks for SPF: whom it asks about, and what it finds."""

from __future__ import annotations

from typing import Any

from mailserver.filters.spf import SECONDS, factory
from mailserver.mail.answers import Pass
from mailserver.testing import FilterCase, MailCase

RECORD = {"TXT": ["v=spf1 ip4:192.0.2.25 ~all"]}


class Findings(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.resolver.zones["example.net"] = RECORD

    def found(self, envelope: Any, **options: Any) -> list[tuple[str, str, str, float]]:
        verdict = self.judge(self.build(factory, **options).judge_sender(envelope))
        self.assertIs(type(verdict), Pass)
        return [(one.properties["scope"], one.properties["result"], one.properties["domain"], one.score) for one in verdict.findings]

    def test_a_host_that_may_send_for_the_sender(self) -> None:
        verdict = self.judge(self.build(factory, passed=-0.2).judge_sender(self.envelope()))
        [finding] = verdict.findings
        self.assertEqual((finding.name, finding.score), ("spf", -0.2))
        self.assertEqual(finding.evidence, "pass mfrom example.net for 192.0.2.25: by ip4:192.0.2.25")

    def test_each_result_has_its_score_and_none_refuses(self) -> None:
        for record, result, option in (
            ("v=spf1 -all", "fail", "failed"),
            ("v=spf1 ~all", "softfail", "softfail"),
            ("v=spf1 ?all", "neutral", "neutral"),
            ("v=spf1 +all", "pass", "passed"),
            ("v=spf1 nonsense", "permerror", "permerror"),
            ("nothing", "none", "none"),
        ):
            self.resolver.zones["example.net"] = {"TXT": [record]}
            self.assertEqual(self.found(self.envelope(), **{option: 7.0}), [("mfrom", result, "example.net", 7.0)])
        self.resolver.failing.add("example.net")
        self.assertEqual(self.found(self.envelope(), temperror=0.5), [("mfrom", "temperror", "example.net", 0.5)])

    def test_without_a_sender_the_hello_name_is_judged(self) -> None:
        self.resolver.zones["client.example.net"] = {"TXT": ["v=spf1 -all"]}
        self.assertEqual(self.found(self.envelope(None)), [("helo", "fail", "client.example.net", 2.0)])
        self.assertEqual(self.found(self.envelope(None, peer=self.peer(hello="[192.0.2.25]"))), [("helo", "none", "", 0.0)])

    def test_beside_a_sender_the_hello_name_counts_only_where_it_fails(self) -> None:
        self.resolver.zones["client.example.net"] = {"TXT": ["v=spf1 -all"]}
        self.assertEqual(
            self.found(self.envelope()), [("mfrom", "pass", "example.net", 0.0), ("helo", "fail", "client.example.net", 2.0)]
        )
        self.resolver.zones["client.example.net"] = {"TXT": ["v=spf1 +all"]}
        self.resolver.zones["example.net"] = {"TXT": ["v=spf1 -all"]}
        self.assertEqual(
            self.found(self.envelope(), passed=-5.0),
            [("mfrom", "fail", "example.net", 2.0), ("helo", "pass", "client.example.net", 0.0)],
        )

    def test_a_domain_of_another_script_is_asked_for_as_the_dns_has_it(self) -> None:
        self.resolver.zones["xn--bcher-kva.example"] = RECORD
        self.assertEqual(self.found(self.envelope("a@b\u00fccher.example")), [("mfrom", "pass", "xn--bcher-kva.example", 0.0)])

    def test_an_address_literal_has_no_record(self) -> None:
        self.assertEqual(self.found(self.envelope("a@[192.0.2.25]")), [("mfrom", "none", "", 0.0)])

    def test_nothing_is_asked_about_our_own(self) -> None:
        for peer in (
            self.peer("127.0.0.1"),
            self.peer("::1"),
            self.peer("local"),
            self.peer("unix"),
            self.peer("proxy:192.0.2.1"),
            self.peer(service="submission", login="alice"),
            self.peer(login="alice"),
            self.peer(service="lmtp"),
        ):
            self.assertEqual(self.found(self.envelope(peer=peer)), [], peer)
        self.assertEqual(self.found(self.envelope(peer=self.peer("198.51.100.7")), networks=["198.51.100.0/24"]), [])
        self.assertEqual(self.resolver.asked, [])

    def test_a_dns_that_is_silent_is_a_temperror_after_twenty_seconds(self) -> None:
        self.resolver.silent.add("example.net")
        asked = self.begin(self.build(factory).judge_sender(self.envelope()))
        self.clock.advance(SECONDS - 1)
        self.assertNoResult(asked)
        self.clock.advance(1)
        [finding] = self.answer(asked).findings
        self.assertEqual(finding.properties["result"], "temperror")


class Mail(MailCase):
    def test_a_fail_goes_through_and_is_on_the_road(self) -> None:
        self.resolver.zones["example.net"] = {"TXT": ["v=spf1 -all"]}
        self.serve('[[filter]]\nuse = "spf"\n')
        self.assertEqual(self.send().code, 250)
        self.assertEqual(len(self.mailbox("alice@example.org")), 1)
        [step] = self.steps("filter")
        self.assertIn("fail mfrom example.net", str(step))
