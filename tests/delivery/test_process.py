"""The writer in a process of its own: the same results, and none lost when it dies."""

from __future__ import annotations

import os
import signal

from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery import process
from mailserver.delivery.letters import letter_of, outcomes_of
from mailserver.delivery.process import WriterProcess
from mailserver.mail.answers import Delivered, Mailbox
from mailserver.mail.content import Content
from tests.delivery.messages import ALICE, BOB, files_below, parcel

HOST = "mx.example.org"


class Process(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = os.path.abspath(self.mktemp())
        self.writer = WriterProcess(
            template="{data}/{domain}/{user}", data_directory=self.data, open_at_most=16, syncs_files=True
        )
        self.addCleanup(self.writer.close)

    def pid(self) -> int:
        running = self.writer._process
        assert running is not None
        return running.pid

    def test_a_batch_is_written_and_reported(self) -> None:
        parcels = [parcel(ALICE, BOB), parcel(BOB, id="0000000000000002")]
        report = self.writer.write([letter_of(one, HOST) for one in parcels])
        outcomes = [outcomes_of(one, results) for one, results in zip(parcels, report[0], strict=True)]
        self.assertTrue(all(isinstance(o, Delivered) for each in outcomes for o in each.values()))
        self.assertEqual(len(files_below(self.data)), 3)
        self.assertEqual(len(report[2]), 3)
        self.assertEqual(list(report[1]), [os.stat(self.data).st_dev])

    def test_one_process_serves_one_batch_after_the_other(self) -> None:
        self.writer.write([letter_of(parcel(ALICE), HOST)])
        pid = self.pid()
        self.writer.write([letter_of(parcel(BOB), HOST)])
        self.assertEqual(self.pid(), pid)

    def test_a_batch_larger_than_a_frame_crosses_in_several(self) -> None:
        self.patch(process, "FRAME_OCTETS", 3000)
        content = Content.of(b"x" * 1000)
        parcels = [parcel(ALICE, id=f"{n:016}", content=content) for n in range(10)]
        report = self.writer.write([letter_of(one, HOST) for one in parcels])
        self.assertEqual([len(results) for results in report[0]], [1] * 10)
        self.assertEqual(len(files_below(self.data)), 10)

    def test_a_message_larger_than_any_socket_buffer_crosses_whole(self) -> None:
        self.writer.write([letter_of(parcel(ALICE, content=Content.of(b"x" * 9_000_000)), HOST)])
        [name] = files_below(self.data)
        self.assertGreater(os.path.getsize(f"{self.data}/{name}"), 9_000_000)

    def test_a_process_that_died_is_replaced_and_nothing_is_doubled(self) -> None:
        letter = letter_of(parcel(ALICE), HOST)
        self.writer.write([letter])
        first = self.pid()
        os.kill(first, signal.SIGKILL)
        report = self.writer.write([letter])
        self.assertNotEqual(self.pid(), first)
        self.assertEqual(report[0][0][0][1], 0)
        self.assertEqual(len(files_below(self.data)), 1)

    def test_a_signal_for_the_whole_group_does_not_end_it(self) -> None:
        self.writer.write([letter_of(parcel(ALICE), HOST)])
        pid = self.pid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        self.writer.write([letter_of(parcel(ALICE, id="0000000000000002"), HOST)])
        self.assertEqual(self.pid(), pid)

    def test_it_ends_when_the_server_closes_its_end(self) -> None:
        self.writer.write([letter_of(parcel(ALICE), HOST)])
        running = self.writer._process
        assert running is not None
        self.writer.close()
        self.assertEqual(running.returncode, 0)

    def test_a_process_that_cannot_live_is_an_error_and_no_endless_try(self) -> None:
        self.patch(process.sys, "executable", "/bin/false")
        self.assertRaises((OSError, EOFError), self.writer.write, [letter_of(parcel(ALICE), HOST)])

    def test_hostile_names_cross_unharmed(self) -> None:
        report = self.writer.write([letter_of(parcel(Mailbox("../ä\udc80", "d")), HOST)])
        self.assertEqual(report[0][0][0][1], 0)
        self.assertEqual(len(files_below(self.data)), 1)
