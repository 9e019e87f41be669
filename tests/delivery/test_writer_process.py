"""The writer in a process of its own: the same results, none lost when it dies, and nobody who waits for one that hangs."""

from __future__ import annotations

import errno
import marshal
import os
import signal
import subprocess
import sys
import time
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.delivery import batch_frames
from mailserver.delivery.batch_format import BatchMessage, BatchReport, message_of, outcomes_of, plain_messages
from mailserver.delivery.writer_process import WriterProcess
from mailserver.mail.answers import Delivered, Mailbox
from mailserver.mail.content import Content
from mailserver.processes import frames
from mailserver.processes.spawning import spawn
from tests.delivery.messages import ALICE, BOB, files_below, only, parcel, read

HOST = "mx.example.org"


class Told:
    """A log that keeps what is critical."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def critical(self, text: str, **values: str) -> None:
        self._told.append(text.format(**values))


class ProcessCase(TestCase):
    timeout = 60.0

    def setUp(self) -> None:
        self.data = os.path.abspath(self.mktemp())
        self.writer = WriterProcess(
            template="{data}/{domain}/{user}",
            data_directory=self.data,
            open_at_most=16,
            syncs_files=True,
            reactor=reactor,
            run_in_thread=deferToThread,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(self.writer.close()))

    def running(self) -> subprocess.Popen[bytes]:
        running = self.writer._process
        assert running is not None
        return running

    def begun(self, *messages: BatchMessage) -> Deferred[BatchReport]:
        return Deferred.fromCoroutine(self.writer.write(list(messages)))

    def message_that_hangs(self) -> tuple[str, BatchMessage]:
        """Its content is a named pipe: whoever opens it waits in the middle of the draft, as for a disk that does not answer."""
        pipe = os.path.abspath(self.mktemp())
        os.mkfifo(pipe)
        message = message_of(parcel(ALICE, content=Content.at(pipe, 8), id="0000000000000007"), HOST)
        # Without fields in front: nobody opens the pipe a second time to look for a Return-Path.
        return pipe, message._replace(copies=[copy._replace(fields=b"") for copy in message.copies])

    async def until_it_hangs(self) -> None:
        while not os.path.exists(f"{self.data}/example.org/alice/tmp") or not os.listdir(f"{self.data}/example.org/alice/tmp"):
            await deferToThread(time.sleep, 0.002)

    async def answer(self, pipe: str) -> None:
        """The disk answers: with an error, for nobody can seek in a pipe."""
        (await deferToThread(open, pipe, "wb")).close()


class Batches(ProcessCase):
    async def test_a_batch_is_written_and_reported(self) -> None:
        parcels = [parcel(ALICE, BOB), parcel(BOB, id="0000000000000002")]
        report = await self.writer.write([message_of(one, HOST) for one in parcels])
        outcomes = [outcomes_of(one, results) for one, results in zip(parcels, report.results, strict=True)]
        self.assertTrue(all(isinstance(o, Delivered) for each in outcomes for o in each.values()))
        self.assertEqual(len(files_below(self.data)), 3)
        self.assertEqual(len(report.files), 3)
        self.assertEqual(list(report.devices), [os.stat(self.data).st_dev])

    async def test_one_process_serves_one_batch_after_the_other(self) -> None:
        await self.writer.write([message_of(parcel(ALICE), HOST)])
        pid = self.running().pid
        await self.writer.write([message_of(parcel(BOB), HOST)])
        self.assertEqual(self.running().pid, pid)

    async def test_a_message_larger_than_any_socket_buffer_crosses_whole(self) -> None:
        await self.writer.write([message_of(parcel(ALICE, content=Content.of(b"x" * 9_000_000)), HOST)])
        name = only(files_below(self.data))
        self.assertGreater(os.path.getsize(f"{self.data}/{name}"), 9_000_000)

    async def test_hostile_names_cross_unharmed(self) -> None:
        report = await self.writer.write([message_of(parcel(Mailbox("../ä\udc80", "d")), HOST)])
        self.assertEqual(report.results[0][0][1], 0)
        self.assertEqual(len(files_below(self.data)), 1)


class Deaths(ProcessCase):
    async def test_a_process_that_died_is_replaced_and_nothing_is_doubled(self) -> None:
        message = message_of(parcel(ALICE), HOST)
        await self.writer.write([message])
        first = self.running()
        first.kill()
        first.wait()
        report = await self.writer.write([message])
        self.assertNotEqual(self.running().pid, first.pid)
        self.assertEqual(report.results[0][0][1], 0)
        self.assertEqual(len(files_below(self.data)), 1)

    async def test_one_that_dies_in_the_middle_is_replaced_by_one_that_does_its_work_again(self) -> None:
        pipe, message = self.message_that_hangs()
        writing = self.begun(message_of(parcel(BOB), HOST), message)
        await self.until_it_hangs()
        first = self.running()
        first.kill()
        first.wait()
        await self.answer(pipe)
        self.assertEqual([results[0][1] for results in (await writing)[0]], [0, errno.ESPIPE])
        self.assertNotEqual(self.running().pid, first.pid)
        self.assertEqual([name.split("/")[1] for name in files_below(self.data) if "/new/" in name], ["bob"])

    async def test_after_an_upgrade_on_the_disk_none_writes_in_another_way_and_the_log_says_so(self) -> None:
        told: list[str] = []
        self.writer.log = Told(told)  # type: ignore[assignment]
        await self.writer.start()
        self.writer._version = b"0" * 64
        for _ in range(2):
            failure = await self.assertFailure(self.begun(message_of(parcel(ALICE), HOST)), OSError)
            self.assertIn("restart the server", str(failure))
        self.assertEqual((len(told), files_below(self.data)), (1, []))
        await self.writer.start()
        await self.writer.write([message_of(parcel(ALICE), HOST)])
        self.assertEqual(len(files_below(self.data)), 1)

    async def test_of_those_that_are_ending_nobody_is_kept_in_mind_who_has_ended(self) -> None:
        ends = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
        for one in ends:
            self.addCleanup(one.__exit__, None, None, None)
        self.writer._dying += ends
        ends[0].kill()
        ends[0].wait()
        self.writer._close(self.writer._given_up)
        self.assertEqual(self.writer._dying, ends[1:])

    async def test_a_signal_for_the_whole_group_does_not_end_it(self) -> None:
        await self.writer.write([message_of(parcel(ALICE), HOST)])
        pid = self.running().pid
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        await self.writer.write([message_of(parcel(ALICE, id="0000000000000002"), HOST)])
        self.assertEqual(self.running().pid, pid)

    async def test_it_ends_when_the_server_closes_its_end(self) -> None:
        await self.writer.write([message_of(parcel(ALICE), HOST)])
        running = self.running()
        await self.writer.close()
        self.assertEqual(running.returncode, 0)

    async def test_a_process_that_cannot_live_is_an_error_and_no_endless_try(self) -> None:
        with mock.patch("sys.executable", "/bin/false"), self.assertRaises(OSError):
            await self.writer.write([message_of(parcel(ALICE), HOST)])
        self.assertEqual(self.writer.hanging, 0)


class Hangs(ProcessCase):
    async def test_one_that_is_given_up_is_replaced_and_ended(self) -> None:
        await self.writer.write([message_of(parcel(BOB), HOST)])
        stopped = self.running()
        os.kill(stopped.pid, signal.SIGSTOP)
        writing = self.begun(message_of(parcel(ALICE), HOST))
        writing.cancel()
        self.failureResultOf(writing, CancelledError)
        report = await self.writer.write([message_of(parcel(ALICE, again=True), HOST)])
        self.assertEqual(report.results[0][0][1], 0)
        self.assertEqual(await deferToThread(stopped.wait, 30), -signal.SIGKILL)
        self.assertEqual(self.writer.hanging, 0)
        self.assertEqual(len(files_below(self.data)), 2)

    async def test_while_the_kernel_keeps_it_it_counts_as_hanging_and_when_it_wakes_it_renames_nothing(self) -> None:
        """`kill` is taken away: so it is where a call into the kernel cannot be broken off."""
        pipe, hangs = self.message_that_hangs()
        with mock.patch("subprocess.Popen.kill"):
            writing = self.begun(hangs, message_of(parcel(ALICE), HOST), message_of(parcel(BOB), HOST))
            await self.until_it_hangs()
            kept = self.running()
            writing.cancel()
            self.failureResultOf(writing, CancelledError)
            self.assertEqual(self.writer.hanging, 1)
            report = await self.writer.write([message_of(parcel(ALICE, again=True), HOST)])
            self.assertEqual(report.results[0][0][1], 0)
            self.assertNotEqual(self.running().pid, kept.pid)
            await self.answer(pipe)
            self.assertEqual(await deferToThread(kept.wait, 30), 0)
        self.assertEqual(self.writer.hanging, 0)
        name = only(files_below(self.data))  # and no draft
        self.assertIn(b"Subject: one", read(f"{self.data}/{name}"))

    async def test_one_whose_server_has_died_renames_nothing_either(self) -> None:
        pipe, hangs = self.message_that_hangs()
        made, end = spawn("mailserver.delivery.writer_process", ["{data}/{domain}/{user}", self.data, "16", "", ""])
        with end:
            frames.send(end, marshal.dumps(plain_messages([hangs, message_of(parcel(BOB), HOST)])))
            await self.until_it_hangs()
        await self.answer(pipe)
        self.assertEqual(await deferToThread(made.wait, 30), 0)
        self.assertEqual(files_below(self.data), [])


class Frames(TestCase):
    """How a batch is cut."""

    def setUp(self) -> None:
        self.patch(batch_frames, "CARRIED_OCTETS", 3000)
        self.patch(batch_frames, "WRITTEN_OCTETS", 5000)

    def cut(self, *messages: BatchMessage) -> list[list[tuple[int, int]]]:
        """The number of each message, and how many of its copies, in each frame."""
        cut = list(batch_frames.frames(messages))
        for number, message in enumerate(messages):
            copies = [c for frame in cut for n, part in zip(frame.numbers, frame.messages, strict=True) if n == number for c in part.copies]
            self.assertEqual(copies, message.copies)
        return [[(n, len(part.copies)) for n, part in zip(frame.numbers, frame.messages, strict=True)] for frame in cut]

    def message(self, octets: int, copies: int = 1, path: str = "", again: bool = False) -> BatchMessage:
        content = Content.at(path, octets) if path else Content.of(b"x" * octets)
        boxes = [Mailbox(f"u{n}", "example.org") for n in range(copies)]
        return message_of(parcel(*boxes, content=content, again=again), HOST)

    def test_of_what_comes_again_and_is_synced_file_by_file_there_are_few(self) -> None:
        self.patch(batch_frames, "SYNCED_COPIES", 2)
        self.assertEqual(
            self.cut(self.message(1, 5, again=True), self.message(1), self.message(1, 1, again=True), self.message(1, 1, again=True)),
            [[(0, 2)], [(0, 2)], [(0, 1), (1, 1), (2, 1)], [(3, 1)]],
        )

    def test_what_crosses_in_memory_is_bounded(self) -> None:
        self.assertEqual(self.cut(*[self.message(1000)] * 7), [[(0, 1), (1, 1), (2, 1)], [(3, 1), (4, 1), (5, 1)], [(6, 1)]])

    def test_what_the_disk_has_to_take_is_bounded_and_no_copy_is_divided(self) -> None:
        self.assertEqual(
            self.cut(self.message(1000, 2), self.message(1000, 8, "/spool"), self.message(9000, 2, "/spool"), self.message(1)),
            [[(0, 2), (1, 3)], [(1, 5)], [(2, 1)], [(2, 1)], [(3, 1)]],
        )

    def test_what_is_divided_looks_for_copies_that_the_part_before_has_written(self) -> None:
        message = message_of(parcel(*[ALICE] * 8, content=Content.of(b"x" * 1000)), HOST)
        self.assertEqual([part.again for frame in batch_frames.frames([message]) for part in frame.messages], [False, True])

    def test_an_empty_message_and_an_empty_batch_are_nothing_special(self) -> None:
        self.assertEqual(self.cut(self.message(0)), [[(0, 1)]])
        self.assertEqual(self.cut(), [])

    def test_a_message_without_local_destinations_keeps_its_place(self) -> None:
        self.assertEqual(self.cut(self.message(10, 0), self.message(10)), [[(0, 0), (1, 1)]])
