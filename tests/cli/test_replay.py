"""``mailserver replay``: the whole judging of a message, by what the DNS said, and nothing comes of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.without_server import finished, in_place
from mailserver.dns.recorded import RecordedResolver, RecordingResolver
from mailserver.mail.dns_records import LookupFailed
from mailserver.state_store import RecordStore, StateStore
from mailserver.state_store.read_only import ReadOnlyRecords, ReadOnlyState
from mailserver.testing import FakeResolver
from tests.cli.support import CONFIGURATION, CommandCase
from tests.requires import require_tool

MESSAGE = "From: bob@example.net\nTo: alice@example.org\nSubject: x\n\nhello\n"
FILTERS = """
[dns]
servers = ["127.0.0.1:9"]
[[filter]]
use = "spf"
[[filter]]
use = "dkim"
[[filter]]
use = "dmarc"
after = ["spf", "dkim"]
[[filter]]
use = "lists"
[[filter]]
use = "greylist"
[[filter]]
use = "clamav"
[[filter]]
use = "scores"
tag = 2
"""
ANSWERS = [
    {"name": "example.net", "type": "TXT", "records": ["v=spf1 -all"]},
    {"name": "_dmarc.example.net", "type": "TXT", "records": ["v=DMARC1; p=reject"], "ttl": 60},
    {"name": "9.2.0.192.in-addr.arpa", "type": "PTR", "records": [], "exists": False},
]


class ReplayCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(CONFIGURATION + FILTERS)
        self.accounts.write_text('[account."alice@example.org"]\n[account."bob@example.org"]\n')
        self.message = self.folder / "m.eml"
        self.message.write_text(MESSAGE)
        self.dns = self.folder / "dns.json"
        self.dns.write_text(json.dumps(ANSWERS))

    def line(self, *more: str, to: tuple[str, ...] = ("alice@example.org",)) -> list[str]:
        named = [word for one in to for word in ("--to", one)]
        return ["replay", str(self.message), "--from", "bob@example.net", *named, "--ip", "192.0.2.9", "--dns", str(self.dns), *more]

    def replayed(self, *more: str, code: int = 0, to: tuple[str, ...] = ("alice@example.org",)) -> Any:
        said = self.command(*self.line("--json", *more, to=to))
        self.assertEqual((said.code, said.err), (code, ""), said)
        return said.json

    def state_of_the_disk(self) -> dict[str, tuple[int, int]]:
        return {str(one): (one.stat().st_mtime_ns, one.stat().st_size) for one in sorted(self.folder.rglob("*"))}


class Replayed(ReplayCase):
    def test_all_replies_and_verdicts_are_those_of_the_server_and_who_was_not_asked_is_told(self) -> None:
        found = self.replayed("--without", "greylist", to=("alice@example.org", "nobody@example.org"))
        self.assertEqual([one["reply"][:9] for one in found["replies"]], ["250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.0.0"])
        self.assertEqual(found["copies"], [{"recipient": "alice@example.org", "goes_to": "alice@example.org/Junk", "held": ""}])
        (verdict,) = [one for one in found["verdicts"] if one["recipient"] == "alice@example.org"]
        self.assertEqual((verdict["outcome"], verdict["sum"], verdict["would_have_changed_it"]), ("put into Junk", 4, ["dmarc=pass in place of fail: tagged"]))
        self.assertEqual(found["cannot_tell"], ["clamav"])
        self.assertEqual({(one["name"], one["type"]) for one in found["dns"]}, {(one["name"], one["type"]) for one in ANSWERS[:2]})

    def test_another_configuration_and_another_peer_have_another_outcome(self) -> None:
        self.configure((CONFIGURATION + FILTERS).replace("tag = 2", "tag = 2\njunk = 3\nrefuse = 4"))
        found = self.replayed("--without", "greylist", code=1)
        self.assertEqual(found["replies"][-1]["reply"][:9], "550 5.7.1")
        self.assertIn("fail", json.dumps(found["verdicts"]))
        found = self.replayed("--ip", "8.8.4.4", code=1)  # the greylist of a doubtful stranger
        self.assertEqual(found["replies"][-1]["reply"][:3], "450", found)

    def test_the_text_has_the_road_the_replies_and_what_would_have_changed_it(self) -> None:
        said = self.command(*self.line("--without", "greylist"))
        for words in ("filter=dmarc", "RCPT TO:<alice@example.org>: 250", "alice@example.org -> alice@example.org/Junk",
                      "what would have changed it", "cannot tell: clamav"):  # fmt: skip
            self.assertIn(words, said.out)

    def test_what_lists_and_greylist_know_counts_and_nothing_is_changed(self) -> None:
        clock = Clock()
        clock.advance(time.time())
        records = RecordStore(path=str(self.data / "records.db"), clock=clock, new_threads=in_place, room_for=lambda octets: True)
        finished(records.start())
        self.command("list", "add", "black", "bob@example.net", "--user", "alice@example.org")
        finished(records.stop())
        before = self.state_of_the_disk()
        found = self.replayed("--without", "greylist", to=("alice@example.org", "bob@example.org"))
        self.assertEqual([one["reply"][:3] for one in found["replies"]], ["250", "550", "250", "250"])
        self.assertEqual(self.state_of_the_disk(), before)

    def test_what_users_have_decided_about_strangers_and_addresses_counts_and_nothing_is_changed(self) -> None:
        self.configure(CONFIGURATION + '[[filter]]\nuse = "contacts"\nhold = true\n[[filter]]\nuse = "subaddresses"\n')
        self.assertEqual(self.command("contacts", "bob@example.org", "accept", "bob@example.net", "--evidence", "none").code, 0)
        self.assertEqual(self.command("subaddress", "close", "bob+shop@example.org").code, 0)
        before = self.state_of_the_disk()
        found = self.replayed("--ip", "11.2.3.4", to=("alice@example.org", "bob@example.org", "bob+shop@example.org"))
        self.assertEqual([one["reply"][:9] for one in found["replies"]], ["250 2.1.0", "250 2.1.5", "250 2.1.5", "550 5.1.1", "250 2.0.0"])
        held = {one["recipient"]: one["held"] for one in found["copies"]}
        self.assertEqual(held, {"alice@example.org": "held: quarantined", "bob@example.org": ""})
        self.assertEqual(self.state_of_the_disk(), before)

    def test_what_the_dns_has_not_said_nobody_can_tell(self) -> None:
        self.dns.write_text("[]")
        found = self.replayed("--without", "greylist", code=1)
        self.assertEqual(found["replies"][-1]["reply"][:3], "450")

    def test_its_own_answers_give_the_same_again(self) -> None:
        first = self.replayed("--without", "greylist")
        self.dns.write_text(json.dumps(first))
        again = self.replayed("--without", "greylist")
        for one in (first, again):
            one["replies"].pop()  # an id
        self.assertEqual(json.loads(re.sub(r'"ms": [\d.]+', "", json.dumps(first))), again)

    def test_a_wrong_line_is_told(self) -> None:
        for words, code in (
            (["replay"], 2), (["replay", "x.eml"], 2), (self.line("--ip", "nowhere"), 2), (self.line("--from", "a b"), 2),
            (self.line("--to", "@"), 2), (["replay", "/nowhere", *self.line()[2:]], 74), (self.line("--dns", "/nowhere"), 74),
        ):  # fmt: skip
            self.assertEqual(self.command(*words).code, code, words)
        for text in ("{", "3", "[3]", '[{"name": "x"}]', '[{"name": "x", "type": "A", "records": 3}]'):
            self.dns.write_text(text)
            self.assertEqual(self.command(*self.line()).code, 74, text)

    def test_a_null_sender_a_login_and_lmtp_are_said(self) -> None:
        found = self.replayed("--from", "<>", "--without", "greylist")
        self.assertEqual(found["replies"][0]["to"], "MAIL FROM:<>")
        found = self.replayed("--login", "alice@example.org", "--from", "alice@example.org")
        self.assertEqual(found["replies"][-1]["reply"][:3], "250")
        found = self.replayed("--service", "lmtp", "--without", "greylist", to=("alice@example.org", "bob@example.org"))
        self.assertEqual([one["to"] for one in found["replies"][-2:]], [f"the data, for {one}@example.org" for one in ("alice", "bob")])


class Untouched(ReplayCase):
    def test_no_file_is_written_and_nobody_is_called(self) -> None:
        strace = require_tool("strace")
        trace = self.folder / "trace"
        before = self.state_of_the_disk()
        program = [sys.executable, "-B", "-m", "mailserver.cli", *self.line("--without", "greylist"), "--config", str(self.config)]
        said = subprocess.run([strace, "-f", "-o", str(trace), "-e", "trace=%file,%network,ftruncate", *program],
                              capture_output=True, cwd=Path(__file__).parents[2], timeout=120)  # fmt: skip
        self.assertEqual(said.returncode, 0, said.stderr)
        calls = trace.read_text().splitlines()
        trace.unlink()
        writing = [one for one in calls if re.search(r"O_WRONLY|O_RDWR|O_CREAT|mkdir|rename|unlink|ftruncate|chmod|link\(|utime", one)]
        self.assertEqual([one for one in writing if str(self.folder) in one], [])
        self.assertEqual([one for one in calls if re.search(r"\b(connect|sendto|sendmsg)\(", one) and "AF_INET" in one], [])
        self.assertEqual(self.state_of_the_disk(), before)


class Stores(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.clock = Clock()
        self.clock.advance(1_800_000_000)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def test_records_are_read_and_changed_in_memory_alone(self) -> None:
        store = RecordStore(path=self.path("r.db"), clock=self.clock, new_threads=in_place, room_for=lambda octets: True)
        finished(store.start())
        for key in ("a", "b", "d"):
            finished(store.space("filter/x").put(key, key.encode()))
        finished(store.stop())
        records = ReadOnlyRecords(self.path("r.db"))
        mine = records.space("filter/x")
        finished(mine.put("c", b"c"))
        finished(mine.drop("a"))
        self.assertFalse(finished(mine.put_if_absent("b", b"x")))
        self.assertTrue(finished(mine.compare_and_put("d", b"d", b"e")))
        self.assertEqual(finished(mine.items()), [("b", b"b"), ("c", b"c"), ("d", b"e")])
        self.assertEqual(finished(mine.items("c", "d")), [("c", b"c")])
        self.assertEqual([finished(mine.get(key)) for key in "abd"], [None, b"b", b"e"])
        self.assertEqual(finished(records.space("filter/y").items()), [])
        records.close()
        again = ReadOnlyRecords(self.path("r.db"))
        self.assertEqual(len(finished(again.space("filter/x").items())), 3)
        again.close()

    def test_facts_are_read_and_changed_in_memory_alone_and_end_by_the_store_s_time(self) -> None:
        store = StateStore(path=self.path("s.db"), clock=self.clock, new_threads=in_place)
        finished(store.start())
        finished(store.space("x").put("a", b"1", 100))
        finished(store.stop())
        files = sorted(os.listdir(self.folder))
        state = ReadOnlyState(self.path("s.db"), wall_seconds=self.clock.seconds)
        self.assertEqual(finished(state.space("x").get("a")), b"1")
        self.assertEqual(finished(state.space("x").add("n", 2, 50)), 2)
        self.assertEqual([one[0] for one in finished(state.space("x").items())], ["a", "n"])
        self.clock.advance(200)
        self.assertEqual((finished(state.space("x").get("a")), finished(state.space("x").get("n"))), (None, None))
        state.close()
        self.assertEqual(sorted(os.listdir(self.folder)), files)

    def test_where_there_is_no_file_there_is_nothing_and_none_is_made(self) -> None:
        state, records = ReadOnlyState(self.path("s"), wall_seconds=self.clock.seconds), ReadOnlyRecords(self.path("r"))
        self.assertIsNone(finished(state.space("x").get("a")))
        self.assertEqual(finished(state.space("x").items()), [])
        self.assertIsNone(finished(records.space("x").get("a")))
        self.assertEqual(os.listdir(self.folder), [])


class Answers(SynchronousTestCase):
    def test_what_was_recorded_is_answered_and_what_failed_fails(self) -> None:
        zones = {"a.example": {"TXT": ["x\udcff"]}, "b.example": {"CNAME": ["a.example"]}}
        recording = RecordingResolver(FakeResolver(zones, failing=["dead.example"], authenticated=True))
        asked = [("A.example.", "TXT"), ("b.example", "TXT"), ("none.example", "A"), ("a.example", "A")]
        first = [finished(recording.query(*one)) for one in asked]
        with self.assertRaises(LookupFailed):
            finished(recording.query("dead.example", "A"))
        recorded = RecordedResolver(json.loads(json.dumps(recording.answers())))
        self.assertEqual([finished(recorded.query(*one)) for one in asked], first)
        for one in (("dead.example", "A"), ("a.example", "MX")):
            with self.assertRaises(LookupFailed):
                finished(recorded.query(*one))
