"""Keep mail for other hosts in one Maildir instead of sending it: for the sandbox, and to try a configuration out.

Each message there begins with X-Envelope-From and one X-Envelope-To, as SMTP would have said them.
"""

from __future__ import annotations

import functools

from zope.interface import implementer

from mailserver.config import FilePath, Options
from mailserver.delivery.batch_format import BatchCopy, BatchMessage, with_copies
from mailserver.delivery.durability import Disk, find_syncfs
from mailserver.delivery.maildir import MaildirDelivery, WriterThread
from mailserver.delivery.maildir_format import field_lines
from mailserver.delivery.names import file_name
from mailserver.interfaces import IBatchDelivery, IComponentFactory, Services
from mailserver.mail.parcel import Parcel
from mailserver.plugins.threads import Threads

__all__ = ["CaptureFactory", "CaptureOptions", "captured_message_of"]


def captured_message_of(parcel: Parcel, host: str) -> BatchMessage:
    """Every destination of a parcel, with the envelope in header fields."""
    envelope, content = parcel.envelope, parcel.content
    copies = [
        BatchCopy(
            destination.index,
            "",
            "",
            (),
            False,
            False,
            file_name(envelope.received_at, envelope.id, destination.index, host),
            field_lines(
                ("X-Envelope-From", envelope.sender), ("X-Envelope-To", destination.route.address), binary=content.binary
            ),
        )
        for destination in parcel.destinations
    ]
    return with_copies(parcel, copies)


class CaptureOptions(Options):
    """Mail for other hosts into a Maildir."""

    path: FilePath = "{data}/outbound"
    """The Maildir."""


@implementer(IComponentFactory)
class CaptureFactory:
    """Makes the delivery for ``[relay] use = "capture"``."""

    name = "capture"
    summary = "Keeps mail for other hosts in one Maildir and sends nothing"
    api_version = "1.0"
    provides = IBatchDelivery
    options = CaptureOptions

    def build(self, options: CaptureOptions, services: Services) -> MaildirDelivery:
        """No errors."""
        from twisted.internet import reactor

        threads = functools.partial(Threads, call_from_thread=reactor.callFromThread)  # type: ignore[attr-defined]
        path = options.path.replace("{data}", services.data_directory.rstrip("/"), 1)
        syncfs = find_syncfs()
        return MaildirDelivery(
            writer=WriterThread(
                path_of=lambda _: path,
                open_at_most=1,
                syncs_files=syncfs is None,
                thread=threads("outbound writer", 1),
            ),
            disk=Disk(syncfs=syncfs),
            clock=services.clock,
            threads=lambda name: threads(name, 1),
            hostname=services.hostname,
            root=path,
            depth=0,
            message_of=captured_message_of,
        )
