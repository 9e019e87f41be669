"""The filter of ARC: what it finds, whom it trusts, and what DMARC makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mailserver.filters.arc import factory
from mailserver.filters.dmarc import factory as dmarc_factory
from mailserver.filters.signed_content import SECONDS
from mailserver.mail.answers import Defer, Finding, Pass, Quarantine, Verdict
from mailserver.mail.content import Content
from mailserver.testing import FilterCase, MailCase
from tests.trust.test_arc import ED25519, MESSAGE, NOW, own_set

NO_DKIM = Finding("dkim", properties={"result": "none"})
SPAMMER = Finding("dnsbl", 3.0)
LISTS, OTHER = "lists.example", "other.example"


class ARCCase(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock.rightNow = float(NOW)
        for domain in (LISTS, OTHER):
            self.resolver.zones[f"s1._domainkey.{domain}"] = {"TXT": [ED25519.record]}

    def found(self, message: bytes, peer: Any = None, **options: Any) -> list[Finding]:
        verdict = self.judge(self.build(factory, **options).judge_content(self.envelope(peer=peer), Content.of(message)))
        self.assertIs(type(verdict), Pass)
        return list(verdict.findings)


class Findings(ARCCase):
    def test_a_chain_that_nobody_trusts(self) -> None:
        [finding] = self.found(own_set(MESSAGE, 1))
        self.assertEqual((finding.name, finding.score, finding.evidence), ("arc", 0.0, "pass lists.example (1)"))
        self.assertEqual({**finding.properties}, {
            "result": "pass", "sealer": LISTS, "sets": 1, "reason": "", "trusted": False, "passed": "", "chain": "",
        })  # fmt: skip

    def test_a_trusted_one_says_for_whom_dmarc_had_passed(self) -> None:
        message = own_set(own_set(MESSAGE, 1, domain=OTHER), 2)
        [finding] = self.found(message, trusted=[LISTS.upper()])
        self.assertEqual((finding.properties["trusted"], finding.properties["passed"]), (True, "example.org"))
        self.assertEqual(
            finding.properties["chain"], "arc=pass as[2].d=lists.example as[2].s=s1 as[1].d=other.example as[1].s=s1"
        )
        [finding] = self.found(message, trusted=[OTHER])  # a stranger had it in his hands after him
        self.assertEqual((finding.properties["trusted"], finding.properties["passed"]), (False, ""))

    def test_people_read_whom_it_helps(self) -> None:
        for results, words in ((b"dmarc=pass header.from=example.org", "example.org"), (b"dmarc=pass header.from=", "nobody")):
            [finding] = self.found(own_set(MESSAGE, 1, results=results), trusted=[LISTS])
            self.assertEqual(finding.evidence, f"pass lists.example (1), trusted: DMARC had passed for {words}")
            self.assertEqual(finding.properties["chain"] == "", words == "nobody")

    def test_what_the_reports_say_of_a_chain_is_bounded_at_a_word(self) -> None:
        domain = f"{'a' * 60}.{'b' * 60}.example"
        self.resolver.zones[f"s1._domainkey.{domain}"] = {"TXT": [ED25519.record]}
        message = MESSAGE
        for instance in range(1, 13):
            message = own_set(message, instance, domain=domain)
        [finding] = self.found(message, trusted=[domain])
        chain = str(finding.properties["chain"])
        self.assertLess(len(chain), 1000)
        self.assertGreater(len(chain), 800)
        self.assertIn(chain.split(" ")[-1], (f"as[{n}].{end}" for n in range(1, 13) for end in (f"d={domain}", "s=s1")))

    def test_a_long_chain_is_verified_in_a_thread(self) -> None:
        calls: list[Any] = []

        async def run_in_thread(function: Any, *arguments: Any) -> Any:
            calls.append(function)
            return function(*arguments)

        component = self.build(factory)
        component._run_in_thread = run_in_thread
        message = MESSAGE
        for instance in range(1, 5):
            message = own_set(message, instance)
            [finding] = self.judge(component.judge_content(self.envelope(), Content.of(message))).findings
            self.assertEqual((finding.properties["result"], len(calls)), ("pass", instance // 4))

    def test_only_a_pass_with_the_authors_domain_counts(self) -> None:
        for results, passed in (
            (b"dmarc=pass header.from=Example.ORG.", "example.org"),
            (b"dmarc=pass (p=reject) header.from=example.org; dmarc=pass header.from=b.example", "b.example example.org"),
            (b"dmarc=pass header.from=example.org; dmarc=fail header.from=example.org", ""),
            (b"dmarc=fail header.from=example.org", ""),
            (b"dmarc=pass", ""),
            (b'dmarc=pass header.from="evil.example example.org"', ""),
            ("dmarc=pass header.from=m\u00fcnchen.example".encode(), "xn--mnchen-3ya.example"),
            (b"spf=pass header.from=example.org", ""),
            (b"x=y (; dmarc=pass header.from=example.org)", ""),
        ):
            message = own_set(MESSAGE, 1, results=results)
            self.assertEqual([one.properties["passed"] for one in self.found(message, trusted=[LISTS])], [passed], results)

    def test_a_broken_one_says_why_and_has_no_score(self) -> None:
        message = own_set(MESSAGE, 1).replace(b"Hello.", b"Hallo.")
        [finding] = self.found(message, trusted=[LISTS])
        self.assertEqual((finding.score, finding.properties["trusted"]), (0.0, False))
        self.assertEqual(finding.evidence, "fail lists.example (1): the newest message signature: the body has been changed")
        [finding] = self.found(b"ARC-Seal: i=1\r\n" + MESSAGE)
        self.assertEqual(finding.evidence, "fail: arc-seal: the tag a is missing")

    def test_without_one_and_about_our_own_nothing_is_said(self) -> None:
        self.assertEqual(self.found(MESSAGE), [])
        for peer in (self.peer("local"), self.peer(login="alice"), self.peer(service="lmtp")):
            self.assertEqual(self.found(own_set(MESSAGE, 1), peer), [])
        self.assertEqual(self.resolver.asked, [])

    def test_a_dns_that_fails_or_is_silent_is_a_failure_of_the_chain_and_of_nothing_else(self) -> None:
        self.resolver.failing.add(f"s1._domainkey.{LISTS}")
        [finding] = self.found(own_set(MESSAGE, 1))
        self.assertEqual(finding.properties["result"], "fail")
        self.resolver.failing.clear()
        self.resolver.silent.add(f"s1._domainkey.{LISTS}")
        asked = self.begin(self.build(factory).judge_content(self.envelope(), Content.of(own_set(MESSAGE, 1))))
        self.clock.advance(SECONDS)
        [finding] = self.answer(asked).findings
        self.assertIn("the DNS could not tell its key", finding.evidence)

    def test_a_long_chain_asks_for_each_key_once(self) -> None:
        message = MESSAGE
        for instance in range(1, 13):
            message = own_set(message, instance)
        [finding] = self.found(message, trusted=[LISTS])
        self.assertEqual((finding.properties["result"], finding.properties["sets"]), ("pass", 12))
        self.assertEqual(self.resolver.asked, [(f"s1._domainkey.{LISTS}", "TXT")])


class WithDMARC(ARCCase):
    def setUp(self) -> None:
        super().setUp()
        self.policy("reject")

    def policy(self, text: str, domain: str = "example.org") -> None:
        self.resolver.zones[f"_dmarc.{domain}"] = {"TXT": [f"v=DMARC1; p={text}"]}

    def judged(self, message: bytes, *findings: Finding, trusted: Any = (LISTS,), **options: Any) -> Verdict:
        envelope = replace(self.envelope(), findings=(NO_DKIM, *findings, *self.found(message, trusted=list(trusted))))
        return self.judge(self.build(dmarc_factory, **options).judge_content(envelope, Content.of(message)))

    def test_a_trusted_chain_takes_the_consequences_away(self) -> None:
        for reject in ("second", "always"):
            verdict = self.judged(own_set(MESSAGE, 1), SPAMMER, reject=reject)
            self.assertIs(type(verdict), Pass)
            [finding] = verdict.findings
            self.assertEqual(finding.score, 0.0)
            self.assertEqual({name: finding.properties[name] for name in ("result", "policy", "published", "disposition", "override", "comment")}, {
                "result": "fail", "policy": "none", "published": "reject", "disposition": "none", "override": "local_policy",
                "comment": "arc=pass as[1].d=lists.example as[1].s=s1",
            })  # fmt: skip
            self.assertIn("it did before: arc=pass", finding.evidence)

    def test_one_that_nobody_trusts_or_that_is_broken_changes_nothing(self) -> None:
        self.assertIs(type(self.judged(own_set(MESSAGE, 1), trusted=[OTHER])), Quarantine)
        self.assertIs(type(self.judged(own_set(MESSAGE, 1).replace(b"Hello.", b"Hallo."))), Quarantine)
        self.assertIs(type(self.judged(own_set(MESSAGE, 1, results=b"dmarc=pass header.from=b.example"))), Quarantine)
        verdict = self.judged(MESSAGE)
        self.assertEqual((type(verdict), verdict.findings[0].score), (Quarantine, 2.0))

    def test_it_speaks_for_its_author_alone(self) -> None:
        self.policy("reject", "evil.example")
        message = own_set(MESSAGE.replace(b"ann@example.org", b"ann@example.org, x@evil.example"), 1)
        self.assertQuarantined(self.judged(message), "evil.example asks for reject")

    def test_where_nothing_is_asked_for_nothing_is_overridden(self) -> None:
        self.policy("none")
        [finding] = self.judged(own_set(MESSAGE, 1)).findings
        self.assertEqual((finding.properties["override"], finding.score), ("", 0.0))

    def test_a_dns_that_cannot_tell_defers_nothing_then(self) -> None:
        self.resolver.failing.add("_dmarc.example.org")
        self.assertIs(type(self.judged(own_set(MESSAGE, 1))), Pass)
        self.assertIs(type(self.judged(MESSAGE)), Defer)


class Mail(MailCase):
    CONFIGURATION = (
        '[[filter]]\nuse = "dmarc"\n[[filter]]\nuse = "arc"\ntrusted = ["lists.example"]\n[[filter]]\nuse = "dkim"\n'
        '[[filter]]\nuse = "spf"\n[[filter]]\nuse = "authentication_results"\n'
    )

    def test_a_list_that_is_trusted_reaches_the_mailbox_and_the_message_says_so(self) -> None:
        self.clock.rightNow = float(NOW)
        self.resolver.zones["_dmarc.example.org"] = {"TXT": ["v=DMARC1; p=reject"]}
        self.resolver.zones[f"s1._domainkey.{LISTS}"] = {"TXT": [ED25519.record]}
        self.serve(self.CONFIGURATION)
        self.assertEqual(self.send(own_set(MESSAGE, 1)).code, 250)
        [stored] = self.mailbox("alice@example.org")
        field = Content.of(stored.replace(b"\n", b"\r\n")).headers.get("Authentication-Results") or ""
        self.assertIn("arc=pass (i=1) smtp.remote-ip=", field)
        self.assertIn("dmarc=fail", field)
        self.assertEqual(self.send(MESSAGE).code, 250)
        self.assertEqual(len(self.mailbox("alice@example.org")), 1)
        self.assertEqual(len(self.mailbox("alice@example.org", "Junk")), 1)
