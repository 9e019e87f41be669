"""The deliveries as the queue sees them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailserver.delivery import batch_frames, watched_writer
from mailserver.delivery.batch_format import BatchMessage, BatchReport
from mailserver.delivery.capture import CaptureFactory, CaptureOptions, captured_message_of
from mailserver.delivery.courier_client import HomeDelivery
from mailserver.delivery.discard import DiscardFactory, DiscardOptions
from mailserver.delivery.durability import Disk
from mailserver.delivery.maildir import MaildirDelivery, MaildirFactory, MaildirOptions
from mailserver.delivery.names import TemplateError
from mailserver.interfaces import IBatchDelivery, IComponent, IComponentFactory, Services
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered
from mailserver.mail.content import Content
from mailserver.plugins.threads import AllHang
from tests.delivery.messages import (
    ALICE,
    BOB,
    DATA,
    AtOnce,
    files_below,
    only,
    parcel,
    read,
    remote_parcel,
    run_at_once,
)


def services(data: str) -> Services:
    return Services(
        clock=reactor,  # type: ignore[arg-type]
        run_in_thread=run_at_once,
        state=None,
        resolver=None,
        hostname="mx.example.org",
        configuration_directory=data,
        data_directory=data,
    )


class Components(TestCase):
    """Over real threads and processes."""

    def setUp(self) -> None:
        self.data = os.path.abspath(self.mktemp())

    def test_the_factories_make_what_they_say(self) -> None:
        for factory, options in (
            (MaildirFactory(), MaildirOptions()),
            (CaptureFactory(), CaptureOptions()),
            (DiscardFactory(), DiscardOptions()),
            (MaildirFactory(), MaildirOptions(path="{home}/Maildir")),
        ):
            verifyObject(IComponentFactory, factory)
            component = factory.build(options, services(self.data))  # type: ignore[arg-type]
            verifyObject(IBatchDelivery, component)
            self.assertFalse(os.path.exists(self.data), "build does nothing on the disk")

    def test_a_path_with_a_home_is_the_couriers(self) -> None:
        made = MaildirFactory().build(MaildirOptions(path="{home}/Maildir"), services(self.data))
        self.assertIsInstance(made, HomeDelivery)

    def test_a_path_that_cannot_be_used_is_an_error_at_the_start(self) -> None:
        self.assertRaises(TemplateError, MaildirFactory().build, MaildirOptions(path="/srv/mail"), services(self.data))

    async def test_a_message_is_delivered_made_durable_and_the_writer_ended(self) -> None:
        for process in (True, False):
            delivery = MaildirFactory().build(MaildirOptions(process=process), services(self.data))
            assert isinstance(delivery, MaildirDelivery)
            verifyObject(IComponent, delivery)
            await delivery.start()
            one = parcel(ALICE, BOB, id=f"000000000000000{int(process)}")
            outcomes = await delivery.deliver(one.envelope, one.content, one.destinations)
            self.assertEqual([type(outcomes[n]) for n in (0, 1)], [Delivered, Delivered])
            await delivery.flush()
            await delivery.stop()
        self.assertEqual(len(files_below(self.data + "/mail")), 4)

    async def test_discard_keeps_nothing_and_says_so(self) -> None:
        delivery = DiscardFactory().build(DiscardOptions(), services(self.data))
        self.assertFalse(delivery.stores)
        outcomes = await delivery.deliver_batch([parcel(ALICE, BOB), parcel(BOB)])
        self.assertEqual([sorted(each) for each in outcomes], [[0, 1], [0]])
        await delivery.flush()
        self.assertFalse(os.path.exists(self.data))

    async def test_captured_mail_begins_with_its_envelope(self) -> None:
        delivery = CaptureFactory().build(CaptureOptions(), services(self.data))
        one = remote_parcel(Address("x", "far.example"), Address("y", "far.example"))
        outcomes = await delivery.deliver_batch([one])
        self.assertEqual([type(outcome) for outcome in outcomes[0].values()], [Delivered, Delivered])
        await delivery.flush()
        await delivery.stop()
        names = sorted(os.listdir(self.data + "/outbound/new"))
        texts = [read(f"{self.data}/outbound/new/{name}") for name in names]
        rest = DATA.replace(b"\r\n", b"\n")
        self.assertEqual(
            texts,
            [b"X-Envelope-From: <>\nX-Envelope-To: <%s@far.example>\n" % user + rest for user in (b"x", b"y")],
        )

    async def test_maildirs_can_be_made_before_there_is_mail(self) -> None:
        delivery = MaildirFactory().build(MaildirOptions(process=False), services(self.data))
        assert isinstance(delivery, MaildirDelivery)
        await delivery.prepare([ALICE, BOB])
        for user in ("alice", "bob"):
            self.assertEqual(sorted(os.listdir(f"{self.data}/mail/example.org/{user}")), ["cur", "new", "tmp"])
        await delivery.flush()
        await delivery.stop()

    async def test_the_sweep_goes_through_the_mail(self) -> None:
        delivery = MaildirFactory().build(MaildirOptions(process=False), services(self.data))
        assert isinstance(delivery, MaildirDelivery)
        await delivery.deliver_batch([parcel(ALICE)])
        stale = f"{self.data}/mail/example.org/alice/tmp/stale"
        with open(stale, "w"):
            pass
        os.utime(stale, (0, 0))
        self.assertEqual(await delivery.sweep(), 1)
        only(files_below(self.data))
        await delivery.stop()


class PacedWriter:
    """Says that everything was written, when it is told to.  What is given up hangs until it is told to end."""

    hanging = 0
    hanging_most = 3

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[BatchReport], list[BatchMessage]]] = []
        self.closed = False

    async def write(self, messages: list[BatchMessage]) -> BatchReport:
        done: Deferred[BatchReport] = Deferred()
        self.waiting.append((done, messages))
        try:
            return await done
        except CancelledError:
            self.waiting.remove((done, messages))
            self.hanging += 1
            raise

    async def close(self) -> None:
        self.closed = True

    def finish(self) -> None:
        done, messages = self.waiting.pop(0)
        results = [[(copy.destination, 0, "x") for copy in message.copies] for message in messages]
        done.callback(BatchReport(results, {1: "/"}, [], []))


class PacedCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.writer = PacedWriter()
        self.synced: list[Any] = []
        self.answer: Deferred[None] = succeed(None)
        self.clock = Clock()
        self.threads: dict[str, AtOnce] = {}
        disk = Disk(syncfs=None)
        self.patch(disk, "sync", self.sync)
        self.delivery = MaildirDelivery(
            writer=self.writer,
            disk=disk,
            clock=self.clock,
            threads=lambda name: self.threads.setdefault(name, AtOnce()),
            hostname="mx.example.org",
            root="/",
            depth=0,
            path_of=lambda box: box.user,
        )

    def sync(self, touched: Any) -> Deferred[None]:
        self.synced.append(dict(touched.devices))
        return self.answer

    def deliver(self, *parcels: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.delivery.deliver_batch(parcels or [parcel(ALICE)]))

    def flush(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.delivery.flush())


class Order(PacedCase):
    """Which call waits for which."""

    def test_one_batch_is_written_at_a_time(self) -> None:
        first, second = self.deliver(), self.deliver()
        self.assertEqual(len(self.writer.waiting), 1)
        self.writer.finish()
        self.successResultOf(first)
        self.assertNoResult(second)
        self.writer.finish()
        self.successResultOf(second)

    def test_a_flush_of_nothing_syncs_nothing(self) -> None:
        self.successResultOf(self.flush())
        self.assertEqual(self.synced, [])

    def test_a_batch_that_is_still_being_written_belongs_to_the_next_flush(self) -> None:
        self.deliver()
        self.successResultOf(self.flush())
        self.assertEqual(self.synced, [])
        self.writer.finish()
        self.successResultOf(self.flush())
        self.assertEqual(self.synced, [{1: "/"}])

    def test_a_second_flush_waits_for_the_first(self) -> None:
        self.deliver()
        self.writer.finish()
        self.answer = Deferred()
        first, second = self.flush(), self.flush()
        self.assertNoResult(second)
        self.answer.callback(None)
        self.successResultOf(first)
        self.successResultOf(second)

    def test_a_failed_flush_is_told_and_its_files_are_synced_next_time(self) -> None:
        self.deliver()
        self.writer.finish()
        self.answer = fail(OSError(errno.EIO, "no"))
        self.failureResultOf(self.flush(), OSError)
        self.answer = succeed(None)
        self.successResultOf(self.flush())
        self.assertEqual(self.synced, [{1: "/"}, {1: "/"}])

    def test_stop_waits_for_what_is_being_written(self) -> None:
        self.deliver()
        stopped = Deferred.fromCoroutine(self.delivery.stop())
        self.assertFalse(self.writer.closed)
        self.writer.finish()
        self.successResultOf(stopped)
        self.assertTrue(self.writer.closed)
        self.assertTrue(all(threads.stopped for threads in self.threads.values()))


class Hangs(PacedCase):
    """A deadline gives the writer up; what was not written comes again, and what was stays written."""

    def outcomes(self, batch: Deferred[Any]) -> list[list[Any]]:
        return [[outcomes[n] for n in sorted(outcomes)] for outcomes in self.successResultOf(batch)]

    def test_a_batch_has_its_answer_at_the_deadline(self) -> None:
        batch, next_one = self.deliver(parcel(ALICE, BOB), parcel(BOB, id="0000000000000002")), self.deliver()
        self.clock.advance(watched_writer.FRAME_SECONDS + 1)
        for outcomes in self.outcomes(batch):
            for outcome in outcomes:
                assert isinstance(outcome, Delayed)
                self.assertEqual(outcome.reply.enhanced, "4.3.0")
                self.assertIn("did not answer within 60 seconds", outcome.note)
        self.assertEqual(self.writer.hanging, 1)
        self.writer.finish()
        self.assertIsInstance(self.outcomes(next_one)[0][0], Delivered)

    def test_what_was_written_before_the_deadline_stays_delivered(self) -> None:
        self.patch(batch_frames, "CARRIED_OCTETS", 10)
        batch = self.deliver(*[parcel(ALICE, id=f"{n:016}") for n in range(3)])
        self.writer.finish()
        self.clock.advance(watched_writer.FRAME_SECONDS + 1)
        self.assertEqual([type(outcome) for [outcome] in self.outcomes(batch)], [Delivered, Delayed, Delayed])
        self.successResultOf(self.flush())
        self.assertEqual(self.synced, [{1: "/"}])

    def test_a_slow_disk_gets_no_new_work_when_the_batchs_time_is_over_and_each_batch_gets_on(self) -> None:
        self.patch(batch_frames, "CARRIED_OCTETS", 10)
        batch = self.deliver(*[parcel(ALICE, id=f"{n:016}") for n in range(9)])
        for _ in range(3):
            self.clock.advance(watched_writer.FRAME_SECONDS - 10)
            self.writer.finish()
        self.assertEqual([type(outcome) for [outcome] in self.outcomes(batch)], [Delivered] * 3 + [Delayed] * 6)
        self.assertEqual(self.writer.hanging, 0)

    def test_a_large_message_has_more_time(self) -> None:
        batch = self.deliver(parcel(ALICE, content=Content.at("/spool", 100 * 1024 * 1024)))
        self.clock.advance(watched_writer.FRAME_SECONDS + 90)
        self.writer.finish()
        self.assertIsInstance(self.outcomes(batch)[0][0], Delivered)

    def test_what_is_synced_file_by_file_has_more_time(self) -> None:
        batch = self.deliver(*[parcel(ALICE, id=f"{n:016}", again=True) for n in range(20)])
        self.clock.advance(watched_writer.FRAME_SECONDS + 15)
        self.writer.finish()
        self.assertEqual([type(outcome) for [outcome] in self.outcomes(batch)], [Delivered] * 20)

    def test_after_three_that_hang_everything_is_deferred_at_once_and_that_is_told_once(self) -> None:
        with capturedLogs() as events:
            for _ in range(3):
                batch = self.deliver()
                self.clock.advance(watched_writer.FRAME_SECONDS + 1)
                self.successResultOf(batch)
            self.clock.advance(1000)
            for _ in range(5):
                self.assertIn("does not answer", self.outcomes(self.deliver())[0][0].note)
        self.assertEqual(len([event for event in events if event["log_level"].name == "critical"]), 1)
        self.assertEqual(self.writer.waiting, [])

    def test_when_one_of_them_has_ended_it_is_tried_again(self) -> None:
        self.test_after_three_that_hang_everything_is_deferred_at_once_and_that_is_told_once()
        self.writer.hanging = 2
        with capturedLogs() as events:
            batch = self.deliver()
            self.writer.finish()
            self.assertIsInstance(self.outcomes(batch)[0][0], Delivered)
        self.assertEqual([event["log_format"] for event in events], ["the mailbox disk answers again"])

    def test_where_the_processes_could_be_ended_there_is_a_pause_before_the_next_try(self) -> None:
        for _ in range(3):
            batch = self.deliver()
            self.clock.advance(watched_writer.FRAME_SECONDS + 1)
            self.successResultOf(batch)
            self.writer.hanging = 0
        self.assertIsInstance(self.outcomes(self.deliver())[0][0], Delayed)
        self.clock.advance(watched_writer.PAUSE_SECONDS)
        batch = self.deliver()
        self.writer.finish()
        self.assertIsInstance(self.outcomes(batch)[0][0], Delivered)

    def test_a_batch_that_the_queue_gives_up_gives_the_writer_up(self) -> None:
        batch = self.deliver()
        batch.cancel()
        self.failureResultOf(batch, CancelledError)
        self.assertEqual(self.writer.hanging, 1)

    def test_a_fault_of_the_writer_defers_what_it_had_and_is_no_hang(self) -> None:
        batch = self.deliver()
        self.writer.waiting.pop()[0].errback(OSError("it has died, twice"))
        self.assertIn("twice", self.outcomes(batch)[0][0].note)
        self.assertEqual(self.writer.hanging, 0)

    def test_while_a_sync_hangs_nothing_is_settled_nor_delivered(self) -> None:
        batch = self.deliver()
        self.writer.finish()
        self.successResultOf(batch)
        self.answer = Deferred()
        flush = self.flush()
        with capturedLogs() as events:
            flush.cancel()
        self.failureResultOf(flush, CancelledError)
        self.assertEqual([event["log_level"].name for event in events], ["critical"])
        syncing = self.threads["Maildir sync"]
        syncing.hanging = 1
        self.assertIn("sync", self.outcomes(self.deliver())[0][0].note)
        self.answer = fail(AllHang("1 earlier calls have not ended"))
        self.failureResultOf(self.flush(), OSError)
        syncing.hanging = 0
        self.answer = succeed(None)
        self.successResultOf(self.flush())
        self.assertEqual(self.synced, [{1: "/"}] * 3, "nothing is forgotten")

    def test_the_end_does_not_wait_for_ever(self) -> None:
        self.deliver()
        stopped = Deferred.fromCoroutine(self.delivery.stop())
        self.clock.advance(30)
        self.successResultOf(stopped)

    def test_a_start_does_not_wait_for_ever_for_mailboxes_to_be_made(self) -> None:
        preparing = self.threads["Maildir preparation"]
        self.patch(preparing, "run", lambda *_: Deferred())
        prepared = Deferred.fromCoroutine(self.delivery.prepare([ALICE]))
        self.clock.advance(60)
        with capturedLogs() as events:
            self.patch(preparing, "run", lambda *_: fail(AllHang("x")))
            self.successResultOf(prepared)
            self.successResultOf(Deferred.fromCoroutine(self.delivery.prepare([ALICE])))
        self.assertEqual([event["log_level"].name for event in events], ["error"])


class InAProcess(TestCase):
    """As it is made by default, with a real process that is stopped: it stands for one that the kernel keeps."""

    timeout = 30.0

    async def test_at_the_deadline_the_process_is_replaced_and_the_next_one_delivers_what_it_had_once(self) -> None:
        data = os.path.abspath(self.mktemp())
        clock = Clock()
        made = MaildirFactory().build(MaildirOptions(), replace(services(data), clock=clock))
        assert isinstance(made, MaildirDelivery)
        await made.start()
        large = Content.of(b"Subject: large\r\n\r\n" + b"x" * 3_000_000 + b"\r\n")
        await made.deliver_batch([parcel(BOB, id="0000000000000001")])
        stopped: Any = made._writer._writer._process  # type: ignore[attr-defined]
        os.kill(stopped.pid, signal.SIGSTOP)
        batch = Deferred.fromCoroutine(made.deliver_batch([parcel(ALICE), parcel(BOB, id="0000000000000002", content=large)]))
        clock.advance(watched_writer.FRAME_SECONDS - 1)
        self.assertNoResult(batch)
        clock.advance(5)
        self.assertEqual([type(outcome) for outcomes in await batch for outcome in outcomes.values()], [Delayed, Delayed])
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopped.pid, signal.SIGCONT)
        again = [parcel(ALICE, again=True), parcel(BOB, id="0000000000000002", content=large, again=True)]
        self.assertEqual([type(outcomes[0]) for outcomes in await made.deliver_batch(again)], [Delivered, Delivered])
        await made.flush()
        await made.stop()
        self.assertEqual(await deferToThread(stopped.wait, 10), -signal.SIGKILL)
        found = files_below(data)
        self.assertEqual([name.split("/")[2:4] for name in found], [["alice", "new"], ["bob", "new"], ["bob", "new"]])
        for name in found:
            self.assertIn(f",S={os.path.getsize(f'{data}/{name}')},", name, "nothing is torn")


class InAThread(TestCase):
    """`process = false`, with a disk that hangs: a named pipe in the place of the content."""

    timeout = 30.0

    async def test_nothing_is_written_until_the_thread_that_hangs_has_ended_and_that_writes_no_more(self) -> None:
        data = os.path.abspath(self.mktemp())
        clock = Clock()
        made = MaildirFactory().build(MaildirOptions(process=False), replace(services(data), clock=clock))
        assert isinstance(made, MaildirDelivery)
        pipe = os.path.abspath(self.mktemp())
        os.mkfifo(pipe)
        self.patch(made, "_message_of", captured_message_of)  # without a Return-Path nobody looks at the header first
        hangs = parcel(ALICE, content=Content.at(pipe, 8))
        batch = Deferred.fromCoroutine(made.deliver_batch([hangs, parcel(BOB, id="0000000000000002")]))
        while not files_below(data):
            await deferToThread(time.sleep, 0.002)
        clock.advance(watched_writer.FRAME_SECONDS + 1)
        self.assertEqual([type(outcome) for outcomes in await batch for outcome in outcomes.values()], [Delayed, Delayed])
        [outcomes] = await made.deliver_batch([parcel(BOB, id="0000000000000002", again=True)])
        self.assertIn("does not answer", outcomes[0].note)  # type: ignore[union-attr]
        (await deferToThread(open, pipe, "wb")).close()  # the disk answers
        while isinstance(outcomes[0], Delayed):
            self.assertNotIn("/new/", "".join(files_below(data)))
            await deferToThread(time.sleep, 0.002)
            [outcomes] = await made.deliver_batch([parcel(BOB, id="0000000000000002", again=True)])
        self.assertEqual(["/new/" in name for name in files_below(data)], [True])
        await made.stop()
