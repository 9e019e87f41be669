"""A person's hand on the queue: retry, hold, release, drop, redirect, while it runs and while it does not."""

from __future__ import annotations

import os
import random
import threading
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Local, Mailbox, Remote
from mailserver.mail.content import Content
from mailserver.mail.faults import StorageFault
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import Hold, HoldKind
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import GONE, Order, StoppedQueue
from mailserver.queue.admin.selection import Selection, SelectionError
from mailserver.queue.lock import QueueInUse
from tests.queue.doubles import QueueCase, envelope, local, remote

LATER = Delayed(Reply.of(451, "4.3.0", "not now"))
NEVER = Failed(Reply.of(550, "5.1.1", "no such user"))
ELSEWHERE = Remote(Address("dora", "other.example"))


def order(verb, to="", routes=(), **selection):
    return Order(verb, Selection(**selection), "root", to, tuple(routes))


class VerbsCase(QueueCase):
    timeout = 15

    async def deferred(self, queue, *destinations, **more):
        """A message that waits for its next attempt."""
        for one in destinations:
            delivery = self.relay if isinstance(one.route, Remote) else self.delivery
            delivery.answers.setdefault(one.recipient.address.local, LATER)
        id = await self.commit(queue, *destinations, **more)
        await self.steps_of(id, "deferred", len(destinations))
        while self.states(await queue.show(id)) != ["deferred"] * len(destinations):
            await self.turn()
        return id

    async def steps_of(self, id, step, count=1):
        while self.steps.of(id).count(step) < count:
            await self.turn()

    async def turn(self):
        self.clock.advance(0.05)  # flushes come by the clock
        await deferLater(reactor, 0.005, lambda: None)

    def states(self, entry):
        return None if entry is None else [one.state for one in entry.destinations]

    async def act(self, queue, *arguments, **more):
        page = await queue.verbs.carry_out(order(*arguments, **more), after=0)
        return [id for id, _ in page.done]



class HeldFromTheBeginning(VerbsCase):
    """What a filter has put aside, of a message for three."""

    async def held(self, queue, *destinations, why="odd", **more):
        sent = envelope(*destinations, received_at=self.clock.seconds())
        await queue.commit(sent, Content.of(b"Subject: x\r\n\r\nbody\r\n"), destinations, {1: Hold(HoldKind.QUARANTINED, why)}, **more)
        return sent.id

    three = (local(0), remote(1), remote(2, "dora"))

    async def test_it_is_in_the_store_with_the_commit_and_only_it_waits(self):
        queue = await self.started()
        id = await self.held(queue, *self.three)
        await self.steps_of(id, "delivered", 2)
        found = await queue.show(id)
        self.assertEqual((found.state, found.destinations[1].state, found.destinations[1].note), ("held", "held", "odd"))
        held = next(fields for step_id, step, fields in self.steps.noted if (step_id, step) == (id, "held"))
        self.assertEqual((held["recipients"], held["why"]), (["carol@elsewhere.example"], "odd"))
        self.clock.advance(10_000)
        await self.turn()
        self.assertEqual(sorted(index for _, _, indexes, _ in self.delivery.parcels + self.relay.parcels for index in indexes), [0, 2])
        self.assertEqual(queue.depth, 1)

    async def test_a_release_sends_it(self):
        queue = await self.started()
        id = await self.held(queue, *self.three)
        await self.steps_of(id, "delivered", 2)
        self.clock.advance(1)
        while self.states(await queue.show(id)) != ["delivered", "held", "delivered"]:
            await self.turn()
        page = await queue.verbs.carry_out(order(Verb.RELEASE, id=id), after=0)
        self.assertEqual(page.done, [(id, ("carol@elsewhere.example",))])
        await self.steps_of(id, "delivered", 3)
        self.clock.advance(1)
        await self.steps_of(id, "settled")
        self.assertEqual(queue.depth, 0)

    async def test_it_is_still_held_after_a_restart(self):
        for only in (False, True):
            queue = await self.started()
            self.delivery.hold = self.relay.hold = True
            destinations = self.three[:2] if not only else (remote(1),)
            id = await self.held(queue, *destinations)
            await self.crash(queue)
            self.delivery.held.clear()
            self.delivery.hold = self.relay.hold = False
            queue = await self.started()
            self.assertEqual(queue.depth, 1)
            if not only:
                await self.steps_of(id, "delivered")
                self.clock.advance(1)
                while self.states(await queue.show(id)) != ["delivered", "held"]:
                    await self.turn()
            self.assertEqual((await queue.show(id)).state, "held")
            await queue.verbs.carry_out(order(Verb.RELEASE, id=id), after=0)
            self.clock.advance(1)
            await self.steps_of(id, "settled")
            self.assertEqual(len([one for one in self.relay.parcels if one[0] == id]), 1)
            await self.stop(queue)

    async def test_a_message_of_which_all_is_held_waits_whole(self):
        queue = await self.started()
        id = await self.held(queue, local(1))
        self.assertEqual(self.states(await queue.show(id)), ["held"])
        self.assertEqual((await queue.verbs.select(Selection(states=("held",)), 0, 10))[0][0].id, id)
        await queue.verbs.carry_out(order(Verb.DROP, id=id), after=0)
        self.assertIsNone(await queue.show(id))
        self.assertEqual(queue.depth, 0)

    async def test_a_reason_of_any_octets_is_no_trouble_of_the_store(self):
        queue = await self.started()
        id = await self.held(queue, remote(1), why="\udcff" + "x" * 10_000)
        self.assertTrue((await queue.show(id)).destinations[0].note.startswith("\\udcff" + "x" * 900))
        self.assertTrue(queue.writable)

    async def test_nobody_who_keeps_nothing_gets_what_is_held(self):
        self.relay.stores = self.delivery.stores = False
        queue = await self.started()
        id = await self.held(queue, remote(1))
        self.assertEqual((self.states(await queue.show(id)), self.relay.parcels), (["held"], []))

    async def test_others_of_its_batch_are_committed_with_it(self):
        queue = await self.started()
        self.delivery.hold = self.relay.hold = True
        gate = threading.Event()
        self.addCleanup(gate.set)
        waited = queue._writer.do(lambda store: gate.wait())
        commits = [Deferred.fromCoroutine(self.held(queue, *self.three) if n == 1 else self.commit(queue)) for n in range(3)]
        gate.set()
        await waited
        ids = await gatherResults(commits)
        self.assertEqual([entry.id for entry in await queue.list()], sorted(ids))
        self.assertEqual(queue.counts.batches, 1)
        self.delivery.hold = self.relay.hold = False
        self.delivery.let_go()
        self.relay.let_go()
        for id in ids:
            await self.steps_of(id, "delivered", 2 if id == ids[1] else 1)


class Running(VerbsCase):
    async def test_retry_makes_a_deferred_message_due_at_once(self):
        queue = await self.started()
        id = await self.deferred(queue, remote())
        self.relay.answers.clear()
        self.assertEqual(await self.act(queue, Verb.RETRY), [id])
        await self.steps_of(id, "delivered")
        self.assertIn("retried", self.steps.of(id))

    async def test_retry_tries_what_has_failed_for_good(self):
        queue = await self.started()
        self.relay.answers["carol"] = NEVER
        id = await self.commit(queue, remote())
        while self.states(await queue.show(id)) != ["failed"]:
            await self.turn()
        self.relay.answers.clear()
        self.assertEqual(await self.act(queue, Verb.RETRY, states=("failed",)), [id])
        await self.steps_of(id, "settled")

    async def test_what_is_held_is_not_tried_until_it_is_released(self):
        queue = await self.started()
        id = await self.deferred(queue, remote())
        self.assertEqual(await self.act(queue, Verb.HOLD, id=id), [id])
        self.assertEqual(self.states(await queue.show(id)), ["held"])
        self.relay.answers.clear()
        tried = len(self.relay.parcels)
        self.clock.advance(3000)
        for _ in range(10):
            await self.turn()
        self.assertEqual(len(self.relay.parcels), tried)
        self.assertEqual(await self.act(queue, Verb.RETRY), [], "retry is not release")
        self.assertEqual(await self.act(queue, Verb.RELEASE), [id])
        await self.steps_of(id, "delivered")

    async def test_a_held_message_stays_held_over_a_crash(self):
        queue = await self.started()
        id = await self.deferred(queue, remote())
        await self.act(queue, Verb.HOLD)
        await self.crash(queue)
        self.relay.answers.clear()
        queue = await self.started()
        self.clock.advance(3000)
        for _ in range(10):
            await self.turn()
        self.assertEqual(self.states(await queue.show(id)), ["held"])
        self.assertEqual(queue.depth, 1)

    async def test_what_waits_in_memory_for_its_turn_can_be_held(self):
        queue = await self.started(remote_deliveries=1)
        self.relay.hold = True
        first = await self.commit(queue, remote())
        second = await self.commit(queue, remote())
        while self.relay.calls < 1:
            await self.turn()
        page = await queue.verbs.carry_out(order(Verb.HOLD), after=0)
        self.assertEqual([id for id, _ in page.done], [second])
        self.assertEqual([id for id, _ in page.left], [first])
        self.assertIn("being delivered", page.left[0][1])
        self.relay.hold = False
        self.relay.let_go()
        await self.steps_of(first, "delivered")
        self.assertEqual(self.states(await queue.show(second)), ["held"])
        self.assertEqual([id for id, *_ in self.relay.parcels], [first])

    async def test_a_message_under_way_is_not_dropped_half_way(self):
        queue = await self.started()
        self.relay.hold = True
        id = await self.commit(queue, remote())
        while not self.relay.held:
            await self.turn()
        self.assertEqual(await self.act(queue, Verb.DROP), [])
        self.assertEqual(self.states(await queue.show(id)), ["queued"])
        self.relay.hold = False
        self.relay.let_go()
        await self.steps_of(id, "delivered")

    async def test_dropped_is_gone_with_its_file_and_its_attempts(self):
        queue = await self.started()
        self.relay.answers["carol"] = LATER
        id = await self.commit_spooled(queue, remote())
        await self.steps_of(id, "deferred")
        while self.states(await queue.show(id)) != ["deferred"]:
            await self.turn()
        self.assertEqual(await self.act(queue, Verb.DROP), [id])
        self.assertIsNone(await queue.show(id))
        self.assertFalse(os.path.exists(queue.spool_path(id)))
        self.assertEqual(queue.depth, 0)
        self.assertEqual(self.steps.of(id)[-2:], ["dropped", "settled"])
        self.clock.advance(3000)
        await self.turn()
        self.assertEqual(len(self.relay.parcels), 1)

    async def test_of_two_destinations_the_one_that_is_meant_is_dropped(self):
        queue = await self.started()
        id = await self.deferred(queue, remote(0), remote(1, "dave"))
        self.assertEqual(await self.act(queue, Verb.DROP, recipient="CAROL@*"), [id])
        self.assertEqual(self.states(await queue.show(id)), ["dropped", "deferred"])
        self.relay.answers.clear()
        await self.act(queue, Verb.RETRY)
        await self.steps_of(id, "settled")
        self.assertEqual([indexes for _, _, indexes, _ in self.relay.parcels][1:], [(1,)])
        self.assertIsNone(await queue.show(id))

    async def test_redirect_gives_a_recipient_another_destination_and_keeps_the_content(self):
        queue = await self.started()
        id = await self.deferred(queue, remote(0), remote(1, "dave"), data=b"the same\r\n")
        route = Local(Address("alice", "example.org"), Mailbox("alice", "example.org"))
        self.assertEqual(await self.act(queue, Verb.REDIRECT, "alice@example.org", [route], recipient="carol@*"), [id])
        await self.steps_of(id, "delivered")
        self.assertEqual(self.delivery.parcels[-1][:3], (id, b"the same\r\n", (2,)))
        while self.states(await queue.show(id)) != ["dropped", "deferred", "delivered"]:
            await self.turn()
        (fields,) = [fields for _, step, fields in self.steps.noted if step == "redirected"]
        self.assertEqual((fields["by"], fields["to"]), ("root", "alice@example.org"))

    async def test_several_recipients_redirected_to_one_address_are_one_copy(self):
        queue = await self.started()
        id = await self.deferred(queue, remote(0), remote(1, "dave"))
        await self.act(queue, Verb.REDIRECT, "dora@other.example", [ELSEWHERE])
        self.relay.answers.clear()
        await self.steps_of(id, "settled")
        self.assertEqual([indexes for _, _, indexes, _ in self.relay.parcels][-1], (2,))

    async def test_what_was_not_tried_yet_is_redirected_too(self):
        self.relay.hold = True
        queue = await self.started(remote_deliveries=1)
        await self.commit(queue, remote())
        id = await self.commit(queue, remote(0, "dave"))
        route = Local(Address("alice", "example.org"), Mailbox("alice", "example.org"))
        self.assertEqual(await self.act(queue, Verb.REDIRECT, "alice@example.org", [route], recipient="dave@*"), [id])
        await self.steps_of(id, "delivered")
        self.assertEqual((self.delivery.parcels[-1][0], self.delivery.parcels[-1][2]), (id, (1,)))

    async def test_where_a_copy_waits_already_there_goes_no_second_one(self):
        queue = await self.started()
        id = await self.deferred(queue, remote(0), remote(1, "dora", "other.example"))
        self.assertEqual(await self.act(queue, Verb.REDIRECT, "dora@other.example", [ELSEWHERE], recipient="carol@*"), [id])
        self.assertEqual(self.states(await queue.show(id)), ["dropped", "deferred"])

    async def test_where_one_has_arrived_there_goes_another_for_who_is_redirected(self):
        queue = await self.started()
        self.relay.answers["carol"] = LATER
        id = await self.commit(queue, local(0), remote(1))
        while self.states(await queue.show(id)) != ["delivered", "deferred"]:
            await self.turn()
        route = local(0).route
        self.assertEqual(await self.act(queue, Verb.REDIRECT, "alice@example.org", [route], recipient="carol@*"), [id])
        await self.steps_of(id, "delivered", 2)
        self.assertEqual(self.delivery.parcels[-1][2], (2,))

    async def test_a_redirected_message_survives_a_crash_at_once_after_the_answer(self):
        queue = await self.started()
        id = await self.deferred(queue, remote())
        self.relay.hold = True
        await self.act(queue, Verb.REDIRECT, "dora@other.example", [ELSEWHERE])
        await self.crash(queue)
        self.relay.hold = False
        self.relay.answers.clear()
        queue = await self.started()
        await self.steps_of(id, "delivered")
        self.assertEqual(self.relay.parcels[-1][2], (1,))

    async def test_a_store_that_fails_changes_nothing_and_gives_the_messages_back(self):
        queue = await self.started()
        id = await self.deferred(queue, remote())

        def broken(*_):
            raise StorageFault("no disk")

        self.patch(queue._writer._store, "alter", broken)
        with self.assertRaises(StorageFault):
            await self.act(queue, Verb.DROP)
        self.relay.answers.clear()
        self.clock.advance(100)
        await self.steps_of(id, "delivered")

    async def test_what_waited_for_its_turn_has_it_where_the_store_fails(self):
        self.relay.hold = True
        queue = await self.started(remote_deliveries=1)
        await self.commit(queue, remote())
        id = await self.commit(queue, remote(0, "dave"))

        def broken(*_):
            raise StorageFault("no disk")

        self.patch(queue._writer._store, "alter", broken)
        with self.assertRaises(StorageFault):
            await self.act(queue, Verb.DROP, recipient="dave@*")
        self.relay.hold = False
        self.relay.let_go()
        await self.steps_of(id, "delivered")

    async def test_a_dry_run_changes_nothing(self):
        queue = await self.started()
        id = await self.deferred(queue, remote())
        page = await queue.verbs.carry_out(order(Verb.DROP), after=0, dry_run=True)
        self.assertEqual(page.done, [(id, ("carol@elsewhere.example",))])
        self.assertEqual(self.states(await queue.show(id)), ["deferred"])


class Busy(VerbsCase):
    async def test_a_hand_in_the_midst_of_deliveries_loses_and_doubles_nothing(self):
        chance = random.Random(7)
        queue = await self.started(remote_deliveries=5)
        sent = {}

        def answer(envelope, content, destinations):
            outcomes = {}
            for one in destinations:
                outcomes[one.index] = chance.choice((LATER, Delivered("kept")))
                if isinstance(outcomes[one.index], Delivered):
                    sent.setdefault((envelope.id, one.recipient.address.local), []).append(str(one.route.address))
            done = Deferred()
            reactor.callLater(chance.random() * 0.01, done.callback, outcomes)
            return done

        self.relay.deliver = answer
        wanted = set()
        for _ in range(60):
            destinations = [remote(0, "carol"), remote(1, "dave")]
            id = await self.commit(queue, *destinations)
            wanted.update((id, one.recipient.address.local) for one in destinations)
            verb = chance.choice((Verb.HOLD, Verb.RELEASE, Verb.RETRY, Verb.REDIRECT))
            recipient = chance.choice(("", "carol@*", "dave@*"))
            routes = [Remote(Address(f"r{len(wanted)}", "other.example"))]
            await self.act(queue, verb, "x@other.example", routes, recipient=recipient)
        while queue.depth:
            await self.act(queue, Verb.RELEASE)
            await self.act(queue, Verb.RETRY)
            await self.turn()
        missing = {id for id, _ in wanted} - {id for id, _ in sent}
        self.assertEqual(missing, set(), "lost")
        for key, places in sent.items():
            self.assertEqual(len(places), len(set(places)), f"{key} came twice to one place")
        for id in {id for id, _ in wanted}:
            copies = [place for (one, _), places in sent.items() if one == id for place in places]
            self.assertLessEqual(len(copies), 2, f"{id}: {copies}")
            if len(copies) == 1:
                self.assertNotEqual(copies[0], "carol@elsewhere.example", "dave's copy went to nobody")
        self.assertEqual(queue._runner.live, {})
        self.assertEqual(queue._runner._claimed, {})


class Selecting(VerbsCase):
    async def test_each_filter_finds_its_messages(self):
        queue = await self.started()
        old = await self.deferred(queue, remote())
        self.clock.advance(30)
        new = await self.deferred(queue, local(0, "zoe"))
        await self.act(queue, Verb.HOLD, id=new)
        for filter, expected in (
            ({}, [old, new]),
            ({"id": old}, [old]),
            ({"id": old.lower()}, [old]),
            ({"sender": "bob@example.com"}, [old, new]),
            ({"sender": "<>"}, []),
            ({"recipient": "ZOE@example.org"}, [new]),
            ({"domain": "elsewhere.example"}, [old]),
            ({"domain": "*.example"}, [old]),
            ({"older_seconds": 20.0}, [old]),
            ({"younger_seconds": 20.0}, [new]),
            ({"states": ("held",)}, [new]),
            ({"states": ("deferred", "held")}, [old, new]),
            ({"states": ("damaged",)}, []),
        ):
            found, next = await queue.verbs.select(Selection(**filter), 0, 100)
            self.assertEqual(([entry.id for entry in found], next), (expected, None), filter)

    async def test_a_page_says_where_to_go_on(self):
        queue = await self.started()
        ids = [await self.deferred(queue, remote()) for _ in range(3)]
        first, next = await queue.verbs.select(Selection(), 0, 2)
        rest, end = await queue.verbs.select(Selection(), next, 2)
        self.assertEqual([entry.id for entry in first + rest], ids)
        self.assertIsNone(end)

    def test_what_is_no_selection_is_told(self):
        for wrong in ({"id": "not an id"}, {"states": ("lost",)}):
            with self.assertRaises(SelectionError):
                Selection(**wrong)
        with self.assertRaises(SelectionError):
            Selection.from_json({"colour": "red"})


class Stopped(VerbsCase):
    async def test_without_a_server_the_files_are_changed_under_their_lock(self):
        queue = await self.started()
        ids = [await self.deferred(queue, remote()) for _ in range(3)]
        with self.assertRaises(QueueInUse), StoppedQueue.opened(self.directory):
            pass
        await self.stop(queue)
        told = []
        with StoppedQueue.opened(self.directory) as stopped:
            now = self.clock.seconds()
            for wanted in (
                order(Verb.DROP, id=ids[0]),
                order(Verb.HOLD, id=ids[1]),
                order(Verb.REDIRECT, "dora@other.example", [ELSEWHERE], id=ids[2]),
            ):
                page = stopped.carry_out(
                    wanted, after=0, now=now, note=lambda id, step, **fields: told.append((id, step))
                )
                self.assertEqual([id for id, _ in page.done], [wanted.selection.id])
            left = []
            with mock.patch("mailserver.queue.admin.orders._alter", return_value=(set(), set())):  # between the look and the change it was settled
                page = stopped.carry_out(order(Verb.DROP, id=ids[1]), after=0, now=now, note=lambda *said, **_: left.append(said))
            self.assertEqual((page.done, page.left, left), ([], [(ids[1], GONE)], []))
        self.assertEqual(told, [(ids[0], "dropped"), (ids[0], "settled"), (ids[1], "held"), (ids[2], "redirected")])
        self.relay.answers.clear()
        queue = await self.started()
        await self.steps_of(ids[2], "delivered")
        self.assertIsNone(await queue.show(ids[0]))
        self.assertEqual(self.states(await queue.show(ids[1])), ["held"])

    def test_a_queue_that_has_never_been_is_none(self):
        os.makedirs(self.directory)
        with StoppedQueue.opened(self.directory) as stopped:
            self.assertIsNone(stopped)
