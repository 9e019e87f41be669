"""``mailserver queue`` and ``explain``: from the running server over its socket, and from the files when none runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

from twisted.internet import reactor, unix
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.assembly import steps
from mailserver.cli.explain import ROADS
from mailserver.cli.output import age, plain, size, table
from mailserver.control.server import CommandRefused, ControlServer
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.parcel import Destination
from mailserver.observe import RoadStore
from mailserver.queue.admin import backup
from mailserver.queue.entry import number_of, pack
from mailserver.queue.store import SqliteStore
from tests.cli.support import CONFIGURATION, CommandCase, Said, run

ID = "06ABCDEFGHJKMNPQ"


def entry(id: str, **more: Any) -> dict[str, Any]:
    destination = {
        "index": 0,
        "recipient": "alice@example.org",
        "destination": "alice@example.org",
        "state": "deferred",
        "attempts": 3,
        "due": 4_000_000_000.0,
        "reply": "452 4.2.2 The mailbox is full",
        "note": "",
    }
    whole = {
        "id": id,
        "received_at": 1_700_000_000.0,
        "sender": "bob@example.net",
        "size": 4200,
        "state": "deferred",
        "note": "",
    }
    return whole | {"destinations": [destination]} | more


class WithoutServer(CommandCase):
    def test_a_queue_that_has_never_been_is_empty(self) -> None:
        self.assertEqual(self.lines(self.command("queue", "list")), ["The queue is empty."])
        self.assertEqual(self.command("queue", "list", "--json").json, [])

    def add_message(self, data: bytes = b"x" * 100) -> str:
        recipient = Recipient(Address("alice", "example.org"))
        envelope = Envelope(
            ID, Peer("192.0.2.1", 25, "mx"), Address("bob", "example.net"), (recipient,), 1_700_000_000.0
        )
        destinations = (Destination(0, recipient, Local(recipient.address, Mailbox("alice", "example.org"))),)
        store = SqliteStore(str(self.data / "queue.db"))
        store.open()
        store.add([number_of(ID)], [pack(number_of(ID), envelope, Content.of(data), destinations)])
        store.close()
        return ID

    def test_the_files_are_read(self) -> None:
        id = self.add_message()
        (listed,) = self.command("queue", "list", "--json").json
        self.assertEqual((listed["id"], listed["sender"], listed["size"]), (id, "bob@example.net", 100))
        self.assertIn(id, self.command("queue", "list").out)
        shown = self.command("queue", "show", id)
        self.assertEqual(shown.code, 0)
        self.assertRegex(shown.out, r"(?m)^sender +bob@example.net$")
        self.assertRegex(shown.out, r"(?m)^alice@example.org .* queued +0")

    def test_a_message_is_written_as_it_is_kept(self) -> None:
        id = self.add_message(b"Subject: \xe9\r\n\r\nbody\x1b[2J\r\n")
        command = [sys.executable, "-m", "mailserver.cli", "queue", "cat", id.lower(), "--config", self.config]
        ended = subprocess.run(command, capture_output=True, timeout=60, check=True)
        self.assertEqual(ended.stdout, b"Subject: \xe9\r\n\r\nbody\x1b[2J\r\n")
        self.assertEqual(self.command("queue", "cat", id).out, "Subject: \ufffd\n\nbody?[2J\n")  # as a terminal gets it
        self.assertEqual(self.command("queue", "cat", id, "--header").out, "Subject: \ufffd\n\n")
        for wrong in ("06ABCDEFGHJKMNPR", "06ABCDEFGHJK0000", "nonsense", "\x1b[31m"):
            said = self.command("queue", "cat", wrong)
            self.assertEqual((said.code, said.out), (1, ""), wrong)
            self.assertIn("the queue has no message", said.err)
            self.assertNotIn("\x1b", said.err)

    def test_each_message_that_an_order_has_changed_is_named_with_its_recipient(self) -> None:
        id = self.add_message()
        self.assertEqual(self.lines(self.command("queue", "hold", id, "--dry-run"))[0], f"{id}  would be held  alice@example.org")
        self.assertEqual(self.lines(self.command("queue", "hold", id))[0], f"{id}  held  alice@example.org")
        self.assertEqual(self.command("queue", "list", "--json").json[0]["state"], "held")

    def test_an_order_is_carried_out_whatever_streams_are_closed(self) -> None:
        id = self.add_message()
        for closed, verb, state in (("2>&-", "hold", "held"), ("<&- >&- 2>&-", "release", "deferred"), (">&-", "hold", "held")):
            command = [sys.executable, "-m", "mailserver.cli", "queue", verb, id, "--config", str(self.config)]
            ended = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command], capture_output=True, timeout=60, check=False)
            self.assertEqual((ended.returncode, ended.stderr), (0, b""), closed)
            self.assertEqual(self.command("queue", "list", "--json").json[0]["state"], state, closed)

    def test_where_nothing_has_ever_been_there_is_nothing_to_write(self) -> None:
        self.assertEqual(self.command("queue", "cat", ID).code, 1)

    def test_a_message_that_is_not_there_is_1(self) -> None:
        self.add_message()
        for id in ("06ABCDEFGHJKMNPR", "nonsense", "\x1b[31m"):
            said = self.command("queue", "show", id)
            self.assertEqual((said.code, said.out), (1, ""))
            self.assertIn("the queue has no message", said.err)
            self.assertNotIn("\x1b", said.err)

    def test_a_backup_says_what_is_in_it_and_so_does_its_return(self) -> None:
        id, copy, made = self.add_message(), str(self.folder / "copy"), backup.back_up
        self.patch(backup, "back_up", lambda *words: replace(made(*words), settled_meanwhile=3))
        said = self.command("backup", copy)
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertIn("1 messages are in", said.out)
        self.assertIn("3 more left the queue while they were copied", said.out)
        for delivery in ("", '[delivery]\nuse = "lmtp"\nsocket = "/run/lmtp"\n'):
            shutil.rmtree(self.data)
            os.mkdir(self.data, 0o700)
            self.configure(CONFIGURATION + delivery)
            said = self.command("restore", copy)
            self.assertEqual((said.code, said.err), (0, ""))
            self.assertRegex(said.out, rf"(?m)^{id} +bob@example.net +alice@example.org ")
            self.assertIn("`mailserver queue release", said.out)

    def test_a_queue_is_salvaged(self) -> None:
        said = self.command("queue", "salvage")
        self.assertEqual((said.code, said.out), (74, ""))
        self.assertIn("there is no queue here", said.err)
        self.add_message()
        said = self.command("queue", "salvage")
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertIn("are in the new queue; the damaged file is", said.out)
        (aside,) = self.data.glob("queue.db.damaged-*[0-9]")
        again = self.command("queue", "salvage", "--json").json
        self.assertEqual((again["kept"], again["lost"]), (1, []))
        self.assertNotEqual(again["place"], str(aside))
        (self.data / "queue.db").write_bytes(b"not a database" * 1000)
        said = self.command("queue", "salvage")
        self.assertEqual((said.code, said.out), (74, ""))

    def test_a_damaged_file_is_74(self) -> None:
        (self.data / "queue.db").write_bytes(b"not a database" * 1000)
        said = self.command("queue", "list")
        self.assertEqual((said.code, said.out), (74, ""))
        self.assertIn("queue.db", said.err)
        self.assertNotIn("Traceback", said.err)

    def test_a_road_is_read_and_told(self) -> None:
        roads = RoadStore(str(self.data / ROADS))
        roads.add(f'[["{ID}", 1.0, [[1.0, "accepted", {{"sender": "bob@example.net", "size": 5}}]]]]', 1, 1.0)
        roads.close()
        said = self.command("explain", ID.lower()[:8])
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertIn(ID, said.out)
        self.assertIn("bob@example.net", said.out)
        (step,) = self.command("explain", ID, "--json").json
        self.assertEqual(step, {"time": 1.0, "id": ID, "step": "accepted", "sender": "bob@example.net", "size": 5})
        self.assertEqual(self.command("explain", "0000000000000000").code, 1)

    def test_below_a_reply_that_is_known_stands_what_it_means(self) -> None:
        roads = RoadStore(str(self.data / ROADS))
        reply = "550 5.7.515 Access denied, sending domain \x1b[31mX does not meet the required authentication level"
        steps = json.dumps([[1.0, "failed", {"reply": reply}], [2.0, "failed", {"reply": "550 5.1.1 No such user"}]])
        roads.add(f'[["{ID}", 1.0, {steps}]]', 1, 1.0)
        roads.close()
        said = self.command("explain", ID)
        self.assertEqual((said.out.count("means: "), said.out.count("do: "), said.out.count("\x1b")), (1, 1, 0))
        self.assertIn("Outlook.com counts the domain", said.out)
        first, second = self.command("explain", ID, "--json").json
        self.assertEqual((first["meaning"]["key"], "meaning" in second), ("microsoft.requirements", False))

    def test_a_road_is_found_by_what_is_known_of_it(self) -> None:
        roads = RoadStore(str(self.data / ROADS))
        sent = '{"sender": "bob@example.net", "recipients": ["a@b.example", "c@b.example"]}'
        roads.add(f'[["{ID}", 1.0, [[1.0, "accepted", {sent}]]]]', 1, 1.0)
        roads.close()
        said = self.command("explain", "--sender", "bob@*")
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertRegex(said.out, rf"(?m)^{ID}  19\d\d-.*  bob@example.net  a@b.example and 1 more  accepted$")
        self.assertEqual(self.command("explain", "--recipient", "c@*", "--json").json[0]["id"], ID)
        said = self.command("explain", "--sender", "bob@*", "--since", "1h")
        self.assertEqual((said.code, said.out), (1, "None is known, or its retention time is over.\n"))
        for wrong in (("--since", "yesterday"), (ID, "--sender", "x"), ("--limit", "0", "--sender", "x"), ()):
            self.assertEqual(self.command("explain", *wrong).code, 2, wrong)

    def test_where_no_server_has_run_there_are_no_roads(self) -> None:
        said = self.command("explain", ID)
        self.assertEqual(said.code, 74)
        self.assertIn("no mail has come here yet", said.err)

    def test_the_file_of_the_roads_is_where_the_server_writes_it(self) -> None:
        self.assertEqual(ROADS, steps.ROADS)


class WithServer(CommandCase, TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(unix, "_inFilesystemNamespace", lambda path: path[:1] != b"\0")  # bytes and str, under -bb
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.entries = [entry(f"06ABCDEFGHJK{n:04}") for n in range(1500)]
        self.server = ControlServer(
            os.path.join(self.data, "control.sock"),
            {"queue.list": self.list, "queue.select": self.select, "queue.show": self.show, "explain": self.explain},
        )
        self.server.start(reactor)
        self.addCleanup(self.server.stop)

    async def list(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(("queue.list", arguments))
        found = [one for one in self.entries if one["id"] > arguments["after"]]
        return {"entries": found[: arguments["limit"]], "depth": len(self.entries)}

    async def select(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"entries": [], "next": None, "depth": len(self.entries)}

    async def show(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"entry": next((one for one in self.entries if one["id"] == arguments["id"]), None)}

    async def explain(self, arguments: dict[str, Any]) -> dict[str, Any]:
        raise CommandRefused("no road is known")

    async def ask(self, *arguments: str) -> Said:
        return await deferToThread(run, *arguments, "--config", str(self.config))

    async def test_a_long_queue_comes_page_by_page_and_whole(self) -> None:
        said = await self.ask("queue", "list", "--json")
        self.assertEqual([one["id"] for one in said.json], [one["id"] for one in self.entries])
        self.assertEqual(
            [arguments for _, arguments in self.asked],
            [{"after": "", "limit": 1000}, {"after": self.entries[999]["id"], "limit": 1000}],
        )

    async def test_a_limit_is_kept(self) -> None:
        said = await self.ask("queue", "list", "--limit", "2")
        self.assertEqual(len(said.out.splitlines()), 4)
        self.assertTrue(said.out.endswith("\n2 of 1500 messages.\n"))

    async def test_a_filter_that_nothing_fits_does_not_call_the_queue_empty(self) -> None:
        said = await self.ask("queue", "list", "--domain", "nowhere.example")
        self.assertEqual(said.out, "No message fits; 1500 wait.\n")
        self.entries = []
        self.assertEqual((await self.ask("queue", "list", "--domain", "x.example")).out, "The queue is empty.\n")

    async def test_each_reason_is_said_once(self) -> None:
        one = self.entries[0]["destinations"][0] | {"note": "The mailbox is full"}
        other = one | {"index": 1, "recipient": "carol@example.org", "reply": "", "note": "no route"}
        self.entries = [entry(ID, destinations=[one, one | {"index": 2}, other])]
        self.assertRegex((await self.ask("queue", "list")).out, r"(?m)  452 4\.2\.2 The mailbox is full \(and 1 more\)$")
        self.assertRegex((await self.ask("queue", "show", ID)).out, r"(?m)^alice.*  452 4\.2\.2 The mailbox is full$")

    async def test_what_is_held_has_no_end_and_an_empty_column_goes(self) -> None:
        held = self.entries[0]["destinations"][0] | {"state": "held", "due": None, "reply": ""}
        self.entries = [entry(ID, state="held", destinations=[held])]
        header, row, _ = (await self.ask("queue", "list")).out.splitlines()
        self.assertEqual(header.split(), ["ID", "AGE", "SIZE", "STATE", "SENDER", "RECIPIENTS"])
        self.assertTrue(row.endswith("alice@example.org"))

    async def test_a_row_says_what_a_postmaster_wants_to_know(self) -> None:
        more = [dict(self.entries[0]["destinations"][0], recipient="carol@example.org", index=1)]
        self.entries = [entry(ID, sender="", destinations=self.entries[0]["destinations"] + more)]
        header, row, _ = (await self.ask("queue", "list")).out.splitlines()
        self.assertEqual(header.split(), ["ID", "AGE", "SIZE", "STATE", "NEXT", "GIVEN", "UP", "SENDER", "RECIPIENTS", "WHY"])
        self.assertRegex(row, rf"^{ID} +\d+d.* 4\.1K  deferred  in \d+d .*  now +<>  +alice@example.org and 1 more  452 4.2.2 The mailbox is full$")

    async def test_one_message_is_shown_with_the_peers_words(self) -> None:
        said = await self.ask("queue", "show", self.entries[7]["id"])
        self.assertEqual(said.code, 0)
        self.assertRegex(
            said.out, r"alice@example.org  alice@example.org  deferred +3  in \d+d.*  452 4.2.2 The mailbox is full"
        )
        said = await self.ask("queue", "show", self.entries[7]["id"], "--json")
        self.assertEqual((said.code, said.json), (0, self.entries[7]))

    async def test_the_last_attempts_are_shown(self) -> None:
        one = entry(ID)
        trial = {"made_at": 1_700_000_060.0, "peer": "mx.example.com", "phase": "RCPT", "reply": "450 Later\x1b", "note": "grey"}
        one["destinations"][0]["history"] = [trial, {**trial, "peer": "", "phase": "", "note": ""}]
        self.entries = [one]
        said = await self.ask("queue", "show", ID)
        self.assertRegex(said.out, r"(?m)^attempts at alice@example.org, after 1 earlier ones$")
        self.assertRegex(said.out, r"(?m)^2023-11-14 .* mx.example.com  RCPT   450 Later. grey$")
        self.assertNotIn("\x1b", said.out)
        self.assertNotIn("word by word", said.out)

    async def test_the_dialogue_of_the_last_attempt_is_shown(self) -> None:
        one = entry(ID)
        trial = {"made_at": 1_700_000_060.0, "peer": "mx.example.com", "phase": "RCPT", "reply": "450 Later", "note": ""}
        one["destinations"][0]["history"] = [{**trial, "dialogue": ["C: RCPT TO:<a@b>", "S: 450 Later\x1b[2J"]}]
        self.entries = [one]
        said = await self.ask("queue", "show", ID)
        self.assertIn("the last one, word by word\n  C: RCPT TO:<a@b>\n  S: 450 Later?[2J\n", said.out)

    async def test_what_came_over_the_wire_cannot_command_the_terminal(self) -> None:
        self.entries = [entry(ID, sender='"\x1b[2J\u202e"@example.net')]
        said = await self.ask("queue", "list")
        self.assertNotIn("\x1b", said.out)
        self.assertNotIn("\u202e", said.out)

    async def test_a_refusal_of_the_server_is_1(self) -> None:
        said = await self.ask("explain", ID)
        self.assertEqual((said.code, said.err), (1, "mailserver: no road is known\n"))

    async def test_check_does_not_complain_about_the_servers_own_ports(self) -> None:
        self.accounts.write_text('[account."alice@example.org"]\n')
        with_port = self.config.read_text().replace("tcp:0", "tcp:1")
        self.configure(with_port)
        said = await self.ask("check")
        self.assertEqual((said.code, said.out), (0, f"{self.config}: no faults, no warnings.\n"))


class Words(CommandCase):
    def test_ages_have_two_units(self) -> None:
        ages = {
            0: "0s",
            59: "59s",
            60: "1m",
            61: "1m 1s",
            3600: "1h",
            3661: "1h 1m",
            90000: "1d 1h",
            86400: "1d",
            -5: "0s",
        }
        self.assertEqual({seconds: age(seconds) for seconds in ages}, ages)

    def test_sizes_have_three_digits(self) -> None:
        sizes = {0: "0", 812: "812", 1024: "1.0K", 4200: "4.1K", 52428800: "50M", 2**40: "1.0T"}
        self.assertEqual({octets: size(octets) for octets in sizes}, sizes)

    def test_a_table_fits_the_terminal_and_its_first_column_stays_whole(self) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        self.patch(os, "environ", {**os.environ, "COLUMNS": "60"})
        rows = [(ID, "a" * 50, "", "漢" * 30), (ID, "b", "", "c")]
        for out, width in ((Terminal(), 60), (io.StringIO(), 132)):
            with contextlib.redirect_stdout(out):
                table(("ID", "WHO", "NOTHING", "WHY"), rows)
            header, long, short = out.getvalue().splitlines()
            self.assertNotIn("NOTHING", header)
            self.assertTrue(long.startswith(ID + "  aaa"))
            columns = sum(2 if one == "漢" else 1 for one in long)
            self.assertLessEqual(columns, width)
            self.assertEqual("…" in long, width == 60)
            self.assertEqual(short.split(), [ID, "b", "c"])

    def test_a_terminal_gets_no_control_characters(self) -> None:
        self.assertEqual(plain("a\x00\x1b\x7f\x85\u202e\u2028é漢"), "a??????é漢")
