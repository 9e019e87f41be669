"""What filters hold: seen and changed by the filter that holds it, judged again by the others, released once."""

from __future__ import annotations

import time
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mailserver.mail.answers import Defer, Finding, Pass, Quarantine, Refuse
from mailserver.mail.content import Content
from mailserver.mail.set_apart import (
    Hold,
    Holder,
    HoldKind,
    for_judges,
    found_before,
    held_by,
    holders_of,
    kept_findings,
    let_through,
    released_of,
    why_put_aside,
)
from mailserver.queue.admin import held as held_module
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order, StoppedQueue
from mailserver.queue.admin.quarantine import FilterHolds
from mailserver.queue.admin.selection import Selection
from mailserver.queue.entry import decode_findings, encode_findings
from mailserver.queue.holding import HoldingPolicy
from tests.queue.doubles import envelope, local, remote
from tests.queue.test_held_copies import DAY, HeldCase

CONTACTS = Holder("contacts", "content_for", "a new contact", True)
DMARC = Holder("dmarc", "content", "dmarc=fail")
SPF = Finding("spf", 2.5, "not permitted", {"code": 7}, "spf")
NEW = Finding("contact", 0.0, "never wrote", {}, "contacts")
ALICE, BOB, FAR = local(0), local(1, "bob"), remote(2)


def held(*holders, before=(SPF,), found=(NEW,), kind=HoldKind.QUARANTINED):
    return Hold(kind, holders[0].why, kept_findings(holders, before, found))


class QuarantineCase(HeldCase):
    def of(self, queue, name):
        return FilterHolds(name, orders=lambda: queue.verbs)

    async def held_again(self, id):
        await self.until(lambda: self.steps.of(id).count("held") == 2)

    async def released(self, id):
        await self.until(lambda: "delivered" in self.steps.of(id))


class TheFiltersOwn(QuarantineCase):
    async def test_it_sees_what_it_holds_or_has_found_something_about_and_nothing_else(self):
        queue = await self.queue()
        id = await self.send(queue, {0: held(CONTACTS), 1: held(DMARC, found=())}, ALICE, BOB)
        found = {name: [one.id for one in await self.of(queue, name).held()] for name in ("contacts", "dmarc", "spf", "other", "")}
        both = [f"{id}/0", f"{id}/1"]
        self.assertEqual(found, {"contacts": both[:1], "dmarc": both[1:], "spf": both, "other": [], "": []})

    async def test_a_copy_says_what_is_known_of_it(self):
        queue = await self.queue()
        id = await self.send(queue, {0: held(CONTACTS)}, ALICE)
        (one,) = await self.of(queue, "contacts").held()
        self.assertEqual(
            (one.id, one.message, one.recipient, one.destination, one.sender),
            (f"{id}/0", id, "alice@example.org", "alice@example.org", "bob@example.com"),
        )
        self.assertEqual((one.why, one.held_by, one.findings), ("a new contact", ("contacts",), (SPF, NEW)))
        self.assertEqual((one.peer, one.login, one.since, one.until - one.since), ("192.0.2.1", "", self.clock.seconds(), 30 * DAY))

    async def test_its_fields_are_shown_decoded_on_one_line_and_cut(self):
        queue = await self.queue()
        octets = b"From: =?utf-8?q?J=C3=B6rg?= <j@example.net>\r\nSubject: one\r\n two =?utf-8?q?=ff?= " + b"x" * 900 + b"\r\n\r\nbody\r\n"
        sent = envelope(ALICE, received_at=self.clock.seconds())
        await queue.commit(sent, Content.of(octets), (ALICE,), {0: held(CONTACTS)})
        (one,) = await self.of(queue, "contacts").held()
        self.assertEqual(one.author, "Jörg <j@example.net>")
        self.assertTrue(one.subject.startswith("one two"), one.subject)
        self.assertEqual(len(one.subject), 500)

    async def test_patterns_choose_and_pages_follow_each_other_over_copies_of_one_message(self):
        queue = await self.queue()
        ids = [await self.send(queue, {0: held(CONTACTS), 1: held(CONTACTS)}, ALICE, BOB) for _ in range(3)]
        mine = self.of(queue, "contacts")
        pages, after = [], ""
        while page := await mine.held(after=after, most=1):
            pages += page
            after = page[-1].id
        self.assertEqual([one.id for one in pages], [f"{id}/{n}" for id in ids for n in (0, 1)])
        self.assertEqual([one.id for one in await mine.held(recipient="bob@*", most=2)], [f"{ids[0]}/1", f"{ids[1]}/1"])
        for finding, count in (("contact", 6), ("contacts/contact", 6), ("spf", 6), ("virus", 0)):
            self.assertEqual(len(await mine.held(finding=finding)), count, finding)
        self.assertEqual((len(await mine.held(sender="*@example.com")), len(await mine.held(sender="<>"))), (6, 0))

    async def test_more_are_held_than_one_page_has(self):
        self.patch(held_module, "PAGE", 2)
        queue = await self.queue()
        ids = [await self.send(queue, {0: held(DMARC if n % 2 else CONTACTS, found=())}, ALICE) for n in range(7)]
        self.assertEqual([one.message for one in await self.of(queue, "dmarc").held()], ids[1::2])

    async def test_one_users_are_found_among_many_others_as_if_each_was_read(self):
        self.patch(held_module, "PAGE", 2)
        self.patch(held_module, "LOOKED_AT", 3)
        queue = await self.queue()
        for n in range(11):
            await self.send(queue, {0: held(CONTACTS), 1: held(CONTACTS)}, ALICE, local(1, "Bobby") if n % 4 == 1 else FAR)
        asked = [Selection(held=True, user=one) for one in ("bobby@example.org", "ALICE@example.org", "nobody@example.org", "x", "")]
        asked += [Selection(held=True, recipient=one) for one in ("bob*@*", "b?bby@example.org", "*@EXAMPLE.ORG", "[b]obby@*", "*ice@*", "*org")]
        found = [await self._all(queue, one) for one in asked]
        self.assertEqual([len(one) for one in found[:4]], [3, 11, 0, 0])
        self.patch(held_module, "_octets_of", lambda selection: b"")
        self.assertEqual([await self._all(queue, one) for one in asked], found)

    async def _all(self, queue, selection):
        found, after = [], ""
        while after is not None:
            more, after = await queue.verbs.held(selection, after, 3)
            found += [one.id for one in more]
        return found

    async def test_no_other_filter_can_let_it_go_throw_it_away_or_put_it_into_junk(self):
        queue = await self.queue()
        id = await self.send(queue, {0: held(CONTACTS)}, ALICE)
        other = self.of(queue, "spf")
        self.assertEqual([await verb([id, f"{id}/0"]) for verb in (other.release, other.to_junk, other.drop)], [[], [], []])
        self.assertEqual(await self.states(queue, id), [("held", "quarantined")])

    async def test_what_is_no_id_is_a_fault_of_the_caller_and_what_is_gone_is_passed_over(self):
        queue = await self.queue()
        id = await self.send(queue, {0: held(CONTACTS)}, ALICE)
        mine = self.of(queue, "contacts")
        for wrong in ("", "x", f"{id}/x", f"{id}/-1", "../spool"):
            with self.assertRaises(ValueError):
                await mine.release([id, wrong])
        self.assertEqual(await mine.drop([f"{id}/1", "0" * 16, id]), [id])
        self.assertEqual((await mine.release([id]), queue.depth), ([], 0))


class Released(QuarantineCase):
    async def test_the_others_judge_it_and_it_is_delivered_once_and_recorded(self):
        queue = await self.queue()
        id = await self.send(queue, {0: held(CONTACTS), 1: held(CONTACTS)}, ALICE, BOB)
        self.verdicts = [Pass()]
        mine = self.of(queue, "contacts")
        self.assertEqual(await mine.release([f"{id}/0"], by="alice@example.org"), [f"{id}/0"])
        self.assertEqual(await mine.release([f"{id}/0"]), [])
        await self.until(lambda: "delivered" in self.steps.of(id))
        self.assertEqual((self.delivered(), self.judged[0][0]), ([(0, "local")], "alice"))
        self.assertEqual((released_of(self.findings), SPF in self.findings, NEW in self.findings), ({"contacts"}, True, False))
        ((_, _, fields),) = [one for one in self.steps.noted if one[1] == "released"]
        self.assertEqual((fields["by"], fields["recipients"]), ("contacts: alice@example.org", ["alice@example.org"]))
        self.assertEqual((await self.states(queue, id))[1], ("held", "quarantined"))

    async def test_it_outlives_a_crash_between_the_release_and_the_verdict(self):
        queue = await self.queue(judge=None)
        id = await self.send(queue, {0: held(CONTACTS)}, ALICE)
        await self.of(queue, "contacts").release([id])
        await self.crash(queue)
        self.verdicts = [Pass()]
        queue = await self.queue()
        self.clock.advance(600)
        await self.released(id)
        self.assertEqual(self.delivered(), [(0, "local")])

    async def test_another_filter_may_hold_it_then_and_refuse_it_and_both_are_known(self):
        for verdict, kind in ((Refuse("a virus"), "refused"), (Quarantine("odd", hold=True), "quarantined")):
            queue = await self.queue()
            id = await self.send(queue, {0: held(CONTACTS)}, ALICE)
            marks = (held_by(Holder("clamav", "content_for", verdict.why)), Finding("virus", 9.0, "EICAR", {}, "clamav"))
            self.verdicts = [replace(verdict, findings=marks)]
            await self.of(queue, "contacts").release([id])
            await self.held_again(id)
            self.assertEqual(await self.states(queue, id), [("held", kind)])
            self.assertEqual(await self.of(queue, "contacts").held(), [])
            (one,) = await self.of(queue, "clamav").held()
            self.assertEqual((one.held_by, one.why, [it.name for it in one.findings]), (("clamav",), verdict.why, ["spf", "virus"]))
            self.verdicts = [Pass()]
            await self.of(queue, "clamav").release([id])
            await self.released(id)
            self.assertEqual(released_of(self.findings), {"contacts", "clamav"})
            self.delivery.parcels.clear()
            await self.stop(queue)

    async def test_what_was_put_aside_before_it_was_judged_stays_so_until_that_one_lets_it_go(self):
        queue = await self.queue(holding=HoldingPolicy(holds_quarantine=True))
        id = await self.send(queue, {0: held(DMARC, CONTACTS)}, ALICE)
        self.verdicts = [Pass(), Pass()]
        await self.of(queue, "contacts").release([id])
        await self.held_again(id)
        self.assertEqual([one.held_by for one in await self.of(queue, "dmarc").held()], [("dmarc",)])
        await self.of(queue, "dmarc").release([id])
        await self.released(id)
        self.assertEqual(self.delivered(), [(0, "local")])

    async def test_a_filter_that_cannot_be_had_is_asked_again_although_its_time_in_the_queue_is_over(self):
        queue = await self.queue()
        id = await self.send(queue, {0: held(CONTACTS)}, ALICE)
        self.clock.advance(20 * DAY)
        self.verdicts = [Defer("not now"), Pass()]
        await self.of(queue, "contacts").release([id])
        await self.until(lambda: "undecided" in self.steps.of(id))
        await self.pass_time(600, id, "delivered")
        self.assertEqual(self.delivered(), [(0, "local")])

    async def test_what_of_which_nobody_knows_who_holds_it_is_delivered_where_a_person_releases_it(self):
        queue = await self.queue()
        id = await self.send(queue, {0: Hold(HoldKind.REFUSED, "of an earlier release")}, ALICE)
        await queue.verbs.carry_out(Order(Verb.LET_THROUGH, Selection(id=id, held=True), "postmaster"), after=0)
        await self.released(id)
        self.assertEqual((self.delivered(), self.judged), ([(0, "local")], []))

    async def test_a_copy_for_another_host_goes_there(self):
        queue = await self.queue()
        id = await self.send(queue, {2: held(CONTACTS)}, FAR)
        self.verdicts = [Pass()]
        self.assertEqual(await self.of(queue, "contacts").to_junk([id]), [])
        self.assertEqual(await self.of(queue, "contacts").release([id]), [id])
        await self.released(id)
        self.assertEqual(self.delivered(), [(2, "relay")])

    async def test_to_junk_delivers_it_there_unjudged(self):
        queue = await self.queue()
        id = await self.send(queue, {0: held(CONTACTS)}, ALICE)
        self.assertEqual(await self.of(queue, "contacts").to_junk([id], by="nobody decided"), [id])
        await self.released(id)
        ((_, _, _, _),) = self.delivery.parcels
        self.assertEqual(self.judged, [])
        self.assertEqual(self.steps.of(id).count("junk"), 1)

    async def test_no_server_has_to_run(self):
        queue = await self.queue()
        id = await self.send(queue, {0: held(CONTACTS)}, ALICE)
        await self.stop(queue)
        order = Order(Verb.LET_THROUGH, Selection(held=True, finding="contact"), "root")
        with StoppedQueue.opened(queue.data_directory) as stopped:
            page = stopped.carry_out(order, after=0, now=time.time(), note=self.steps.note)
        self.assertEqual([id for id, _ in page.done], [id])
        self.verdicts = [Pass()]
        self.clock.rightNow = max(self.clock.rightNow, time.time()) + 1
        queue = await self.queue()
        await self.released(id)
        self.assertEqual(self.delivered(), [(0, "local")])


class WhatIsKept(QuarantineCase):
    def test_it_is_taken_apart_as_it_was_put_together(self):
        kept = kept_findings((CONTACTS, DMARC), (SPF,), (NEW,))
        self.assertEqual(holders_of(kept), (CONTACTS, DMARC))
        self.assertEqual((found_before(kept), why_put_aside(kept)), ((SPF,), "dmarc=fail"))

    def test_each_one_that_lets_it_go_takes_its_own_reason_along(self):
        kept = kept_findings((CONTACTS, DMARC), (SPF,), (NEW,))
        self.assertIsNone(let_through(kept, "me", frozenset({"spf"})))
        first = let_through(kept, "me", frozenset({"contacts"}))
        self.assertEqual((holders_of(first), why_put_aside(first), released_of(first)), ((DMARC,), "dmarc=fail", {"contacts"}))
        both = let_through(first, "you", frozenset({"dmarc"}))
        self.assertEqual((holders_of(both), why_put_aside(both), released_of(both)), ((), "", {"contacts", "dmarc"}))
        self.assertEqual(let_through(kept, "me"), let_through(kept, "me", frozenset({"contacts", "dmarc"})))

    @given(
        st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["peer", "content", "content_for", "score"]), st.booleans()), min_size=1,
                 max_size=6, unique_by=lambda one: one[0]),
        st.lists(st.sampled_from(["spf", "put_aside", "held_by", "judged", "released"]), max_size=5),
        st.randoms(use_true_random=False),
    )  # fmt: skip
    def test_in_whatever_order_they_let_it_go_the_last_one_frees_it_and_no_filters_finding_is_lost(self, given, names, random):
        """Also where filters call their findings as the core calls its own."""
        holders = [Holder(filter, stage, f"{filter}'s reason", hold) for filter, stage, hold in given]
        before = tuple([Finding(name, 1.0, source="f") for name in names])
        kept = decode_findings(encode_findings(kept_findings(holders, before, (NEW,))))
        self.assertEqual(([one.filter for one in holders_of(kept)], found_before(kept)), ([one.filter for one in holders], before))
        order = [one.filter for one in holders]
        random.shuffle(order)
        gone: set[str] = set()
        for name in order:
            still_there = {one.filter for one in holders if not one.is_asked_again} - gone
            if name in gone or (gone and name not in {one.filter for one in holders_of(kept)}):
                continue  # it is asked again instead
            kept = let_through(kept, "me", frozenset({name}))
            gone.add(name)
            self.assertEqual({one.filter for one in holders_of(kept)}, still_there - {name})
            self.assertEqual(bool(why_put_aside(kept)), bool(still_there - {name}))
            self.assertEqual(released_of(kept), gone)
        self.assertEqual([one for one in for_judges(kept) if one.source == "f"], list(before))
