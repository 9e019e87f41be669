"""The template of a delivery."""

__all__ = ["PACKAGE", "SAYS", "TABLE", "TEST"]

SAYS = "A delivery that writes each message into a file of the user's folder."

TABLE = """\
[delivery]
use = "@name@"
path = "/var/mail-files"
"""

PACKAGE = '''\
"""The delivery @name@: each message is a file in a folder of its user, on the disk when `flush` returns."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence

from zope.interface import implementer

from mailserver.api import (
    Content,
    Delayed,
    Delivered,
    Destination,
    Envelope,
    FilePath,
    IComponentFactory,
    IDelivery,
    Local,
    Options,
    Outcome,
    Reply,
    Services,
    one_for_each,
)

__all__ = ["@class@", "@class@Options", "factory"]

NO_ROOM = Reply.of(451, "4.3.0", "The message cannot be stored now")
NOT_LOCAL = Reply.of(451, "4.3.5", "This delivery serves local mailboxes only")


class @class@Options(Options):
    """What the configuration may say."""

    path: FilePath
    """The folder of the users' folders."""


@implementer(IDelivery)
class @class@:
    """Writes files.  What it does is short; a delivery that may block for long uses `services.run_in_thread`."""

    stores = True

    def __init__(self, options: @class@Options) -> None:
        self._path = options.path
        self._written: set[str] = set()  # folders with files whose names are not synced yet

    async def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Mapping[int, Outcome]:
        """One copy for each mailbox; a destination that fails does not hold up another."""
        outcomes: dict[int, Outcome] = {}
        for group in one_for_each(destinations):
            outcome = self._outcome(envelope, content, group[0])
            outcomes.update({destination.index: outcome for destination in group})
        return outcomes

    def _outcome(self, envelope: Envelope, content: Content, destination: Destination) -> Outcome:
        if not isinstance(destination.route, Local):
            return Delayed(NOT_LOCAL)
        mailbox = destination.route.mailbox
        folder = os.path.join(self._path, mailbox.domain, mailbox.user, *mailbox.place)
        try:
            self._write(folder, f"{envelope.id}-{destination.index}", content)
        except OSError as error:
            return Delayed(NO_ROOM, str(error))
        return Delivered()

    def _write(self, folder: str, name: str, content: Content) -> None:
        """The name appears when the whole message is on the disk: whoever is called off in between has written nothing."""
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, name)
        try:
            with open(f"{path}.part", "wb") as file:
                for piece in content.chunks():
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(f"{path}.part", path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.part")
            raise
        self._written.add(folder)

    async def flush(self) -> None:
        """A file's name is durable when its folder is synced.  An error means that nothing since the last flush counts."""
        above = os.path.dirname(self._path)
        for folder in list(self._written):
            sync_folder(folder)
            while folder != above:  # a new folder's own name stands in the one above it
                folder = os.path.dirname(folder)
                sync_folder(folder)
        self._written.clear()


def sync_folder(path: str) -> None:
    """Make the names in it durable.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@implementer(IComponentFactory)
class @class@Factory:
    """Makes the delivery for ``[delivery] use = "@name@"``."""

    name = "@name@"
    summary = "Writes each message into a file of the user's folder."
    api_version = "1.0"
    provides = IDelivery
    options = @class@Options

    def build(self, options: @class@Options, services: Services) -> @class@:
        """Return the delivery."""
        return @class@(options)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the delivery @name@."""

import os

from mailserver.testing import ComponentCase, DeliveryContract

from mailserver_@module@ import factory


class @class@Test(DeliveryContract, ComponentCase):
    """Nothing is lost, nothing is said to be there that is not: the contract of every delivery."""

    on_disk = True
    path = ""

    def make(self):
        self.path = self.path or os.path.abspath(self.mktemp())
        return self.build(factory, path=self.path)

    def stored(self):
        found = []
        for folder, _, names in os.walk(self.path):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    found.append(file.read())
        return found

    def break_down(self):
        with open(self.path, "xb"):  # a file where the folder should be
            return True

    def stored_names(self):
        return sorted(os.listdir(os.path.join(self.path, "example.org", "user")))

    async def test_a_message_is_named_by_its_id_so_that_a_second_attempt_writes_the_same_file(self):
        component, envelope = self.make(), self.envelope()
        for _ in range(2):
            await component.deliver(envelope, self.content(), [self.destination(4)])
        await component.flush()
        self.assertEqual(self.stored_names(), [f"{envelope.id}-4"])
'''
