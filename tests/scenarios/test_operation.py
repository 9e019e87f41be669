"""Signals, reload, and what the command line tells of a message."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from mailserver.control.server import CommandRefused, ask
from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire, wait_until

DENY = """
[[filter]]
use = "denylist"
senders = ["spam@example.net"]
sender_domains = ["bad.example"]
"""


GATE = '''
import os

from twisted.internet.task import deferLater
from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponent, IComponentFactory, IRecipientFilter
from mailserver.mail.answers import Pass


@implementer(IRecipientFilter, IComponent)
class Gate:
    def __init__(self, folder, clock):
        self.folder = folder
        self.clock = clock

    def note(self, what):
        with open(os.path.join(self.folder, "lives"), "a") as file:
            file.write(what + "\\n")

    async def start(self):
        self.note("starts")
        while True:
            with open(os.path.join(self.folder, "gate")) as file:
                does = file.read()
            if does == "broken":
                raise ValueError("broken")
            if does == "open":
                break
            await deferLater(self.clock, 0.01)
        self.note("started")

    async def stop(self):
        self.note("stopped")
        self.clock = None

    async def judge_recipient(self, envelope, recipient):
        self.clock.seconds()
        return Pass()


class GateOptions(Options):
    folder: str
    turn: int = 0


@implementer(IComponentFactory)
class GateFactory:
    name = "gate"
    summary = "Starts when it is told."
    provides = IRecipientFilter
    options = GateOptions

    def build(self, options, services):
        return Gate(options.folder, services.clock)


gate = GateFactory()
'''


class Signals(ScenarioCase):
    def test_sigterm_lets_the_message_in_flight_finish_and_turns_new_peers_away(self) -> None:
        server = self.serve()
        with Wire(server.port) as busy, Wire(server.port) as idle:
            busy.dialogue("EHLO client.example", "MAIL FROM:<s@example.net>", "RCPT TO:<alice@example.org>", "DATA")
            busy.send(b"Subject: in flight\r\n\r\nhalf")
            server.signal(signal.SIGTERM)
            self.assertEqual(idle.reply().code, 421)
            self.assertTrue(idle.is_closed())
            busy.send(b" and half\r\n.\r\n")
            self.assertEqual(busy.reply().code, 250)
            self.assertEqual(busy.reply().code, 421)
            self.assertTrue(busy.is_closed())
        self.assertEqual(server.ended(), 0)
        server.restart()  # what was accepted and not yet delivered is delivered now
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual(stored.body, b"half and half\r\n")

    def test_the_pidfile_is_gone_after_a_clean_stop(self) -> None:
        server = self.serve()
        self.assertTrue((server.work / "pid").exists())
        self.assertEqual(server.stop(), 0)
        self.assertFalse((server.work / "pid").exists())

    def test_a_broken_configuration_stops_the_start_with_file_line_and_key(self) -> None:
        server = self.prepare(BASIC + '[limits]\nrecipients = "many"\n')
        with self.assertRaises(self.failureException):
            server.start()
        self.assertIn("recipients", server.log())
        self.assertIn(str(server.config_path), server.log())


class ReloadCase(ScenarioCase):
    def size(self, server: Server) -> str:
        with Wire(server.port) as wire:
            return next(line for line in wire.command("EHLO client.example").lines if line.startswith("SIZE"))


class DeadEnds(ReloadCase):
    def test_what_leads_nowhere_is_told_at_the_start_and_at_a_reload(self) -> None:
        server = self.serve(BASIC + 'catch_all = "ghost@example.org"\n')
        wait_until(lambda: 'domain "example.org": catch_all: ' in server.log(), server.log)
        server.configure(BASIC + '[domain."example.org".aliases]\nsales = "gone@example.org"\n')
        server.signal(signal.SIGHUP)
        wait_until(lambda: "alias sales@example.org: " in server.log(), server.log)
        self.assertServes(server)


class Reload(ReloadCase):
    def test_sighup_gives_new_connections_the_new_configuration(self) -> None:
        server = self.serve(BASIC + "[limits]\nmessage_bytes = 100000\n")
        with Wire(server.port) as old:
            old.command("EHLO client.example")
            self.assertEqual(self.size(server), "SIZE 100000")
            server.configure(BASIC + "[limits]\nmessage_bytes = 200000\n")
            server.signal(signal.SIGHUP)
            wait_until(lambda: self.size(server) == "SIZE 200000", lambda: f"not reloaded:\n{server.log()}")
            self.assertEqual(old.command("MAIL FROM:<s@example.net> SIZE=150000").code, 552)
            self.assertEqual(old.command("NOOP").code, 250)
        self.assertServes(server)

    def test_a_broken_configuration_is_refused_and_the_old_one_stays(self) -> None:
        server = self.serve(BASIC + "[limits]\nmessage_bytes = 100000\n")
        server.configure(BASIC + '[limits]\nmessage_bytes = "huge"\n')
        server.signal(signal.SIGHUP)
        wait_until(lambda: "message_bytes" in server.log(), lambda: f"nothing was said:\n{server.log()}")
        self.assertEqual(self.size(server), "SIZE 100000")
        self.assertServes(server)

    def test_a_reload_that_fails_in_any_way_is_refused_and_nothing_more(self) -> None:
        """Whether the file is wrong or what it names is not there; the log says it once, without a traceback."""
        server = self.serve()
        for number in range(1, 11):
            server.configure(BASIC + ("[limits]\nmessage_bytes = 0\n" if number % 2 else "") + "# again\n")
            if number % 2 == 0:
                (server.work / "accounts.toml").unlink(missing_ok=True)
            server.signal(signal.SIGHUP)
            wait_until(lambda number=number: server.log().count("the configuration is refused") == number, server.log)
        self.assertEqual(server.log().count("`mailserver user add` makes it"), 5)
        self.assertNotIn("Unhandled", server.log())
        self.assertServes(server)

    def test_a_new_account_is_known_after_a_reload(self) -> None:
        server = self.serve()
        accounts = server.work / "accounts.toml"
        accounts.write_text(accounts.read_text() + '[account."carol@example.org"]\n')
        server.signal(signal.SIGHUP)
        wait_until(
            lambda: server.send(b"Subject: x\r\n\r\nx", to="carol@example.org").code == 250,
            lambda: f"carol is not known:\n{server.log()}",
        )
        server.wait_for_mail("carol")


class ReloadThatTakesTime(ReloadCase):
    """With a filter whose start waits until the test opens a gate."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir(parents=True)
        self.turns = 0
        self.gate("open")

    def gate(self, does: str) -> None:
        """What a start meets from now on: "open", "shut" or "broken"."""
        (self.folder / "gate.new").write_text(does)
        (self.folder / "gate.new").replace(self.folder / "gate")

    def lives(self) -> list[str]:
        """What the filters have done: "starts", "started", "stopped"."""
        return (self.folder / "lives").read_text().split()

    def config(self, octets: int = 100_000) -> str:
        """With a table that says something else each time: a reload would keep the filter."""
        self.turns += 1
        table = f'[[filter]]\nuse = "gate"\nfolder = "{self.folder}"\nturn = {self.turns}\n'
        return f"{BASIC}[limits]\nmessage_bytes = {octets}\n{table}"

    def prepared(self) -> Server:
        server = self.prepare(self.config(100_000))
        server.install_plugin("gate_plugin", GATE)
        return server

    def reload_is_under_way(self) -> Server:
        server = self.prepared()
        server.start()
        self.gate("shut")
        server.configure(self.config())
        server.signal(signal.SIGHUP)
        wait_until(lambda: self.lives() == ["starts", "started", "starts"], server.log)
        return server

    def test_one_more_during_it_is_not_forgotten(self) -> None:
        """The file may have changed since the first one read it."""
        server = self.reload_is_under_way()
        server.configure(self.config(200_000))
        server.signal(signal.SIGHUP)
        server.signal(signal.SIGHUP)
        refused = self.assertRaises(CommandRefused, ask, str(server.work / "data" / "control.sock"), "reload")
        self.assertIn("a reload is under way", str(refused))
        self.gate("open")
        wait_until(lambda: self.size(server) == "SIZE 200000", server.log)
        wait_until(lambda: server.log().count("the configuration was reloaded") == 2, server.log)
        self.assertServes(server)
        self.assertEqual(server.stop(), 0)
        self.assertEqual(sorted(self.lives()), ["started"] * 3 + ["starts"] * 3 + ["stopped"] * 3)

    def test_an_open_connection_ends_its_message_with_the_old_parts_and_begins_the_next_with_the_new(self) -> None:
        server = self.prepared()
        server.start()
        rcpt, content = "RCPT TO:<alice@example.org>", "Subject: x\r\n\r\nx\r\n."
        with Wire(server.port) as session:
            codes = session.dialogue("EHLO client.example", "MAIL FROM:<s@example.net>", rcpt)
            for number in (1, 2):
                server.configure(self.config())
                answer = ask(str(server.work / "data" / "control.sock"), "reload")
                self.assertEqual(answer, {"reloaded": True, "faults": [], "needs_restart": []})
                codes += session.dialogue(rcpt)
                self.assertEqual(self.lives().count("stopped"), number - 1)
                codes += session.dialogue(rcpt, "DATA", content)
                wait_until(lambda number=number: self.lives().count("stopped") == number, server.log)
                codes += session.dialogue("MAIL FROM:<s@example.net>", rcpt)
            self.assertEqual(set(codes), {250, 354})
            server.configure(self.config())
            ask(str(server.work / "data" / "control.sock"), "reload")
            self.assertEqual(server.stop(), 0)  # with a transaction that has not ended
        self.assertEqual(self.lives().count("stopped"), 4)

    def test_one_during_the_start_waits_for_its_end(self) -> None:
        server = self.prepared()
        self.gate("shut")
        server.launch()
        wait_until(lambda: (self.folder / "lives").exists(), server.log)
        server.configure(self.config(200_000))
        server.signal(signal.SIGHUP)
        self.gate("open")
        server.wait_until_it_greets()
        wait_until(lambda: self.size(server) == "SIZE 200000", server.log)
        self.assertServes(server)

    def test_a_stop_during_it_is_a_stop(self) -> None:
        server = self.reload_is_under_way()
        self.assertEqual(server.stop(), 0)
        self.assertNotIn("Traceback", server.log())

    def test_what_was_started_for_one_that_fails_is_stopped(self) -> None:
        server = self.prepared()
        server.start()
        self.gate("broken")
        server.configure(self.config())
        for number in range(1, 11):
            server.signal(signal.SIGHUP)
            wait_until(lambda number=number: server.log().count("the old one stays") == number, server.log)
        self.assertEqual(self.lives(), ["starts", "started"] + ["starts", "stopped"] * 10)
        self.assertIn("ValueError: broken", server.log())  # a plugin's fault is told with its place
        self.assertNotIn("Unhandled", server.log())
        self.assertServes(server)
        assert server.process is not None
        server.kill()  # a traceback is in the log, so the usual end would complain


class Explain(ScenarioCase):
    def road(self, server: Server, id: str, *until: str) -> list[dict[str, Any]]:
        """The steps of a message, as soon as each of `until` is among them."""

        def steps() -> list[dict[str, Any]]:
            done = server.command("explain", id, "--json")
            try:
                told = json.loads(done.stdout)
            except json.JSONDecodeError:
                return []
            found: list[dict[str, Any]] = told["steps"] if isinstance(told, dict) else told
            return found if set(until) <= {step["step"] for step in found} else []

        return wait_until(steps, lambda: f"{id} has no road with {until}: {server.command('explain', id)}")  # type: ignore[no-any-return]

    def test_the_road_of_an_accepted_message_leads_into_its_mailbox(self) -> None:
        server = self.serve()
        id = server.send(b"Subject: x\r\n\r\nx").id
        server.wait_for_mail("alice")
        self.road(server, id, "accepted", "delivered")
        told = server.command("explain", id)
        self.assertEqual(told.returncode, 0, told.stderr)
        for word in (id, "127.0.0.1", "sender@example.net", "alice@example.org", "delivered"):
            self.assertIn(word, told.stdout)

    def test_a_filters_refusal_is_explained_with_its_reason_which_the_peer_does_not_hear(self) -> None:
        server = self.serve(BASIC + DENY)
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            refused = wire.command("MAIL FROM:<spam@example.net>")
            self.assertEqual((refused.code, refused.enhanced[:3]), (550, "5.7"))
            self.assertNotIn("listed", refused.text)
            self.assertEqual(wire.command("MAIL FROM:<friend@example.net>").code, 250)
        road = self.road(server, refused.id, "filter", "refused")
        found = next(step for step in road if step["step"] == "filter" and step["stage"] == "sender")
        self.assertEqual((found["filter"], found["verdict"]), ("denylist", "Refuse"))
        self.assertIn("spam@example.net", found["why"])

    def test_a_refused_recipient_is_explained(self) -> None:
        server = self.serve()
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<s@example.net>")
            refused = wire.command("RCPT TO:<someone@elsewhere.example>")
        road = self.road(server, refused.id, "refused")
        self.assertTrue(any("someone@elsewhere.example" in str(step) for step in road), road)

    def test_an_unknown_id_is_an_error_of_the_command(self) -> None:
        server = self.serve()
        done = server.command("explain", "0123456789ABCDEF")
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("Traceback", done.stderr)

    def test_explain_works_when_the_server_is_down(self) -> None:
        server = self.serve()
        id = server.send(b"Subject: x\r\n\r\nx").id
        self.road(server, id, "accepted")
        self.assertEqual(server.stop(), 0)
        told = server.command("explain", id)
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertIn("sender@example.net", told.stdout)


class Filters(ScenarioCase):
    def test_a_filter_bound_to_another_service_is_not_asked(self) -> None:
        server = self.serve(BASIC + DENY + 'services = ["submission"]\n')
        self.assertEqual(server.send(b"Subject: x\r\n\r\nx", sender="spam@example.net").code, 250)
        server.wait_for_mail("alice")

    def test_a_peer_that_is_not_wanted_is_turned_away_at_the_greeting(self) -> None:
        server = self.serve(
            BASIC
            + '\n[[listen]]\nservice = "lmtp"\nendpoint = "tcp:{lmtpport}:interface=127.0.0.1"\n'
            + '\n[[filter]]\nuse = "denylist"\nhello_names = ["bad.example"]\nservices = ["mx"]\n'
        )
        with Wire(server.port) as wire:
            self.assertGreaterEqual(wire.command("EHLO very.bad.example").code, 500)
        with Wire(server.ports["lmtpport"]) as wire:
            self.assertEqual(wire.command("LHLO very.bad.example").code, 250)
