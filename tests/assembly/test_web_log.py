"""The log lines of a web process: whoever has taken it over writes what he likes."""

from __future__ import annotations

import json
import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.web_log import LINES_PER_SECOND, WebLogReader, web_line
from mailserver.web.log import WebLog
from tests.any_octets import any_octets
from tests.processes.test_exchange import Sides


class Lines(SynchronousTestCase):
    def test_a_request_is_told_by_its_fields_alone(self) -> None:
        said = {"step": "request", "peer": "192.0.2.1", "path": "/a b", "status": 200, "why": "", "id": "01ABC", "time": "x", "more": [1]}
        self.assertEqual(web_line(json.dumps(said).encode()), (LogLevel.info, 'request peer=192.0.2.1 path="/a b" status=200'))

    def test_nothing_can_look_like_a_line_of_somebody_elses(self) -> None:
        for said in ({"step": "login_failed", "peer": "192.0.2.1"}, {"step": ["request"]}, ["request"], "request", {}, {"step": "request\nlogin_failed"}):
            self.assertIsNone(web_line(json.dumps(said).encode()))
        level, text = web_line(json.dumps({"text": "a\n2026-11-30T01:02:03.456Z x login_failed peer=192.0.2.1\x1b[2J"}).encode()) or (None, "")
        self.assertEqual((level, "\n" in text, "\x1b" in text, text[0]), (LogLevel.warn, False, False, '"'))
        self.assertNotIn("\n", (web_line(json.dumps({"step": "request", "peer": "x\ny", "path": "\u202e"}).encode()) or (None, "\n"))[1])

    @settings(max_examples=60)
    @given(any_octets() | st.text().map(lambda text: json.dumps({"step": "request", "peer": text}).encode()))
    def test_any_octets_are_one_printable_line_or_none(self, octets: bytes) -> None:
        found = web_line(octets)
        self.assertTrue(found is None or found[1].isprintable())


class Pipe(SynchronousTestCase):
    def setUp(self) -> None:
        self.sides, self.clock = Sides(), Clock()
        self.sides.callLater = self.clock.callLater  # type: ignore[attr-defined]
        ours, self.theirs = os.pipe()
        self.reader = WebLogReader(self.sides, ours)
        self.addCleanup(self.reader.connectionLost, None)

    def told(self) -> list[str]:
        with capturedLogs() as events:
            while self.reader in self.sides.readers:
                before = len(events)
                self.reader.doRead()
                if len(events) == before:
                    break
        return [str(formatEvent(one)) for one in events]

    def test_what_the_process_writes_is_told_and_its_end_is_seen(self) -> None:
        log = WebLog(-1)
        log.step("request", peer="before there is a pipe")
        log.relay(self.theirs)
        log.step("request", peer="192.0.2.1", path="/" + "x" * 5000, status=200)
        log({"log_level": LogLevel.warn, "log_format": "odd"})
        told = self.told()
        self.assertEqual([one[:30] for one in told], ["request peer=192.0.2.1 path=/x", '"odd\\n"'])
        os.close(self.theirs)
        self.reader.doRead()
        self.assertEqual((self.sides.readers, self.clock.getDelayedCalls()), (set(), []))

    def test_in_a_second_there_are_so_many_and_an_endless_line_is_none(self) -> None:
        line = b'{"step": "request"}\n'
        self.addCleanup(os.close, self.theirs)
        os.write(self.theirs, line * 600)
        self.assertEqual(len(self.told()), LINES_PER_SECOND)
        self.clock.advance(1)
        self.assertIn(self.reader, self.sides.readers)
        self.told()
        self.clock.advance(1)
        os.write(self.theirs, b"x" * 60000)
        self.told()
        for _ in range(8):
            self.reader.doRead()
        self.assertLess(len(self.reader._octets), 20000)
        os.write(self.theirs, b"\n" + line)
        self.assertEqual(self.told()[-1:], ["request"])


