"""The system's resolver is asked in threads of its own: whatever fills the reactor's pool, names are found."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.assembly import host_names
from mailserver.assembly.host_names import HostNames


class Names(TestCase):
    def setUp(self) -> None:
        self.turner: Any = reactor
        self.before = self.turner.nameResolver
        self.names = HostNames(reactor)
        self.names.start()
        self.addCleanup(self.names.stop)
        self.free = threading.Event()
        self.addCleanup(self.free.set)

    async def test_a_name_is_found_while_every_thread_of_the_reactors_pool_hangs(self) -> None:
        pool = self.turner.getThreadPool()
        hanging = [deferToThread(self.free.wait) for _ in range(pool.max)]
        self.assertEqual(await self.looked_up("localhost"), ["localhost"])
        self.free.set()
        await DeferredList(hanging)

    def looked_up(self, name: str) -> Deferred[list[str]]:
        """The names of what was asked, once the answer is there."""
        done: Deferred[list[str]] = Deferred()
        found: list[str] = []

        class Receiver:
            def resolutionBegan(self, resolution: Any) -> None:
                found.append(resolution.name)

            def addressResolved(self, address: Any) -> None: ...

            def resolutionComplete(self) -> None:
                done.callback(found)

        self.turner.nameResolver.resolveHostName(Receiver(), name)
        return done

    async def test_where_every_thread_of_its_own_hangs_the_answer_is_no_at_once(self) -> None:
        calls = [self.names.threads.run(self.free.wait) for _ in range(host_names.THREADS + host_names.WAITING_MOST)]
        self.assertEqual(await self.looked_up("localhost"), ["localhost"])
        self.free.set()
        await DeferredList(calls)

    async def test_at_the_end_the_resolver_is_the_one_from_before(self) -> None:
        self.assertIsNot(self.turner.nameResolver, self.before)
        self.names.stop()
        self.names.stop()
        self.assertIs(self.turner.nameResolver, self.before)
