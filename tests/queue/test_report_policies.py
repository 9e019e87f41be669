"""Who has a say about reports (`IReportPolicy`): what they may answer, and what the queue makes of it."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.interfaces import ReportDraft
from mailserver.mail.address import Address
from mailserver.mail.answers import Failed
from mailserver.mail.edits import AddHeader, DropHeader
from mailserver.mail.envelope import Envelope, Peer
from mailserver.mail.outbound_answers import SendReport, SuppressReport
from mailserver.mail.reply import Reply
from mailserver.plugins.asking import Asking
from mailserver.plugins.awaiting import later
from mailserver.plugins.bound import BoundComponent
from mailserver.plugins.generation import Generation
from mailserver.queue.report_policies import AS_IT_IS, OURS, ReportPolicies
from mailserver.queue.reports import PATIENCE_SECONDS, ROUTE_AGAIN_SECONDS
from tests.queue.doubles import local
from tests.queue.test_reports import ReportCase, asking
from tests.relay.test_attempts import Unchecked

FULL = Reply.of(552, "5.2.2", "The mailbox is full")
DRAFT = ReportDraft("failure", Envelope("ID", Peer("192.0.2.1", 1, "mx"), Address("bob", "example.com"), (), 0.0), ())


class Says:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.drafts: list[ReportDraft] = []

    async def judge_report(self, draft: ReportDraft) -> Any:
        self.drafts.append(draft)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return await self.answer() if callable(self.answer) and not isinstance(self.answer, type) else self.answer


class Answers(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.steps: list[dict[str, Any]] = []

    def policies(self, *components: Any, **options: Any) -> ReportPolicies:
        policies = ReportPolicies(seconds=self.clock.seconds, note=lambda id, step, **fields: self.steps.append(fields))
        policies.use([BoundComponent("policy", one, Asking("policy", self.clock), **options) for one in components], Generation())
        return policies

    def judged(self, *components: Any, **options: Any) -> Any:
        return self.successResultOf(later(self.policies(*components, **options).judge(DRAFT)))

    def test_with_nobody_to_ask_it_is_made_as_it_is(self) -> None:
        self.assertIs(self.judged(), AS_IT_IS)

    def test_each_adds_to_it_until_one_suppresses_it(self) -> None:
        first = Says(SendReport("First.", (AddHeader("X-One", "1"),)))
        second = Says(SendReport("Second.", (AddHeader("X-Two", "2"),)))
        self.assertEqual(
            self.judged(first, second), SendReport("First.\n\nSecond.", (AddHeader("X-One", "1"), AddHeader("X-Two", "2")))
        )
        last = Says(SendReport())
        self.assertEqual(self.judged(first, Says(SuppressReport("spam")), last), SuppressReport("policy: spam"))
        self.assertEqual(last.drafts, [])

    def test_the_fields_of_a_report_are_its_own(self) -> None:
        for name in OURS:
            self.assertIsNone(self.judged(Says(SendReport("", (AddHeader(name.title(), "x"),)))), name)
            self.flushLoggedErrors()

    def test_whatever_it_does_counts_as_the_configuration_says(self) -> None:
        wrong: list[Any] = [
            None, "yes", SendReport, Failed(FULL), SuppressReport(None), SendReport(None), SendReport("", None),  # type: ignore[arg-type]
            SendReport("", (DropHeader("X"),)), SendReport("", (Unchecked("X", "a\r\nb"),)),  # type: ignore[arg-type]
            SendReport("", iter([])), SendReport("", (AddHeader("X", "grün"),)), SendReport("", tuple([AddHeader("X", "x" * 900)] * 5)),
            ValueError("x"), SystemExit(1), asyncio.CancelledError(), CancelledError(), RecursionError(),
        ]  # fmt: skip
        wanted = (("defer", None), ("skip", AS_IT_IS), ("refuse", SuppressReport("policy: it failed")))
        for on_error, verdict in wanted:
            for answer in wrong:
                self.steps.clear()
                self.assertEqual(self.judged(Says(answer), on_error=on_error), verdict, (on_error, answer))
                self.assertNotEqual(self.steps[0]["error"], "")
                self.flushLoggedErrors()

    def test_one_that_hangs_has_failed_at_its_deadline(self) -> None:
        async def hang() -> Any:
            await Deferred()

        answer = later(self.policies(Says(hang), deadline_seconds=5.0).judge(DRAFT))
        self.assertNoResult(answer)
        self.clock.advance(5)
        self.assertIsNone(self.successResultOf(answer))
        self.flushLoggedErrors()

    def test_an_explanation_is_bounded(self) -> None:
        self.assertEqual(len(self.judged(Says(SendReport("x" * 20_000_000))).explanation), 10_000)


class InTheQueue(ReportCase):
    async def told(self, verdict, **options):
        """The queue, the id of a message that failed, and its policy's double."""
        says = Says(verdict)
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started(judge_report=says.judge_report, **options)
        return queue, await self.send(queue, local(), asking("NEVER", index=1, user="dave"), step="failed"), says

    async def test_a_policy_sees_what_became_of_whom_and_for_whom_a_report_is_due(self):
        _, id, says = await self.told(SendReport())
        [draft] = says.drafts
        self.assertEqual((draft.condition, draft.envelope.id), ("failure", id))
        self.assertEqual([(str(one.recipient.address), one.reply) for one in draft.recipients], [("alice@example.org", FULL)])

    async def test_a_report_that_is_suppressed_is_never_made_and_its_message_is_done(self):
        queue, id, _ = await self.told(SuppressReport("a forged sender"))
        settled = self.steps.wait(id, "settled")
        self.clock.advance(1)
        await self.until(queue, settled)
        self.assertEqual(self.reports(), [])
        self.assertIn("report_suppressed", self.steps.of(id))
        self.assertIsNone(await queue.show(id))

    async def test_what_is_added_stands_in_the_report_and_cannot_break_it(self):
        hostile = "Ask the helpdesk.\r\n\r\n--report-x\r\nContent-Type: text/html\x1b[31m\u202e " + "y" * 3000
        await self.told(SendReport(hostile, (AddHeader("X-Tenant", "seven"),)))
        self.assertEqual(self.reports(), [[("failed", "alice@example.org", "5.2.2")]])
        report = next(parcel[1] for parcel in self.delivery.parcels if b"multipart/report" in parcel[1])
        self.assertIn(b"\r\nX-Tenant: seven\r\n", b"\r\n" + report)
        self.assertIn(b"Ask the helpdesk.\r\n", report)
        self.assertLess(report.index(b"Ask the helpdesk"), report.index(b"This is the mail server"))
        self.assertNotIn(b"\x1b", report)
        self.assertLessEqual(max(map(len, report.split(b"\r\n"))), 998)

    async def test_where_nobody_can_say_it_stays_owed_and_is_made_later(self):
        queue, id, says = await self.told(None)
        self.assertEqual((self.reports(), (await self.states(queue, id))[0]), ([], "failed"))
        says.answer = SendReport()
        reported = self.steps.wait(id, "reported")
        self.clock.advance(ROUTE_AGAIN_SECONDS)
        await self.until(queue, reported)
        self.assertEqual(len(self.reports()), 1)

    async def test_where_nobody_can_say_for_days_it_is_made_as_it_is_also_unsigned(self):
        async def sign(envelope, content):
            return None

        queue, id, _ = await self.told(None, sign_report=sign)
        self.clock.advance(PATIENCE_SECONDS - 60)
        await self.quiet(queue)
        self.assertEqual(self.reports(), [])
        reported = self.steps.wait(id, "reported")
        self.clock.advance(120)
        await self.until(queue, reported)
        self.assertEqual(len(self.reports()), 1)

    async def test_one_that_hangs_holds_up_neither_other_reports_nor_the_stop(self):
        asked = []

        async def judge_report(draft):
            asked.append(draft.envelope.id)
            if len(asked) > 1:
                await Deferred()
            return None

        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started(judge_report=judge_report)
        ids = [await self.send(queue, local(), step="failed") for _ in range(3)]
        self.assertEqual(asked, ids[:2])  # the third came while the second was asked about
        await self.stop(queue)
        queue = await self.started(judge_report=judge_report)
        await self.quiet(queue)
        self.assertEqual(sorted(asked[2:]), sorted(ids[1:]))  # side by side; the first one's is due later
        await self.stop(queue)
        self.clock.advance(ROUTE_AGAIN_SECONDS)
        queue = await self.started(judge_report=Says(SendReport()).judge_report)
        for id in ids:
            if "reported" not in self.steps.of(id):
                await self.until(queue, self.steps.wait(id, "reported"))
        self.assertEqual(len(self.reports()), 3)

    async def test_a_failure_that_is_told_to_nobody_is_no_report_and_asks_nobody(self):
        says = Says(SendReport())
        self.delivery.answers["alice"] = Failed(FULL, reports=False)
        queue = await self.started(judge_report=says.judge_report)
        id = await self.send(queue, local(), step="failed")
        await self.quiet(queue)
        self.assertEqual((self.reports(), says.drafts, await queue.show(id)), ([], [], None))
