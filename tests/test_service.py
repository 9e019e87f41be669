"""The service's own chores, without twistd: its parts are made and not started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver import plugins
from mailserver.config import load
from mailserver.mail.address import Address
from mailserver.service import SWEEP_SECONDS, MailService

CONFIGURATION = """
hostname = "mx.example.org"
data = "{work}/data"
[[listen]]
service = "mx"
endpoint = "tcp:0:interface=127.0.0.1"
[accounts]
use = "file"
path = "{work}/accounts.toml"
[delivery]
use = "maildir"
path = "{work}/mail/{{user}}"
[relay]
use = "none"
[domain."example.org"]
"""


class Reactor(Clock):
    """Time alone; nothing runs in threads here."""

    def callFromThread(self, work: Any, *arguments: Any) -> None:
        work(*arguments)


class ServiceCase(SynchronousTestCase):
    def service(self) -> MailService:
        work = Path(self.mktemp()).absolute()
        os.makedirs(work / "data")
        path = work / "mailserver.toml"
        path.write_text(CONFIGURATION.format(work=work))
        catalogue = plugins.discover()
        configuration = load(str(path), catalogue.options_of)
        service = MailService(configuration, path=str(path), catalogue=catalogue, reactor=Reactor())
        self.addCleanup(lambda: service._sweeping.running and service._sweeping.stop())
        return service


class Doors(ServiceCase):
    def test_all_that_a_configuration_has_brought_is_counted_as_one(self) -> None:
        service = self.service()
        door, server = service._door, service._server
        self.assertEqual({id(one.generation) for one in (*door.profiles.values(), door.dropped)}, {id(door.generation)})
        server.route_with(door.router, door.generation)
        address, asked = Address("alice", "example.org"), Deferred[Any]()
        self.patch(door.router, "route", lambda _: asked)
        found = Deferred.fromCoroutine(server._route(address))  # for a report
        self.assertEqual(door.generation.uses, 1)
        asked.callback(())
        self.assertEqual((self.successResultOf(found), door.generation.uses), ((), 0))


class Sweep(ServiceCase):
    def test_whatever_one_part_meets_with_the_others_are_swept_and_all_of_them_the_next_day(self) -> None:
        service = self.service()
        swept: list[str] = []

        def stumble() -> None:
            raise RuntimeError("a fault of ours")

        async def plugin() -> int:
            swept.append("delivery")
            raise RuntimeError("a plugin's fault")

        async def folder() -> None:
            swept.append("drop folder")
            raise ValueError("not even an OSError")

        self.patch(service._server.queue, "tidy", stumble)
        self.patch(service._server.local, "sweep", plugin)
        self.patch(service._drop, "sweep", folder)
        service._sweeping.clock = service._reactor
        service._sweeping.start(SWEEP_SECONDS)
        service._reactor.advance(SWEEP_SECONDS)
        service._reactor.advance(SWEEP_SECONDS)
        self.assertEqual(swept, ["delivery", "drop folder"] * 3)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 6)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)


