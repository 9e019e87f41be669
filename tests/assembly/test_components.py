"""What a reload keeps and what it replaces; what it does with components that hang or fail."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from mailserver.config import Options
from mailserver.control.client import CommandRefused
from mailserver.interfaces import (
    IAccountList,
    IComponent,
    IComponentFactory,
    ICounting,
    IDirectory,
    IRecipientFilter,
    IReloading,
    IRouter,
)
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, NotMine, Pass, Refused, Remote
from mailserver.mail.reply import Reply
from tests.assembly.in_process import BASIC, Running, WholeCase
from tests.plugins.misbehaviour import HANGS, stubborn

EHLO, MAIL, RCPT = "EHLO client.example", "MAIL FROM:<sender@example.net>", "RCPT TO:<alice@example.org>"


class SomeOptions(Options):
    turn: int = 1


@implementer(IComponentFactory)
class Making:
    """Makes components of a class of the test's, and remembers them."""

    api_version = "1.0"
    summary = "Of a test."
    options = SomeOptions

    def __init__(self, name: str, kind: type, provides: Any) -> None:
        self.name = name
        self.kind = kind
        self.provides = provides
        self.made: list[Any] = []

    def build(self, options: SomeOptions, services: Any) -> Any:
        self.made.append(self.kind())
        self.made[-1].turn = options.turn
        return self.made[-1]


@implementer(IRecipientFilter, IComponent, IReloading, ICounting)
class WithPort:
    """Owns a port, and counts."""

    fails: bool = False

    def __init__(self) -> None:
        self.life: list[str] = []
        self.judged = 0

    async def start(self) -> None:
        self.life.append("start")
        self.port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")  # type: ignore[attr-defined,arg-type]

    async def reload(self) -> None:
        self.life.append("reload")
        if self.fails:
            raise ValueError("broken")

    async def stop(self) -> None:
        self.life.append("stop")
        await self.port.stopListening()

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Pass:
        self.judged += 1
        return Pass()

    def counts(self) -> dict[str, int]:
        return {"judged": self.judged}


@implementer(IRecipientFilter, IComponent)
class Failing:
    """Its start does what the test says."""

    does: Callable[[], Any] = staticmethod(lambda: None)

    def __init__(self) -> None:
        self.stops = 0

    def start(self) -> Any:
        return type(self).does()

    async def stop(self) -> None:
        self.stops += 1

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Pass:
        return Pass()


async def at_once() -> None:
    """A start that has nothing to do."""


def table(use: str, more: str = "") -> str:
    return f'[[filter]]\nuse = "{use}"\n{more}'


class Kept(WholeCase):
    def setUp(self) -> None:
        super().setUp()
        self.ports = Making("ports", WithPort, IRecipientFilter)
        self.failing = Making("failing", Failing, IRecipientFilter)
        self.patch(Failing, "does", staticmethod(at_once))

    async def serve_with(self, more: str) -> Running:
        return await self.serve(BASIC + more, components=[self.ports, self.failing])

    async def reload(self, more: str = "") -> dict[str, Any]:
        self.configure(BASIC + more)
        return await self.ask("reload")

    async def test_a_component_keeps_its_port_and_its_state_over_ten_reloads(self) -> None:
        service = await self.serve_with(table("ports"))
        port = self.ports.made[0].port.getHost().port
        for number in range(1, 11):
            self.assertEqual(await self.say(service, EHLO, MAIL, RCPT), [250] * 3)
            await self.reload(f"[limits]\nmessage_bytes = {number * 100_000}\n" + table("ports", f'on_error = "skip"\ndeadline = {number}\n'))
        [only] = self.ports.made
        self.assertEqual((only.life, only.judged), (["start"] + ["reload"] * 10, 10))
        await deferToThread(lambda: socket.create_connection(("127.0.0.1", port), 5).close())
        [said] = [one for one in (await self.ask("components"))["components"] if one["kind"] == "filter"]
        self.assertEqual((said["name"], said["counts"]), ("ports", {"judged": 10}))
        await self.stop(service)
        self.assertEqual(only.life[-1], "stop")
        self.assertEqual(only.life.count("stop"), 1)

    async def test_another_table_another_name_or_its_absence_replaces_it(self) -> None:
        service = await self.serve_with(table("ports"))
        for number, more in enumerate(("turn = 2\n", "turn = 2\nname = \"other\"\n"), 1):
            await self.reload(table("ports", more))
            self.assertEqual(len(self.ports.made), number + 1)
            await self.until(lambda number=number: self.ports.made[number - 1].life[-1] == "stop", "the old one stops")
        await self.reload()
        await self.until(lambda: self.ports.made[2].life == ["start", "stop"], "the last one stops")
        self.assertEqual(await self.say(service, EHLO), [250])

    async def test_two_of_a_kind_are_kept_each_for_itself(self) -> None:
        await self.serve_with(table("ports") + table("ports"))
        first, second = self.ports.made
        await self.reload(table("ports") + table("ports", "turn = 2\n"))
        await self.until(lambda: second.life[-1] == "stop", "the second one stops")
        self.assertEqual(first.life, ["start", "reload"])
        names = [one["name"] for one in (await self.ask("components"))["components"] if one["kind"] == "filter"]
        self.assertEqual(names, ["ports", "ports#2"])

    async def test_a_reload_that_fails_half_way_leaves_the_old_ones_and_stops_the_new_ones(self) -> None:
        service = await self.serve_with(table("ports"))

        async def fails() -> None:
            raise ValueError("broken")

        self.patch(Failing, "does", staticmethod(fails))
        for number in range(1, 4):
            with self.assertRaisesRegex(CommandRefused, "filter failing: start: ValueError: broken"):
                await self.reload(table("ports") + table("ports", 'name = "second"\n') + table("failing"))
            self.assertEqual([one.life for one in self.ports.made[1:]], [["start", "stop"]] * number)
            self.assertEqual([one.stops for one in self.failing.made], [1] * number)
        self.assertEqual(self.ports.made[0].life, ["start"] + ["reload"] * 3)
        self.assertEqual(await self.say(service, EHLO, MAIL, RCPT), [250] * 3)
        self.assertEqual(self.ports.made[0].judged, 1)

    async def test_one_that_does_not_take_the_reload_ends_it_and_goes_on(self) -> None:
        service = await self.serve_with(table("ports"))
        self.ports.made[0].fails = True
        with self.assertRaisesRegex(CommandRefused, "filter ports: reload: ValueError: broken"):
            await self.reload(table("ports") + table("failing"))
        self.assertEqual([one.stops for one in self.failing.made], [0])  # it has not been started either
        self.assertEqual(await self.say(service, EHLO, MAIL, RCPT), [250] * 3)
        self.ports.made[0].fails = False
        await self.reload(table("ports"))
        self.assertEqual(self.ports.made[0].life, ["start"] + ["reload"] * 2)

    async def test_a_start_that_hangs_gives_the_reload_up_and_the_next_one_is_taken(self) -> None:
        service = await self.serve_with("")
        for what, method in HANGS.items():
            self.patch(Failing, "does", staticmethod(method))
            with self.assertRaisesRegex(CommandRefused, r"filter failing: start has not ended within 0\.1 seconds"):
                await self.reload('[limits]\nstart_seconds = "100ms"\nstop_seconds = "100ms"\n' + table("failing"))
            self.assertEqual(self.failing.made[-1].stops, 1, what)
        self.flushLoggedErrors(RuntimeError)  # of a canceller
        self.patch(Failing, "does", staticmethod(at_once))
        self.configure(BASIC + "[limits]\nmessage_bytes = 200000\n" + table("failing"))
        service._in_force.hang_up()
        await self.until(lambda: service._in_force.configuration.limits.message_bytes == 200_000, "the next one")
        self.assertEqual(await self.say(service, EHLO, MAIL, RCPT), [250] * 3)

    async def test_code_on_the_disk_that_does_not_run_is_told(self) -> None:
        module = self.work / "some_plugin.py"
        module.write_text("class Filter:\n    async def judge_recipient(self, envelope, recipient):\n        raise NotImplementedError\n")
        self.patch(sys, "path", [str(self.work), *sys.path])
        self.addCleanup(lambda: sys.modules.pop("some_plugin", None))
        import some_plugin  # type: ignore[import-not-found]

        implementer(IRecipientFilter)(some_plugin.Filter)
        factory = Making("some", some_plugin.Filter, IRecipientFilter)
        await self.serve(BASIC + table("some"), components=[factory])
        self.assertNotIn("newer_code", await self.reload(table("some")))
        self.assertNotIn("newer_code", await self.ask("status"))
        os.utime(module, (1, 1))
        self.assertEqual((await self.reload(table("some")))["newer_code"], ["filter some"])
        await self.until(lambda: "the code of filter some on the disk is not what runs" in self.log(), "it is told")
        self.assertEqual((await self.ask("status"))["newer_code"], {"filter some": str(module)})
        self.assertEqual((await self.ask("components"))["newer_code"], {"filter some": [str(module)]})


@implementer(IRouter)
class Routes:
    """Knows some addresses; the rest is the domains'."""

    async def route(self, address: Address) -> Any:
        match address.local:
            case "known":
                return [Local(address, Mailbox("bob", "example.org"))]
            case "gone":
                return [Refused(Reply.of(550, "5.1.6", "gone away"), "moved")]
            case "elsewhere":
                return [Remote(Address("x", "elsewhere.example"))]
            case "many":
                return [Local(address, Mailbox(name, "example.org")) for name in ("alice", "bob")]
            case "wrong":
                return "text"
            case "hangs":
                return await stubborn()
        return NotMine()


class Router(WholeCase):
    def setUp(self) -> None:
        super().setUp()
        self.routes = Making("routes", Routes, IRouter)

    async def test_a_plugins_router_is_asked_first_and_what_it_does_not_know_the_domains_decide(self) -> None:
        aliases = '[domain."example.org".aliases]\nteam = ["known@lists.example", "alice"]\nout = "nowhere@lists.example"\n'
        service = await self.serve(BASIC + aliases + '[router]\nuse = "routes"\nname = "lists"\n[limits]\nrouter_seconds = "100ms"\n', components=[self.routes])

        async def rcpt(address: str) -> int:
            return (await self.say(service, EHLO, MAIL, f"RCPT TO:<{address}>"))[-1]

        for address, code in (
            ("alice@example.org", 250), ("nobody@example.org", 550), ("known@anything.example", 250), ("gone@example.org", 550),
            ("elsewhere@example.org", 550), ("x@elsewhere.example", 550), ("wrong@example.org", 451), ("hangs@example.org", 451),
            ("alice@example.org", 250),
        ):  # fmt: skip
            self.assertEqual(await rcpt(address), code, address)
        for words in ("TypeError: the answer is a str, not a sequence", "route has not ended within 0.1 seconds"):
            await self.until(lambda words=words: 'why="router lists: route' in self.log() and words in self.log(), words)
        for to, users in (("team@example.org", ["alice", "bob"]), ("many@example.org", ["alice", "bob"])):
            before = {user: len(self.messages(user)) for user in users}
            self.assertEqual((await self.send(service, to=to)).code, 250)
            await self.until(lambda: all(len(self.messages(user)) == before[user] + 1 for user in users), to)
        found = await self.ask("route", address="team@example.org")
        self.assertIn({"address": "known@lists.example", "how": "router", "leads_to": []}, found["hops"])
        self.assertEqual({end["mailbox"] for end in found["ends"]}, {"alice@example.org", "bob@example.org"})
        with self.assertRaisesRegex(CommandRefused, "router lists: route"):
            await self.ask("route", address="wrong@example.org")

    async def test_the_administrators_word_that_a_domain_is_disabled_comes_first(self) -> None:
        service = await self.serve(BASIC + 'disabled = true\n[router]\nuse = "routes"\n', components=[self.routes])
        self.assertEqual(await self.say(service, EHLO, MAIL, "RCPT TO:<known@example.org>"), [250, 250, 550])


@implementer(IDirectory, IAccountList)
class Accounts:
    """One is found, one never."""

    async def find(self, local_part: str, domain: str) -> Any:
        if local_part == "hangs":
            return await stubborn()
        return Mailbox(local_part, domain) if local_part == "alice" else None

    async def accounts(self) -> Any:
        return ["alice@example.org"]


class Directory(WholeCase):
    async def test_a_find_that_hangs_beside_normal_mail_costs_that_mail_no_turn_of_the_reactor(self) -> None:
        text = BASIC.replace('use = "file"\npath = "{work}/accounts.toml"', 'use = "slow"\n')
        service = await self.serve(text + "[limits]\naccounts_seconds = 20\n", components=[Making("slow", Accounts, IDirectory)])
        await self.say(service, EHLO, MAIL, RCPT)

        async def turns() -> int:
            """Of one RCPT of alice's."""
            profile = service._in_force.policy.pickup_profile
            begun = Deferred.fromCoroutine(profile.router.route(Address("alice", "example.org")))
            count = 0
            while not begun.called:
                turn: Deferred[None] = Deferred()
                reactor.callLater(0, turn.callback, None)  # type: ignore[attr-defined]
                await turn
                count += 1
            return count

        self.assertEqual(await turns(), 0)
        hanging = [
            Deferred.fromCoroutine(self.talk(service, lambda wire: wire.dialogue(EHLO, MAIL, "RCPT TO:<hangs@example.org>"), timeout=25))
            for _ in range(3)
        ]
        await self.until(lambda: len(service._server.components._all[-1].asking._open) == 3, "they hang")
        self.assertEqual(await turns(), 0)
        self.assertEqual((await self.send(service)).code, 250)
        for owned in service._server.components:
            owned.asking.end()
        await service.stopService()
        for one in hanging:
            one.addErrback(lambda _: None)
            await one
