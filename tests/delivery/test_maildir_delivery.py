"""The deliveries as the queue sees them."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.delivery.capture import CaptureFactory, CaptureOptions
from mailserver.delivery.discard import DiscardFactory, DiscardOptions
from mailserver.delivery.durability import Disk
from mailserver.delivery.homes import HomeDelivery
from mailserver.delivery.letters import Letter, Report
from mailserver.delivery.maildir import MaildirDelivery, MaildirFactory, MaildirOptions
from mailserver.delivery.names import TemplateError
from mailserver.interfaces import IBatchDelivery, IComponent, IComponentFactory, Services
from mailserver.mail.address import Address
from mailserver.mail.answers import Delivered
from tests.delivery.messages import ALICE, BOB, DATA, files_below, only, parcel, read, remote_parcel, run_at_once


def services(data: str) -> Services:
    return Services(
        clock=None,  # type: ignore[arg-type]
        run_in_thread=run_at_once,
        state=None,
        resolver=None,
        hostname="mx.example.org",
        configuration_directory=data,
        data_directory=data,
    )


class Components(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = os.path.abspath(self.mktemp())

    def result(self, awaitable: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(awaitable))

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

    def test_a_message_is_delivered_made_durable_and_the_writer_ended(self) -> None:
        for process in (True, False):
            delivery = MaildirFactory().build(MaildirOptions(process=process), services(self.data))
            assert isinstance(delivery, MaildirDelivery)
            verifyObject(IComponent, delivery)
            self.result(delivery.start())
            one = parcel(ALICE, BOB, id=f"000000000000000{int(process)}")
            outcomes = self.result(delivery.deliver(one.envelope, one.content, one.destinations))
            self.assertEqual([type(outcomes[n]) for n in (0, 1)], [Delivered, Delivered])
            self.result(delivery.flush())
            self.result(delivery.stop())
        self.assertEqual(len(files_below(self.data + "/mail")), 4)

    def test_discard_keeps_nothing_and_says_so(self) -> None:
        delivery = DiscardFactory().build(DiscardOptions(), services(self.data))
        self.assertFalse(delivery.stores)
        outcomes = self.result(delivery.deliver_batch([parcel(ALICE, BOB), parcel(BOB)]))
        self.assertEqual([sorted(each) for each in outcomes], [[0, 1], [0]])
        self.result(delivery.flush())
        self.assertFalse(os.path.exists(self.data))

    def test_captured_mail_begins_with_its_envelope(self) -> None:
        delivery = CaptureFactory().build(CaptureOptions(), services(self.data))
        one = remote_parcel(Address("x", "far.example"), Address("y", "far.example"))
        outcomes = self.result(delivery.deliver_batch([one]))
        self.assertEqual([type(outcome) for outcome in outcomes[0].values()], [Delivered, Delivered])
        self.result(delivery.flush())
        self.result(delivery.stop())
        names = sorted(os.listdir(self.data + "/outbound/new"))
        texts = [read(f"{self.data}/outbound/new/{name}") for name in names]
        rest = DATA.replace(b"\r\n", b"\n")
        self.assertEqual(
            texts,
            [b"X-Envelope-From: <>\nX-Envelope-To: <%s@far.example>\n" % user + rest for user in (b"x", b"y")],
        )

    def test_maildirs_can_be_made_before_there_is_mail(self) -> None:
        delivery = MaildirFactory().build(MaildirOptions(process=False), services(self.data))
        assert isinstance(delivery, MaildirDelivery)
        self.result(delivery.prepare([ALICE, BOB]))
        for user in ("alice", "bob"):
            self.assertEqual(sorted(os.listdir(f"{self.data}/mail/example.org/{user}")), ["cur", "new", "tmp"])
        self.result(delivery.flush())

    def test_the_sweep_goes_through_the_mail(self) -> None:
        delivery = MaildirFactory().build(MaildirOptions(process=False), services(self.data))
        assert isinstance(delivery, MaildirDelivery)
        self.result(delivery.deliver_batch([parcel(ALICE)]))
        stale = f"{self.data}/mail/example.org/alice/tmp/stale"
        with open(stale, "w"):
            pass
        os.utime(stale, (0, 0))
        self.assertEqual(self.result(delivery.sweep()), 1)
        only(files_below(self.data))
        self.result(delivery.stop())


class PacedWriter:
    """Says that everything was written, when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Report], list[Letter]]] = []
        self.closed = False

    def start(self) -> None:
        """Nothing."""

    def write(self, letters: Any) -> Any:
        done: Deferred[Report] = Deferred()
        self.waiting.append((done, list(letters)))
        return done

    def close(self) -> None:
        self.closed = True

    def finish(self) -> None:
        done, letters = self.waiting.pop(0)
        done.callback(([[(copy[0], 0, "x") for copy in letter[-1]] for letter in letters], {1: "/"}, [], []))


class Order(SynchronousTestCase):
    """Which call waits for which."""

    def setUp(self) -> None:
        self.writer = PacedWriter()
        self.synced: list[Any] = []
        self.answer: Deferred[None] = succeed(None)
        disk = Disk(syncfs=None)
        self.patch(disk, "sync", self.sync)
        self.delivery = MaildirDelivery(
            writer=self.writer, disk=disk, run_in_thread=run_at_once, hostname="mx.example.org", root="/", depth=0
        )

    def sync(self, touched: Any) -> Deferred[None]:
        self.synced.append(dict(touched.devices))
        return self.answer

    def deliver(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.delivery.deliver_batch([parcel(ALICE)]))

    def flush(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.delivery.flush())

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
