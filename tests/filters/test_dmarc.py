"""The filter of DMARC: what follows from a failure, and from a DNS that cannot tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, fail

from mailserver.filters import clamav, reputation, rspamd, spamassassin
from mailserver.filters.dmarc import DMARC, SECOND_FINDINGS, SECONDS, factory
from mailserver.filters.dmarc_reports import DMARCReports
from mailserver.filters.evidence import proved_domains
from mailserver.interfaces import IContentFilter
from mailserver.mail.answers import Defer, Finding, Pass, Quarantine, Refuse, Verdict
from mailserver.mail.faults import StorageBroken
from mailserver.testing import FilterCase, MailCase

NO_DKIM = Finding("dkim", properties={"result": "none"})
SPAMMER = Finding("dnsbl", 3.0)
SCANNERS = {"virus": clamav.factory, "reputation": reputation.factory, "rspamd": rspamd.factory, "spamassassin": spamassassin.factory}
MESSAGE = b"From: Alice <alice@example.net>\nMessage-ID: <1@example.net>\nSubject: Hello\n\nHello.\n"


def dkim(domain: str, result: str = "pass") -> Finding:
    return Finding("dkim", properties={"result": result, "domain": domain})


def spf(domain: str, result: str = "pass", scope: str = "mfrom") -> Finding:
    return Finding("spf", properties={"result": result, "domain": domain, "scope": scope})


class DMARCCase(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.policy("reject")

    def policy(self, text: str, domain: str = "example.net") -> None:
        self.resolver.zones[f"_dmarc.{domain}"] = {"TXT": [f"v=DMARC1; p={text}"]}

    def asked(self, *findings: Finding, message: bytes = MESSAGE, peer: Any = None, **options: Any) -> Verdict:
        envelope = replace(self.envelope(peer=peer), findings=findings)
        return self.judge(self.build(factory, **options).judge_content(envelope, self.content(message)))


class Verdicts(DMARCCase):
    def test_a_domain_that_answers_for_its_message(self) -> None:
        for evidence in (dkim("example.net"), dkim("mail.example.net")):
            verdict = self.asked(evidence, passed=-0.5)
            self.assertIs(type(verdict), Pass)
            [finding] = verdict.findings
            self.assertEqual((finding.name, finding.score), ("dmarc", -0.5))
            self.assertEqual(finding.evidence, "pass example.net (reject) dkim")
        self.assertIs(type(self.asked(NO_DKIM, spf("example.net"))), Pass)

    def test_a_failure_under_reject_is_put_aside_and_says_so(self) -> None:
        verdict = self.asked(NO_DKIM, spf("evil.example"))
        self.assertQuarantined(verdict, "DMARC: example.net asks for reject")
        [finding] = verdict.findings
        self.assertEqual(
            {name: finding.properties[name] for name in ("result", "domain", "policy", "aligned")},
            {"result": "fail", "domain": "example.net", "policy": "reject", "aligned": ""},
        )
        self.assertEqual(finding.score, 2.0)

    def test_a_second_finding_against_it_refuses(self) -> None:
        self.assertRefused(self.asked(NO_DKIM, SPAMMER))
        self.assertIs(type(self.asked(NO_DKIM, SPAMMER, reject="never")), Quarantine)
        self.assertIs(type(self.asked(NO_DKIM, Finding("virus"))), Refuse)
        self.assertIs(type(self.asked(NO_DKIM, SPAMMER, second_findings={"dnsbl": 5})), Quarantine)
        self.assertIs(type(self.asked(NO_DKIM, SPAMMER, second_findings={"virus": 0})), Quarantine)
        self.assertIs(type(self.asked(NO_DKIM, Finding("rspamd", 4.0))), Quarantine)  # with its own points for DMARC
        self.assertIs(type(self.asked(NO_DKIM, Finding("rspamd", 9.0))), Refuse)
        self.assertIs(type(self.asked(NO_DKIM, Finding("dnsbl", -2.0))), Quarantine)
        self.assertIs(type(self.asked(NO_DKIM, Finding("spf", 9.0))), Quarantine)  # that is the same failure once more

    def test_what_counts_as_a_second_one_is_found_before_dmarc_is_asked(self) -> None:
        self.assertEqual(set(SECOND_FINDINGS), {*SCANNERS, "dnsbl"})  # dnsbl: before there is a message
        for name, scanner in SCANNERS.items():
            component = self.build(scanner)
            self.assertTrue(IContentFilter.providedBy(component), name)
            self.assertLess(component.cost, DMARC.cost, name)
        self.assertLess(DMARC.cost, DMARCReports.cost)

    def test_a_pass_by_a_key_that_is_tried_is_evidence_to_nobody(self) -> None:
        tried = Finding("dkim", properties={"result": "pass", "domain": "example.net", "testing": True})
        for more, is_evidence in (
            ((), False), ((spf("evil.example"),), False), ((dkim("evil.example"),), False),
            ((spf("example.net"),), True), ((dkim("mail.example.net"),), True),
        ):  # fmt: skip
            verdict = self.asked(tried, *more)
            self.assertEqual((type(verdict), verdict.findings[0].properties["result"]), (Pass, "pass"))
            envelope = replace(self.envelope(), findings=(tried, *verdict.findings))
            self.assertIs("example.net" in proved_domains(envelope), is_evidence, more)

    def test_a_virus_that_is_only_noted_is_no_second_one(self) -> None:
        for noted, kind in ((True, Quarantine), (False, Refuse)):
            self.assertIs(type(self.asked(NO_DKIM, Finding("virus", 5.0, "PUA.X", {"signature": "PUA.X", "noted": noted}))), kind)

    def test_always_refuses_without_a_second_one(self) -> None:
        self.assertIs(type(self.asked(NO_DKIM, reject="always")), Refuse)
        self.policy("quarantine")
        self.assertIs(type(self.asked(NO_DKIM, reject="always")), Quarantine)

    def test_the_mark_of_a_list_makes_it_milder(self) -> None:
        message = b"List-Id: <list.example.com>\n" + MESSAGE
        self.assertIs(type(self.asked(NO_DKIM, SPAMMER, message=message)), Quarantine)
        self.assertIs(type(self.asked(NO_DKIM, message=message, reject="always")), Quarantine)

    def test_quarantine_and_none(self) -> None:
        self.policy("quarantine")
        self.assertIs(type(self.asked(NO_DKIM, SPAMMER)), Quarantine)
        self.policy("none")
        verdict = self.asked(NO_DKIM, SPAMMER)
        self.assertIs(type(verdict), Pass)
        self.assertEqual(verdict.findings[0].properties["result"], "fail")

    def test_a_domain_that_only_tries_is_one_step_milder(self) -> None:
        self.policy("reject; t=y")
        self.assertIs(type(self.asked(NO_DKIM, SPAMMER, reject="always")), Quarantine)
        self.policy("quarantine; t=y")
        self.assertIs(type(self.asked(NO_DKIM, SPAMMER)), Pass)

    def test_a_finding_says_what_a_report_has_to_say(self) -> None:
        said = ("disposition", "override", "terms", "reports")

        def of(*findings: Finding, **more: Any) -> tuple[Any, ...]:
            [finding] = self.asked(*findings, **more).findings
            return tuple([finding.properties[name] for name in said])

        terms = "v=DMARC1; p=reject; adkim=r; aspf=r; t=n"
        self.assertEqual(of(dkim("example.net")), ("none", "", terms, False))
        self.assertEqual(of(NO_DKIM), ("quarantine", "local_policy", terms, False))
        self.assertEqual(of(NO_DKIM, message=b"List-Id: <x.example>\n" + MESSAGE)[:2], ("quarantine", "mailing_list"))
        self.assertEqual(of(NO_DKIM, SPAMMER)[:2], ("reject", ""))
        self.policy("quarantine; rua=mailto:a@example.net")
        self.assertEqual(of(NO_DKIM), ("quarantine", "", "v=DMARC1; p=quarantine; adkim=r; aspf=r; t=n", True))
        self.policy("quarantine; t=y; adkim=s")
        self.assertEqual(of(NO_DKIM), ("none", "policy_test_mode", "v=DMARC1; p=quarantine; adkim=s; aspf=r; t=y", False))
        self.policy("none")
        self.assertEqual(of(NO_DKIM)[:2], ("none", ""))

    def test_without_a_sender_the_hello_name_speaks_for_the_domain_and_else_it_does_not(self) -> None:
        self.assertIs(type(self.asked(NO_DKIM, spf("mx.example.net", scope="helo"))), Pass)
        self.assertIs(type(self.asked(NO_DKIM, spf("mx.example.net", scope="helo"), spf("evil.example"))), Quarantine)

    def test_of_several_authors_the_one_who_fares_worst_counts_and_none_refuses(self) -> None:
        message = MESSAGE.replace(b"\nMessage", b", x@evil.example\nMessage", 1)
        self.assertIs(type(self.asked(dkim("evil.example"), SPAMMER, message=message, reject="always")), Quarantine)
        self.assertIs(type(self.asked(dkim("example.net"), message=message)), Pass)

    def test_a_message_without_an_author_has_a_score(self) -> None:
        for message in (b"Subject: x\n\n", b"From: nobody\n\n"):
            verdict = self.asked(NO_DKIM, message=message)
            self.assertIs(type(verdict), Pass)
            self.assertEqual((verdict.findings[0].properties["result"], verdict.findings[0].score), ("permerror", 3.0))

    def test_one_with_so_many_that_nobody_judges_them_is_put_aside(self) -> None:
        many = b"From: " + b", ".join(b"a@d%d.example" % n for n in range(6)) + b"\n\n"
        verdict = self.asked(NO_DKIM, message=many)
        self.assertQuarantined(verdict, "more than 5 domains")
        self.assertEqual(verdict.findings[0].properties["result"], "permerror")

    def test_one_whose_header_section_is_longer_than_what_is_searched_is_put_aside(self) -> None:
        long = b"".join(b"X-%d: %s\n" % (n, b"x" * 900) for n in range(300))
        self.assertQuarantined(self.asked(NO_DKIM, message=long + MESSAGE), "longer than what is searched")

    def test_a_signature_that_leaves_a_part_out_speaks_for_nobody(self) -> None:
        partial = Finding("dkim", properties={"result": "pass", "domain": "example.net", "partial": True})
        self.assertIs(type(self.asked(partial)), Quarantine)
        self.assertIs(type(self.asked(partial, dkim("example.net"))), Pass)
        self.assertIs(type(self.asked(partial, spf("example.net"))), Pass)

    def test_an_author_who_only_wants_reports_hides_no_other(self) -> None:
        self.policy("none", "evil.example")
        message = MESSAGE.replace(b"\nMessage", b", x@evil.example\nMessage", 1)
        self.assertIs(type(self.asked(NO_DKIM, message=message)), Quarantine)
        self.resolver.failing.add("_dmarc.example.net")
        self.assertIs(type(self.asked(NO_DKIM, message=message)), Defer)

    def test_an_author_who_passes_answers_for_nobody_beside_him(self) -> None:
        for authors in (b"ceo@shop.example, alice@example.net", b"alice@example.net, ceo@shop.example"):
            message = MESSAGE.replace(b"Alice <alice@example.net>", authors)
            [finding] = self.asked(dkim("example.net"), message=message).findings
            self.assertEqual((finding.properties["result"], finding.properties["domain"]), ("none", "shop.example"))

    def test_without_a_look_at_signatures_nothing_fails(self) -> None:
        verdict = self.asked(spf("evil.example"), SPAMMER)
        self.assertIs(type(verdict), Pass)
        self.assertEqual(verdict.findings[0].properties["result"], "temperror")

    def test_nothing_is_asked_about_our_own(self) -> None:
        for peer in (self.peer("127.0.0.1"), self.peer("local"), self.peer(login="alice"), self.peer(service="lmtp")):
            self.assertEqual(self.asked(NO_DKIM, peer=peer), Pass())
        self.assertEqual(self.asked(NO_DKIM, networks=["192.0.2.0/24"]), Pass())
        self.assertEqual(self.resolver.asked, [])


class Temporary(DMARCCase):
    def setUp(self) -> None:
        super().setUp()
        self.resolver.failing.add("_dmarc.example.net")

    def test_it_is_deferred_twice_and_then_judged_without(self) -> None:
        self.assertDeferred(self.asked(NO_DKIM))
        self.assertDeferred(self.asked(NO_DKIM, peer=self.peer("192.0.2.77")))
        verdict = self.asked(NO_DKIM)
        self.assertIs(type(verdict), Pass)
        self.assertEqual(verdict.findings[0].properties["result"], "temperror")

    def test_no_recipient_waits_more_than_twice_whoever_comes_with_him(self) -> None:
        for n, names in enumerate(("a", "ab", "abc", "bc", "c")):  # a greylist lets one in after the other
            recipients = tuple([self.recipient(f"{name}@example.org") for name in names])
            envelope = replace(self.envelope(), findings=(NO_DKIM,), recipients=recipients)
            verdict = self.judge(self.build(factory).judge_content(envelope, self.content(MESSAGE)))
            self.assertIs(type(verdict), Defer if n < 2 else Pass, names)

    def test_another_message_is_deferred_for_itself(self) -> None:
        for _ in range(3):
            verdict = self.asked(NO_DKIM)
        self.assertIs(type(verdict), Pass)
        self.assertIs(type(self.asked(NO_DKIM, message=MESSAGE.replace(b"<1@", b"<2@"))), Defer)

    def test_a_key_that_cannot_be_had_defers_where_a_policy_hangs_on_it(self) -> None:
        self.resolver.failing.clear()
        self.assertDeferred(self.asked(dkim("example.net", "temperror")))
        self.policy("none")
        self.assertIs(type(self.asked(dkim("example.net", "temperror"))), Pass)

    def test_a_dns_that_is_silent_is_a_temperror_after_twenty_seconds(self) -> None:
        self.resolver.failing.clear()
        self.resolver.silent.add("_dmarc.example.net")
        envelope = replace(self.envelope(), findings=(NO_DKIM,))
        asked = self.begin(self.build(factory).judge_content(envelope, self.content(MESSAGE)))
        self.clock.advance(SECONDS)
        verdict = self.answer(asked)
        self.assertDeferred(verdict, "the DNS took too long")

    def test_an_author_of_a_silent_domain_hides_no_other(self) -> None:
        self.resolver.failing.clear()
        self.resolver.silent.add("_dmarc.evil.example")
        message = MESSAGE.replace(b"\nMessage", b", x@evil.example\nMessage", 1)
        envelope = replace(self.envelope(), findings=(NO_DKIM,))
        asked = self.begin(self.build(factory).judge_content(envelope, self.content(message)))
        self.clock.advance(SECONDS)
        self.assertQuarantined(self.answer(asked), "example.net asks for reject")

    def test_where_deferrals_cannot_be_counted_nothing_is_deferred(self) -> None:
        def add(*_: Any) -> Deferred[int]:
            return fail(StorageBroken("the disk is gone"))

        self.state.add = add  # type: ignore[method-assign,assignment]
        self.assertIs(type(self.asked(NO_DKIM)), Pass)


class Mail(MailCase):
    CONFIGURATION = '[[filter]]\nuse = "dmarc"\n[[filter]]\nuse = "dkim"\n[[filter]]\nuse = "spf"\n'

    def test_it_is_asked_after_spf_and_dkim_without_being_told_to(self) -> None:
        self.resolver.zones["_dmarc.example.net"] = {"TXT": ["v=DMARC1; p=reject"]}
        self.resolver.zones["example.net"] = {"TXT": ["v=spf1 ip4:192.0.2.25 -all"]}
        self.serve(self.CONFIGURATION)
        self.assertEqual(self.send().code, 250)
        self.assertEqual(len(self.mailbox("alice@example.org")), 1)
        self.assertEqual(self.send(address="198.51.100.9").code, 250)
        self.assertEqual(len(self.mailbox("alice@example.org")), 1)
        self.assertEqual(len(self.mailbox("alice@example.org", "Junk")), 1)
