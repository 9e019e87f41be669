"""What a release before this one has taken is delivered by this one, and its files are found."""

from __future__ import annotations

import os

import apsw
from twisted.internet.threads import deferToThread

from mailserver.delivery.maildir import MaildirFactory, MaildirOptions
from mailserver.interfaces import Services
from tests.queue.doubles import QueueCase

DUMP = os.path.join(os.path.dirname(__file__), "of_version_1.sql")
THREE_WAYS = "1K0WZABCDEFGHJKM"  # alice, then team: alice and bob
DEFERRED = "1K0WZABCDEFHHJKN"  # alice


class OfVersion1(QueueCase):
    async def test_a_file_that_it_wrote_before_a_crash_is_found_and_replaced(self):
        self.restore()
        new = os.path.join(self.directory, "mail/alice/new")
        os.makedirs(new)
        for name in (f"1795400000.{THREE_WAYS}_1.mx.example.org", f"1795400001.{DEFERRED}_0.mx.example.org"):
            with open(os.path.join(new, name), "wb") as torn:
                torn.write(b"torn")
        self.clock.rightNow = 1_795_400_100.0
        maildirs = self.maildirs()
        queue = await self.started(local=maildirs, expire_seconds=86_400)
        await self.settled(queue)
        await self.stop(queue)
        await maildirs.stop()
        self.assertEqual(
            [self.markers(user) for user in ("alice", "bob")],
            [[f"{THREE_WAYS}_0", f"{THREE_WAYS}_1", f"{DEFERRED}_0"], [f"{THREE_WAYS}_2"]],
        )
        for name in os.listdir(new):
            with open(os.path.join(new, name), "rb") as whole:
                self.assertTrue(whole.read().endswith(b"Received: by the old release\nSubject: old\n\nbody\n"))

    def restore(self):
        os.makedirs(self.directory)
        with open(DUMP) as dump:
            connection = apsw.Connection(os.path.join(self.directory, "queue.db"))
            connection.execute(dump.read())
            connection.close()

    def maildirs(self):
        services = Services(self.clock, deferToThread, None, None, "mx.example.org", self.directory, self.directory)
        options = MaildirOptions(path="{data}/mail/{user}", process=False)
        return MaildirFactory().build(options, services)

    async def settled(self, queue):
        waiting = [self.steps.wait(id, "settled") for id in (THREE_WAYS, DEFERRED)]
        while self.steps.count("delivered") < 4:
            await deferToThread(lambda: None)
        self.clock.advance(1)
        for step in waiting:
            await step

    def markers(self, user):
        return sorted(name.split(".")[1] for name in os.listdir(os.path.join(self.directory, "mail", user, "new")))
