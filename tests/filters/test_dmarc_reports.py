"""DMARC reports: what is counted, sent, read and shown, over days of virtual time."""

from __future__ import annotations

import email
import email.policy
import json
import zlib
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.filters import dmarc_facts, report_facts
from mailserver.filters.dmarc_reports import factory
from mailserver.filters.report_days import DAY_SECONDS, FIRST_SECONDS, day_of, start_of
from mailserver.filters.report_inbox import DMARC_FINDING as FINDING
from mailserver.filters.sent_reports import SentReport
from mailserver.interfaces import CannotTell, TransactionEnd
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Finding, Pass
from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.mail.process_failure import ProcessFailed
from mailserver.testing import FilterCase
from mailserver.trust.dmarc_report import AggregateReport, report_xml
from mailserver.trust.dmarc_report_mail import report_message
from mailserver.trust.dmarc_report_reading import read_report
from tests.trust.reports import REPORT, faults_by_schema

TERMS = "v=DMARC1; p=reject; adkim=r; aspf=r; t=n"
OWN = "dmarc-reports@example.org"
RUA = "mailto:rua@example.net"


def dmarc(result: str = "pass", domain: str = "example.net", **more: Any) -> Finding:
    return Finding("dmarc", properties={
        "result": result, "domain": domain, "record": "example.net", "terms": TERMS, "reports": True, "published": "reject",
        "aligned": "dkim" if result == "pass" else "", "disposition": "none", "override": "", "comment": "", **more,
    })  # fmt: skip


SPF = Finding("spf", properties={"result": "softfail", "domain": "bounce.example.net", "scope": "mfrom"})
DKIM = Finding("dkim", properties={"result": "pass", "domain": "example.net", "selector": "s1"})
NO_DKIM = Finding("dkim", properties={"result": "none"})


class ReportsCase(FilterCase):
    options: dict[str, Any] = {"sender": OWN, "organization": "Example", "spread": "1h"}

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(start_of(day_of(self.clock.seconds())) + DAY_SECONDS - self.clock.seconds() + 3600)  # 01:00
        self.today = day_of(self.clock.seconds())
        self.rua(RUA)
        self.reports = self.build(factory, **self.options)

    def rua(self, *uris: str, domain: str = "example.net") -> None:
        self.resolver.zones[f"_dmarc.{domain}"] = {"TXT": [f"v=DMARC1; p=reject; rua={','.join(uris)}"]}

    def message(self, *findings: Finding, how: TransactionEnd = TransactionEnd.ACCEPTED, **more: Any) -> None:
        """A transaction has ended."""
        envelope = replace(self.envelope(**more), findings=findings or (SPF, DKIM, dmarc()))
        self.answer(self.reports.ended(envelope, how))

    def night(self) -> None:
        """The next day at two, when all reports are due."""
        self.clock.advance(start_of(day_of(self.clock.seconds())) + DAY_SECONDS + 7200 - self.clock.seconds())
        self.run_once()

    def run_once(self) -> None:
        self.answer(self.reports.run_periodically())

    def sent(self) -> list[AggregateReport]:
        found = []
        for one in self.send_mail.sent:
            message = email.message_from_bytes(one.content, policy=email.policy.default)
            [attachment] = message.iter_attachments()
            found.append(read_report(attachment.get_content()))
        return found

    def command(self, name: str, **arguments: Any) -> Any:
        return self.answer(next(one for one in self.reports.commands() if one.name == name).run(**arguments))


class Counting(ReportsCase):
    def test_equal_messages_are_one_row_and_the_report_is_what_the_schema_says(self) -> None:
        for _ in range(3):
            self.message()
        override = dmarc("fail", "news.example.net", disposition="quarantine", override="mailing_list", comment="a list")
        self.message(SPF, NO_DKIM, override, how=TransactionEnd.REFUSED, sender=None)
        self.message(SPF, DKIM, dmarc(), peer=self.peer("2001:db8::7"))
        self.night()
        [report] = self.sent()
        self.assertEqual(faults_by_schema(report_xml(report)), [])
        self.assertEqual([(row.source, row.count, row.disposition) for row in report.rows],
                         [("192.0.2.25", 3, "pass"), ("192.0.2.25", 1, "quarantine"), ("2001:db8::7", 1, "pass")])  # fmt: skip
        first, second = report.rows[0], report.rows[1]
        self.assertEqual((first.dkim, first.spf, first.header_from, first.envelope_from), ("pass", "fail", "example.net", "example.net"))
        self.assertEqual([(one.domain, one.selector, one.result) for one in first.signatures], [("example.net", "s1", "pass")])
        self.assertEqual([(one.domain, one.result) for one in first.senders], [("bounce.example.net", "softfail")])
        self.assertEqual([(one.kind, one.comment) for one in second.overrides], [("mailing_list", "a list")])
        self.assertEqual((second.header_from, second.envelope_from, second.signatures), ("news.example.net", "", ()))
        self.assertEqual((report.begin, report.end), (start_of(self.today), start_of(self.today) + DAY_SECONDS - 1))
        self.assertEqual((report.published.domain, report.published.policy, report.organization), ("example.net", "reject", "Example"))

    def test_what_no_report_is_about(self) -> None:
        for findings in (
            (Finding(FINDING), dmarc()), (dmarc("none"),), (dmarc("temperror"),), (dmarc(reports=False),), (dmarc(record=""),),
            (dmarc(terms="v=DMARC1; p=reject; psd=y", record="net"),), (dmarc(record="a/b.example.net"),), (SPF,),
        ):  # fmt: skip
            self.message(*findings)
        self.message(how=TransactionEnd.LOST)
        self.message(how=TransactionEnd.RESET)
        self.message(recipients=[OWN])
        self.message(recipients=["alice@example.org", "DMARC-Reports+x@example.org"])
        self.message(peer=self.peer("unix"))
        self.night()
        self.assertEqual(self.sent(), [])
        self.message(recipients=["dmarc-reports@elsewhere.example"])
        self.night()
        self.assertEqual(len(self.sent()), 1)

    def test_a_day_is_a_day_of_utc_and_each_has_its_report(self) -> None:
        self.message()
        self.clock.advance(start_of(self.today) + DAY_SECONDS - 1 - self.clock.seconds())
        self.message()
        self.clock.advance(1)
        self.message()
        self.run_once()
        self.assertEqual(self.sent(), [])
        self.clock.advance(FIRST_SECONDS + 3600)
        self.run_once()
        self.assertEqual([row.count for report in self.sent() for row in report.rows], [2])
        self.night()
        self.assertEqual([row.count for report in self.sent() for row in report.rows], [2, 1])

    def test_another_policy_within_the_day_is_another_report(self) -> None:
        self.message()
        self.message(SPF, DKIM, dmarc(terms=TERMS.replace("reject", "none"), published="none"))
        self.night()
        self.assertEqual(sorted((one.published.policy, one.rows[0].disposition) for one in self.sent()), [("none", "none"), ("reject", "pass")])
        self.assertEqual(len({one.id for one in self.sent()}), 2)

    def test_a_domain_that_only_tries_is_reported_as_such(self) -> None:
        self.message()
        self.message(SPF, DKIM, dmarc(terms=TERMS.replace("t=n", "t=y")))
        self.night()
        self.assertEqual(sorted(one.published.testing for one in self.sent()), ["n", "y"])

    def test_a_restart_takes_nothing_away(self) -> None:
        self.message()
        self.reports = self.build(factory, **self.options)
        self.message()
        self.night()
        self.reports = self.build(factory, **self.options)
        self.run_once()
        self.assertEqual([row.count for report in self.sent() for row in report.rows], [2])

    def test_all_is_bounded_and_what_has_no_room_is_told(self) -> None:
        self.patch(dmarc_facts, "ROWS_MOST", 3)
        self.patch(report_facts, "GROUPS_MOST", 2)
        for n in range(6):
            self.message(SPF, DKIM, dmarc(), peer=self.peer(f"192.0.2.{n}"))
        for n in range(3):
            self.message(SPF, DKIM, dmarc(record=f"d{n}.example.net"))
        self.assertEqual(self.command("preview", domain="example.net")[0]["left_out"], 5)
        self.assertEqual(len(self.command("reports")), 2)
        self.night()
        self.assertEqual([len(one.rows) for one in self.sent()], [3])
        figures = self.metrics["tested"].figures()
        self.assertEqual([figures[name] for name in ("messages_counted", "messages_left_out", "reports_sent")], [4, 5, 2])

    def test_without_a_sender_nothing_is_counted(self) -> None:
        self.reports = self.build(factory)
        self.message()
        self.assertEqual(self.answer(self.reports.facts.groups(self.today)), [])
        self.night()


class Sending(ReportsCase):
    def setUp(self) -> None:
        super().setUp()
        self.message()

    def outcome(self) -> dict[str, str]:
        [one] = [row for row in self.command("reports") if row["day"] == self.today]
        return dict(one["to"])

    def test_it_comes_from_the_address_and_its_failure_is_told_to_nobody(self) -> None:
        self.night()
        [one] = self.send_mail.sent
        self.assertEqual((str(one.sender), [str(to) for to in one.recipients], one.reports), (OWN, ["rua@example.net"], False))
        self.assertIn(b"\tSubmitter: example.org\r\n", one.content)

    def test_it_is_sent_once(self) -> None:
        self.night()
        for _ in range(3):
            self.run_once()
        self.assertEqual(len(self.send_mail.sent), 1)
        self.assertEqual(self.outcome(), {"rua@example.net": "0000000000000001"})

    def test_a_person_who_orders_it_and_the_run_of_the_minute_send_it_once(self) -> None:
        self.clock.advance(DAY_SECONDS + 7200)
        release: Deferred[None] = Deferred()
        waiting = [release]
        send = self.reports.sending._send

        async def slow(*arguments: Any, **more: Any) -> Any:
            await waiting.pop(0)
            return await send(*arguments, **more)

        self.patch(self.reports.sending, "_send", slow)
        first = Deferred.fromCoroutine(self.reports.run_periodically())
        second = Deferred.fromCoroutine(self.reports.sending.run())
        self.assertNoResult(second)
        release.callback(None)
        self.successResultOf(first)
        self.assertEqual((self.successResultOf(second), len(self.send_mail.sent)), (0, 1))

    def test_each_domain_has_a_moment_of_its_own_that_is_the_same_each_time(self) -> None:
        groups = [group for group, _ in self.answer(self.reports.facts.groups(self.today))]
        [due] = [self.reports.sending.due_at(group) for group in groups]
        self.assertTrue(0 <= due - start_of(self.today) - DAY_SECONDS - FIRST_SECONDS < 3600, due)
        self.clock.advance(due - self.clock.seconds() - 1)
        self.run_once()
        self.assertEqual(self.sent(), [])
        self.clock.advance(1)
        self.run_once()
        self.assertEqual(len(self.sent()), 1)
        others = {self.reports.sending.due_at(replace(groups[0], domain=f"d{n}.example")) for n in range(20)}
        self.assertEqual(len(others), 20)

    def test_two_hosts_of_one_domain_have_ids_and_moments_of_their_own(self) -> None:
        [(group, _)] = self.answer(self.reports.facts.groups(self.today))
        other = factory.build(self.reports._options, replace(self.services, hostname="mx2.example.org"))
        hosts = (self.reports.sending, other.sending)
        self.assertEqual(len({one.id_of(group) for one in hosts}), 2)
        self.assertEqual(len({one.due_at(group) for one in hosts}), 2)

    def test_several_addresses_each_with_its_size(self) -> None:
        self.rua(RUA, "mailto:small@example.net!10", "https://example.net/r", "mailto:big@example.net!10m", RUA)
        self.night()
        self.assertEqual([str(one.recipients[0]) for one in self.send_mail.sent], ["rua@example.net", "big@example.net"])
        self.assertRegex(self.outcome()["small@example.net"], "octets, and 10 are wanted")

    def test_another_organization_has_to_consent(self) -> None:
        self.rua("mailto:r@third.example", "mailto:r@mail.example.net")
        self.night()
        self.assertEqual([str(one.recipients[0]) for one in self.send_mail.sent], ["r@mail.example.net"])
        self.assertRegex(self.outcome()["r@third.example"], "does not say that it wants them")
        self.assertIn(("example.net._report._dmarc.third.example", "TXT"), self.resolver.asked)

    def test_who_consents_gets_it_where_he_says(self) -> None:
        self.resolver.zones["example.net._report._dmarc.third.example"] = {"TXT": ["v=DMARC1; rua=mailto:other@third.example"]}
        self.rua("mailto:r@third.example")
        self.night()
        self.assertEqual([str(one.recipients[0]) for one in self.send_mail.sent], ["other@third.example"])

    def test_a_dns_that_cannot_tell_is_asked_again_and_holds_up_no_other(self) -> None:
        self.resolver.zones["_dmarc.other.example"] = {"TXT": ["v=DMARC1; p=none; rua=mailto:r@other.example"]}
        self.message(SPF, DKIM, dmarc(record="other.example", domain="other.example"))
        self.resolver.failing.add("_dmarc.example.net")
        self.night()
        self.assertEqual([one.published.domain for one in self.sent()], ["other.example"])
        self.resolver.failing.clear()
        self.run_once()
        self.assertEqual(len(self.sent()), 1)
        self.clock.advance(901)
        self.run_once()
        self.assertEqual([one.published.domain for one in self.sent()], ["other.example", "example.net"])

    def test_a_domain_that_wants_none_any_more_gets_none(self) -> None:
        self.resolver.zones["_dmarc.example.net"] = {"TXT": ["v=DMARC1; p=reject"]}
        self.night()
        self.assertEqual((self.sent(), self.outcome()), ([], {}))

    def test_one_that_is_to_have_none_gets_none(self) -> None:
        self.reports = self.build(factory, **self.options, without=["example.net"])
        self.night()
        self.assertEqual(self.sent(), [])

    def test_what_cannot_be_sent_now_is_sent_later_and_what_never_can_is_recorded(self) -> None:
        self.send_mail.failing = CannotTell("not now")
        self.night()
        self.send_mail.failing = StorageFull("no room")
        self.clock.advance(901)
        self.run_once()
        self.send_mail.failing = ValueError("rua@example.net: there is no relay")
        self.clock.advance(901)
        self.run_once()
        self.assertEqual(self.outcome(), {"rua@example.net": "not sent: rua@example.net: there is no relay"})
        self.send_mail.failing = None
        self.night()
        self.assertEqual(self.sent(), [])

    def test_one_trouble_is_no_others(self) -> None:
        self.message(SPF, DKIM, dmarc(record="other.example", domain="other.example"))
        self.resolver.zones["_dmarc.other.example"] = {"TXT": ["v=DMARC1; p=none; rua=mailto:r@other.example"]}
        whole = self.reports.sending.report

        async def report(group: Any, record: Any) -> Any:
            if group.domain == "example.net":
                raise RuntimeError("broken")
            return await whole(group, record)

        self.patch(self.reports.sending, "report", report)
        self.night()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual([one.published.domain for one in self.sent()], ["other.example"])

    def test_a_crash_between_sending_and_recording_doubles_one_with_the_same_id(self) -> None:
        self.rua(RUA, "mailto:second@example.net")
        put = self.records.put
        calls: list[str] = []

        async def dies(key: str, value: bytes) -> None:
            calls.append(key)
            if len(calls) == 2:
                raise StorageBroken("killed")
            await put(key, value)

        self.patch(self.reports.sending.sent, "_records", _Records(self.records, dies))
        self.night()
        self.reports = self.build(factory, **self.options)
        self.run_once()
        self.run_once()
        to = [str(one.recipients[0]) for one in self.send_mail.sent]
        self.assertEqual(to, ["rua@example.net", "second@example.net", "second@example.net"])
        self.assertEqual(len({one.id for one in self.sent()}), 1)
        first, again = (email.message_from_bytes(one.content, policy=email.policy.default) for one in self.send_mail.sent[1:])
        self.assertEqual(first["Message-ID"], again["Message-ID"])
        self.assertEqual(*[next(iter(one.iter_attachments())).get_filename() for one in (first, again)])

    def test_days_in_which_the_server_was_down_are_reported_two_days_long(self) -> None:
        self.clock.advance(DAY_SECONDS)
        self.night()
        self.assertEqual(len(self.sent()), 1)
        self.message()
        self.clock.advance(2 * DAY_SECONDS)
        self.night()
        self.assertEqual(len(self.sent()), 1)
        self.assertEqual([one["state"] for one in self.command("reports")], ["given up", "sent"])

    def test_what_was_sent_is_forgotten_in_time(self) -> None:
        self.night()
        self.clock.advance(181 * DAY_SECONDS)
        self.run_once()
        self.assertEqual(self.answer(self.reports.sending.sent.all()), [])

    def test_a_preview_sends_nothing(self) -> None:
        self.rua(RUA, "mailto:r@third.example")
        [one] = self.command("preview", domain="Example.NET.")
        self.assertEqual(faults_by_schema(one["document"].encode()), [])
        self.assertEqual((one["messages"], one["to"]["rua@example.net"]), (1, "wanted"))
        self.assertIn("does not say", one["to"]["r@third.example"])
        self.assertEqual(self.sent(), [])
        self.assertEqual([row["state"] for row in self.command("reports")], ["collecting"])
        self.clock.advance(DAY_SECONDS)
        self.assertEqual([row["state"] for row in self.command("reports")], ["waiting"])

    def test_records_are_read_again(self) -> None:
        one = SentReport("id", "2026-11-30", "example.net", 3, 1, 5.0, {"a@b.example": "x"}, True)
        self.assertEqual(SentReport.read(one.octets()), one)
        self.assertEqual([SentReport.read(octets) for octets in (b"x", b"[1]", b"{}", b"\xff")], [None] * 4)


class _Records:
    def __init__(self, records: Any, put: Any) -> None:
        self.get, self.items, self.drop, self.put = records.get, records.items, records.drop, put


class Reading(ReportsCase):
    def report(self, report: AggregateReport = REPORT, content: Any = None, passed: str = "big.example", **more: Any) -> Any:
        """What becomes of a report of others."""
        message = report_message(report, receiver="big.example", sender=Address("r", "big.example"), to=Address("x", "y.example"), now=0)
        body = self.content(message if content is None else content)
        envelope = self.envelope(recipients=[OWN], **more)
        if passed:
            found = replace(envelope, findings=(dmarc(domain=passed),))
            self.answer(self.reports.judge_content(found, body))
        return self.answer(self.reports.read(envelope, body, Address.parse(OWN)))

    def ours(self, **more: Any) -> AggregateReport:
        return replace(REPORT, published=replace(REPORT.published, domain="example.org"), **more)

    def test_one_about_a_domain_of_ours_is_kept_and_shown(self) -> None:
        self.assertEqual(self.report(self.ours()), Delivered("a DMARC report: it is kept"))
        news = replace(REPORT, published=replace(REPORT.published, domain="news.example.org"))
        self.assertEqual(self.report(news, passed="other.example"), Delivered("a DMARC report: it is kept"))
        [one] = self.command("list", domain="example.org")
        self.assertEqual((one["reporter"], one["messages"], one["passed"], one["policy"]), ("big.example", 13, 12, "reject"))
        self.assertEqual({row["domain"] for row in self.command("list")}, {"example.org", "news.example.org"})
        shown = self.command("show", domain="example.org")
        self.assertEqual((shown["messages"], shown["passed"], shown["sources"]), (13, 12, 2))
        self.assertEqual([(row["source"], row["failed"], row["stopped"]) for row in shown["rows"]], [("2001:db8::1", 1, 1), ("192.0.2.25", 0, 0)])
        self.assertEqual(self.command("unread"), [])

    def test_the_same_one_twice_counts_once(self) -> None:
        for _ in range(2):
            self.report(self.ours())
        self.assertEqual(self.command("show", domain="example.org")["messages"], 13)
        self.report(self.ours(), passed="other.example")
        self.assertEqual(self.command("show", domain="example.org")["messages"], 26)

    def test_what_is_not_read_is_told_and_never_bounced(self) -> None:
        head = b"From: r@big.example\nSubject: Report Domain: example.org\nContent-Type: application/gzip\n\n"
        for words, more in (
            ("DMARC has not passed", {"report": self.ours(), "passed": ""}),
            ("no domain of ours", {"report": REPORT}),
            ("no part", {"content": b"From: r@big.example\nSubject: Report Domain: x\n\nHello.\n"}),
            ("gzip", {"content": head + b"\x1f\x8b\x08\0broken"}),
            ("document type", {"content": head.replace(b"gzip", b"xml") + b"<!DOCTYPE a [<!ENTITY b 'c'>]><feedback/>"}),
        ):
            outcome = self.report(**more)  # type: ignore[arg-type]
            self.assertIs(type(outcome), Delivered)
            self.assertRegex(outcome.note, f"^not read: .*{words}")
            self.assertRegex(self.command("unread")[0]["why"], words)
            self.clock.advance(1)
        self.assertEqual(self.command("list"), [])
        self.assertEqual(len(self.command("unread")), 5)
        self.assertEqual(len(self.command("unread", since=2)), 2)

    def test_a_bounce_ends_there(self) -> None:
        self.assertRegex(self.report(self.ours(), sender=None).note, "null sender")
        self.assertEqual((self.command("list"), self.command("unread")), ([], []))

    def test_our_own_report_about_us_is_kept(self) -> None:
        peer = self.peer("127.0.0.1", service="report")
        self.assertEqual(self.report(self.ours(), passed="", peer=peer, sender=OWN).note, "a DMARC report: it is kept")
        self.assertRegex(self.report(self.ours(), passed="", peer=peer, sender="evil@example.org").note, "not read")

    def test_a_process_that_dies_over_it_is_told(self) -> None:
        def dies(*_: Any, **more: Any) -> Any:
            raise ProcessFailed("died", "it was killed")

        self.patch(self.reports.inbox, "_run_in_process", dies)
        self.assertRegex(self.report(self.ours()).note, "reading it has failed")

    def test_a_store_that_is_full_keeps_it_waiting(self) -> None:
        async def full(*_: Any, **more: Any) -> None:
            raise StorageFull("no room")

        self.patch(self.reports.received, "keep", full)
        self.assertIs(type(self.report(self.ours())), Delayed)

    def test_one_reporter_cannot_fill_it(self) -> None:
        from mailserver.filters import received_reports, report_inbox

        self.patch(report_inbox, "REPORTS_OF_ONE_MOST", 2)
        outcomes = [self.report(self.ours(id=f"{n}")).note for n in range(3)]
        self.assertRegex(outcomes[2], "more than 2 reports today")
        self.patch(report_inbox, "REPORTS_OF_ONE_MOST", 300)
        self.patch(received_reports, "KEPT_OF_ONE_MOST", 3)
        full = [type(self.report(self.ours(id=f"more {n}"))) for n in range(2)]
        self.assertEqual(full, [Delivered, Delayed])
        self.assertIs(type(self.report(self.ours(id="other"), passed="second.example")), Delivered)  # others have room
        self.patch(received_reports, "KEPT_MOST", 4)
        self.assertIs(type(self.report(self.ours(id="x"), passed="third.example")), Delayed)

    def test_many_rows_come_back_as_they_were(self) -> None:
        rows = tuple([replace(REPORT.rows[0], source=f"2001:db8::{n:x}") for n in range(1, 1001)])
        report = self.ours(rows=rows)
        self.answer(self.reports.received.keep(report, reporter="big.example", id="x", at=1.0))
        kept = self.answer(self.collected())
        self.assertEqual([one.report for one in kept], [report])
        self.assertGreater(len(self.answer(self.records.items("in/"))), 1)

    def test_records_that_were_written_by_others_do_no_harm(self) -> None:
        self.report(self.ours())
        [(_, value)] = self.answer(self.records.items("in/"))
        about, rows = json.loads(zlib.decompress(value))
        for n, wrong in enumerate((
            b"", b"\xff", zlib.compress(b"5"), zlib.compress(b"[1,2]"), zlib.compress(b"[null,[5]]"),
            zlib.compress(json.dumps([[{}, 1, 2, 3, 4], []]).encode()),
            zlib.compress(json.dumps([about, [{**rows[0], "count": "x"}]]).encode()),
            zlib.compress(json.dumps([[{**about[0], "end": "x"}, *about[1:]], rows]).encode()),
        )):  # fmt: skip
            self.answer(self.records.put(f"in/example.org/{n:012d}/{n:020d}/0000", wrong))
            self.answer(self.records.put(f"in/example.org/x{n}", wrong))
            self.answer(self.records.put(f"sent/{self.today}/x/{n}", wrong))
        self.assertEqual(self.command("show", domain="example.org")["messages"], 13)
        self.assertEqual(self.command("reports"), [])
        self.answer(self.reports.received.forget(self.clock.seconds()))
        self.assertEqual(len(self.command("list")), 1)

    async def collected(self) -> list[Any]:
        return [one async for one in self.reports.received.all()]

    def test_old_ones_are_forgotten_and_a_clock_that_jumps_takes_none(self) -> None:
        now = int(self.clock.seconds())
        self.report(self.ours(begin=now - DAY_SECONDS, end=now))
        self.answer(self.reports.received.forget(self.clock.seconds() + 1000 * DAY_SECONDS))
        self.assertEqual(len(self.command("list")), 1)
        self.clock.advance(179 * DAY_SECONDS)
        self.run_once()
        self.assertEqual(len(self.command("list")), 1)
        self.clock.advance(2 * DAY_SECONDS)
        self.run_once()
        self.assertEqual(self.command("list"), [])
        self.assertEqual(self.answer(self.records.items()), [])


class Findings(ReportsCase):
    def test_a_report_has_a_finding_and_everything_else_has_none(self) -> None:
        subject = b"From: r@example.net\nSubject: Report Domain: example.org Submitter: example.net\n\n"
        envelope = replace(self.envelope(), findings=(dmarc(),))
        [finding] = self.judge(self.reports.judge_content(envelope, self.content(subject))).findings
        self.assertEqual((finding.name, finding.score), (FINDING, 0.0))
        for findings, message in (
            ((dmarc("fail"),), subject), ((), subject), ((dmarc(),), b"From: r@example.net\nSubject: Hello\n\n"),
        ):  # fmt: skip
            self.assertEqual(self.judge(self.reports.judge_content(replace(envelope, findings=findings), self.content(message))), Pass())

    def test_a_store_that_is_broken_holds_up_no_mail(self) -> None:
        async def broken(*_: Any) -> None:
            raise StorageBroken("gone")

        self.patch(self.reports.inbox, "_state", type("State", (), {"put": staticmethod(broken)}))
        envelope = replace(self.envelope(), findings=(dmarc(),))
        message = self.content(b"From: r@example.net\nSubject: Report Domain: x\n\n")
        self.assertIs(type(self.judge(self.reports.judge_content(envelope, message))), Pass)
