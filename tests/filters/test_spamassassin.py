"""SpamAssassin: what spamd is given, what its answers mean, and what happens where there is none."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from hypothesis import given
from twisted.internet.defer import Deferred

from mailserver.config import ConfigurationError
from mailserver.filters.scanner_client import ScannerFailed
from mailserver.filters.spamassassin import SpamReport, _is_whole, factory, read_report, trace_for
from mailserver.mail.answers import Defer, Pass, Quarantine, Refuse
from mailserver.mail.content import Content
from mailserver.plugins.catalogue import PluginError
from mailserver.testing import FilterCase
from tests.any_octets import any_octets
from tests.filters.scanner import FakeScanner, RealScanner, ScannerCase, cutting, silent, turn
from tests.requires import require_tool

GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


def report(score: str = "7.5", rules: bytes = b"A,B_2", spam: str = "True") -> bytes:
    return f"SPAMD/1.1 0 EX_OK\r\nContent-length: {len(rules)}\r\nSpam: {spam} ; {score} / 5.0\r\n\r\n".encode() + rules


def answering(answer: bytes, seen: list[bytes] | None = None) -> Callable[[FakeScanner], None]:
    def heard(scanner: FakeScanner) -> None:
        head, end, body = scanner.octets.partition(b"\r\n\r\n")
        if end and len(body) == int(head.split(b"Content-length: ")[1].split(b"\r\n")[0]):
            if seen is not None:
                seen.append(scanner.octets)
            scanner.say(answer)

    return heard


class Answers(FilterCase):
    def test_each_has_its_meaning(self) -> None:
        self.assertEqual(read_report(report()), SpamReport(True, 7.5, 5.0, ("A", "B_2")))
        self.assertEqual(read_report(report("-1.5", b"", "False")), SpamReport(False, -1.5, 5.0, ()))
        self.assertEqual(read_report(report(rules=b"A,x y,\x1b[2J,B")).rules, ("A", "B"))
        for nonsense in (
            b"", b"nonsense\r\n", b"SPAMD/1.0 76 Bad header line: x\r\n", b"SPAMD/1.1 79 Timeout\r\n", report("nan"), report("1e9"), report()[:-1],
            report(spam="Perhaps"), b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\n\r\n", b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1 / 5\r\n\r\n",
        ):  # fmt: skip
            with self.assertRaises(ScannerFailed):
                read_report(nonsense)

    @given(any_octets())
    def test_any_octets_are_an_answer_or_a_failure(self, octets: bytes) -> None:
        for answer in (octets, b"SPAMD/1.1 0 EX_OK\r\n" + octets, b"SPAMD/1.1 76 " + octets + b"\r\n", report(rules=octets)):
            try:
                read_report(answer)
            except ScannerFailed as error:
                self.assertTrue(str(error).isprintable())

    def test_the_trace_fields_tell_the_peer_and_the_sender(self) -> None:
        trace = trace_for(self.envelope(), "mx.example.org").decode()
        self.assertTrue(trace.startswith("Return-Path: <sender@example.net>\r\nReceived: from client.example.net ([192.0.2.25])\r\n\tby mx.example.org"), trace)
        self.assertTrue(trace_for(self.envelope(None), "mx").startswith(b"Return-Path: <>\r\n"))

    def test_options_are_checked(self) -> None:
        for options in ({"endpoint": "nothing:at:all"}, {"user": "a\r\nb"}, {"user": "a\n"}, {"rules": 99}, {"timeout": 0}):
            with self.assertRaises((ConfigurationError, PluginError)):
                self.build(factory, **options)


    def test_an_answer_is_whole_with_its_last_octet_and_an_error_with_its_first_line(self) -> None:
        whole = report()
        self.assertEqual([_is_whole(whole[:end]) for end in range(len(whole) + 1)], [False] * len(whole) + [True])
        for octets, expected in (
            (b"SPAMD/1.0 76 Bad header line: x\r\n", True), (b"nonsense\n", True), (b"SPAMD/1.1", False),
            (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1 / 5\r\n\r\n", True), (b"SPAMD/1.1 0 EX_OK\r\n", False),
        ):  # fmt: skip
            self.assertIs(_is_whole(octets), expected, octets)


class Scans(ScannerCase):
    def built(self, **options: Any) -> Any:
        return self.build(factory, endpoint=self.endpoint, **options)

    async def test_the_score_is_a_finding_and_so_is_each_rule(self) -> None:
        seen: list[bytes] = []
        self.scanner.heard = answering(report(), seen)
        envelope, content = self.envelope(), self.content()
        verdict = await self.built(user="alice").judge_content(envelope, content)
        self.assertIs(type(verdict), Pass)
        self.assertEqual([(one.name, one.score) for one in verdict.findings], [("spamassassin", 7.5), ("spamassassin.A", 0), ("spamassassin.B_2", 0)])
        self.assertEqual(verdict.findings[0].evidence, "7.5 of 5: A, B_2")
        self.assertEqual({**verdict.findings[0].properties}, {"required": 5.0, "spam": True})
        head, _, body = seen[0].partition(b"\r\n\r\n")
        self.assertEqual(head.split(b"\r\n")[::2], [b"SYMBOLS SPAMC/1.5", b"User: alice"])
        self.assertEqual(body, trace_for(envelope, "mail.example.test") + b"".join(content.chunks()))

    async def test_as_many_rules_are_findings_as_the_core_takes(self) -> None:
        self.scanner.heard = answering(report(rules=b",".join([b"RULE_%d" % n for n in range(500)])))
        judgement = await self.verdict(self.built(rules=98))
        self.assertEqual((len(judgement.findings), judgement.answers[0].error), (99, ""))

    async def test_one_that_is_too_large_is_not_scanned_and_says_so(self) -> None:
        for larger, kind in (("pass", Pass), ("quarantine", Quarantine), ("refuse", Refuse)):
            verdict = await self.built(larger=larger).judge_content(self.envelope(), Content.of(b"x" * 600_000))
            self.assertEqual((type(verdict), verdict.findings[0].name), (kind, "not-scanned"))
        self.assertEqual(self.scanner.made, 0)

    async def test_one_that_says_nonsense_or_dies_defers_or_passes_as_configured(self) -> None:
        for heard in (answering(b"nonsense\r\n"), answering(b"x"), answering(b""), answering(report()[:-1]), answering(b"SPAMD/1.1 79 Timeout\r\n"),
                      answering(report(rules=b"x" * 200_000)), cutting):  # fmt: skip
            self.scanner.heard = heard
            for content in (self.content(), Content.of(b"x" * 500_000)):
                self.assertIs(type((await self.verdict(self.built(), content)).verdict), Defer)
            self.assertIs(type((await self.verdict(self.built(), on_error="skip")).verdict), Pass)
        self.assertIs(type((await self.verdict(self.build(factory, endpoint="tcp:127.0.0.1:1"))).verdict), Defer)

    async def test_one_that_says_more_than_it_may_is_heard_no_longer(self) -> None:
        self.scanner.heard = lambda scanner: scanner.transport.write(b"SPAMD/1.1 0 EX_OK\r\n" + b"x" * 200_000)
        asked = self.built().judge_content(self.envelope(), self.content())
        self.assertIn("longer than", str(await self.assertFailure(Deferred.fromCoroutine(asked), ScannerFailed)))
        await self.closed()

    async def test_one_that_is_silent_is_late_and_its_connection_is_cut(self) -> None:
        self.scanner.heard = silent
        scan = Deferred.fromCoroutine(self.built(timeout=7).judge_content(self.envelope(), self.content()))
        while not self.scanner.open:
            await turn()
        self.clock.advance(7)
        await self.assertFailure(scan, ScannerFailed)
        await self.closed()


RULES = rf"""
required_score 5
body GTUBE /{GTUBE.decode().replace("*", "[*]").replace(".", "[.]")}/
score GTUBE 1000
header OFFER Subject =~ /offer/
score OFFER 2.5
header PEER X-Spam-Relays-External =~ /^\[ ip=192\.0\.2\.25 .*helo=client\.example\.net/
score PEER 0.25
header SENDER EnvelopeFrom =~ /sender\@example\.net/
score SENDER 0.125
"""


class WithSpamd(ScannerCase):
    """The real one, with four rules and without a network."""

    async def test_its_rules_count_and_it_is_missed_when_it_hangs_or_is_gone(self) -> None:
        spamd = RealScanner(self)
        spamd.write("rules/10.cf", RULES)
        spamd.write("site/init.pre", "loadplugin Mail::SpamAssassin::Plugin::Check\n")
        endpoint = os.path.join(spamd.folder, "sock")
        command = [
            require_tool("spamd"), "-L", "-x", "-m", "1", "--min-children", "1", "--max-spare", "1", "-s", "stderr", "--socketpath", endpoint,
            "-r", f"{spamd.folder}/pid", "-C", f"{spamd.folder}/rules", "--siteconfigpath", f"{spamd.folder}/site", "-H", spamd.folder,
            *(["-u", "nobody"] if os.geteuid() == 0 else []),
        ]  # fmt: skip
        process = await spamd.start(command, lambda: os.path.exists(f"{spamd.folder}/pid") and os.path.exists(endpoint))
        component = self.build(factory, endpoint=f"unix:{endpoint}", timeout=20)

        async def found(message: bytes) -> tuple[float, list[str]]:
            verdict = await component.judge_content(self.envelope(), self.content(message))
            self.assertIs(type(verdict), Pass)
            return verdict.findings[0].score, [one.name for one in verdict.findings[1:]]

        ours = ["spamassassin.PEER", "spamassassin.SENDER"]
        self.assertEqual(await found(b"Subject: hello\n\nHello\n"), (0.4, ours))
        self.assertEqual(await found(b"Subject: an offer\n\nHello\n"), (2.9, ["spamassassin.OFFER", *ours]))
        self.assertEqual(await found(b"Subject: x\n\n" + GTUBE + b"\n"), (1000.4, ["spamassassin.GTUBE", *ours]))
        self.assertEqual((await found(b"Subject: an offer\n\n" + b"y" * 70 + b"\n" * 200_000))[0], 2.9)

        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            children = [int(one) for one in file.read().split()]
        for one in (process.pid, *children):
            os.kill(one, signal.SIGSTOP)
        late = Deferred.fromCoroutine(component.judge_content(self.envelope(), self.content()))
        await turn(0.05)
        self.clock.advance(20)
        await self.assertFailure(late, ScannerFailed)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.assertIs(type((await self.verdict(component)).verdict), Defer)
