"""Nothing is lost, nothing is said to be there that is not."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no annotations)

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from mailserver.interfaces import IBatchDelivery, IComponent, IConcurrentDelivery
from mailserver.mail.answers import Delayed, Delivered, Failed, Local, Mailbox, Outcome, Remote
from mailserver.mail.content import Content
from mailserver.mail.outcomes import outcome_of
from mailserver.mail.parcel import Destination, Parcel
from mailserver.mail.reply import Reply
from mailserver.plugins.awaiting import later
from mailserver.testing.contracts.messages import MESSAGES

if TYPE_CHECKING:
    from mailserver.testing.case import ComponentCase as Case
else:
    Case = object

__all__ = ["DeliveryContract"]

DELAYED = Reply.of(451, "4.3.0", "An error of the delivery")
TRIES = 100
TEXT = b"From: a@example.net\r\nSubject: Hello\r\n\r\nThe only text of its kind: %d.\r\n"


class DeliveryContract(Case):
    """For a delivery of either kind.  Beside `ComponentCase`; `make` and `stored` have to be written.

    `keeps_octets` False: what is stored is not the message's own octets, so that only its words can be looked for.
    `on_disk` True: it is kept in files of this host, so that `flush` is true only when they are synced.
    """

    keeps_octets = True
    on_disk = False

    def make(self) -> Any:
        """The component, fresh: of two that are made in one test, each sees what the other has stored."""
        raise NotImplementedError("a contract's test case says what it tests: def make(self)")

    def stored(self) -> Sequence[bytes]:
        """Every message that is there now, as whoever reads the mail would find it: from the disk, from the other end."""
        raise NotImplementedError("a contract's test case says where the mail is: def stored(self)")

    def break_down(self) -> bool:
        """Take away where mail goes (its folder, its server), so that no attempt can succeed.  False where nothing can be."""
        return False

    def destination(self, index: int, name: str = "user") -> Destination:
        """Where a test's mail goes: a mailbox of its own for each `name`.  A relay overrides it with `remote`."""
        address = self.recipient(f"{name}@example.org").address
        return Destination(index, self.recipient(f"{name}@example.org"), Local(address, Mailbox(name, "example.org")))

    def remote(self, index: int, name: str = "user") -> Destination:
        """A destination on another host, for a relay's `destination`."""
        recipient = self.recipient(f"{name}@example.net")
        return Destination(index, recipient, Remote(recipient.address))

    async def started(self) -> Any:
        """The component, started as the server does it, and stopped at the test's end."""
        component = self.make()
        if IComponent.providedBy(component):
            await component.start()
            self.addCleanup(component.stop)
        return component

    # --- Outcomes. ---

    async def test_what_is_delivered_is_there_after_the_flush(self) -> None:
        """And nothing else is."""
        component = await self.started()
        outcomes = await self._deliver(component, self._text(1), self.destination(0))
        self.assertIsInstance(outcomes[0], Delivered)
        await component.flush()
        self.assertEqual(self._counts(1, 2), [1, 0])

    async def test_each_index_has_its_outcome_and_no_other_has_one(self) -> None:
        """A message is tried again for those of its destinations that are left: their indexes do not begin with 0."""
        component = await self.started()
        answer = await self._answer(component, self._text(1), [self.destination(7, "user"), self.destination(3, "other")])
        self.assertEqual(set(answer), {3, 7})
        for index in (3, 7):
            self.assertIsInstance(outcome_of(answer, index), Delivered)
        await component.flush()
        self.assertEqual(self._counts(1), [2])

    async def test_two_destinations_in_one_mailbox_are_one_copy(self) -> None:
        """Both have its outcome."""
        component = await self.started()
        outcomes = await self._deliver(component, self._text(1), self.destination(0), self.destination(1))
        self.assertEqual([type(outcomes[index]) for index in (0, 1)], [Delivered, Delivered])
        await component.flush()
        self.assertEqual(self._counts(1), [1])

    async def test_a_flush_with_nothing_to_do_is_one(self) -> None:
        """Before the first message, and twice after it."""
        component = await self.started()
        await component.flush()
        await self._deliver(component, self._text(1), self.destination(0))
        await component.flush()
        await component.flush()
        self.assertEqual(self._counts(1), [1])

    async def test_the_flush_syncs_what_is_on_the_disk(self) -> None:
        """The message and its name: after a power cut both are there."""
        component = await self.started()
        if not self.on_disk:
            return
        synced: list[bool] = []  # for each call: a folder?
        for name in ("fsync", "fdatasync"):
            self.patch(os, name, _counting(getattr(os, name), synced))
        await self._deliver(component, self._text(1), self.destination(0))
        await component.flush()
        self.assertIn(False, synced, "no file was synced: the message is not durable")
        self.assertIn(True, synced, "no folder was synced: the file's name is not durable")

    async def test_messages_of_one_mailbox_stay_apart(self) -> None:
        """None takes another's place."""
        component = await self.started()
        for number in range(5):
            await self._deliver(component, self._text(number), self.destination(0))
        await component.flush()
        self.assertEqual(self._counts(*range(5)), [1] * 5)

    async def test_every_message_arrives_as_it_is(self) -> None:
        """Broken ones, too: from memory and from a file."""
        component = await self.started()
        sent = 0
        for name, octets in MESSAGES.items():
            path = os.path.abspath(self.mktemp())
            with open(path, "wb") as file:
                file.write(octets)
            for content in (Content.of(octets), Content.at(path, len(octets))):
                outcome = (await self._deliver(component, content, self.destination(0)))[0]
                self.assertIsInstance(outcome, Delivered | Failed, f"{name}: {outcome!r}")
                sent += isinstance(outcome, Delivered)
                await component.flush()
                self.assertEqual(len(self.stored()), sent, f"{name}: not there, or there twice")
                if self.keeps_octets and isinstance(outcome, Delivered):
                    body = _lines(octets.partition(b"\r\n\r\n")[2])
                    self.assertTrue(any(body in _lines(one) for one in self.stored()), f"{name}: its text has changed")

    # --- Trouble. ---

    async def test_a_message_that_cannot_be_read_to_its_end_is_not_delivered(self) -> None:
        """A torn file is an error of ours: tried again, never handed on as a whole message."""
        component = await self.started()
        octets = self._text(1).data or b""
        path = os.path.abspath(self.mktemp())
        with open(path, "wb") as file:
            file.write(octets)
        torn = Content.at(path, len(octets) + 100)
        self.assertIsInstance((await self._deliver(component, torn, self.destination(0)))[0], Delayed)
        await component.flush()
        self.assertEqual(self._counts(1), [0])
        whole = await self._deliver(component, self._text(1), self.destination(0))
        self.assertIsInstance(whole[0], Delivered)
        await component.flush()
        self.assertEqual(self._counts(1), [1])

    async def test_what_is_called_off_is_not_lost(self) -> None:
        """Cancelled at its deadline, or when the server stops; tried again later, it is there.  Twice is no loss."""
        component = await self.started()
        answer = later(component.deliver(self.envelope(), self._text(1), [self.destination(0)]))
        answer.cancel()
        with contextlib.suppress(CancelledError, Exception):  # it counts as Delayed
            await answer
        for _ in range(TRIES):  # what was called off may have to come to its end first
            outcome = (await self._deliver(component, self._text(1), self.destination(0)))[0]
            if isinstance(outcome, Delivered):
                break
            await self._a_moment()
        self.assertIsInstance(outcome, Delivered)
        await component.flush()
        self.assertGreaterEqual(self._counts(1)[0], 1)

    async def test_where_nothing_can_be_delivered_nothing_is(self) -> None:
        """Delayed or an error, and where the delivery has said yes, `flush` takes it back."""
        component = await self.started()
        if not self.break_down():
            return
        outcome: Outcome | None = (await self._deliver(component, self._text(1), self.destination(0)))[0]
        self.assertFalse(isinstance(outcome, Failed), "mail is returned to its sender for a trouble that passes")
        if isinstance(outcome, Delivered):
            try:
                await component.flush()
            except Exception:  # noqa: BLE001  # as the queue: none of it counts as delivered
                outcome = None
            self.assertIsNone(outcome, "what cannot be kept was said to be there")
        self.assertEqual(self._counts(1), [0])

    async def test_another_that_reads_from_the_same_place_finds_it(self) -> None:
        """After a restart, say: what is durable does not stand in the component alone."""
        component = await self.started()
        await self._deliver(component, self._text(1), self.destination(0))
        await component.flush()
        if IComponent.providedBy(component):
            await component.stop()
        self.make()
        self.assertEqual(self._counts(1), [1])

    # --- The optional interfaces. ---

    async def test_a_batch_has_the_outcomes_of_its_parcels_in_their_order(self) -> None:
        """One that cannot be delivered is nobody else's trouble."""
        component = await self.started()
        if not IBatchDelivery.providedBy(component):
            return
        missing = Content.at(os.path.abspath(self.mktemp()), 100)
        parcels = [
            Parcel(self.envelope(), content, (self.destination(index),))
            for index, content in ((5, self._text(1)), (0, missing), (2, self._text(2)))
        ]
        answers = await component.deliver_batch(parcels)
        self.assertEqual(len(answers), 3)
        kinds = [type(outcome_of(answer, parcel.destinations[0].index)) for answer, parcel in zip(answers, parcels, strict=True)]
        self.assertEqual(kinds, [Delivered, Delayed, Delivered])
        await component.flush()
        self.assertEqual(self._counts(1, 2), [1, 1])

    async def test_calls_side_by_side_do_not_disturb_each_other(self) -> None:
        """As many as it says that it bears."""
        component = await self.started()
        if not IConcurrentDelivery.providedBy(component):
            return
        self.assertGreaterEqual(component.calls_at_once, 1)
        self.assertGreater(component.deadline_seconds, 0)
        calls = [
            later(component.deliver(self.envelope(), self._text(n), [self.destination(n, f"user{n}")]))
            for n in range(min(component.calls_at_once, 5))
        ]
        for n, call in enumerate(calls):
            self.assertIsInstance(outcome_of(await call, n), Delivered)
        await component.flush()
        self.assertEqual(self._counts(*range(len(calls))), [1] * len(calls))

    # --- Their means. ---

    async def _answer(self, component: Any, content: Content, destinations: Sequence[Destination]) -> Mapping[int, Outcome]:
        answer: Mapping[int, Outcome] = await component.deliver(self.envelope(), content, destinations)
        return answer

    async def _deliver(self, component: Any, content: Content, *destinations: Destination) -> Mapping[int, Outcome]:
        """The outcomes as the queue understands them: an error is Delayed for all."""
        try:
            answer = await self._answer(component, content, destinations)
        except Exception:  # noqa: BLE001  # as the queue
            return {one.index: Delayed(DELAYED, Failure().getErrorMessage()) for one in destinations}
        return {one.index: outcome_of(answer, one.index) for one in destinations}

    async def _a_moment(self) -> None:
        """Real time, for what is done by threads and other hosts."""
        from twisted.internet import reactor, task

        await task.deferLater(reactor, 0.02)

    def _text(self, number: int) -> Content:
        return Content.of(TEXT % number)

    def _counts(self, *numbers: int) -> list[int]:
        """How often the message of each number is there."""
        there = [_lines(one) for one in self.stored()]
        return [sum(f"The only text of its kind: {number}.".encode() in one for one in there) for number in numbers]


def _counting(sync: Callable[[int], None], synced: list[bool]) -> Callable[[int], None]:
    def counted(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        synced.append(stat.S_ISDIR(os.fstat(number).st_mode))
        sync(number)

    return counted


def _lines(octets: bytes) -> bytes:
    return octets.replace(b"\r\n", b"\n").rstrip(b"\n")
