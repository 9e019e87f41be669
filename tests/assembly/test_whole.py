"""The parts as they are joined: what a configuration says is what clients meet, over reloads, until the stop."""

from __future__ import annotations

import functools
import os
import socket
import ssl
import stat
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from zope.interface import alsoProvides, implementer

from mailserver import service as service_module
from mailserver.assembly import ports as ports_module
from mailserver.assembly import reload as reload_module
from mailserver.config import Options
from mailserver.control.client import CommandRefused, ControlError, NoServer, NotStarted
from mailserver.interfaces import (
    IComponent,
    IComponentFactory,
    IDirectory,
    IExtension,
    IObserver,
    IPrivilegedComponent,
    IRecipientFilter,
    ISenderFilter,
    ISweeping,
)
from mailserver.mail.answers import Pass, Refuse
from mailserver.plugins.life import StartError
from tests.assembly.in_process import BASIC, Running, WholeCase
from tests.ports import free_port
from tests.receive.test_service_extensions import Tickets
from tests.requires import require_root
from tests.scenarios.support import Answer, Wire
from tests.tls.authority import Authority

RELAY = BASIC + '[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = 1\nnetworks = ["127.0.0.0/8"]\n[queue]\nretry = ["1h"]\n'
FILTER = '[[filter]]\nuse = "gate"\n'
ANOTHER, A_THIRD = FILTER + "turn = 2\n", FILTER + "turn = 3\n"  # a table that says the same keeps its component
EHLO = "EHLO client.example"
MAIL, RCPT = "MAIL FROM:<sender@example.net>", "RCPT TO:<alice@example.org>"


@implementer(IRecipientFilter, IComponent, IObserver)
class Gate:
    """A filter whose start waits until it is let in; it refuses carol."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        gates.made.append(self)
        self.life: list[str] = []
        self.seen: list[str] = []
        self.let_in: Deferred[None] = Deferred()

    async def start(self) -> None:
        self.life.append("starts")
        if self.gates.is_shut:
            await self.let_in
        if self.gates.error is not None:
            raise self.gates.error
        self.life.append("started")

    async def stop(self) -> None:
        self.life.append("stopped")

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Any:
        return Refuse("not her") if recipient.address.local == "carol" else Pass()

    def observe(self, step: Any) -> None:
        self.seen.append(step["step"])


@implementer(IComponentFactory)
class GateOptions(Options):
    turn: int = 1


class Gates:
    name = "gate"
    summary = "Starts when it is told."
    api_version = "1.0"
    provides = IRecipientFilter
    options = GateOptions

    def __init__(self) -> None:
        self.made: list[Gate] = []
        self.is_shut = False
        self.error: Exception | None = None

    def build(self, options: Any, services: Any) -> Gate:
        return Gate(self)


@implementer(IDirectory, IComponent, IPrivilegedComponent)
class Privileged:
    """Accounts of nobody."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def start_privileged(self) -> None:
        self.did.append("privileged")

    async def start(self) -> None:
        self.did.append("started")

    async def stop(self) -> None:
        self.did.append("stopped")

    async def find(self, local_part: str, domain: str) -> None:
        return None


@implementer(IComponentFactory)
class PrivilegedAccounts:
    name = "privileged"
    summary = "Accounts that hold privileges."
    provides = IDirectory
    options = Options
    api_version = "1.0"

    def __init__(self) -> None:
        self.made: list[Privileged] = []

    def build(self, options: Any, services: Any) -> Privileged:
        self.made.append(Privileged())
        return self.made[-1]


def listener(service: str = "submission", tls: str = "none", *, port: int = 0, more: str = "") -> str:
    return f'[[listen]]\nservice = "{service}"\nendpoint = "tcp:{port or free_port()}:interface=127.0.0.1"\ntls = "{tls}"\n{more}'


def also(*listeners: str) -> str:
    """The configuration with more listeners behind its own one."""
    return BASIC.replace("[accounts]", "".join(listeners) + "[accounts]")


def extensions(answer: Answer) -> set[str]:
    return {line.split(" ")[0] for line in answer.lines[1:]}


class Mail(WholeCase):
    async def test_mail_goes_the_whole_way(self) -> None:
        service = await self.serve()
        self.assertEqual((await self.send(service)).code, 250)
        [mail] = await self.until(lambda: self.messages("alice"), "the mail is in the Maildir")
        self.assertTrue(mail.endswith((b"hello\n", b"hello\r\n")))
        self.assertEqual(await self.say(service, EHLO, MAIL, "RCPT TO:<nobody@example.org>", "RCPT TO:<x@elsewhere.example>"), [250, 250, 550, 550])

    async def test_a_report_to_a_sender_of_ours_goes_by_the_policy_in_force(self) -> None:
        service = await self.serve(RELAY)
        await self.ask("reload")
        sent = await self.talk(service, lambda wire: wire.dialogue(EHLO, MAIL.replace("sender@example.net", "alice@example.org"), "RCPT TO:<x@elsewhere.example>", "DATA", "Subject: x\r\n\r\n."))
        self.assertEqual(sent, [250, 250, 250, 354, 250])
        await self.until(lambda: " deferred " in self.log(), "the first attempt has ended")
        await self.ask("queue.change", verb="bounce", selection={"domain": "elsewhere.example"}, by="a test")
        [report] = await self.until(lambda: self.messages("alice"), "a report")
        self.assertIn(b"x@elsewhere.example", report)

    async def test_a_message_in_flight_is_finished_by_a_stop_and_others_are_turned_away(self) -> None:
        service = await self.serve()
        begun: Deferred[None] = Deferred()

        def client(wire: Wire) -> list[int]:
            codes = wire.dialogue(EHLO, MAIL, RCPT, "DATA")
            service._reactor.callFromThread(begun.callback, None)
            self.assertTrue(stopping.wait(10))
            wire.send(b"Subject: in flight\r\n\r\nx\r\n.\r\n")
            return [*codes, wire.reply().code, wire.reply().code]

        stopping = threading.Event()
        talking = self.talk(service, client)
        sent = Deferred.fromCoroutine(talking)
        await begun
        stopped = service.stopService()
        stopping.set()
        self.assertEqual(await sent, [250, 250, 250, 354, 250, 421])
        await stopped
        with self.assertRaises(NoServer):
            await self.ask("status")


class Listeners(WholeCase):
    async def test_each_has_its_own_service_tls_and_logins(self) -> None:
        pair = Authority().leaf("mx.example.org").write(str(self.work))
        tls = f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
        service = await self.serve(
            also(
                listener(),
                listener("submission", "starttls", more="require_tls = true\n"),
                listener("submission", "implicit"),
                listener("mx", "starttls", more="authentication = true\n"),
            )
            + tls
        )

        def in_tls(wire: Wire) -> set[str]:
            offered = extensions(wire.command(EHLO))
            self.assertIn("STARTTLS", offered)
            self.assertEqual(wire.command("STARTTLS").code, 220)
            wire.socket = encrypted(wire.socket)
            return extensions(wire.command(EHLO))

        def encrypted(plain: socket.socket) -> socket.socket:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return context.wrap_socket(plain)

        self.assertNotIn("STARTTLS", await self.talk(service, lambda wire: extensions(wire.command(EHLO))))
        self.assertIn("AUTH", await self.talk(service, in_tls, 2))
        self.assertIn("AUTH", await self.talk(service, in_tls, 4), "where that is asked for")
        self.assertEqual(await self.say(service, EHLO, MAIL, number=2), [250, 530])
        self.assertEqual((await self.say(service, EHLO, MAIL, number=4))[1], 250)

        def implicit(wire: Wire) -> set[str]:
            wire.socket = encrypted(wire.socket)
            wire.greeting = wire.reply()
            return extensions(wire.command(EHLO))

        offered = await self.talk(service, implicit, 3, greet=False)
        self.assertIn("AUTH", offered)
        self.assertNotIn("STARTTLS", offered)

    async def test_a_certificate_that_cannot_be_read_stops_the_start(self) -> None:
        (self.work / "server.pem").write_text("nonsense")
        (self.work / "server.key").write_text("nonsense")
        tls = '[tls]\ncertificate = "{work}/server.pem"\nkey = "{work}/server.key"\n'
        service = self.made(BASIC.replace('tls = "none"', 'tls = "starttls"') + tls)
        self.patch(service_module, "_say_at_start", lambda error: None)
        with self.assertRaises(SystemExit):
            service.privilegedStartService()
        await service._server.resolver.stop()

    async def test_without_a_pair_it_makes_one_for_itself(self) -> None:
        service = await self.serve(BASIC.replace('tls = "none"', 'tls = "starttls"'))
        self.assertEqual((await self.say(service, EHLO, "STARTTLS")), [250, 220])
        self.assertEqual(stat.S_IMODE(os.stat(self.work / "data" / "tls").st_mode), 0o700)


class Started(WholeCase):
    async def test_a_busy_port_stops_the_start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            said: list[BaseException | None] = []
            self.patch(service_module, "_say_at_start", said.append)
            service = self.made(BASIC.replace("tcp:0:", f"tcp:{port}:"))
            with self.assertRaises(SystemExit) as raised:
                service.privilegedStartService()
        self.assertEqual(raised.exception.code, 1)
        self.assertIn(str(port), str(said[0]))

    async def test_an_endpoint_of_a_plugin_that_cannot_listen_stops_the_start(self) -> None:
        said: list[BaseException | None] = []
        self.patch(service_module, "_say_at_start", said.append)
        self.patch(ports_module, "bound_here", lambda reactor, text: None)
        failing = SimpleNamespace(listen=lambda factory: fail(OSError("no such radio")))
        self.patch(ports_module, "serverFromString", lambda reactor, text: failing)
        with self.assertRaises(SystemExit):
            self.made().privilegedStartService()
        self.assertEqual(str(said[0]), "no such radio")

        def unknown(reactor: Any, text: str) -> Any:
            raise LookupError("no such station")

        self.patch(ports_module, "serverFromString", unknown)
        with self.assertRaisesRegex(LookupError, "no such station"):  # not systemd's
            self.made().privilegedStartService()

    async def test_the_port_of_a_plugin_need_not_know_how_to_wait(self) -> None:
        stopped: list[str] = []
        port = SimpleNamespace(stopListening=lambda: stopped.append("stopped"), getHost=lambda: SimpleNamespace(host="radio", port=1))
        self.patch(ports_module, "bound_here", lambda reactor, text: None)
        listened: list[Any] = []
        endpoint = SimpleNamespace(listen=lambda factory: listened.append(factory) or succeed(port))
        self.patch(ports_module, "serverFromString", lambda reactor, text: endpoint)
        service = await self.serve()
        self.assertEqual((self.port(service), len(listened)), (1, 1))
        await self.stop(service)
        self.assertEqual(stopped, ["stopped"])

    async def test_a_socket_that_systemd_has_not_handed_over_stops_the_start_in_words(self) -> None:
        said: list[BaseException | None] = []
        self.patch(service_module, "_say_at_start", said.append)
        service = self.made(BASIC.replace("tcp:0:interface=127.0.0.1", "systemd:domain=INET:index=0"))
        with self.assertRaises(SystemExit):
            service.privilegedStartService()
        self.assertIn("systemd has handed over no such socket", str(said))

    async def test_until_all_has_started_nobody_is_greeted_and_commands_are_told_to_wait(self) -> None:
        gates = Gates()
        gates.is_shut = True
        service = self.made(BASIC + FILTER, components=[gates])
        self.begun(service)
        await self.until(lambda: gates.made and gates.made[0].life, "the filter starts")
        self.assertEqual((await self.ask("status"))["listeners"], [])
        with self.assertRaises(NotStarted):
            await self.ask("queue.list")
        self.assertFalse(service.started.called)
        gates.made[0].let_in.callback(None)
        await service.started
        self.assertEqual(len((await self.ask("status"))["listeners"]), 1)
        self.assertEqual(await self.say(service, EHLO, MAIL, RCPT, "RCPT TO:<carol@example.org>"), [250, 250, 250, 550])
        await self.until(lambda: "refused" in gates.made[0].seen, "the observer is told")

    async def test_a_hang_up_during_the_start_is_a_reload_after_it(self) -> None:
        gates = Gates()
        gates.is_shut = True
        service = self.made(BASIC + FILTER, components=[gates])
        self.begun(service)
        await self.until(lambda: gates.made and gates.made[0].life, "the filter starts")
        self.configure(BASIC + ANOTHER + "[limits]\nmessage_bytes = 200000\n")
        service._in_force.hang_up()
        self.assertEqual(len(gates.made), 1, "not yet")
        gates.is_shut = False
        gates.made[0].let_in.callback(None)
        await service.started
        await self.until(lambda: service._in_force.configuration.limits.message_bytes == 200_000, "the reload")
        await self.until(lambda: gates.made[0].life[-1] == "stopped", "the old filter stops")

    async def test_a_stop_during_the_start_is_a_stop(self) -> None:
        gates = Gates()
        gates.is_shut = True
        service = self.made(BASIC + FILTER, components=[gates])
        self.begun(service)
        await self.until(lambda: gates.made and gates.made[0].life, "the filter starts")
        [bound] = service._in_force.ports._bound.values()
        stopped = service.stopService()
        gates.made[0].let_in.callback(None)
        await stopped
        self.assertEqual(gates.made[0].life[-1], "stopped")
        self.assertEqual(service._in_force.ports.figures(), [])
        self.assertEqual(bound._bound.fileno(), -1)


class Filters(WholeCase):
    async def test_one_without_a_deadline_of_its_own_has_that_of_all(self) -> None:
        gates = Gates()
        service = await self.serve(BASIC + FILTER + FILTER + "deadline = 5\n[limits]\nfilter_seconds = 7\n", components=[gates])
        self.assertEqual([one.deadline_seconds for one in service._in_force.policy._bound], [7, 5])

    async def test_what_one_adds_to_smtp_is_offered_on_connections_alone(self) -> None:
        service = await self.serve()
        [profile] = service._in_force.policy.profiles.values()
        self.assertIsNone(profile.service_extensions)
        await self.stop(service)
        service = await self.serve(BASIC + '[[filter]]\nuse = "tickets"\n', components=[TicketFactory()])
        self.assertIn("X-TICKETS", await self.talk(service, lambda wire: extensions(wire.command(EHLO))))
        self.assertEqual(await self.say(service, EHLO, "XTICKETS 3", MAIL, MAIL + " XTICKET=7"), [250, 250, 550, 250])
        self.assertIsNone(service._in_force.policy.pickup_profile.service_extensions)


@implementer(IComponentFactory)
class TicketFactory:
    name = "tickets"
    summary = "Sells tickets."
    api_version = "1.0"
    provides = (IExtension, ISenderFilter)
    options = Options

    def build(self, options: Any, services: Any) -> Tickets:
        return Tickets()


class Reload(WholeCase):
    async def size(self, service: Running) -> str:
        answer = await self.talk(service, lambda wire: wire.command(EHLO))
        return next(line for line in answer.lines if line.startswith("SIZE"))

    async def test_what_begins_from_now_on_has_the_new_configuration(self) -> None:
        service = await self.serve(BASIC + "[limits]\nmessage_bytes = 100000\n")
        self.assertEqual(await self.size(service), "SIZE 100000")
        self.configure(BASIC + "[limits]\nmessage_bytes = 200000\n")
        self.assertEqual(await self.ask("reload"), {"reloaded": True, "faults": [], "needs_restart": []})
        self.assertEqual(await self.size(service), "SIZE 200000")
        self.assertEqual((await self.send(service)).code, 250)

    async def test_a_faulty_one_is_refused_and_the_old_one_stays(self) -> None:
        service = await self.serve(BASIC + "[limits]\nmessage_bytes = 100000\n")
        for text in (BASIC + '[limits]\nmessage_bytes = "huge"\n', BASIC + '[domain."example.org".aliases]\na = "b"\nb = "a"\n'):
            self.configure(text)
            for _ in range(2):
                with self.assertRaises(CommandRefused):
                    await self.ask("reload")
        service._in_force.hang_up()
        await self.until(lambda: self.log().count("the configuration is refused") == 5, "all are told")
        self.assertEqual(await self.size(service), "SIZE 100000")
        self.configure(BASIC)
        service._in_force.hang_up()
        await self.until(lambda: "the configuration was reloaded" in self.log(), "the next one is taken")

    async def test_a_file_that_others_may_write_is_refused_to_root(self) -> None:
        require_root("a file that root would believe")
        await self.serve()
        self.path.chmod(0o666)
        with self.assertRaisesRegex(CommandRefused, "may be written by others"):
            await self.ask("reload")
        self.path.chmod(0o600)
        self.assertTrue((await self.ask("reload"))["reloaded"])
        os.chown(self.path, 65534, -1)
        with capturedLogs() as told:
            self.assertTrue((await self.ask("reload"))["reloaded"], "it was named at the start: its owner is only told of")
        self.assertTrue([event for event in told if "is not root's alone" in (event["log_format"] or "")])

    async def test_listeners_come_and_go_and_those_that_stay_keep_their_port(self) -> None:
        service = await self.serve()
        first = self.port(service)
        self.configure(also(listener()))
        self.assertEqual((await self.ask("reload"))["faults"], [])
        self.assertEqual(self.port(service), first)
        self.assertEqual(await self.say(service, EHLO, number=1), [250])
        second = self.port(service, 1)
        gone: Deferred[None] = Deferred()

        def stays(wire: Wire) -> list[int]:
            codes = wire.dialogue(EHLO)
            service._reactor.callFromThread(gone.callback, None)
            codes.append(wire.reply().code)
            self.assertTrue(wire.is_closed())
            return codes

        talking = Deferred.fromCoroutine(self.talk(service, stays, 1))
        await gone
        self.configure(BASIC)
        self.assertEqual((await self.ask("reload"))["faults"], [])
        self.assertEqual(await talking, [250, 421])
        with self.assertRaises(ConnectionRefusedError):
            await deferToThread(socket.create_connection, ("127.0.0.1", second), 5)
        self.assertEqual([one["endpoint"] for one in (await self.ask("status"))["listeners"]], ["tcp:0:interface=127.0.0.1"])

    async def test_a_listener_that_cannot_be_is_named_and_the_others_are_there(self) -> None:
        service = await self.serve()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.configure(also(listener(port=taken.getsockname()[1]), listener()))
            [fault] = (await self.ask("reload"))["faults"]
            self.assertIn(f"cannot listen on tcp:{taken.getsockname()[1]}", fault)
        self.assertEqual(await self.say(service, EHLO, number=2), [250])
        self.assertEqual(await self.say(service, EHLO), [250])

    async def test_a_port_that_does_not_stop_is_named_and_the_reload_goes_on(self) -> None:
        service = await self.serve(also(listener()))
        [_, (port, _)] = service._in_force.ports._ports.values()
        stop = port.stopListening

        def fails() -> Any:
            stop()
            raise OSError("it will not")

        port.stopListening = fails  # type: ignore[method-assign]
        self.configure(BASIC)
        self.assertEqual((await self.ask("reload"))["faults"], ["a listener does not stop: it will not"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    async def test_what_is_replaced_stops_when_nobody_uses_it_any_more(self) -> None:
        gates = Gates()
        service = await self.serve(BASIC + FILTER, components=[gates])
        begun, go_on = Deferred[None](), threading.Event()

        def client(wire: Wire) -> list[int]:
            codes = wire.dialogue(EHLO, MAIL, RCPT)
            service._reactor.callFromThread(begun.callback, None)
            go_on.wait(10)
            return [*codes, *wire.dialogue(RCPT, "DATA", "Subject: x\r\n\r\n.", MAIL, RCPT)]

        talking = Deferred.fromCoroutine(self.talk(service, client))
        await begun
        self.configure(BASIC + ANOTHER)
        await self.ask("reload")
        self.assertEqual([one.life for one in gates.made], [["starts", "started"]] * 2)
        self.assertEqual(len(service._in_force.retirement), 1)
        go_on.set()
        self.assertEqual(await talking, [250, 250, 250, 250, 354, 250, 250, 250])
        await self.until(lambda: gates.made[0].life[-1] == "stopped", "the old one stops")
        self.assertEqual(gates.made[1].life, ["starts", "started"])
        await self.until(lambda: not len(service._in_force.retirement), "it has gone")

    async def test_from_then_on_the_observers_of_the_new_one_are_told(self) -> None:
        gates = Gates()
        service = await self.serve(BASIC + FILTER, components=[gates])
        self.configure(BASIC + ANOTHER)
        await self.ask("reload")
        self.assertEqual(await self.say(service, EHLO, MAIL, "RCPT TO:<carol@example.org>"), [250, 250, 550])
        await self.until(lambda: "refused" in gates.made[1].seen, "the new observer is told")
        self.assertNotIn("refused", gates.made[0].seen)

    async def test_one_is_under_way_at_a_time_and_what_hung_up_meanwhile_is_followed(self) -> None:
        gates = Gates()
        service = await self.serve(BASIC + FILTER, components=[gates])
        gates.is_shut = True
        self.configure(BASIC + ANOTHER)
        first = Deferred.fromCoroutine(self.ask("reload"))
        await self.until(lambda: len(gates.made) == 2, "the second filter")
        with self.assertRaisesRegex(CommandRefused, "a reload is under way"):
            await self.ask("reload")
        self.configure(BASIC + A_THIRD)
        service._in_force.hang_up()
        gates.is_shut = False
        self.assertEqual(len(gates.made), 2)
        gates.made[1].let_in.callback(None)
        self.assertTrue((await first)["reloaded"])
        await self.until(lambda: len(gates.made) == 3 and gates.made[1].life[-1] == "stopped", "the third filter")
        self.assertEqual(gates.made[2].life, ["starts", "started"])

    async def test_what_was_started_for_one_that_fails_is_stopped(self) -> None:
        gates = Gates()
        service = await self.serve(BASIC + FILTER, components=[gates])
        self.configure(BASIC + ANOTHER)
        for error, words in ((StartError("not today"), "not today"), (ValueError("broken"), "filter|ValueError")):
            gates.error = error
            with self.assertRaisesRegex(CommandRefused, words):
                await self.ask("reload")
        self.assertEqual([one.life for one in gates.made], [["starts", "started"], *[["starts", "stopped"]] * 2])
        self.assertEqual(await self.say(service, EHLO, MAIL, "RCPT TO:<carol@example.org>"), [250, 250, 550])

    async def test_a_stop_during_it_is_a_stop(self) -> None:
        gates = Gates()
        service = await self.serve(BASIC + FILTER, components=[gates])
        gates.is_shut = True
        self.configure(BASIC + ANOTHER)
        reload = Deferred.fromCoroutine(self.ask("reload"))
        reload.addErrback(lambda failure: failure.trap(ControlError))
        await self.until(lambda: len(gates.made) == 2, "the second filter")
        stopped = service.stopService()
        gates.made[1].let_in.callback(None)
        await stopped
        await reload
        self.assertEqual([one.life[-1] for one in gates.made], ["stopped"] * 2)

    async def test_systemd_is_told_when_one_begins_and_when_it_has_ended_however_that_was(self) -> None:
        service = await self.serve()
        told: list[str] = []
        systemd = SimpleNamespace(reloading=lambda: told.append("reloading"), ready=told.append)
        self.patch(service._in_force, "_systemd", systemd)
        await self.ask("reload")
        self.configure(BASIC + "nonsense = 1\n")
        with self.assertRaises(CommandRefused):
            await self.ask("reload")
        self.assertEqual(told, ["reloading", "serves", "reloading", "serves; a reload failed, the old configuration stays"])

    async def test_what_nobody_foresaw_is_told_by_its_name_and_the_old_one_stays(self) -> None:
        service = await self.serve()

        def odd(*_: Any) -> Any:
            raise RuntimeError("odd")

        with mock.patch.object(reload_module, "load", odd), self.assertRaisesRegex(CommandRefused, "RuntimeError, which the log explains"):
            await self.ask("reload")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(await self.say(service, EHLO), [250])
        self.assertTrue((await self.ask("reload"))["reloaded"])

    async def test_one_that_a_stop_breaks_off_is_no_fault_of_the_configuration(self) -> None:
        gates = Gates()
        service = await self.serve(BASIC + FILTER, components=[gates])
        systemd: Any = SimpleNamespace(told=[], reloading=lambda: None, ready=lambda status: systemd.told.append(status))
        self.patch(service._in_force, "_systemd", systemd)
        gates.is_shut = True
        self.configure(BASIC + ANOTHER)
        old = service._in_force.policy
        with capturedLogs() as told:
            broken_off = Deferred.fromCoroutine(service._in_force.reload())
            stopped = service.stopService()
            gates.made[1].let_in.callback(None)
            self.assertIn("the server stops", str(await self.assertFailure(broken_off, CommandRefused)))
            self.assertIs(service._in_force.policy, old)
            await stopped
        self.assertEqual([one.life[-1] for one in gates.made], ["stopped"] * 2)
        self.assertEqual(systemd.told, [], "it is not ready any more")
        [event] = [event for event in told if "reload" in (event["log_format"] or "")]
        self.assertEqual(event["log_level"].name, "info")

    async def test_during_the_stop_none_begins(self) -> None:
        gates = Gates()
        service = await self.serve(BASIC + FILTER, components=[gates])
        self.configure(BASIC + ANOTHER)
        stopped = service.stopService()
        service._in_force.hang_up()
        await stopped
        self.assertEqual([one.life for one in gates.made], [["starts", "started", "stopped"]])

    async def test_a_port_that_comes_after_the_stop_is_closed_at_once(self) -> None:
        service = await self.serve()
        stopped: list[str] = []

        class Late:
            """The root process binds it in a moment."""

            def __init__(self) -> None:
                self.bound: Deferred[Any] = Deferred()

            def listen(self, factory: Any) -> Deferred[Any]:
                return self.bound

            def stopListening(self) -> None:
                stopped.append("stopped")

        late = Late()
        self.patch(service._server.processes, "endpoint", lambda text: late if "unix" in text else None)
        self.configure(also(listener().replace("endpoint = ", 'endpoint = "unix:{work}/x.sock" # ')))
        reload = Deferred.fromCoroutine(self.ask("reload"))
        reload.addErrback(lambda failure: failure.trap(ControlError))
        await self.until(lambda: len(service._in_force.configuration.listen) == 2, "the reload is under way")
        stopping = service.stopService()
        self.assertEqual(stopped, [])
        late.bound.callback(late)
        await stopping
        await reload
        self.assertEqual(stopped, ["stopped"])
        self.assertEqual(service._in_force.ports.figures(), [])

    async def test_what_leads_nowhere_is_told_at_the_start_and_at_each_reload(self) -> None:
        await self.serve(BASIC + 'catch_all = "ghost@example.org"\n')
        await self.until(lambda: 'domain "example.org": catch_all: ' in self.log(), "at the start")
        many = "".join(f'a{n} = "gone@example.org"\n' for n in range(60))
        self.configure(BASIC + '[domain."example.org".aliases]\n' + many)
        await self.ask("reload")
        await self.until(lambda: "10 more lead nowhere" in self.log(), "at the reload")
        self.assertEqual(self.log().count("alias a"), 50)
        self.configure(BASIC)
        await self.ask("reload")

    async def test_another_host_is_a_dead_end_where_nothing_is_sent_there(self) -> None:
        alias = '[domain."example.org".aliases]\naway = "me@elsewhere.example"\ngone = "gone@example.org"\n'
        for text, is_dead in ((BASIC, True), (RELAY, False)):
            service = await self.serve(text + alias)
            await self.until(lambda: "alias gone@example.org" in self.log(), "at the start")
            self.assertEqual("alias away@example.org: me@elsewhere.example is another host's" in self.log(), is_dead)
            await self.stop(service)
            os.unlink(self.work / "log")

    async def test_that_it_cannot_be_found_out_is_told_too(self) -> None:
        service = await self.serve()

        async def fails(**_: Any) -> Any:
            raise RuntimeError("the directory is down")

        self.patch(service._in_force.policy.router, "faults", fails)
        service._in_force.look_for_dead_ends()
        await self.until(lambda: "could not be found out: the directory is down" in self.log(), "it is told")


class Lasting(WholeCase):
    """What outlives a reload."""

    async def test_the_log_goes_on_in_a_new_file_after_a_rotation(self) -> None:
        service = await self.serve()
        await self.send(service)
        os.rename(self.work / "log", self.work / "log.1")
        service._server.reopen_log()
        await self.send(service)
        await self.until(lambda: "accepted" in self.log(), "it is in the new file")
        os.rename(self.work / "log", self.work / "log.2")
        os.mkdir(self.work / "log")
        with capturedLogs() as events:
            service._server.reopen_log()
        self.assertIn("cannot be opened again", str(events))
        os.rmdir(self.work / "log")

    async def test_each_component_is_swept_whatever_another_meets_with(self) -> None:
        gates = Gates()
        service = await self.serve(RELAY + FILTER, components=[gates])
        swept: list[str] = []
        for owned, answer in zip(service._server.components, (OSError("busy"), ValueError("broken"), 2, True), strict=True):
            alsoProvides(owned.component, ISweeping)
            owned.component.sweep = functools.partial(self.swept, swept, owned.section, answer)
        with capturedLogs() as events:
            await service._server.sweep()
        self.assertEqual(swept, ["delivery", "relay", "accounts", "filter"])
        told = [(event["log_format"], event.get("count")) for event in events]
        self.assertEqual(told.count(("{name}: removed {count} stale files", 2)), 1)
        self.assertEqual(told.count(("the sweep of stale files failed: {error}", None)), 3)

    async def swept(self, swept: list[str], section: str, answer: Any) -> Any:
        swept.append(section)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def test_accounts_that_hold_privileges_are_kept_and_cannot_come_with_a_reload(self) -> None:
        factory = PrivilegedAccounts()
        text = BASIC.replace('use = "file"\npath = "{work}/accounts.toml"', 'use = "privileged"\n')
        service = await self.serve(text, components=[factory])
        [first] = factory.made
        self.assertEqual(first.did, ["privileged", "started"])
        for changed, keys in ((text, []), (BASIC, ["accounts"])):
            self.configure(changed)
            with capturedLogs() as told:
                self.assertEqual((await self.ask("reload"))["needs_restart"], keys)
            self.assertEqual([event["keys"] for event in told if "need a restart" in (event["log_format"] or "")], [", ".join(keys)] if keys else [])
        self.assertEqual(await self.say(service, EHLO, MAIL, RCPT), [250, 250, 550])
        self.assertEqual((factory.made, first.did), ([first], ["privileged", "started"]))
        await self.stop(service)
        self.assertEqual(first.did, ["privileged", "started", "stopped"])

        service = await self.serve(components=[factory])
        self.configure(text)
        with self.assertRaisesRegex(CommandRefused, "accounts: privileged: this change needs a restart"):
            await self.ask("reload")
        self.assertEqual(await self.say(service, EHLO, MAIL, RCPT), [250, 250, 250])

    async def test_all_sockets_and_files_are_given_up_at_the_end_and_the_next_server_goes_on(self) -> None:
        service = await self.serve(RELAY)
        self.assertEqual((await self.send(service, to="x@elsewhere.example")).code, 250)
        [before] = (await self.ask("queue.list"))["entries"]
        await self.stop(service)
        await self.serve(RELAY)
        [after] = (await self.ask("queue.list"))["entries"]
        self.assertEqual(before["id"], after["id"])

    async def test_the_state_is_kept_over_a_restart(self) -> None:
        for found in (None, b"kept"):
            service = await self.serve()
            space = service._server.state.space("a test")
            self.assertEqual(await space.get("key"), found)
            await space.put("key", b"kept", 3600.0)
            await self.stop(service)

    async def test_notes_to_postmaster_are_written_unless_nobody_wants_them(self) -> None:
        service = self.made()
        did: list[str] = []
        notes: Any = service._server._notes
        for name in ("start", "stop"):
            real = getattr(notes, name)
            self.patch(notes, name, lambda name=name, real=real: (did.append(name), real()))
        await self.begun(service).started
        await self.stop(service)
        self.assertEqual(did, ["start", "stop"])
        service = await self.serve(BASIC.replace("[log]", "[log]\nnotes = false"))
        self.assertIsNone(service._server._notes)

    async def test_each_account_has_its_maildir_from_the_start(self) -> None:
        await self.serve()
        self.assertEqual(sorted(path.name for path in Path(self.work / "mail").iterdir()), ["alice", "bob"])
