"""Makes the forms of messages for hosts that do not take them as they are: at once for a small message, else in a thread."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.mail.answers import Delayed, Failed
from mailserver.mail.eight_bit import Channel
from mailserver.mail.reply import Reply
from mailserver.relay.conversion_forms import EightBit, Form, channel_to, form_of
from mailserver.relay.transmission import Transmission
from mailserver.smtp.client.offer import Offer
from mailserver.smtp.client.transaction import UNMET_NEED

__all__ = ["Conversions"]

NOT_CONVERTED = Reply.of(451, "4.3.0", "The message could not be converted for the host")
NO_ROOM = Reply.of(452, "4.3.1", "There is no room now to convert the message for the host")
FULL = (errno.ENOSPC, errno.EDQUOT)
FORMS_OCTETS = 512 << 20  # of all forms together that a thread has made, or is to make
TOLD_SECONDS = 60.0
AT_ONCE_OCTETS = 131_072  # of a message in memory
THREADS = 2  # conversions at once: other parts use the same threads


class Conversions:
    """The conversions of one relay.

    `again(transmission)` is called when a thread has made a transmission's form.  Large messages are converted into files
    without a name in `directory`, "" for the system's folder.  `room_for(octets)` says whether its disk has room beside the
    reserve.  Forms stay while messages wait for a slow host.  So all forms together may take `octets_most`, and those for one
    address half of that.  A message above these bounds is tried again later.  One form is always made, whatever its size.
    """

    log = Logger()

    def __init__(
        self,
        *,
        eight_bit: EightBit,
        directory: str,
        run_in_thread: Callable[..., Any],
        again: Callable[[Transmission], None],
        seconds: Callable[[], float],
        room_for: Callable[[int], bool] | None = None,
        octets_most: int = FORMS_OCTETS,
    ) -> None:
        self.eight_bit = eight_bit
        self._directory = directory or tempfile.gettempdir()
        self._run_in_thread = run_in_thread
        self._again = again
        self._seconds = seconds
        self._room_for = room_for
        self._octets_most = octets_most
        self._told_at = -TOLD_SECONDS
        # By transmission: where it goes, and the octets of its forms.  An entry ends with its transmission.
        self._held: WeakKeyDictionary[Transmission, tuple[str, int]] = WeakKeyDictionary()
        self._slots = DeferredSemaphore(THREADS)
        self._under_way: dict[Transmission, None] = {}

    def has_form(self, transmission: Transmission, offer: Offer) -> bool:
        """Whether it can go to this host now; then `transmission.form` is set.

        False where its form is still being made (`again` follows), and where it has its outcome already.
        """
        channel = channel_to(transmission.request, offer)
        transmission.form = None
        if channel is None:
            return True
        # One form for each channel, whatever sizes the hosts name.
        if channel not in transmission.forms and not self._make(transmission, channel):
            return False
        transmission.form = transmission.forms[channel].within(offer.size_max)
        return True

    def give_up(self, why: Delayed) -> None:
        """The server stops: give this outcome to whatever is being converted."""
        under_way, self._under_way = self._under_way, {}
        for transmission in under_way:
            transmission.abandoned = True
            transmission.give_up(why)

    def _make(self, transmission: Transmission, channel: Channel) -> bool:
        """Make the form, at once or in a thread.  Return whether it is made already."""
        eight_bit, content = self.eight_bit, transmission.content
        if eight_bit is EightBit.REFUSE and transmission.request.sender is None:
            eight_bit = EightBit.CONVERT  # a report that cannot be delivered is lost
        make = partial(form_of, content, channel, eight_bit=eight_bit, directory=self._directory)
        if content.data is not None and len(content.data) <= AT_ONCE_OCTETS:
            try:
                form = make()
            except Exception:  # noqa: BLE001  a fault with one message shall not be that of others
                self._stumbled(Failure(), transmission)
                return False
            return self._is_made(form, transmission, channel)
        octets = content.size * 3 // 2  # base64 with its line ends takes a good third more
        if not self._takes(transmission, octets):
            self._no_room(transmission, "too much is waiting in other forms, or the disk is full")
            return False
        self._count(transmission, octets)
        self._under_way[transmission] = None
        making = self._slots.run(self._run_in_thread, make)
        making.addCallbacks(
            lambda form: self._made_later(form, transmission, channel, octets),
            lambda failure: self._stumbled(failure, transmission),
        )
        making.addErrback(lambda failure: self.log.failure("the relay stumbled over a conversion", failure))
        return False

    def _is_made(self, form: Form | Reply, transmission: Transmission, channel: Channel) -> bool:
        if isinstance(form, Form):
            transmission.forms[channel] = form
            return True
        transmission.settle([Failed(form, UNMET_NEED)] * len(transmission.indexes))
        return False

    def _takes(self, transmission: Transmission, octets: int) -> bool:
        """Whether there is room for one more form of this size."""
        address = transmission.target.key.address
        in_all = sum(size for _, size in self._held.values())
        own = sum(size for to, size in self._held.values() if to == address)
        if own and own + octets > self._octets_most // 2:
            return False
        if in_all and in_all + octets > self._octets_most:
            return False
        return self._room_for is None or self._room_for(octets)

    def _count(self, transmission: Transmission, octets: int) -> None:
        _, before = self._held.get(transmission, ("", 0))
        self._held[transmission] = transmission.target.key.address, before + octets

    def _no_room(self, transmission: Transmission, why: str) -> None:
        now = self._seconds()
        if not 0 <= now - self._told_at < TOLD_SECONDS:
            self._told_at = now
            self.log.warn(
                "8-bit messages that cannot be converted for {host} wait: {why}",
                host=str(transmission.target),
                why=why,
            )
        transmission.give_up(Delayed(NO_ROOM, "not sent"))

    def _made_later(self, form: Form | Reply, transmission: Transmission, channel: Channel, octets: int) -> None:
        self._under_way.pop(transmission, None)
        takes = form.content.size if isinstance(form, Form) and form.content is not transmission.content else 0
        self._count(transmission, takes - octets)
        if not transmission.abandoned and self._is_made(form, transmission, channel):
            self._again(transmission)

    def _stumbled(self, failure: Failure, transmission: Transmission) -> None:
        self._under_way.pop(transmission, None)
        if isinstance(failure.value, OSError) and failure.value.errno in FULL:
            if not transmission.abandoned:
                self._no_room(transmission, str(failure.value))
            return
        self.log.failure("a message could not be converted for a host; it is tried again later", failure)
        if not transmission.abandoned:
            transmission.give_up(Delayed(NOT_CONVERTED, "not sent"))
