"""``mailserver replay --since``: whose fate would have been another, by what was found of him then."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from mailserver.cli.kept_text import as_it_came
from mailserver.observe import RoadStore, Steps
from mailserver.testing import MailCase
from tests.cli.support import run

HEAD = """\
hostname = "mx.example.org"
data = "data"
[[listen]]
service = "mx"
endpoint = "tcp:0:interface=127.0.0.1"
[accounts]
path = "accounts.toml"
[domain."example.org"]
"""
SPF = '[[filter]]\nuse = "spf"\n'
SCORES = '[[filter]]\nuse = "scores"\njunk = {junk}\nrefuse = {refuse}\n'
CLAMAV = '[[filter]]\nuse = "clamav"\n'
DENY = '[[filter]]\nuse = "denylist"\nsenders = ["x@bad.example"]\n'
LISTS = '[[filter]]\nuse = "lists"\n'


class Reweighed(MailCase):
    """The mail comes in under `old`, in memory; its road is written into the file that the command reads."""

    def came(self, old: str, *mails: tuple[str, tuple[str, ...]], keep: bool = False) -> None:
        self.folder = Path(self.mktemp()).absolute()
        os.makedirs(self.folder / "data")
        (self.folder / "accounts.toml").write_text("".join(f'[account."{one}@example.org"]\n' for one in ("alice", "bob", "carol")))
        (self.folder / "old.toml").write_text(HEAD + old)
        self.resolver.zones |= {"bad.example": {"TXT": ["v=spf1 -all"]}, "good.example": {"TXT": ["v=spf1 +all"]}}
        self.serve(old)
        for sender, recipients in mails:
            self.send(f"From: {sender}\nSubject: x\n\nbody\n".encode(), sender=sender, recipients=recipients)
        self.write_roads()
        if keep:
            self.write_maildirs()

    def write_roads(self) -> None:
        roads = RoadStore(str(self.folder / "data" / "explain.db"))
        moments = iter([one["time"] for one in self.server.steps_seen])
        steps = Steps(roads=roads, seconds=lambda: next(moments, time.time()))
        for one in self.server.steps_seen:
            steps.note(one["id"], one["step"], **{name: value for name, value in one.items() if name not in ("time", "id", "step")})
        steps.flush()
        roads.close()

    def write_maildirs(self) -> None:
        for taken in self.taken:
            new = self.folder / "data/mail/example.org/alice/new"
            os.makedirs(new, exist_ok=True)
            front = b"Return-Path: <x>\nDelivered-To: alice@example.org\nX-Spam-Flag: YES\n"
            (new / f"1800000000.{taken.id}_7.host").write_bytes(front + taken.octets.replace(b"\r\n", b"\n"))

    def weighed(self, new: str, code: int | None = None, *more: str) -> Any:
        (self.folder / "new.toml").write_text(HEAD + new)
        said = run("replay", "--since", "1d", "--json", "--config", str(self.folder / "new.toml"),
                   "--against", str(self.folder / "old.toml"), *more)  # fmt: skip
        self.assertEqual(said.err, "")
        found = said.json
        self.assertEqual(said.code, (1 if found["changes"] else 0) if code is None else code)
        return found

    def changes(self, found: Any) -> list[tuple[str, str, str]]:
        return [(one["recipient"].partition("@")[0], one["before"], one["after"]) for one in found["changes"]]

    def test_another_threshold_changes_the_fate_of_those_alone_whom_it_concerns(self) -> None:
        bad, good = ("x@bad.example", ("alice@example.org", "bob@example.org")), ("x@good.example", ("alice@example.org",))
        self.came(SPF + SCORES.format(junk=6, refuse=15), bad, good)
        found = self.weighed(SPF + SCORES.format(junk=2, refuse=15))
        self.assertEqual((found["messages"], found["recipients"], found["cannot_tell"]), (2, 3, {}))
        self.assertEqual(self.changes(found), [(who, "delivered", "put into Junk") for who in ("alice", "bob")])
        self.assertEqual(found["changes"][0]["sum"], 2)
        self.assertEqual(self.changes(self.weighed(SPF + SCORES.format(junk=1, refuse=2))), [(who, "delivered", "refused") for who in ("alice", "bob")])
        self.assertEqual(self.weighed(SPF + SCORES.format(junk=6, refuse=15))["changes"], [])

    def test_what_was_refused_would_be_taken(self) -> None:
        self.came(SPF + SCORES.format(junk=1, refuse=2), ("x@bad.example", ("alice@example.org",)))
        self.assertEqual(self.changes(self.weighed(SPF + SCORES.format(junk=6, refuse=15))), [("alice", "refused", "delivered")])

    def test_who_ended_it_early_has_kept_others_from_being_asked(self) -> None:
        self.came(DENY + SPF + SCORES.format(junk=6, refuse=15), ("x@bad.example", ("alice@example.org",)))
        found = self.weighed(SPF + SCORES.format(junk=6, refuse=15))
        self.assertEqual([one["cannot_tell"] for one in found["changes"]], [["whoever comes after denylist"]])
        self.assertEqual(found["changes"][0]["before"], "refused")

    def test_a_filter_that_is_new_cannot_tell_where_the_text_is_gone_and_one_in_the_shadow_does_not_count(self) -> None:
        self.came(SPF + SCORES.format(junk=2, refuse=15), ("x@bad.example", ("alice@example.org",)))
        found = self.weighed(SPF + CLAMAV + DENY + SCORES.format(junk=2, refuse=15))
        self.assertEqual((found["changes"], found["cannot_tell"]), ([], {"clamav": 1, "denylist": 1}))
        found = self.weighed(SPF + 'mode = "shadow"\n' + SCORES.format(junk=2, refuse=15))
        self.assertEqual(self.changes(found), [("alice", "put into Junk", "delivered")])

    def test_a_filter_that_is_new_is_asked_where_the_text_and_the_answers_of_the_dns_are_there(self) -> None:
        self.came(SPF + SCORES.format(junk=6, refuse=15), ("x@bad.example", ("alice@example.org",)), keep=True)
        answer = json.dumps({"name": "bad.example", "type": "TXT", "records": ["v=spf1 -all"]})
        self.server.note("dns bad.example", "dns", type="TXT", answer=[answer[:9], answer[9:]])
        none = json.dumps({"name": "client.example.net", "type": "TXT", "records": [], "exists": False})
        self.server.note("dns client.example.net", "dns", type="TXT", answer=[none])
        os.unlink(self.folder / "data" / "explain.db")
        self.write_roads()
        found = self.weighed(SPF + CLAMAV + DENY + SCORES.format(junk=6, refuse=15))
        self.assertEqual((self.changes(found), found["cannot_tell"]), ([("alice", "delivered", "refused")], {"clamav": 1}))

    def test_a_message_that_came_is_replayed_by_its_id_with_the_dns_of_then(self) -> None:
        self.came(SPF + SCORES.format(junk=6, refuse=15), ("x@bad.example", ("alice@example.org",)), keep=True)
        answers = {"bad.example": {"records": ["v=spf1 -all"]}, "client.example.net": {"records": [], "exists": False}}
        for name, answer in answers.items():
            self.server.note(f"dns {name}", "dns", type="TXT", answer=[json.dumps({"name": name, "type": "TXT", **answer})])
        os.unlink(self.folder / "data" / "explain.db")
        self.write_roads()
        id = self.taken[0].id
        (self.folder / "new.toml").write_text(HEAD + SPF + SCORES.format(junk=1, refuse=2))
        for config, code, outcome in (("old.toml", 0, "delivered"), ("new.toml", 1, "refused")):
            said = run("replay", id.lower(), "--json", "--config", str(self.folder / config))
            self.assertEqual((said.code, said.json["verdicts"][0]["outcome"]), (code, outcome), said)
        for words, code in (((id, "--ip", "192.0.2.1"), 2), (("0" * 16,), 1)):
            self.assertEqual(run("replay", *words, "--config", str(self.folder / "old.toml")).code, code)
        os.unlink(next((self.folder / "data/mail").rglob("*host")))
        said = run("replay", id, "--config", str(self.folder / "old.toml"))
        self.assertEqual((said.code, said.out), (1, ""))
        self.assertIn("not there any more", said.err)

    def test_nothing_is_changed_by_it(self) -> None:
        self.came(SPF + SCORES.format(junk=6, refuse=15), ("x@bad.example", ("alice@example.org",)), keep=True)
        self.weighed(SPF + LISTS + SCORES.format(junk=1, refuse=15))
        before = {str(one): one.stat().st_mtime_ns for one in sorted((self.folder / "data").rglob("*"))}
        self.weighed(SPF + LISTS + SCORES.format(junk=1, refuse=15))
        self.assertEqual({str(one): one.stat().st_mtime_ns for one in sorted((self.folder / "data").rglob("*"))}, before)

    def test_the_text_names_whose_fate_changes_and_who_cannot_tell(self) -> None:
        self.came(SPF + SCORES.format(junk=6, refuse=15), ("x@bad.example", ("alice@example.org",)))
        (self.folder / "new.toml").write_text(HEAD + SPF + CLAMAV + SCORES.format(junk=2, refuse=15))
        said = run("replay", "--since", "1d", "--config", str(self.folder / "new.toml"), "--against", str(self.folder / "old.toml"))
        for words in ("alice@example.org", "delivered", "put into Junk", "1 messages, 1 copies weighed; 1 would", "cannot tell: clamav, of 1 copies"):
            self.assertIn(words, said.out)

    def test_a_wrong_line_or_no_roads_are_told(self) -> None:
        self.came(SPF, ("x@good.example", ("alice@example.org",)))
        config = ("--config", str(self.folder / "old.toml"))
        for words in (("--since", "7d", "m.eml"), ("--since", "soon"), ("--since", "7d", "--ip", "192.0.2.1"), ("m.eml", "--against", "x"), ()):
            self.assertEqual(run("replay", *words, *config).code, 2, words)
        os.unlink(self.folder / "data" / "explain.db")
        self.assertEqual(run("replay", "--since", "7d", *config).code, 74)


class AsItCame(MailCase):
    def test_what_stands_above_our_received_field_goes_with_it(self) -> None:
        ours = b"Received: from a by mx.example.org\r\n\twith ESMTP id 0123456789ABCDEF; today\r\n"
        rest = b"Received: from b by c id 0000000000000000\r\nSubject: x\r\n\r\nReceived: id 0123456789ABCDEF\r\n"
        self.assertEqual(as_it_came(b"Return-Path: <>\r\nX-Spam-Flag: YES\r\n" + ours + rest, "0123456789ABCDEF"), rest)
        self.assertIsNone(as_it_came(rest, "0123456789ABCDEF"))
        self.assertEqual(as_it_came(ours, "0123456789ABCDEF"), b"")
