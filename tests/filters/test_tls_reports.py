"""TLS reports: what is counted, sent, read and shown, over days of virtual time."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import random
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.assembly.tls_results import TLSResults
from mailserver.filters import report_facts, tls_report_facts, tls_report_sending
from mailserver.filters.report_days import DAY_SECONDS, day_of, start_of
from mailserver.filters.report_inbox import DMARC_FINDING, TLS_FINDING
from mailserver.filters.tls_reports import factory
from mailserver.mail.address import Address
from mailserver.mail.answers import Delivered, Finding, Pass
from mailserver.mail.faults import StorageFull
from mailserver.mail.fetched import Fetched
from mailserver.testing import FilterCase
from mailserver.trust.mta_sts import FETCH_ERROR
from mailserver.trust.tls_report import FailureDetail, TLSReport
from mailserver.trust.tls_report_mail import tls_report_message
from mailserver.trust.tls_result import NO_POLICY, STS_POLICY, TLSA_POLICY, TLSPolicyFound, TLSResult
from tests.filters.test_dmarc_reports import dmarc
from tests.trust.tls_reports import TLS_REPORT, faults_by_tls_schema

OWN = "tls-reports@example.org"
RUA = "mailto:rua@example.net"
POST = "https://reports.example.net/v1"
STS = TLSPolicyFound(STS_POLICY, "example.net", ("version: STSv1", "mode: enforce"), ("*.example.net",))
DANE = TLSPolicyFound(TLSA_POLICY, "mx1.example.net", ("3 1 1 " + "0f" * 32,))
NONE = TLSPolicyFound(NO_POLICY, "example.net")
GOOD = TLSResult("example.net", STS, "", "mx1.example.net", "192.0.2.7", "192.0.2.1")
EXPIRED = replace(GOOD, failure="certificate-expired", information="it has expired on …")


class ReportsCase(FilterCase):
    options: dict[str, Any] = {"sender": OWN, "organization": "Example", "spread": "1h"}

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(start_of(day_of(self.clock.seconds())) + DAY_SECONDS - self.clock.seconds() + 3600)  # 01:00
        self.today = day_of(self.clock.seconds())
        self.rua(RUA)
        self.reports = self.build(factory, **self.options)

    def rua(self, *uris: str, domain: str = "example.net") -> None:
        self.resolver.zones[f"_smtp._tls.{domain}"] = {"TXT": [f"v=TLSRPTv1; rua={','.join(uris)}"]}

    def sessions(self, *results: TLSResult) -> None:
        for one in results:
            self.reports.heard(one)

    def night(self) -> None:
        """The next day at two, when all reports are due."""
        self.clock.advance(start_of(day_of(self.clock.seconds())) + DAY_SECONDS + 7200 - self.clock.seconds())
        self.run_once()

    def run_once(self) -> None:
        self.answer(self.reports.run_periodically())

    def documents(self) -> list[Any]:
        found = []
        for one in self.send_mail.sent:
            message = email.message_from_bytes(one.content, policy=email.policy.default)
            octets = gzip.decompress(list(message.iter_parts())[1].get_content())
            self.assertEqual(faults_by_tls_schema(octets), [])
            found.append(json.loads(octets))
        return found

    def command(self, name: str, **arguments: Any) -> Any:
        return self.answer(next(one for one in self.reports.commands() if one.name == name).run(**arguments))

    def to(self) -> dict[str, str]:
        [one] = self.command("reports")
        return dict(one["to"])


class Counting(ReportsCase):
    def test_sessions_are_counted_by_policy_and_failure_and_the_report_is_what_the_schema_says(self) -> None:
        self.sessions(GOOD, GOOD, EXPIRED, EXPIRED, replace(EXPIRED, address="2001:db8::7"), replace(GOOD, policy=DANE))
        self.sessions(replace(GOOD, policy=NONE, failure="starttls-not-supported", host="mx9.example.net"))
        self.night()
        [document] = self.documents()
        self.assertEqual(document["date-range"], {"start-datetime": f"{self.today}T00:00:00Z", "end-datetime": f"{self.today}T23:59:59Z"})
        self.assertEqual((document["organization-name"], document["contact-info"]), ("Example", OWN))
        sts, none, tlsa = document["policies"]
        self.assertEqual(sts["summary"], {"total-successful-session-count": 2, "total-failure-session-count": 3})
        self.assertEqual(sts["policy"], {
            "policy-type": "sts", "policy-string": ["version: STSv1", "mode: enforce"], "policy-domain": "example.net", "mx-host": ["*.example.net"],
        })  # fmt: skip
        self.assertEqual(sts["failure-details"][0], {
            "result-type": "certificate-expired", "sending-mta-ip": "192.0.2.1", "receiving-mx-hostname": "mx1.example.net",
            "receiving-ip": "192.0.2.7", "failed-session-count": 2, "additional-information": "it has expired on …",
        })  # fmt: skip
        self.assertEqual((none["policy"]["policy-type"], tlsa["policy"]["policy-domain"]), ("no-policy-found", "mx1.example.net"))

    def test_it_survives_a_restart_and_a_day_is_one_of_utc(self) -> None:
        self.sessions(GOOD)
        self.reports = self.build(factory, **self.options)
        self.sessions(GOOD)
        self.clock.advance(start_of(self.today) + DAY_SECONDS - self.clock.seconds())
        self.sessions(EXPIRED)
        self.clock.advance(7200)
        self.run_once()
        self.assertEqual([one["policies"][0]["summary"]["total-successful-session-count"] for one in self.documents()], [2])
        self.night()
        self.assertEqual(len(self.documents()), 2)

    def test_what_is_not_wanted_is_not_counted(self) -> None:
        self.sessions(replace(GOOD, domain="quiet.example"), replace(GOOD, domain="a/b"))
        self.assertEqual([key for key, _, _ in self.answer(self.state.space("tested").items())], [])
        self.assertEqual(self.resolver.asked.count(("_smtp._tls.quiet.example", "TXT")), 1)
        self.sessions(replace(GOOD, domain="quiet.example"))
        self.assertEqual(self.resolver.asked.count(("_smtp._tls.quiet.example", "TXT")), 1)
        self.resolver.failing.add("_smtp._tls.dark.example")
        self.sessions(replace(GOOD, domain="dark.example"))
        self.assertEqual([one["domain"] for one in self.command("reports")], ["dark.example"])

    def test_a_policy_of_any_size_and_script_has_its_place(self) -> None:
        large = replace(STS, strings=tuple([f"x: {n} " + "\u4e00" * 490 for n in range(40)]), mx_patterns=tuple(["m" * 250] * 100))
        self.sessions(replace(GOOD, policy=large))
        [group] = self.answer(self.reports.facts.groups(self.today))
        [row] = self.answer(self.reports.facts.rows(group))
        self.assertEqual((row.successes, 1 <= len(row.strings) < 40), (1, True))

    def test_without_a_sender_nothing_is_heard(self) -> None:
        hub = TLSResults()
        silent = factory.build(factory.options(), replace(self.services, tls_results=hub))
        self.answer(silent.start())
        hub.tell(GOOD)
        self.assertEqual(hub._listeners, {})

    def test_over_a_reload_each_session_is_heard_once(self) -> None:
        hub = TLSResults()
        old, new = (factory.build(factory.options(**self.options), replace(self.services, tls_results=hub)) for _ in range(2))
        self.answer(old.start())
        self.answer(new.start())
        hub.tell(GOOD)
        self.answer(old.stop())
        hub.tell(GOOD)
        hub.tell("no result")
        [row] = self.command("reports")
        self.assertEqual(row["sessions"], 2)
        self.answer(new.stop())
        hub.tell(GOOD)
        self.assertEqual(self.command("reports")[0]["sessions"], 2)

    def test_one_who_cannot_listen_is_no_others_matter(self) -> None:
        hub, heard = TLSResults(), []
        hub.listen("a", lambda one: 1 / 0)
        hub.listen("b", heard.append)
        hub.tell(GOOD)
        self.assertEqual((heard, len(self.flushLoggedErrors(ZeroDivisionError))), ([GOOD], 1))

    def test_kinds_of_failure_are_bounded_and_the_sum_is_not(self) -> None:
        self.patch(tls_report_facts, "DETAILS_MOST", 3)
        self.patch(tls_report_facts, "POLICIES_MOST", 2)
        self.patch(report_facts, "GROUPS_MOST", 1)
        self.sessions(*[replace(EXPIRED, address=f"192.0.2.{n}") for n in range(1, 8)])
        self.sessions(*[replace(GOOD, policy=replace(DANE, domain=f"mx{n}.example.net")) for n in range(3)])
        self.rua(RUA, domain="other.example")
        self.sessions(replace(GOOD, domain="other.example"))
        self.night()
        [document] = self.documents()
        self.assertEqual([(one["summary"]["total-failure-session-count"], len(one.get("failure-details", ()))) for one in document["policies"]],
                         [(7, 3), (0, 0)])  # fmt: skip
        self.clock.advance(-7200 - 3600)
        self.assertEqual(self.answer(self.reports.facts.left_out(self.today)), 7)

    def test_a_store_that_fails_costs_one_session_and_no_mail(self) -> None:
        self.state.space("tested").failing.add("add")
        self.sessions(GOOD)
        self.state.space("tested").failing.clear()
        self.sessions(GOOD)
        self.assertEqual(self.command("reports")[0]["sessions"], 1)
        self.assertEqual(self.metrics["tested"].figures()["sessions_left_out"], 1)


class Sending(ReportsCase):
    def setUp(self) -> None:
        super().setUp()
        self.sessions(GOOD, EXPIRED)

    def test_by_mail_from_the_address_and_nobody_hears_of_its_failure(self) -> None:
        self.night()
        self.run_once()
        [one] = self.send_mail.sent
        self.assertEqual((str(one.sender), [str(to) for to in one.recipients], one.reports), (OWN, ["rua@example.net"], False))
        for line in (b"TLS-Required: No\r\n", b"TLS-Report-Domain: example.net\r\n", b'report-type="tlsrpt"'):
            self.assertIn(line, one.content)
        self.assertEqual(self.to(), {RUA: "0000000000000001"})

    def test_by_https_and_by_mail_to_each_who_wants_it(self) -> None:
        self.rua(POST, RUA, "ftp://x.example/")
        self.fetch.pages[POST] = Fetched(POST, 201)
        self.night()
        self.assertEqual(faults_by_tls_schema(gzip.decompress(self.fetch.sent[0])), [])
        self.assertEqual(self.to(), {POST: "posted: 201", RUA: "0000000000000001"})

    def test_one_that_cannot_be_posted_keeps_no_other_waiting_and_is_posted_later_and_once(self) -> None:
        self.rua(POST, RUA, "https://no.example/x")
        self.fetch.pages["https://no.example/x"] = Fetched("", 404)
        self.night()
        self.assertEqual((len(self.send_mail.sent), len(self.fetch.asked)), (1, 2))
        for answer in (Fetched("", 503), Fetched("", 429), Fetched("", 200)):
            self.fetch.pages[POST] = answer
            self.clock.advance(901)
            self.run_once()
        self.clock.advance(901)
        self.run_once()
        self.assertEqual((len(self.send_mail.sent), self.fetch.asked.count(POST)), (1, 4))
        self.assertEqual(self.to(), {POST: "posted: 200", RUA: "0000000000000001", "https://no.example/x": "not taken: 404"})

    def test_one_that_is_too_large_is_not_sent_and_says_so(self) -> None:
        self.patch(tls_report_sending, "OCTETS_MOST", 100)
        self.rua(POST, RUA)
        self.night()
        self.assertEqual((self.send_mail.sent, self.fetch.asked), ([], []))
        self.assertTrue(all("100 are the most" in words for words in self.to().values()))

    def test_after_two_days_it_is_given_up(self) -> None:
        self.rua(POST)
        for _ in range(5):
            self.night()
        asked = len(self.fetch.asked)
        self.assertLess(asked, 6)
        self.night()
        self.assertEqual(len(self.fetch.asked), asked)

    def test_a_domain_that_wants_none_any_more_or_shall_have_none_gets_none(self) -> None:
        self.resolver.zones["_smtp._tls.example.net"] = {"TXT": []}
        self.night()
        self.assertEqual((self.documents(), self.to()), ([], {}))
        self.rua(RUA)
        self.reports = self.build(factory, **self.options, without=["example.net"])
        self.sessions(GOOD)
        self.night()
        self.assertEqual(self.documents(), [])

    def test_what_cannot_be_sent_now_is_sent_later_with_the_same_id(self) -> None:
        self.send_mail.failing = StorageFull("no room")
        self.night()
        self.send_mail.failing = None
        self.clock.advance(901)
        self.run_once()
        [preview] = [self.answer(self.reports.sending.report(one)) for one in self.answer(self.reports.facts.groups(self.today))]
        self.assertEqual([one["report-id"] for one in self.documents()], [preview.id])

    def test_a_preview_sends_nothing(self) -> None:
        self.rua(POST, RUA)
        one = self.command("preview", domain="Example.NET.")
        self.assertEqual(faults_by_tls_schema(one["document"].encode()), [])
        self.assertEqual((one["sessions"], one["to"]), (2, {POST: "wanted", RUA: "wanted"}))
        self.assertEqual((self.send_mail.sent, self.fetch.asked), ([], []))
        self.assertEqual([row["state"] for row in self.command("reports")], ["collecting"])


class Reading(ReportsCase):
    def report(self, report: TLSReport = TLS_REPORT, content: Any = None, passed: str = "big.example", **more: Any) -> Any:
        """What becomes of a report of others."""
        made = tls_report_message(report, submitter="big.example", sender=Address("r", "big.example"), to=Address("x", "y.example"), now=0)
        body = self.content(made if content is None else content)
        envelope = self.envelope(recipients=[OWN], **more)
        if passed:
            verdict = self.answer(self.reports.judge_content(replace(envelope, findings=(dmarc(domain=passed),)), body))
            self.assertEqual([one.name for one in verdict.findings], [TLS_FINDING])
        return self.answer(self.reports.read(envelope, body, Address.parse(OWN)))

    def ours(self, **more: Any) -> TLSReport:
        return replace(TLS_REPORT, domain="example.org", **more)

    def test_one_about_a_domain_of_ours_is_kept_and_shown(self) -> None:
        for _ in range(2):
            self.assertEqual(self.report(self.ours()), Delivered("a TLS report: it is kept"))
        self.assertEqual(self.report(self.ours(), passed="other.example"), Delivered("a TLS report: it is kept"))
        first, _ = self.command("list", domain="example.org")
        self.assertEqual((first["successes"], first["failures"], first["policies"]), (128, 3, ["no-policy-found", "sts", "tlsa"]))
        shown = self.command("show", domain="example.org")
        self.assertEqual((shown["reports"], shown["successes"], shown["failures"]), (2, 256, 6))
        self.assertEqual([(row["result"], row["host"], row["sessions"], row["reporters"]) for row in shown["rows"]], [
            ("certificate-expired", "mx1.mail.example.net", 4, ["big.example", "other.example"]),
            ("starttls-not-supported", "mx2.mail.example.net", 2, ["big.example", "other.example"]),
        ])  # fmt: skip

    def test_what_is_not_read_is_told_and_never_bounced(self) -> None:
        head = b"From: r@big.example\nMIME-Version: 1.0\nContent-Type: application/tlsrpt+gzip\n\n"
        for words, more in (
            ("DMARC has not passed", {"report": self.ours(), "passed": ""}),
            ("no domain of ours", {"report": TLS_REPORT}),
            ("no part", {"content": b"From: r@big.example\n\nHello.\n"}),
            ("gzip", {"content": head + b"\x1f\x8b\x08\0broken"}),
            ("JSON", {"content": head.replace(b"gzip", b"json") + b"[" * 100_000}),
        ):
            outcome = self.report(**more)  # type: ignore[arg-type]
            self.assertIs(type(outcome), Delivered)
            self.assertRegex(outcome.note, f"^not read: .*{words}")
            self.assertRegex(self.command("unread")[0]["why"], words)
            self.clock.advance(1)
        self.assertEqual(self.command("list"), [])
        self.assertRegex(self.report(self.ours(), sender=None).note, "null sender")
        self.assertEqual(self.send_mail.sent, [])

    def test_one_that_fits_into_no_record_is_told_and_waits_for_nothing(self) -> None:
        chance = random.Random(1)
        large = tuple(["".join(chance.choices([chr(n) for n in range(0x4E00, 0x9FFF)], k=255)) for _ in range(40)])
        details = tuple([FailureDetail("validation-failure", 1, receiving_host=one, reason=one) for one in large])
        row = replace(TLS_REPORT.rows[0], strings=large, mx_patterns=large, details=details)
        outcome = self.report(self.ours(rows=(row,)))
        self.assertRegex(outcome.note, "not read: .*octets")
        self.assertEqual(self.command("list"), [])

    def test_records_that_were_written_by_others_do_no_harm(self) -> None:
        self.report(self.ours())
        for n, wrong in enumerate((b"", b"\xff", b"x\x9c")):
            self.answer(self.records.put(f"in/example.org/{n:012d}/{n:020d}/0000", wrong))
        self.assertEqual(self.command("show", domain="example.org")["successes"], 128)

    def test_no_dmarc_report_is_about_a_tls_report(self) -> None:
        from mailserver.filters.dmarc_reports import factory as dmarc_factory
        from mailserver.interfaces import TransactionEnd

        reports = self.build(dmarc_factory, sender="dmarc-reports@example.org")
        for finding in (TLS_FINDING, DMARC_FINDING):
            envelope = replace(self.envelope(), findings=(dmarc(), Finding(finding)))
            self.answer(reports.ended(envelope, TransactionEnd.ACCEPTED))
        self.assertEqual(self.answer(reports.facts.groups(self.today)), [])

    def test_other_mail_has_no_finding(self) -> None:
        for findings, message in (((dmarc(),), b"From: a@example.net\n\nHello\n"), ((), b"From: a@example.net\nTLS-Report-Domain: x\n\n")):
            envelope = replace(self.envelope(), findings=findings)
            self.assertEqual(self.judge(self.reports.judge_content(envelope, self.content(message))), Pass())

    def test_one_look_up_serves_all_sessions_that_wait(self) -> None:
        answers: list[Deferred[Any]] = []

        def query(name: str, record_type: str) -> Deferred[Any]:
            answers.append(Deferred())
            return answers[-1]

        self.patch(self.reports._wishes, "_query", query)
        self.sessions(*[replace(GOOD, policy=TLSPolicyFound(STS_POLICY, "example.net"), failure=FETCH_ERROR)] * 5)
        self.assertEqual(len(answers), 1)
        answers[0].callback(self.answer(self.resolver.query("_smtp._tls.example.net", "TXT")))
        self.assertEqual(self.command("reports")[0]["sessions"], 5)
