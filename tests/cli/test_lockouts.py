"""``mailserver lockouts``: from the running server over its socket, and from the file when none runs."""

from __future__ import annotations

import os
import time

from twisted.internet import reactor, unix
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.authentication.lockout.counting import LockoutRules
from mailserver.authentication.lockout.lockout import Lockout
from mailserver.cli.explain import ROADS
from mailserver.cli.without_server import in_place
from mailserver.control.lockouts import LockoutCommands
from mailserver.control.server import ControlServer
from mailserver.state_store import StateStore
from mailserver.testing.state import MemoryState
from tests.at_once import AtOnce
from tests.authentication.lockout.test_lockout import refusal
from tests.cli.support import CommandCase, Said, run

ALICE, BOB = "alice@example.org", "bob@example.org"


def locked(lockout: Lockout) -> Lockout:
    """alice from two networks, and a network; bob is only counted."""
    for peer in ("192.0.2.1", "2001:db8::1"):
        for n in range(10):
            lockout.failed(peer, ALICE, b"wrong %d" % n)
    for n in range(30):
        lockout.failed("203.0.113.1", f"user{n}@example.org", b"x")
    lockout.failed("192.0.2.1", BOB, b"x")
    return lockout


class WithoutServer(CommandCase):
    def test_where_no_server_has_run_nobody_is_locked_out(self) -> None:
        said = self.command("lockouts", "list")
        self.assertEqual((said.code, self.lines(said)), (0, ["Nobody is locked out."]))
        self.assertEqual(self.command("lockouts", "clear", "--all").code, 1)
        self.assertFalse((self.data / "state.db").exists())

    def prepare(self, *more_peers: str) -> None:
        clock = Clock()
        clock.rightNow = time.time()

        store = StateStore(path=str(self.data / "state.db"), clock=clock, new_threads=in_place)

        async def fill() -> None:
            await store.start()
            lockout = locked(AtOnce(Lockout(clock=clock, spaces=store.space, rules=LockoutRules())))
            for peer in more_peers:
                lockout.failed(peer, "carol@example.org", b"x")
            await store.stop()

        self.successResultOf(Deferred.fromCoroutine(fill()))

    def test_the_file_is_read_and_changed(self) -> None:
        self.prepare()
        listed = self.command("lockouts", "list")
        self.assertEqual((listed.code, listed.err), (0, ""))
        self.assertRegex(listed.out, r"(?m)^alice@example.org +192.0.2.1 +20.* 1[45]m.* +0 +1$")
        self.assertRegex(listed.out, r"(?m)^any +203.0.113.1 ")
        self.assertTrue(listed.out.endswith("3 lockouts.\n"))
        everything = self.command("lockouts", "list", "--all", "--account", "BOB@example.org", "--json").json
        self.assertEqual({(one["account"], one["network"], one["failures"]) for one in everything}, {(BOB, "192.0.2.1", 1), (BOB, "", 1)})
        cleared = self.command("lockouts", "clear", "--account", ALICE, "--network", "192.0.2.0/24")
        self.assertEqual(cleared.code, 0, cleared.err)
        self.assertTrue(cleared.out.endswith("1 cleared.\n"))
        self.assertRegex(cleared.out, r"(?m)^alice@example.org +192.0.2.1 ")
        left = self.command("lockouts", "list", "--json").json
        self.assertEqual({(one["account"], one["network"]) for one in left}, {(ALICE, "2001:db8::/64"), ("", "203.0.113.1")})
        self.assertEqual(self.command("lockouts", "clear", "--all").code, 0)
        self.assertEqual(self.command("lockouts", "list", "--all", "--json").json, [])
        self.assertIn(b"lockout_cleared", (self.data / ROADS).read_bytes())

    def test_whom_a_proxy_did_not_name_can_be_meant(self) -> None:
        self.prepare("proxy:192.0.2.1")
        listed = self.command("lockouts", "list", "--all", "--network", "proxy:192.0.2.1", "--json").json
        self.assertEqual({(one["account"], one["network"]) for one in listed}, {("carol@example.org", "proxy:192.0.2.1"), ("", "proxy:192.0.2.1")})
        said = self.command("lockouts", "clear", "--network", "proxy:192.0.2.1")
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertTrue(said.out.endswith("2 cleared.\n"), said.out)

    def test_clear_wants_to_know_whose(self) -> None:
        for arguments in ((), ("--all", "--account", ALICE)):
            self.assertEqual(self.command("lockouts", "clear", *arguments).code, 2)
        said = self.command("lockouts", "clear", "--network", "nonsense")
        self.assertEqual((said.code, said.err), (2, "mailserver: 'nonsense' is neither an address nor a network\n"))

    def test_a_damaged_file_is_74(self) -> None:
        (self.data / "state.db").write_bytes(b"not a database" * 1000)
        said = self.command("lockouts", "list")
        self.assertEqual((said.code, said.out), (74, ""))
        self.assertIn("state.db", said.err)


class WithServer(CommandCase, TestCase):
    timeout = 30

    def setUp(self) -> None:
        super().setUp()
        self.patch(unix, "_inFilesystemNamespace", lambda path: path[:1] != b"\0")  # bytes and str, under -bb
        clock = Clock()
        clock.rightNow = time.time()
        lockout = Lockout(clock=clock, spaces=MemoryState(clock).space, rules=LockoutRules())
        self.lockout = locked(AtOnce(lockout))
        commands = LockoutCommands(lockout).commands()
        self.server = ControlServer(os.path.join(self.data, "control.sock"), commands)
        self.server.start(reactor)
        self.addCleanup(self.server.stop)

    async def ask(self, *arguments: str) -> Said:
        return await deferToThread(run, *arguments, "--config", str(self.config))

    async def test_the_server_is_asked_and_lets_them_in_again(self) -> None:
        self.assertIsNotNone(refusal(self.lockout, "192.0.2.1", ALICE))
        listed = await self.ask("lockouts", "list", "--json")
        self.assertEqual(len(listed.json), 3)
        cleared = await self.ask("lockouts", "clear", "--account", ALICE, "--json")
        self.assertEqual(cleared.code, 0, cleared.err)
        self.assertEqual({one["scope"] for one in cleared.json}, {"account-from-network", "account"})
        self.assertIsNone(refusal(self.lockout, "192.0.2.1", ALICE))
        self.assertIsNotNone(refusal(self.lockout, "203.0.113.1", ALICE))
