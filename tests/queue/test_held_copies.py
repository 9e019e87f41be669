"""Copies that verdicts hold: judged again, released, discarded, and never the sender's matter unless he is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread

from mailserver.mail.added_header import AddHeader
from mailserver.mail.answers import Accept, Defer, Delayed, Discard, Finding, Pass, Quarantine, Refuse, Remote
from mailserver.mail.content import Content
from mailserver.mail.known_sender import ToldSenders
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import Hold, Holder, HoldKind, Returned, kept_findings, put_aside
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order
from mailserver.queue.admin.selection import Selection
from mailserver.queue.clock_changes import ClockChanges
from mailserver.queue.holding import HoldingPolicy
from tests.queue.doubles import PEER, QueueCase, envelope, local, remote

DAY = 86_400.0
ALICE, BOB, FAR = local(0), local(1, "bob"), remote(2)
SEEN = Finding("spf", 2.5, "not permitted", {"code": 7}, "spf")
REFUSED, UNDECIDED = Hold(HoldKind.REFUSED, "a virus"), Hold(HoldKind.UNDECIDED, "not yet", (SEEN,))
ASIDE = Hold(HoldKind.QUARANTINED, "odd")


class HeldCase(QueueCase):
    def setUp(self):
        super().setUp()
        self.verdicts: list[Any] = []  # of the questions to come: verdicts, errors, or what is waited for
        self.judged: list[tuple[str, str]] = []

    async def judge(self, envelope, content, recipient):
        self.judged.append((recipient.address.local, b"".join(content.chunks()).decode()))
        self.findings = envelope.findings
        answer = self.verdicts.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return await answer if isinstance(answer, Deferred) else answer

    async def queue(self, **changes):
        self.reported = []

        async def route(address):
            self.reported.append(str(address))
            return [Remote(address)]

        options = {"judge": self.judge, "route": route, "expire_seconds": 5 * DAY, "retry_seconds": [60, 300, 3600]}
        return await self.started(**{**options, **changes})

    async def send(self, queue, apart, *destinations, login=""):
        sent = replace(envelope(*destinations, received_at=self.clock.seconds()), peer=replace(PEER, login=login))
        await queue.commit(sent, Content.of(b"Subject: x\r\n\r\nbody\r\n"), destinations, apart)
        await self.turn()  # its sender hears 250 first
        return sent.id

    async def pass_time(self, seconds, id, step, count=1):
        """Let the time pass, until the message has had so many of these steps."""
        self.clock.advance(seconds)
        await self.until(lambda: self.steps.of(id).count(step) >= count)

    async def until(self, holds):
        for _ in range(10_000):
            if holds():
                return
            self.clock.advance(0)
            await self.turn()
        self.fail(f"{self.steps.noted}")

    async def turn(self):
        await deferToThread(lambda: None)

    async def states(self, queue, id):
        found = await queue.show(id)
        return None if found is None else [(one.state, one.hold) for one in found.destinations]

    def delivered(self):
        return sorted((index, "relay" if via is self.relay else "local") for via in (self.delivery, self.relay)
                      for _, _, indexes, _ in via.parcels for index in indexes)  # fmt: skip


class Held(HeldCase):
    async def test_the_accepted_copy_goes_its_way_and_the_refused_one_ends_discarded_and_never_reported(self):
        queue = await self.queue()
        id = await self.send(queue, {1: REFUSED, 2: ASIDE}, ALICE, BOB, FAR)
        await self.pass_time(1, id, "delivered")
        self.assertEqual((await self.states(queue, id))[1:], [("held", "refused"), ("held", "quarantined")])
        held = [fields for _, step, fields in self.steps.noted if step == "held"]
        self.assertEqual([(one["why"], one["hold"]) for one in held], [("a virus", "refused"), ("odd", "quarantined")])
        await self.pass_time(29 * DAY, id, "held")
        self.assertEqual((await self.states(queue, id))[1:], [("held", "refused"), ("held", "quarantined")])
        await self.pass_time(2 * DAY, id, "settled")
        self.assertEqual(self.steps.of(id).count("discarded"), 2)
        self.assertEqual((self.delivered(), queue.counts.discarded, queue.depth, self.reported), ([(0, "local")], 2, 0, []))

    async def test_its_end_stands_in_the_store_over_a_crash(self):
        queue = await self.queue()
        id = await self.send(queue, {0: REFUSED}, ALICE)
        await self.crash(queue)
        self.clock.advance(31 * DAY)
        queue = await self.queue()
        await self.until(lambda: "settled" in self.steps.of(id))
        self.assertEqual((self.delivered(), queue.depth), ([], 0))

    async def test_while_the_clock_may_be_wrong_nothing_is_thrown_away_by_it(self):
        steady = [False]
        self.patch(ClockChanges, "is_steady", property(lambda changes: steady[0]))
        queue = await self.queue()
        id = await self.send(queue, {0: REFUSED}, ALICE)
        for _ in range(3):
            self.clock.advance(31 * DAY)
            for _ in range(10):
                await self.turn()
                self.clock.advance(0)
        self.assertEqual(await self.states(queue, id), [("held", "refused")])
        steady[0] = True
        await self.pass_time(3601, id, "settled")
        self.assertEqual((self.steps.of(id).count("discarded"), self.delivered()), (1, []))

    async def test_a_clock_that_was_ahead_does_not_hold_it_for_years(self):
        queue = await self.queue()
        self.clock.rightNow += 3650 * DAY
        id = await self.send(queue, {0: REFUSED, 1: UNDECIDED}, ALICE, BOB)
        await self.crash(queue)
        self.clock.rightNow -= 3650 * DAY
        self.verdicts = [Pass()]
        queue = await self.queue()
        await self.until(lambda: "delivered" in self.steps.of(id))
        self.assertLess((await queue.show(id)).destinations[0].until, self.clock.seconds() + 31 * DAY)

    async def test_a_person_may_release_or_drop_it_but_nobody_gets_it_back(self):
        queue = await self.queue()
        ids = [await self.send(queue, {0: REFUSED}, ALICE) for _ in range(3)]
        for verb, id, done in ((Verb.BOUNCE, ids[0], 0), (Verb.RELEASE, ids[1], 1), (Verb.DROP, ids[2], 1), (Verb.REDIRECT, ids[0], 1)):
            page = await queue.verbs.carry_out(Order(verb, Selection(id=id), "me", "x", (BOB.route,)), after=0)
            self.assertEqual(len(page.done), done, verb)
        await self.pass_time(1, ids[1], "delivered")
        await self.pass_time(31 * DAY, ids[1], "settled")
        self.assertIsNone(await queue.show(ids[2]))
        self.assertEqual((self.reported, (await queue.show(ids[0])).state), ([], "held"))

    async def test_a_user_whose_own_mail_is_held_is_told_at_once_and_once(self):
        queue = await self.queue()
        id = await self.send(queue, {0: ASIDE}, remote(0), login="bob@example.com")
        await self.pass_time(1, id, "reported")
        report = next(fields for step_id, step, fields in self.steps.noted if (step_id, step) == (id, "reported"))
        self.assertEqual((report["condition"], report["recipient"]), ("hold", "bob@example.com"))
        await self.pass_time(31 * DAY, id, "settled")
        self.assertEqual(self.steps.of(id).count("reported"), 1)
        ((_, octets, _, _),) = self.relay.parcels
        self.assertIn(b"Action: delayed", octets)
        self.assertIn(b"held", octets)

    async def test_a_sender_who_is_known_gets_a_report_of_a_refusal_and_the_others_get_the_message(self):
        queue = await self.queue()
        returned = Returned(Reply.of(550, "5.7.1", "Refused by policy"), "no")
        id = await self.send(queue, {1: returned}, ALICE, BOB, login="bob@example.com")
        await self.pass_time(1, id, "settled")
        self.assertEqual(self.reported, ["bob@example.com"])
        ((_, octets, _, _),) = self.relay.parcels
        self.assertIn(b"rfc822; bob@example.org", octets)
        self.assertIn(b"550 5.7.1 Refused by policy", octets)

    async def test_a_refusal_that_comes_later_is_told_to_a_stranger_whose_domain_answers_for_it_where_that_was_said(self):
        for told, answered in ((ToldSenders.KNOWN, True), (ToldSenders.KNOWN, False), (ToldSenders.USERS, True)):
            queue = await self.queue(holding=HoldingPolicy(told=told))
            self.verdicts = [Refuse("no", reply=Reply.of(554, "5.7.0", "Clean your disk"))]
            spf = Finding("spf", properties={"result": "pass", "scope": "mfrom", "domain": "example.com"}, source="spf")
            dmarc = Finding("dmarc", properties={"result": "pass" if answered else "fail"}, source="dmarc")
            id = await self.send(queue, {0: Hold(HoldKind.UNDECIDED, "not now", (spf, dmarc))}, remote(0))
            is_told = told is ToldSenders.KNOWN and answered
            self.clock.advance(70)
            await self.until(lambda id=id: {"held", "failed", "settled"} & set(self.steps.of(id)))
            if is_told:
                await self.pass_time(1, id, "settled")
                self.assertIn(b"554 5.7.0 Clean your disk", self.relay.parcels[-1][1])
            self.assertEqual(self.reported, ["bob@example.com"] if is_told else [])
            await self.stop(queue)


class AskedAbout(HeldCase):
    """What a filter holds until somebody decides."""

    async def test_where_nobody_decides_it_goes_to_junk_in_place_of_nowhere_also_over_a_crash(self):
        places = []
        outcomes = self.delivery._outcomes
        self.delivery._outcomes = lambda e, c, d, a: places.extend(one.route.mailbox.place for one in d) or outcomes(e, c, d, a)
        asked, told = [kept_findings((Holder("contacts", "content_for", "new", hold),), ()) for hold in (True, False)]
        for holds, states in ((False, {(0, "delivered"), (1, "dropped"), (2, "dropped"), (3, "dropped")}), (True, {(n, "dropped") for n in range(4)})):
            queue = await self.queue(holding=HoldingPolicy(holds_quarantine=holds))
            apart = {
                0: Hold(HoldKind.QUARANTINED, "new", asked), 1: Hold(HoldKind.QUARANTINED, "odd", told),
                2: Hold(HoldKind.REFUSED, "a virus", asked), 3: Hold(HoldKind.QUARANTINED, "new", asked),
            }  # fmt: skip
            id = await self.send(queue, apart, ALICE, BOB, local(2, "carol"), remote(3))
            await self.pass_time(29 * DAY, id, "held")
            await self.crash(queue)
            self.clock.advance(2 * DAY)
            queue = await self.queue(holding=HoldingPolicy(holds_quarantine=holds))
            await self.until(lambda id=id: "settled" in self.steps.of(id) or "delivered" in self.steps.of(id))
            await self.pass_time(1, id, "settled")
            count = self.steps.of(id).count("discarded")
            self.assertEqual((count, places), (sum([state == "dropped" for _, state in states]), [] if holds else [("Junk",)]))
            places.clear()
            await self.stop(queue)
        self.delivery._outcomes = outcomes
        why = [fields["why"] for _, step, fields in self.steps.noted if step == "judged"]
        self.assertEqual((why, self.reported), (["nobody has decided in time: new"], []))


class Undecided(HeldCase):
    async def test_it_is_judged_again_on_the_queues_schedule_and_then_delivered(self):
        queue = await self.queue()
        id = await self.send(queue, {1: UNDECIDED}, ALICE, BOB)
        await self.pass_time(1, id, "delivered")
        self.assertEqual(self.judged, [])
        self.clock.advance(1)
        while await self.states(queue, id) != [("delivered", ""), ("undecided", "undecided")]:
            await self.turn()
        self.verdicts = [Defer("still not"), Accept("a friend")]
        await self.pass_time(70, id, "undecided", 2)
        self.assertEqual(self.judged, [("bob", "Subject: x\r\n\r\nbody\r\n")])
        self.assertEqual(self.findings, (SEEN,))
        self.clock.advance(200)
        await self.turn()
        self.assertEqual(len(self.judged), 1)
        await self.pass_time(200, id, "delivered", 2)
        await self.pass_time(1, id, "settled")
        self.assertEqual((self.delivered(), queue.depth), ([(0, "local"), (1, "local")], 0))

    async def test_whatever_the_judge_raises_is_not_yet(self):
        queue = await self.queue()
        id = await self.send(queue, {0: UNDECIDED}, ALICE)
        for number, error in enumerate((RuntimeError("down"), SystemExit(1), CancelledError(), OSError(5, "the spool"))):
            self.verdicts = [error]
            await self.pass_time(4000, id, "undecided", number + 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError, SystemExit)), 2)
        self.assertEqual(await self.states(queue, id), [("undecided", "undecided")])
        self.assertEqual(self.delivered(), [])

    async def test_one_that_never_answers_is_given_up_and_judged_later(self):
        queue = await self.queue()
        id = await self.send(queue, {0: UNDECIDED}, ALICE)
        self.verdicts = [Deferred(), Pass()]
        self.clock.advance(70)
        await self.until(lambda: self.judged)
        await self.pass_time(301, id, "undecided", 2)
        await self.pass_time(4000, id, "delivered")

    async def test_a_refusal_holds_it_and_a_stranger_hears_nothing(self):
        for login, state in (("", [("held", "refused")]), ("bob@example.com", None)):
            queue = await self.queue()
            id = await self.send(queue, {0: UNDECIDED}, remote(0), login=login)
            self.verdicts = [Refuse("a virus")]
            self.clock.advance(70)
            await self.until(lambda id=id: {"held", "failed", "settled"} & set(self.steps.of(id)))
            if login:
                await self.pass_time(1, id, "settled")
            self.assertEqual(await self.states(queue, id), state)
            self.assertEqual(self.reported, [login] if login else [])
            await self.stop(queue)

    async def test_the_tags_of_the_later_judgement_go_into_the_copy_also_over_a_crash(self):
        queue = await self.queue()
        lines = []
        outcomes = self.delivery._outcomes
        self.delivery._outcomes = lambda e, c, d, a: lines.extend(one.lines for one in d) or outcomes(e, c, d, a)
        first = replace(ALICE, lines=b"X-Spam-First: 1,\r\n 2\r\n")
        seen = Finding("spam", 5.0, tags=(AddHeader("X-Spam-Second", "a,\r\n 2"),))
        for verdict in (Pass(findings=(seen,)), Quarantine("odd", findings=(seen,))):
            lines.clear()
            id = await self.send(queue, {0: UNDECIDED}, first)
            self.verdicts = [verdict]
            self.delivery.answers["alice"] = Delayed(Reply.of(451, "4.3.0", "full"))
            await self.pass_time(70, id, "deferred")
            await self.crash(queue)
            queue = await self.queue()
            del self.delivery.answers["alice"]
            await self.pass_time(4000, id, "delivered")
            await self.pass_time(1, id, "settled")
            self.assertEqual(lines, [b"X-Spam-First: 1,\r\n 2\r\nX-Spam-Second: a,\r\n 2\r\n"] * 2)
        self.delivery._outcomes = outcomes

    async def test_what_was_put_aside_before_it_could_not_be_judged_is_aside_whatever_friend_it_finds_then(self):
        for verdict in (Pass(), Accept("a friend")):
            queue = await self.queue()
            users = []
            outcomes = self.delivery._outcomes
            self.delivery._outcomes = lambda e, c, d, a, seen=users, then=outcomes: seen.extend(d) or then(e, c, d, a)
            apart = Hold(HoldKind.UNDECIDED, "not yet", (put_aside("a virus"), SEEN))
            id = await self.send(queue, {0: apart, 2: apart}, ALICE, BOB, FAR)
            self.verdicts = [Defer("not yet"), Defer("not yet"), verdict, verdict]
            await self.pass_time(70, id, "undecided", 3)
            await self.crash(queue)
            queue = await self.queue()
            await self.pass_time(4000, id, "held")
            await self.until(lambda id=id: self.steps.of(id).count("delivered") == 2)
            self.assertEqual([(one.recipient.address.local, one.route.mailbox.junk) for one in users], [("bob", False), ("alice", True)])
            self.assertEqual((await self.states(queue, id))[2], ("held", "quarantined"))
            self.delivery._outcomes = outcomes
            await self.stop(queue)

    async def test_a_copy_that_is_thrown_away_is_recorded_and_counted(self):
        queue = await self.queue()
        id = await self.send(queue, {0: UNDECIDED}, ALICE, BOB)
        self.verdicts = [Discard("spam")]
        await self.pass_time(70, id, "settled")
        discarded = next(fields for step_id, step, fields in self.steps.noted if (step_id, step) == (id, "discarded"))
        self.assertEqual((discarded["recipient"], discarded["why"], queue.counts.discarded), ("alice@example.org", "spam", 1))
        self.assertEqual(self.delivered(), [(1, "local")])

    async def test_a_quarantine_puts_it_into_junk_or_holds_it(self):
        for holds, states in ((False, [("delivered", ""), ("held", "quarantined")]), (True, [("held", "quarantined")] * 2)):
            queue = await self.queue(holding=HoldingPolicy(holds_quarantine=holds))
            places = []
            outcomes = self.delivery._outcomes
            self.delivery._outcomes = lambda e, c, d, a, o=outcomes, p=places: p.extend(one.route.mailbox.place for one in d) or o(e, c, d, a)
            id = await self.send(queue, {0: UNDECIDED, 1: UNDECIDED}, ALICE, remote(1))
            self.verdicts = [Quarantine("odd"), Quarantine("odd")]
            await self.pass_time(70, id, "held")
            if not holds:
                await self.until(lambda id=id: "delivered" in self.steps.of(id))
                self.clock.advance(1)
                self.assertEqual(places, [("Junk",)])
            found: list[Any] = []
            while [state for state, _ in found] != [state for state, _ in states]:
                await self.turn()
                found = await self.states(queue, id)
            self.delivery._outcomes = outcomes
            await self.stop(queue)

    async def test_one_that_is_junk_and_cannot_be_delivered_is_still_junk_later_and_after_a_crash(self):
        queue = await self.queue()
        id = await self.send(queue, {0: UNDECIDED}, ALICE)
        self.delivery.answers["alice"] = Delayed(Reply.of(451, "4.3.0", "full"))
        self.verdicts = [Quarantine("odd")]
        await self.pass_time(70, id, "deferred")
        await self.crash(queue)
        queue = await self.queue()
        self.assertIn("Junk", (await queue.show(id)).destinations[0].destination)
        del self.delivery.answers["alice"]
        await self.pass_time(4000, id, "delivered")
        delivered = [fields["destination"] for step_id, step, fields in self.steps.noted if (step_id, step) == (id, "delivered")]
        self.assertEqual(delivered, ["alice@example.org/Junk"])

    async def test_what_is_undecided_when_its_time_is_over_is_put_aside(self):
        queue = await self.queue(expire_seconds=7200, holding=HoldingPolicy(seconds=DAY))
        id = await self.send(queue, {0: UNDECIDED}, remote(0))
        self.verdicts = [Defer("never") for _ in range(9)]
        for _ in range(4):
            self.clock.advance(3700)
            for _ in range(50):
                await self.turn()
        found = (await queue.show(id)).destinations[0]
        self.assertEqual((found.state, found.hold), ("held", "quarantined"))
        self.assertIn("never", found.note)
        await self.pass_time(2 * DAY, id, "settled")
        self.assertEqual((self.delivered(), self.reported), ([], []))

    async def test_it_is_judged_after_a_crash_and_a_stop_amid_the_question_leaves_it_as_it_is(self):
        queue = await self.queue()
        id = await self.send(queue, {0: UNDECIDED}, ALICE)
        self.verdicts = [Deferred()]
        self.clock.advance(70)
        await self.until(lambda: self.judged)
        await self.crash(queue)
        self.verdicts = [Pass()]
        await self.queue()
        await self.until(lambda: "delivered" in self.steps.of(id))
        self.assertEqual(len(self.judged), 2)

    async def test_what_a_person_does_meanwhile_stands(self):
        for verb, state in ((Verb.DROP, None), (Verb.HOLD, [("held", "")])):
            queue = await self.queue()
            id = await self.send(queue, {0: UNDECIDED}, ALICE)
            asked: Deferred[Any] = Deferred()
            self.verdicts, self.judged = [asked], []
            self.clock.advance(70)
            await self.until(lambda: self.judged)
            page = await queue.verbs.carry_out(Order(verb, Selection(id=id), "me"), after=0)
            self.assertEqual(len(page.done), 1)
            asked.callback(Pass())
            for _ in range(50):
                await self.turn()
            self.assertEqual((await self.states(queue, id), self.delivered()), (state, []))
            await self.stop(queue)

    async def test_a_person_may_have_it_judged_at_once_or_delivered_without_a_verdict(self):
        queue = await self.queue()
        ids = [await self.send(queue, {0: UNDECIDED}, ALICE) for _ in range(2)]
        self.verdicts = [Pass()]
        for verb, id in zip((Verb.RETRY, Verb.RELEASE), ids, strict=True):
            page = await queue.verbs.carry_out(Order(verb, Selection(id=id), "me"), after=0)
            self.assertEqual(len(page.done), 1)
            await self.pass_time(1, id, "delivered")
        self.assertEqual(len(self.judged), 1)

    async def test_one_messages_trouble_is_not_that_of_the_others(self):
        queue = await self.queue()
        ids = [await self.send(queue, {0: UNDECIDED}, ALICE) for _ in range(3)]
        self.verdicts = [Pass(), "no verdict", Pass()]
        self.clock.advance(70)
        await self.until(lambda: self.steps.count("delivered") == 2)
        self.assertEqual([await self.states(queue, id) for id in ids].count([("undecided", "undecided")]), 1)
        self.flushLoggedErrors()
