"""rspamd: what it is asked, what its answers mean, and what happens where there is none."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailserver.config import ConfigurationError
from mailserver.filters.rspamd import factory, request_for
from mailserver.filters.rspamd_answer import edits_of, is_whole, read_answer
from mailserver.filters.scanner_client import ScannerFailed
from mailserver.mail.answers import Defer, Discard, Pass, Quarantine, Refuse
from mailserver.mail.content import Content
from mailserver.mail.edits import AddHeader, DropHeader, apply_edits
from mailserver.mail.envelope import TLSFacts
from mailserver.plugins.catalogue import PluginError
from mailserver.testing import FilterCase
from tests.any_octets import any_octets
from tests.filters.scanner import FakeScanner, RealScanner, ScannerCase, cutting, silent, turn
from tests.requires import require_tool


def http(said: Any, status: str = "200 OK") -> bytes:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def said(action: str = "no action", score: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"is_skipped": False, "action": action, "score": score, "required_score": 15.0, "symbols": {}, "messages": {}, **more}


def answering(answer: bytes, seen: list[tuple[list[str], bytes]] | None = None) -> Callable[[FakeScanner], None]:
    def heard(scanner: FakeScanner) -> None:
        head, end, body = scanner.octets.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        length = next((int(line.split(": ")[1]) for line in lines if line.startswith("Content-Length: ")), 0)
        if end and len(body) == length:
            if seen is not None:
                seen.append((lines, body))
            scanner.say(answer)

    return heard


class Questions(FilterCase):
    def test_what_is_known_of_the_envelope_is_told(self) -> None:
        peer = self.peer(login="alice", tls=TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        envelope = self.envelope(None, ["a@example.org", "b@example.org"], peer=peer)
        lines = request_for(envelope, 123, ["client.example.net"], "mx.example.org").decode().split("\r\n")
        self.assertEqual(
            lines,
            ["POST /checkv2 HTTP/1.0", "Content-Length: 123", "IP: 192.0.2.25", "Helo: client.example.net", "Hostname: client.example.net",
             "From: <>", "Rcpt: <a@example.org>", "Rcpt: <b@example.org>", "User: alice", f"Queue-Id: {envelope.id}",
             "MTA-Name: mx.example.org", "TLS-Version: TLSv1.3", "TLS-Cipher: TLS_AES_256_GCM_SHA384", "", ""],
        )  # fmt: skip

    def test_nothing_of_a_peers_begins_a_field_and_what_is_not_known_is_left_out(self) -> None:
        request = request_for(self.envelope(peer=self.peer("unix", hello="x\r\nUser: root\r\n\r\n")), 1, [], "mx")
        self.assertIn(b"\r\nHelo: x??User: root????\r\n", request)
        self.assertEqual(request.count(b"\r\n\r\n"), 1)
        for name in (b"\r\nIP:", b"\r\nHostname:", b"\r\nUser:", b"\r\nTLS-Version:"):
            self.assertNotIn(name, request)


    def test_no_more_recipients_are_told_than_rspamd_takes(self) -> None:
        many = [f"{'a' * 60}{n}@example.org" for n in range(2000)]
        request = request_for(self.envelope("s@example.net", many), 1, [], "mx")
        self.assertTrue(40_000 < len(request) < 50_000, len(request))
        self.assertIn(f"\r\nRcpt: <{many[0]}>\r\nRcpt: <{many[1]}>\r\n".encode(), request)


class Answers(FilterCase):
    def test_symbols_come_by_their_weight_and_without_control_characters(self) -> None:
        symbols = {"A": {"score": 0.1, "options": ["x", 5, "y\x1b[2J"]}, "B": {"score": -7}, "C": 3, "D\r\n": {"score": 2}}
        found = read_answer(http(said(symbols=symbols))).symbols
        self.assertEqual([(one.name, one.score, one.words) for one in found], [("B", -7, ""), ("D?", 2, ""), ("A", 0.1, "x, y?[2J"), ("C", 0, "")])

    def test_what_is_no_answer_is_a_failure(self) -> None:
        for octets in (
            b"", b"nonsense", b"HTTP/1.1 200 OK\r\n\r\n{}", http({}), http([]), http(b"{"), http(b"[" * 100_000), http(said(), "500 no"),
            http({"action": 5, "score": 1}), http({"action": "reject"}), http(said(score=float("nan"))), http(said(score=10**400)),
            http(said(symbols={"A": {"score": "x"}})), http(said(score=True)),
        ):  # fmt: skip
            with self.assertRaises(ScannerFailed):
                read_answer(octets)

    def test_an_answer_is_whole_with_its_last_octet(self) -> None:
        whole = http(said())
        self.assertTrue(is_whole(whole))
        for end in range(len(whole)):
            self.assertFalse(is_whole(whole[:end]))

    @settings(max_examples=40)
    @given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)))
    def test_values_of_any_type_are_an_answer_or_a_failure(self, value: Any) -> None:
        for more in (
            {"milter": value}, {"milter": {"add_headers": value, "remove_headers": value}}, {"symbols": value}, {"messages": value},
            {"milter": {"add_headers": {"X": value}, "remove_headers": {"X": value}}, "subject": value, "symbols": {"A": value}},
        ):  # fmt: skip
            try:
                answer = read_answer(http(said(**more)))
            except ScannerFailed:
                continue
            content = self.content(b"X: 1\nX: 2\nSubject: x\n\nx\n")
            apply_edits(content, edits_of(answer, content.headers, utf8=False))  # type: ignore[arg-type]

    @given(any_octets())
    def test_any_octets_are_a_failure(self, octets: bytes) -> None:
        with self.assertRaises(ScannerFailed):
            read_answer(http(b"x" + octets))

    def edited(self, message: bytes, *, utf8: bool = False, subject: str = "", **milter: Any) -> bytes:
        content = self.content(message)
        edits: Any = edits_of(read_answer(http(said(milter=milter, subject=subject))), content.headers, utf8=utf8)
        return b"".join(apply_edits(content, edits).chunks()).partition(b"\r\n\r\n")[0].replace(b"\r\n", b"|")

    def test_fields_are_removed_by_name_and_by_place_and_added_in_front(self) -> None:
        message = b"X: 1\nY: a\nX: 2\nX: 3\nY: b\n\nbody\n"
        self.assertEqual(self.edited(message, remove_headers={"x": 0}), b"Y: a|Y: b")
        self.assertEqual(self.edited(message, remove_headers={"X": [1, -1, 3, 9, -9], "Y": 2, "Z": 1}), b"Y: a|X: 2")
        self.assertEqual(self.edited(message, remove_headers={"X": [1, 0]}), b"Y: a|Y: b")
        trace = b"Received: ours\nReceived: 1\nReceived: 2\n\n"
        for places, left in ((0, b""), (1, b"|Received: 2"), (-1, b"|Received: 1"), (-3, b"|Received: 1|Received: 2"), (3, b"|Received: 1|Received: 2")):
            self.assertEqual(self.edited(trace, remove_headers={"Received": places}), b"Received: ours" + left)
        added = {"X-A": "a\n\tb", "X-B": {"value": "c", "order": 1}, "X-C": ["d", {"value": "e"}], "bad name": "x", "X-D": "\x00\r\nf: g"}
        self.assertEqual(self.edited(b"Z: 0\n\n", add_headers=added), b"X-D: f: g|X-C: e|X-C: d|X-B: c|X-A: a|\tb|Z: 0")

    def test_a_value_beyond_ascii_is_encoded_unless_the_message_may_have_it(self) -> None:
        self.assertEqual(self.edited(b"Subject: x\n\n", subject="[Spam] ü"), b"Subject: =?utf-8?b?W1NwYW1dIMO8?=")
        self.assertEqual(self.edited(b"Subject: x\n\n", utf8=True, subject="[Spam] ü"), "Subject: [Spam] ü".encode())

    def test_fields_are_bounded(self) -> None:
        answer = read_answer(http(said(milter={"add_headers": {"X": ["y" * 900] * 1000}, "remove_headers": {"X": [1] * 1000}})))
        self.assertLess(len(answer.added), 51)
        self.assertLess(len(answer.removed), 51)
        self.assertEqual(edits_of(read_answer(http(said(milter={"add_headers": {"X": "y" * 2000}}))), self.content().headers, utf8=False), [])


class Judgements(ScannerCase):
    def built(self, **options: Any) -> Any:
        return self.build(factory, endpoint=self.endpoint, client_names=False, **options)

    async def judged(self, component: Any, *arguments: Any, **more: Any) -> Any:
        self.scanner.heard = answering(http(said(*arguments, **more)))
        return await component.judge_content(self.envelope(), self.content())

    async def test_each_action_means_what_the_options_say(self) -> None:
        usual = self.built()
        other = self.built(reject="discard", soft_reject="pass", rewrite_subject="pass", add_header="refuse", greylist="defer", no_action="quarantine")
        for action, first, second in (
            ("reject", Refuse, Discard),
            ("soft reject", Defer, Pass),
            ("rewrite subject", Quarantine, Pass),
            ("add header", Quarantine, Refuse),
            ("greylist", Pass, Defer),
            ("no action", Pass, Quarantine),
            ("of our own", Pass, Quarantine),
            ("quarantine", Quarantine, Quarantine),
            ("discard", Discard, Discard),
        ):
            self.assertEqual([type(await self.judged(one, action)) for one in (usual, other)], [first, second], action)
            self.assertEqual(self.metrics["tested"].figures()[f'scans{{action="{action}"}}'], 2)

    async def test_the_score_and_the_symbols_are_findings(self) -> None:
        symbols = {f"S{n:03}": {"score": n} for n in range(200)}
        verdict = await self.judged(self.built(symbols=3), "reject", 17.25, symbols=symbols, messages={"smtp_message": "Gtube pattern"})
        self.assertEqual(verdict.why, "rspamd: reject, score 17.25: Gtube pattern")
        self.assertEqual([(one.name, one.score) for one in verdict.findings], [("rspamd", 17.25), ("rspamd.S199", 0), ("rspamd.S198", 0), ("rspamd.S197", 0)])
        self.assertEqual({**verdict.findings[0].properties}, {"action": "reject", "required": 15.0})
        self.assertEqual(verdict.findings[1].properties["score"], 199)
        judgement = await self.verdict(self.built(symbols=99))
        self.assertEqual((len(judgement.findings), judgement.answers[0].error), (100, ""))

    async def test_the_message_is_asked_about_once_and_its_edits_wait(self) -> None:
        component = self.built()
        self.scanner.heard = answering(http(said(milter={"add_headers": {"X-Test": "yes"}})))
        one, other = self.envelope(), self.envelope()
        await component.judge_content(one, self.content())
        self.assertEqual(await component.edits(other, self.content()), ())
        self.assertEqual(await component.edits(one, self.content()), [AddHeader("X-Test", "yes")])
        self.assertEqual(await component.edits(one, self.content()), ())
        self.assertEqual(self.scanner.made, 1)
        component = self.built(edits=False)
        await component.judge_content(one, self.content())
        self.assertEqual(await component.edits(one, self.content()), ())

    async def test_a_large_message_and_one_in_a_file_come_as_they_are(self) -> None:
        seen: list[Any] = []
        self.scanner.heard = answering(http(said()), seen)
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"y" * 300_000)
        contents = [Content.of(b"x" * 3_000_000), Content.at(path, 300_000, prefix=b"Received: x\r\n")]
        for content in contents:
            self.assertIs(type(await self.built().judge_content(self.envelope(), content)), Pass)
        self.assertEqual([body for _, body in seen], [b"".join(content.chunks()) for content in contents])

    async def test_one_that_is_too_large_is_not_scanned_and_says_so(self) -> None:
        for larger, kind in (("pass", Pass), ("quarantine", Quarantine), ("refuse", Refuse)):
            verdict = await self.built(size=100, larger=larger).judge_content(self.envelope(), Content.of(b"x" * 101))
            self.assertEqual((type(verdict), verdict.findings[0].name), (kind, "not-scanned"))
        self.assertEqual(self.scanner.made, 0)

    async def test_a_client_without_a_name_is_asked_about_all_the_same(self) -> None:
        seen: list[Any] = []
        self.scanner.heard = answering(http(said()), seen)
        component = self.build(factory, endpoint=self.endpoint)
        self.resolver.failing.add("25.2.0.192.in-addr.arpa")
        await component.judge_content(self.envelope(), self.content())
        self.resolver.failing.clear()
        self.resolver.zones |= {"25.2.0.192.in-addr.arpa": {"PTR": ["client.example.net"]}, "client.example.net": {"A": ["192.0.2.25"]}}
        await component.judge_content(self.envelope(), self.content())
        self.assertEqual(["Hostname: client.example.net" in lines for lines, _ in seen], [False, True])

    async def test_one_that_says_nonsense_or_dies_defers_or_passes_as_configured(self) -> None:
        whole = http(said("reject", 20))
        for heard in (answering(b"nonsense\r\n\r\n"), answering(http(b"{")), answering(whole[:-1]), answering(b""), answering(http(said(), "503 busy")),
                      answering(http(b" " * 600_000)), cutting):  # fmt: skip
            self.scanner.heard = heard
            for content in (self.content(), Content.of(b"x" * 2_000_000)):
                self.assertIs(type((await self.verdict(self.built(), content)).verdict), Defer)
            self.assertIs(type((await self.verdict(self.built(), on_error="skip")).verdict), Pass)
        self.assertIs(type((await self.verdict(self.build(factory, endpoint="tcp:127.0.0.1:1", client_names=False))).verdict), Defer)

    async def test_one_that_is_silent_is_late_and_its_connection_is_cut(self) -> None:
        self.scanner.heard = silent
        scan = Deferred.fromCoroutine(self.built(timeout=7).judge_content(self.envelope(), self.content()))
        while not self.scanner.open:
            await turn()
        self.clock.advance(7)
        await self.assertFailure(scan, ScannerFailed)
        await self.closed()

    def test_options_are_checked(self) -> None:
        for options in ({"endpoint": "nothing:at:all"}, {"reject": "no"}, {"symbols": 100}, {"timeout": 0}):
            with self.assertRaises((ConfigurationError, PluginError)):
                self.build(factory, **options)


CONFIGURATION = """
options {{
  filters = "regexp"; explicit_modules = []; allow_raw_input = true; rrd = ""; disable_hyperscan = true;
  url_tld = "{folder}/suffixes";
  pidfile = "{folder}/pid"; tempdir = "{folder}"; hs_cache_dir = "{folder}/"; control_socket = "{folder}/control mode=0600";
  dynamic_conf = "{folder}/dynamic"; history_file = "{folder}/history"; cache_file = "{folder}/cache"; stats_file = "{folder}/stats";
  dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.01; retransmits = 1; }}
}}
logging {{ type = "console"; level = "error"; }}
lua = "{folder}/rules.lua";
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; mime = true; }}
metric "default" {{ actions {{ reject = 15; add_header = 6; greylist = 4; rewrite_subject = 8; }} unknown_weight = 1.0; }}
"""
RULES = """
local function subject_says(words)
  return function(task)
    return (task:get_subject() or ""):find(words, 1, true) ~= nil, 1.0, "because of it"
  end
end
rspamd_config.OFFER = { callback = subject_says("offer"), score = 6.5 }
rspamd_config.FRAUD = { callback = subject_says("fraud"), score = 20 }
rspamd_config.FACTS = { score = 0.0, callback = function(task)
  task:set_milter_reply({ add_headers = { ["X-Test"] = "yes" }, remove_headers = { ["X-Old"] = 0 } })
  local found = { task:get_helo() or "-", tostring(task:get_from_ip()), task:get_user() or "-", task:get_queue_id() or "-", task:get_hostname() or "-" }
  for _, sender in ipairs(task:get_from("smtp") or {}) do table.insert(found, sender.addr) end
  for _, recipient in ipairs(task:get_recipients("smtp") or {}) do table.insert(found, recipient.addr) end
  return true, 1.0, table.concat(found, " ")
end }
"""


class WithRspamd(ScannerCase):
    """The real one, with three rules and without a network."""

    async def test_its_rules_judge_and_it_is_missed_when_it_hangs_or_is_gone(self) -> None:
        rspamd = RealScanner(self)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        rspamd.write("rules.lua", RULES)
        rspamd.write("suffixes", "org\nnet\n")  # compiling the whole list takes ten seconds
        path = rspamd.write("rspamd.conf", CONFIGURATION.format(folder=rspamd.folder, port=port))

        def is_there() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        process = await rspamd.start([require_tool("rspamd"), "-f", "-i", "-c", path], is_there)
        component = self.build(factory, endpoint=f"tcp:127.0.0.1:{port}", client_names=False, timeout=20)
        envelope = self.envelope("s@example.net", ["a@example.org", "b@example.org"], peer=self.peer(login="alice"))
        verdict = await component.judge_content(envelope, self.content(b"Subject: hello\nX-Old: 1\n\nHello\n"))
        self.assertIs(type(verdict), Pass)
        facts = next(one for one in verdict.findings if one.name == "rspamd.FACTS")
        self.assertEqual(facts.evidence, f"0 client.example.net 192.0.2.25 alice {envelope.id} - s@example.net a@example.org b@example.org")
        edits = await component.edits(envelope, self.content(b"Subject: hello\nX-Old: 1\n\nHello\n"))
        self.assertEqual(edits, [DropHeader("X-Old"), AddHeader("X-Test", "yes")])
        for subject, kind in ((b"an offer", Quarantine), (b"fraud", Refuse)):
            verdict = await component.judge_content(self.envelope(), self.content(b"Subject: " + subject + b"\n\nHello\n"))
            self.assertIs(type(verdict), kind)
        many = self.envelope("s@example.net", [f"{'a' * 60}{n}@{'b' * 60}.example" for n in range(1000)])
        self.assertIs(type(await component.judge_content(many, self.content())), Pass)
        large = b"Subject: fraud\r\n\r\n" + b"x" * 70 + b"\r\n" + b"y" * 5_000_000
        self.assertIs(type(await component.judge_content(self.envelope(None), Content.of(large))), Refuse)

        process.send_signal(signal.SIGSTOP)
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            children = [int(one) for one in file.read().split()]
        for child in children:
            os.kill(child, signal.SIGSTOP)
        late = Deferred.fromCoroutine(component.judge_content(self.envelope(), self.content()))
        await turn(0.05)
        self.clock.advance(20)
        await self.assertFailure(late, ScannerFailed)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while is_there():
            await turn()
        self.assertIs(type((await self.verdict(component)).verdict), Defer)
