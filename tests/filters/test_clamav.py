"""ClamAV: what clamd is given, what its answers mean, and what happens where there is none."""

from __future__ import annotations

import base64
import os
import signal
import struct
from typing import Any

from hypothesis import given
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from mailserver.config import ConfigurationError
from mailserver.filters.clamav import BeyondStreamLimit, factory, signature_in
from mailserver.filters.scanner_client import ScannerFailed
from mailserver.mail.answers import Defer, Pass, Quarantine, Refuse
from mailserver.mail.content import Content
from mailserver.plugins.catalogue import PluginError
from mailserver.testing import FilterCase
from tests.any_octets import any_octets
from tests.filters.scanner import EICAR, FakeScanner, RealScanner, ScannerCase, cutting, silent, turn
from tests.requires import require_tool


def message_in(octets: bytes) -> bytes | None:
    """What was streamed, None while the end is missing."""
    command, _, rest = octets.partition(b"\0")
    assert command == b"zINSTREAM"
    message = b""
    while len(rest) >= 4:
        (length,) = struct.unpack("!I", rest[:4])
        if length == 0:
            return message if rest == bytes(4) else None
        message, rest = message + rest[4 : 4 + length], rest[4 + length :]
    return None


def answering(answer: bytes, seen: list[bytes] | None = None) -> Any:
    def heard(scanner: FakeScanner) -> None:
        message = message_in(scanner.octets)
        if message is not None:
            if seen is not None:
                seen.append(message)
            scanner.say(answer)

    return heard


class Answers(FilterCase):
    def test_each_has_its_meaning(self) -> None:
        self.assertEqual(signature_in(b"stream: OK\0"), "")
        self.assertEqual(signature_in(b"stream: Win.Test.EICAR_HDB-1 FOUND\0"), "Win.Test.EICAR_HDB-1")
        self.assertEqual(signature_in(b"instream(127.0.0.1@1): A FOUND\0"), "A")
        with self.assertRaises(BeyondStreamLimit):
            signature_in(b"INSTREAM size limit exceeded. ERROR\0")
        for nonsense in (b"\0", b"OK\0", b"stream: ok\0", b"stream: Can't allocate memory ERROR\0", b"UNKNOWN COMMAND\0", b"\xff: \xff\0"):
            with self.assertRaises(ScannerFailed):
                signature_in(nonsense)

    def test_a_name_is_bounded_and_no_control_character_gets_out(self) -> None:
        name = signature_in(b"stream: A\x1b[31m\r\nB \xe2\x80\xae" + b"x" * 500 + b" FOUND\0")
        self.assertEqual(name, "A?[31m?B?" + "x" * 91)
        self.assertEqual(signature_in(b"stream:  FOUND\0"), "?")

    @given(any_octets())
    def test_any_octets_are_an_answer_or_a_failure(self, octets: bytes) -> None:
        try:
            self.assertTrue(signature_in(octets).isprintable())
        except (BeyondStreamLimit, ScannerFailed) as error:
            self.assertTrue(str(error).isprintable())

    def test_options_are_checked(self) -> None:
        self.build(factory)
        for options in ({"endpoint": "nothing:at:all"}, {"verdict": "discard"}, {"timeout": 0}, {"connections": 0}):
            with self.assertRaises((ConfigurationError, PluginError)):
                self.build(factory, **options)


class Scans(ScannerCase):
    def built(self, **options: Any) -> Any:
        return self.build(factory, endpoint=self.endpoint, **options)

    async def test_the_whole_message_is_streamed_and_a_clean_one_passes(self) -> None:
        seen: list[bytes] = []
        self.scanner.heard = answering(b"stream: OK\0", seen)
        contents = [self.content(), Content.of(b"x" * 300_000), Content.of(b""), self.in_file(200_000)]
        for content in contents:
            self.assertEqual(await self.built().judge_content(self.envelope(), content), Pass())
        self.assertEqual(seen, [b"".join(content.chunks()) for content in contents])
        await self.closed()

    def in_file(self, octets: int) -> Content:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(os.urandom(octets))
        return Content.at(path, octets, prefix=b"Received: x\r\n")

    async def test_a_virus_is_refused_whatever_a_list_says(self) -> None:
        self.scanner.heard = answering(b"stream: Eicar FOUND\0")
        verdict = await self.built().judge_content(self.envelope(), self.content())
        self.assertEqual((type(verdict), verdict.why), (Refuse, "virus: Eicar"))
        [finding] = verdict.findings
        self.assertEqual((finding.name, finding.evidence, finding.properties["signature"]), ("virus", "Eicar", "Eicar"))
        self.assertTrue(self.built().hard)
        verdict = await self.built(verdict="quarantine").judge_content(self.envelope(), self.content())
        self.assertEqual((type(verdict), verdict.why, verdict.findings[0].score), (Quarantine, "virus: Eicar", 5))

    async def test_a_signature_that_is_only_noted_is_a_score(self) -> None:
        component = self.built(noted=["PUA.*", "Heuristics.Phishing.*"], score=3)
        self.scanner.heard = answering(b"stream: PUA.Pdf.Odd FOUND\0")
        verdict = await component.judge_content(self.envelope(), self.content())
        self.assertEqual((type(verdict), verdict.findings[0].name, verdict.findings[0].score), (Pass, "virus", 3))
        self.scanner.heard = answering(b"stream: Heuristics.Broken FOUND\0")
        self.assertIs(type(await component.judge_content(self.envelope(), self.content())), Refuse)

    async def test_one_that_is_too_large_is_not_scanned_and_says_so(self) -> None:
        large = Content.of(b"x" * 2000)
        for larger, kind in (("pass", Pass), ("quarantine", Quarantine), ("refuse", Refuse)):
            verdict = await self.built(size=1000, larger=larger).judge_content(self.envelope(), large)
            self.assertEqual((type(verdict), verdict.findings[0].name, verdict.findings[0].properties["octets"]), (kind, "not-scanned", 2000))
        self.assertEqual(self.scanner.made, 0)

    async def test_a_limit_of_clamds_own_is_told_in_the_middle_of_the_message(self) -> None:
        def heard(scanner: FakeScanner) -> None:
            if len(scanner.octets) > 100_000:
                scanner.say(b"INSTREAM size limit exceeded. ERROR\0")
                scanner.factory.heard = silent

        self.scanner.heard = heard
        verdict = await self.built().judge_content(self.envelope(), Content.of(b"x" * 5_000_000))
        self.assertEqual((type(verdict), verdict.findings[0].name), (Pass, "not-scanned"))

    async def test_so_many_are_scanned_at_once(self) -> None:
        component = self.built(connections=2)
        answers = [Deferred.fromCoroutine(component.judge_content(self.envelope(), self.content())) for _ in range(5)]
        while len(self.scanner.open) < 2:
            await turn()
        await turn(0.01)
        self.assertEqual(self.scanner.made, 2)
        self.scanner.heard = answering(b"stream: OK\0")
        for scanner in list(self.scanner.open):
            while message_in(scanner.octets) is None:
                await turn()
            scanner.say(b"stream: OK\0")
        self.assertEqual(await gatherResults(answers), [Pass()] * 5)
        self.assertEqual(self.scanner.made, 5)

    async def test_a_scanner_that_says_nonsense_or_dies_defers_or_passes_as_configured(self) -> None:
        for heard in (answering(b"nonsense\0"), answering(b"stream: O"), answering(b""), answering(b"x" * 5000), cutting):
            self.scanner.heard = heard
            for content in (self.content(), Content.of(b"x" * 3_000_000)):
                self.assertIs(type((await self.verdict(self.built(), content)).verdict), Defer)
            self.assertIs(type((await self.verdict(self.built(), on_error="skip")).verdict), Pass)
        await self.closed()

    async def test_one_that_is_not_there_defers(self) -> None:
        for endpoint in ("unix:/nonexistent/clamd", "tcp:127.0.0.1:1"):
            judgement = await self.verdict(self.build(factory, endpoint=endpoint))
            self.assertIs(type(judgement.verdict), Defer)
            self.assertIn("cannot be reached", judgement.answers[0].error)

    async def test_one_that_is_silent_is_late_and_its_connection_is_cut(self) -> None:
        scan = Deferred.fromCoroutine(self.built(timeout=7, connections=1).judge_content(self.envelope(), Content.of(b"x" * 3_000_000)))
        while not self.scanner.open or len(self.scanner.open[0].octets) < 100_000:
            await turn()
        self.clock.advance(7)
        self.assertIn("within 7 seconds", str(await self.assertFailure(scan, ScannerFailed)))
        await self.closed()

    async def test_whoever_waits_no_longer_leaves_his_turn_and_no_connection(self) -> None:
        component = self.built(connections=1)
        scan = Deferred.fromCoroutine(component.judge_content(self.envelope(), self.content()))
        while not self.scanner.open:
            await turn()
        scan.cancel()
        await self.assertFailure(scan, CancelledError)
        self.scanner.heard = answering(b"stream: OK\0")
        self.assertEqual(await component.judge_content(self.envelope(), self.content()), Pass())
        await self.closed()

    async def test_a_message_that_cannot_be_read_is_no_clean_one(self) -> None:
        self.scanner.heard = answering(b"stream: OK\0")
        torn = self.in_file(1000)
        assert torn.path is not None
        os.truncate(torn.path, 500)
        await self.assertFailure(Deferred.fromCoroutine(self.built().judge_content(self.envelope(), torn)), OSError)
        await self.closed()


class WithClamd(ScannerCase):
    """The real one, with a database of one signature."""

    async def test_it_finds_eicar_and_only_that_and_is_missed_when_it_hangs_or_is_gone(self) -> None:
        clamd = RealScanner(self)
        clamd.write("db/eicar.ndb", f"Test.Eicar:0:*:{EICAR.hex()}\n")
        socket = os.path.join(clamd.folder, "clamd.sock")
        configuration = clamd.write(
            "clamd.conf",
            f"DatabaseDirectory {clamd.folder}/db\nLocalSocket {socket}\nForeground yes\nStreamMaxLength 1M\nTemporaryDirectory {clamd.folder}\n",
        )
        command = [require_tool("clamd"), "-c", configuration]
        process = await clamd.start(command, lambda: os.path.exists(socket))
        component = self.build(factory, endpoint=f"unix:{socket}", timeout=20)
        mime = b'MIME-Version: 1.0\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n'
        for infected in (b"Subject: x\n\n" + EICAR + b"\n", mime + base64.encodebytes(EICAR)):
            verdict = await component.judge_content(self.envelope(), self.content(infected))
            self.assertIs(type(verdict), Refuse)
            self.assertEqual(verdict.findings[0].properties["signature"], "Test.Eicar.UNOFFICIAL")
        self.assertEqual(await component.judge_content(self.envelope(), self.content()), Pass())
        self.assertEqual(await component.judge_content(self.envelope(), Content.of(b"x" * 900_000)), Pass())
        large = await component.judge_content(self.envelope(), Content.of(b"x" * 3_000_000))
        self.assertEqual((type(large), large.findings[0].name), (Pass, "not-scanned"))

        process.send_signal(signal.SIGSTOP)
        late = Deferred.fromCoroutine(component.judge_content(self.envelope(), self.content()))
        await turn(0.05)
        self.clock.advance(20)
        await self.assertFailure(late, ScannerFailed)
        process.send_signal(signal.SIGCONT)
        self.assertEqual(await component.judge_content(self.envelope(), self.content()), Pass())
        process.kill()
        process.wait()
        self.assertIs(type((await self.verdict(component)).verdict), Defer)
