"""The clock of the machine is wrong, and is set."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Delayed, Failed
from mailserver.mail.ids import time_of
from mailserver.mail.reply import Reply
from mailserver.queue.clocks import Clocks
from mailserver.queue.reader import list_entries
from mailserver.queue.schedule import Schedule
from tests.queue.doubles import EPOCH, IDS, local, remote
from tests.queue.test_kill import ROOT, Program, delivered
from tests.queue.test_reports import ReportCase
from tests.requires import require_tool

BUSY = Reply.of(451, "4.2.1", "The mailbox is busy")
NO = Reply.of(550, "5.1.1", "No such user")
YEAR = 365 * 86_400.0


class Parting(SynchronousTestCase):
    def setUp(self):
        self.wall, self.boot = EPOCH, 1000.0
        self.clocks = Clocks(wall=lambda: self.wall, boot=lambda: self.boot)

    def go(self, seconds, wall=0.0):
        self.boot += seconds
        self.wall += seconds + wall

    def test_clocks_that_go_together_have_not_parted(self):
        self.go(YEAR)
        self.assertEqual((self.clocks.parted(), self.clocks.since), (0.0, EPOCH))
        self.assertEqual(self.clocks.together_seconds, YEAR)

    def test_a_minute_is_a_time_servers_work(self):
        for by in (60, -60):
            self.go(5, wall=by)
            self.assertEqual(self.clocks.parted(), 0.0)
            self.go(5, wall=-by)

    def test_a_clock_that_is_set_has_parted_once(self):
        for by in (61.0, -YEAR):
            self.go(100, wall=by)
            self.assertEqual(self.clocks.parted(), by)
            self.assertEqual(self.clocks.parted(), 0.0)
            self.assertEqual((self.clocks.since, self.clocks.together_seconds), (self.wall, 0.0))

    def test_without_a_second_clock_the_walls_word_is_taken(self):
        clocks = Clocks(wall=lambda: self.wall, boot=None)
        self.wall += YEAR
        self.assertEqual(clocks.parted(), 0.0)

    def test_a_message_from_the_future_is_as_old_as_its_attempts_say(self):
        schedule = Schedule(retry_seconds=(60, 300), expire_seconds=1000)
        due = [schedule.next_due(attempts=n, received_at=YEAR, now=0.0, chance=0.5) for n in range(1, 7)]
        self.assertEqual(due[:4], [60, 300, 300, 300])
        self.assertIsNone(due[-1])


class Set(ReportCase):
    """A queue whose wall clock is `self.clock`, beside one that the test sets for itself."""

    retry = (60, 300)

    def setUp(self):
        super().setUp()
        self.ahead = 0.0

    def make(self, **changes):
        return super().make(
            **{"boot_seconds": lambda: self.clock.seconds() - self.ahead, "retry_seconds": self.retry, "expire_seconds": 3600, **changes}
        )

    def set_clock(self, by):
        self.ahead += by
        self.clock.rightNow += by

    async def deferred(self, queue, destination=None):
        destination = destination or remote()
        (self.delivery, self.relay)[destination.route.address.domain != "example.org"].answers.setdefault(
            destination.recipient.address.local, Delayed(BUSY)
        )
        return await self.send(queue, destination, step="deferred")

    def due(self, id):
        (entry,) = [entry for entry in list_entries(self.directory) if entry.id == id]
        return entry.destinations[0].due - self.clock.seconds()

    async def test_an_attempt_of_a_clock_that_was_ahead_is_due_at_the_next_start(self):
        self.set_clock(YEAR)
        queue = await self.started()
        id = await self.deferred(queue)
        await self.stop(queue)
        self.set_clock(-YEAR)
        self.assertGreater(self.due(id), YEAR)
        with capturedLogs() as events:
            queue = await self.started()
        self.assertEqual([event["count"] for event in events if "due now" in event["log_format"]], [2], "its attempt, and the report of its delay")
        await self.quiet(queue)
        self.assertEqual(self.relay.calls, 2)
        self.assertLess(self.due(id), 400)

    async def test_two_hours_are_noticed_by_the_pause_that_was_due(self):
        self.set_clock(7200)
        queue = await self.started(retry_seconds=(60, 28_800))
        id = await self.deferred(queue)
        await self.stop(queue)
        self.set_clock(-7200)
        queue = await self.started(retry_seconds=(60, 28_800))
        await self.quiet(queue)
        self.assertEqual(self.relay.calls, 2)
        self.assertGreater(self.due(id), 3000, "the second pause is a long one")
        await self.stop(queue)
        queue = await self.started(retry_seconds=(60, 28_800))
        await self.quiet(queue)
        self.assertEqual(self.relay.calls, 2, "and is kept")

    async def test_a_clock_that_is_set_back_while_the_queue_runs_delays_nothing(self):
        self.set_clock(YEAR)
        queue = await self.started()
        ids = [await self.deferred(queue), await self.deferred(queue, local())]
        self.set_clock(-YEAR)
        queue.look_at_clocks()
        for _ in range(3):
            await self.quiet(queue)
        self.assertEqual((self.relay.calls, self.delivery.calls), (2, 2))
        self.assertTrue(all(self.due(id) < 400 for id in ids))

    async def test_a_jump_of_a_year_ahead_returns_no_message(self):
        queue = await self.started()
        id = await self.deferred(queue)
        self.set_clock(YEAR)
        for _ in range(3):
            self.clock.advance(1)
            await self.quiet(queue)
        self.assertEqual((self.relay.calls, await self.states(queue, id)), (2, ["deferred"]))
        self.set_clock(-YEAR)
        queue.look_at_clocks()
        for _ in range(3):
            await self.quiet(queue)
        self.assertEqual((self.relay.calls, await self.states(queue, id)), (3, ["deferred"]))
        self.assertNotIn("failed", [report[0][0] for report in self.reports()])

    async def test_an_attempt_that_a_jump_falls_into_returns_no_message(self):
        queue = await self.started()
        id = await self.deferred(queue)
        self.relay.hold = True
        self.clock.advance(70)
        await self.quiet(queue)
        self.set_clock(YEAR)
        self.relay.hold = False
        self.relay.let_go()
        await self.quiet(queue)
        self.assertEqual(await self.states(queue, id), ["deferred"])

    async def test_after_a_long_stop_a_message_is_tried_twice_before_it_is_given_up_or_its_delay_is_told(self):
        queue = await self.started()
        id = await self.deferred(queue)
        await self.stop(queue)
        self.clock.advance(YEAR)
        self.relay.hold = True
        queue = await self.started()
        await self.quiet(queue)
        self.assertEqual(self.reports(), [], "nothing is told before anything has been tried")
        self.relay.hold = False
        self.relay.let_go()
        await self.quiet(queue)
        await self.quiet(queue)
        self.assertEqual(await self.states(queue, id), ["deferred"])
        self.assertEqual([report[0][0] for report in self.reports()], ["delayed"])
        self.clock.advance(400)
        for _ in range(3):
            await self.quiet(queue)
        self.assertEqual([report[0][0] for report in self.reports()], ["delayed", "failed"])

    async def test_a_report_that_is_owed_in_a_year_is_made_now(self):
        self.routes = RuntimeError("the directory is away")
        self.relay.answers["carol"] = Failed(NO)
        self.set_clock(YEAR)
        queue = await self.started()
        await self.send(queue, remote())
        await self.stop(queue)
        self.set_clock(-YEAR)
        self.routes = [replace(local(user="bob").route)]
        queue = await self.started()
        for _ in range(3):
            await self.quiet(queue)
        self.assertEqual([report[0][0] for report in self.reports()], ["failed"])

    async def test_what_is_kept_for_the_postmaster_does_not_grow_old_by_a_clock_that_was_just_read(self):
        self.delivery.answers["alice"] = Failed(NO)
        queue = await self.started(undeliverable_seconds=60.0)
        self.clock.rightNow = time_of(IDS.next())
        id = await self.send(queue, local(), sender=False)
        await self.stop(queue)
        self.set_clock(YEAR)
        queue = await self.started(undeliverable_seconds=60.0)
        await self.quiet(queue)
        self.assertEqual([entry.id for entry in list_entries(self.directory)], [id])
        self.clock.advance(3600)
        queue.tidy()
        await self.quiet(queue)
        self.assertEqual(list_entries(self.directory), [])


class Outside(SynchronousTestCase):
    """A real process whose clock is a year ahead, and one whose is not."""

    def test_what_was_deferred_a_year_ahead_is_delivered_today(self):
        faketime = require_tool("faketime")
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        ran = subprocess.run(
            [faketime, "-f", "+365d", sys.executable, "-m", "tests.queue.committing", directory, "defer", "5"],
            cwd=ROOT, capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        said = [line.split() for line in ran.stdout.decode().splitlines()]
        acknowledged = {line[1] for line in said if line[0] == "ok"}
        self.assertEqual(len(acknowledged), 5)
        entries = list_entries(str(Path(directory, "data")))
        self.assertEqual([entry.state for entry in entries], ["deferred"] * 5)
        self.assertTrue(all(entry.destinations[0].due > entry.received_at + 70_000 for entry in entries))
        program = Program(directory, "drain")
        lines = program.rest()
        self.assertEqual((program.process.returncode, lines[-1]), (0, ["stopped", "0"]))
        self.assertEqual({id for id, _, _ in delivered(directory)}, acknowledged)
