"""A real CA of Debian's, Pebble: it issues, renews and revokes, by each of the ways in which we can show that a name is ours."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.acme.allowance import TimeAllowance
from mailserver.acme.answers import FolderAnswers, FromReactor
from mailserver.acme.challenge import ChallengeAnswers
from mailserver.acme.own_listeners import HTTPListener, TLSListener
from mailserver.acme.settings import AcmeSettings, AuthoritySettings
from mailserver.acme.visit import Visit, Visited
from mailserver.tls.issued import next_spki, spki_of
from tests.acme.pebble import Pebble

_pebble: list[Pebble] = []


def setUpModule() -> None:
    """One for all of these tests."""
    _pebble.append(Pebble())


def tearDownModule() -> None:
    """See above."""
    _pebble.pop().stop()


class ByPebble(TestCase):
    def setUp(self) -> None:
        if not _pebble:  # trial calls no setUpModule
            setUpModule()
            from twisted.internet import reactor

            reactor.addSystemEventTrigger("after", "shutdown", tearDownModule)
        self.pebble = _pebble[0]
        self.keys = os.path.abspath(self.mktemp())

    def visit(self, answers: Any, *names: str, allowance: TimeAllowance | None = None, **changed: Any) -> Visit:
        settings = AcmeSettings(
            mail_names=names, authorities=(AuthoritySettings(self.pebble.directory),), contact="postmaster@example.org",
            ca_file=self.pebble.ca_file,
        )  # fmt: skip
        return Visit(
            name="mail", names=names, required=frozenset(names[:1]), settings=settings, keys_directory=self.keys,
            allowance=allowance or TimeAllowance(60), answers=answers, seen=lambda: None, **changed,
        )  # fmt: skip

    def by_http(self, allowance: TimeAllowance) -> ChallengeAnswers:
        from twisted.internet import reactor

        endpoint = f"tcp:{self.pebble.http_port}:interface=127.0.0.1"
        shows = HTTPListener(["tcp:1:interface=192.0.2.1", endpoint], self.listen, reactor)
        return FromReactor(shows, reactor.callFromThread, allowance)

    def by_tls(self, allowance: TimeAllowance) -> ChallengeAnswers:
        from twisted.internet import reactor

        shows = TLSListener([f"tcp:{self.pebble.tls_port}:interface=127.0.0.1"], self.listen, reactor)
        return FromReactor(shows, reactor.callFromThread, allowance)

    def listen(self, endpoint: str, factory: Any) -> Deferred[Any]:
        from twisted.internet import reactor

        return serverFromString(reactor, endpoint).listen(factory)

    async def looked(self, visit: Visit, **wanted: Any) -> Visited:
        return await deferToThread(partial(visit.look, **wanted))

    async def test_http_01_gives_a_certificate_that_is_renewed_with_the_same_key_rolled_over_and_revoked(self) -> None:
        visit = self.visit(self.by_http, "mail.example.org", "imap.example.org")
        first = await self.looked(visit)
        self.assertEqual(first.progress.error, "")
        self.assertTrue(first.has_changed)
        assert first.identity is not None
        self.assertEqual(sorted(first.identity.names), ["imap.example.org", "mail.example.org"])
        self.assertEqual(len(first.identity.chain), 2)
        self.assertFalse((await self.looked(visit)).has_changed)  # it is not due
        self.assertGreater(first.due, visit.now() + 30 * 86400)
        second = await self.looked(visit, is_urgent=True)
        assert second.identity is not None
        self.assertEqual((second.spki, second.has_changed), (first.spki, True))
        self.assertNotEqual(second.identity.leaf.serial_number, first.identity.leaf.serial_number)
        following = next_spki(self.keys, "mail")
        third = await self.looked(visit, roll="wanted")
        self.assertEqual(third.spki, following)
        self.assertNotIn(next_spki(self.keys, "mail"), ("", following))
        assert third.identity is not None
        serial = f"{third.identity.leaf.serial_number:x}"
        self.assertEqual(self.pebble.status_of(serial), "Valid")
        fourth = await deferToThread(visit.revoke, 1)
        self.assertEqual(self.pebble.status_of(serial), "Revoked")
        self.assertTrue(fourth.has_changed)
        self.assertNotEqual(fourth.spki, third.spki)  # that key was compromised

    async def test_tls_alpn_01_gives_a_certificate(self) -> None:
        found = await self.looked(self.visit(self.by_tls, "mail.example.net"))
        assert found.identity is not None
        self.assertEqual(found.identity.names, ("mail.example.net",))
        self.assertEqual(spki_of(found.identity.key.public_key()), found.spki)

    async def test_nobody_who_shows_it_is_a_failure_with_the_cas_words_and_leaves_out_what_is_not_the_hosts_own(self) -> None:
        folder = os.path.abspath(self.mktemp())
        found = await self.looked(self.visit(lambda _: FolderAnswers(folder), "a.example.net", "b.example.net"))
        self.assertIsNone(found.identity)
        self.assertIn("a.example.net: connection: ", found.progress.error)
        self.assertEqual((found.progress.failures, found.is_late), (1, False))
        self.assertEqual(os.listdir(os.path.join(folder, ".well-known", "acme-challenge")), [])

    async def test_threads_end_when_the_server_stops(self) -> None:
        allowance, at_it = TimeAllowance(60), threading.Event()

        class Never:
            kind = "http-01"

            def show(self, challenges: Any) -> None:
                at_it.set()
                allowance.wait(50)

            def withdraw(self, challenges: Any) -> None:
                """Nothing."""

        looking = self.looked(self.visit(lambda _: Never(), "c.example.net", allowance=allowance))
        done = Deferred.fromCoroutine(looking)
        await deferToThread(at_it.wait, 20)
        allowance.end()
        found = await done
        self.assertEqual((found.identity, found.progress.failures), (None, 0))
        again = await self.looked(self.visit(self.by_http, "c.example.net"))  # the order that was left goes on
        self.assertTrue(again.has_changed)
