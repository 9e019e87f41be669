"""A message as it comes in: memory, then a file; pauses; errors of the disk."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.content import Content
from mailserver.receive import spooling as spooling_module
from mailserver.receive.spooling import PIECE_OCTETS, SMALL_OCTETS, SpoolBudget, Spooling


class SpoolingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.mktemp(), "message")
        os.makedirs(os.path.dirname(self.path))
        self.jobs: list[tuple[Deferred[Any], Any, tuple[Any, ...]]] = []
        self.stops = 0
        self.spool = SpoolBudget(one_octets_most=100_000, all_octets_most=10_000_000, run_in_thread=self.run_in_thread)

    def run_in_thread(self, work: Any, *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((done, work, arguments))
        return done

    def work(self) -> None:
        """Do the next job of the thread."""
        done, work, arguments = self.jobs.pop(0)
        try:
            result = work(*arguments)
        except OSError:
            done.errback(Failure())
        else:
            done.callback(result)

    def spooling(self) -> Spooling:
        return Spooling(path=self.path, spool=self.spool, pause=lambda: self.count(1), resume=lambda: self.count(-1))

    def count(self, number: int) -> None:
        self.stops += number

    def finished(self, spooling: Spooling) -> Content:
        result = Deferred.fromCoroutine(spooling.finish(binary=False))
        while self.jobs:
            self.work()
        return self.successResultOf(result)


class Small(SpoolingCase):
    def test_a_small_message_stays_in_memory(self) -> None:
        spooling = self.spooling()
        spooling.write(b"one ")
        spooling.write(b"two")
        content = self.finished(spooling)
        self.assertEqual((content.data, content.path), (b"one two", None))
        self.assertFalse(os.path.exists(self.path))

    def test_its_octets_count_until_it_is_released(self) -> None:
        spooling = self.spooling()
        spooling.write(b"x" * 1000)
        self.finished(spooling)
        self.assertEqual(self.spool.octets, 1000)
        spooling.release()
        self.assertEqual(self.spool.octets, 0)

    def test_an_abandoned_one_counts_no_more(self) -> None:
        spooling = self.spooling()
        spooling.write(b"x" * 1000)
        spooling.abandon()
        self.assertEqual(self.spool.octets, 0)


class Large(SpoolingCase):
    def test_a_large_message_is_a_file_with_all_its_octets(self) -> None:
        spooling = self.spooling()
        data = os.urandom(3 * PIECE_OCTETS + 12345)
        for at in range(0, len(data), 60_000):
            spooling.write(data[at : at + 60_000])
            while self.jobs:
                self.work()
        content = self.finished(spooling)
        self.assertEqual((content.path, content.size), (self.path, len(data)))
        self.assertEqual(b"".join(content.chunks()), data)
        self.assertEqual(self.spool.octets, 0)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_a_disk_slower_than_the_peer_stops_the_peer(self) -> None:
        spooling = self.spooling()
        spooling.write(b"x" * PIECE_OCTETS)
        self.assertEqual(self.stops, 0)
        spooling.write(b"x" * PIECE_OCTETS)
        self.assertEqual(self.stops, 1)
        self.work()
        self.assertEqual(self.stops, 0)

    def test_the_end_waits_for_the_piece_that_is_being_written(self) -> None:
        spooling = self.spooling()
        spooling.write(b"x" * PIECE_OCTETS)
        spooling.write(b"end")
        result = Deferred.fromCoroutine(spooling.finish(binary=False))
        self.assertNoResult(result)
        self.work()
        self.assertNoResult(result)
        self.work()
        self.assertEqual(self.successResultOf(result).size, PIECE_OCTETS + 3)

    def test_where_all_messages_hold_too_much_a_smaller_one_goes_to_a_file(self) -> None:
        self.spool.octets = self.spool.all_octets_most
        spooling = self.spooling()
        spooling.write(b"x" * (SMALL_OCTETS + 1))
        self.assertTrue(os.path.exists(self.path))
        spooling.abandon()

    def test_an_abandoned_one_leaves_no_file(self) -> None:
        spooling = self.spooling()
        spooling.write(b"x" * 200_000)
        spooling.abandon()
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(self.spool.octets, 0)

    def test_one_abandoned_while_it_is_written_leaves_no_file_either(self) -> None:
        spooling = self.spooling()
        spooling.write(b"x" * PIECE_OCTETS)
        spooling.abandon()
        self.work()
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(self.spool.octets, 0)


class Faults(SpoolingCase):
    def test_a_file_that_cannot_be_made_is_told_at_the_end(self) -> None:
        os.rmdir(os.path.dirname(self.path))
        spooling = self.spooling()
        spooling.write(b"x" * 200_000)
        spooling.write(b"x" * 200_000)
        self.assertEqual(self.spool.octets, 0)
        self.failureResultOf(Deferred.fromCoroutine(spooling.finish(binary=False)), OSError)

    def test_a_write_that_fails_is_told_at_the_end_and_leaves_no_file(self) -> None:
        spooling = self.spooling()
        spooling.write(b"x" * PIECE_OCTETS)
        done, _, _ = self.jobs.pop()
        done.errback(OSError(28, "No space left on device"))
        spooling.write(b"more")
        failure = self.failureResultOf(Deferred.fromCoroutine(spooling.finish(binary=False)), OSError)
        self.assertEqual(failure.value.errno, 28)
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(self.spool.octets, 0)

    def test_a_sync_that_fails_leaves_no_file(self) -> None:
        spooling = self.spooling()
        spooling.write(b"x" * 200_000)
        self.patch(os, "fsync", self.no_sync)
        result = Deferred.fromCoroutine(spooling.finish(binary=False))
        self.work()
        self.failureResultOf(result, OSError)
        self.assertFalse(os.path.exists(self.path))

    def test_a_sync_of_its_name_that_fails_leaves_no_file_either(self) -> None:
        spooling = self.spooling()
        spooling.write(b"x" * 200_000)
        self.patch(spooling_module, "sync_directory", self.no_sync)
        result = Deferred.fromCoroutine(spooling.finish(binary=False))
        self.work()
        self.failureResultOf(result, OSError)
        self.assertFalse(os.path.exists(self.path))

    def no_sync(self, file: object) -> None:
        raise OSError(5, "Input/output error")
