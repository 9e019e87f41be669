"""DMARC reports of a whole server: counted, sent when the day is over, read, shown; and bombs that come by mail."""

from __future__ import annotations

import email
import email.policy
import gzip
import io
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from mailserver.control.client import CommandRefused, ask
from mailserver.mail.address import Address
from mailserver.trust.dmarc_report import report_xml
from mailserver.trust.dmarc_report_mail import report_message
from mailserver.trust.dmarc_report_reading import read_report
from tests.dns.unbound import Unbound
from tests.requires import require_tool
from tests.scenarios.support import BASIC, Answer, ScenarioCase, Server, Wire, wait_until
from tests.trust.dkimpy_peer import verified_by_dkimpy
from tests.trust.reports import REPORT, faults_by_schema

ZONES = {
    "example.net": [
        'example.net. 300 IN TXT "v=spf1 ip4:127.0.0.1 -all"',
        '_dmarc.example.net. 300 IN TXT "v=DMARC1; p=reject; rua=mailto:rua@example.net,mailto:r@third.example!10m,mailto:r@fourth.example"',
    ],
    "third.example": ['example.net._report._dmarc.third.example. 300 IN TXT "v=DMARC1"'],
    "big.example": [
        'big.example. 300 IN TXT "v=spf1 ip4:127.0.0.1 -all"',
        '_dmarc.big.example. 300 IN TXT "v=DMARC1; p=none; rua=mailto:rua@big.example"',
    ],
}
FILTERS = """
[relay]
use = "capture"
path = "{work}/sent"

[[filter]]
use = "spf"
networks = []

[[filter]]
use = "dkim"

[[filter]]
use = "dmarc"
networks = []

[[filter]]
use = "dkim_signing"

[[filter]]
use = "dmarc_reports"
sender = "dmarc-reports@example.org"
spread = "1s"
"""
OURS = replace(REPORT, published=replace(REPORT.published, domain="example.org"))
KILLER = """
import os, signal
from pathlib import Path
from mailserver.filters.dmarc_sending import DMARCSending

MARK = Path(__file__).parents[3] / "kill"
whole = DMARCSending._sent_to


async def sent_to(self, to, report):
    id = await whole(self, to, report)
    if MARK.exists():
        MARK.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return id


DMARCSending._sent_to = sent_to
"""
SLOW = """
from twisted.internet import reactor
from twisted.internet.task import deferLater
from mailserver.filters.report_inbox import ReportInbox

whole = ReportInbox._read


async def read(self, envelope, content):
    await deferLater(reactor, 2.5, lambda: None)
    return await whole(self, envelope, content)


ReportInbox._read = read
"""
HEAD = b"From: r@big.example\r\nSubject: Report Domain: example.org\r\nMIME-Version: 1.0\r\n"


class ReportsCase(ScenarioCase):
    def setUp(self) -> None:
        super().setUp()
        names = Unbound(ZONES).start()
        self.addCleanup(names.stop)
        self.server: Server = self.serve(f'{BASIC}[dns]\nservers = ["{names.address}"]\n{FILTERS}')
        made = self.server.command("dkim", "new", "example.org")
        self.assertEqual(made.returncode, 0, made.stderr)

    def send(self, sender: str, message: bytes, recipient: str = "alice@example.org") -> Answer:
        with Wire(self.server.port) as wire:
            codes = wire.dialogue("EHLO client.example", f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA")
            self.assertEqual(codes, [250, 250, 250, 354])
            wire.send(message.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n")
            return wire.reply()

    def ask(self, order: str, /, **arguments: Any) -> Any:
        """As a command does, without the second that a program takes to begin."""
        return ask(str(self.server.work / "data" / "control.sock"), order, arguments)

    def dmarc(self, command: str, /, **arguments: Any) -> Any:
        """What `mailserver dmarc` is told."""
        return self.ask("component.run", name="dmarc_reports", command=command, arguments=arguments)["answer"]

    def at_clock(self, clock: str) -> None:
        """The server starts anew with this clock."""
        asked = [require_tool("faketime"), "-f", clock, "printenv", "LD_PRELOAD"]
        library = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        more = [f"LD_PRELOAD={library}", f"FAKETIME={clock}", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
        self.server.stop()
        self.server.twistd = ["env", *more, *self.server.twistd]
        self.server.restart()

    def sent(self) -> list[bytes]:
        """What has gone to other hosts."""
        return [path.read_bytes() for path in Path(self.server.work, "sent", "new").glob("*")]

    def road_note(self, id: str) -> str:
        """What the delivery has noted."""
        try:
            steps = self.ask("explain", id=id)["steps"]
        except CommandRefused:  # its road is not written yet
            return ""
        return "".join([str(one["fields"].get("note", "")) for one in steps if one["step"] == "delivered"])


class Sent(ReportsCase):
    def test_a_day_over_two_restarts_is_one_signed_report_for_each_address_that_wants_it(self) -> None:
        by_the_wall = self.server.twistd
        self.at_clock("-25h")
        self.assertEqual(self.send("a@example.net", b"From: a@example.net\r\n\r\nHello").code, 250)
        self.server.stop()
        self.server.restart()
        self.assertEqual(self.send("x@evil.example", b"From: a@example.net\r\n\r\nHello").code, 250)
        [waiting] = self.dmarc("reports")
        self.assertEqual((waiting["domain"], waiting["state"], waiting["messages"]), ("example.net", "collecting", 2))
        [preview] = self.dmarc("preview", domain="example.net")
        self.assertIn("fourth.example does not say", preview["to"]["r@fourth.example"])
        self.assertEqual(self.sent(), [])
        self.server.stop()
        self.server.twistd = by_the_wall
        self.server.restart()
        self.dmarc("send")
        wait_until(lambda: len(self.sent()) == 2, self.server.log)
        self.dmarc("send")
        [row] = self.dmarc("reports")
        self.assertEqual((row["state"], row["messages"], sorted(row["to"])),
                         ("sent", 2, ["r@fourth.example", "r@third.example", "rua@example.net"]))  # fmt: skip
        self.assertEqual(len(self.sent()), 2)
        keys = json.loads(self.server.command("dkim", "list", "--json").stdout)
        record = next(one["record"] for one in keys if one["state"] == "active" and one["kind"] == "ed25519")
        for octets in self.sent():
            self.looks_right(octets, record)

    def test_a_kill_between_sending_and_recording_doubles_that_one_with_the_same_id(self) -> None:
        self.server.stop()
        self.server.install_plugin("killer", KILLER)
        by_the_wall = self.server.twistd
        self.at_clock("-25h")
        self.assertEqual(self.send("a@example.net", b"From: a@example.net\r\n\r\nHello").code, 250)
        self.server.stop()
        self.server.twistd = by_the_wall
        mark = self.server.work / "kill"
        mark.touch()
        self.server.restart()
        self.assertNotEqual(self.server.command("dmarc", "send").returncode, 0)
        self.server.kill()
        self.assertFalse(mark.exists())
        self.server.restart()
        self.dmarc("send")
        wait_until(lambda: len(self.sent()) == 3, self.server.log)
        found = [email.message_from_bytes(octets, policy=email.policy.default) for octets in self.sent()]
        self.assertEqual(sorted(one["To"] for one in found), ["r@third.example", "rua@example.net", "rua@example.net"])
        self.assertEqual(len({one["Message-ID"] for one in found}), 1)
        self.assertEqual(len({next(iter(one.iter_attachments())).get_filename() for one in found}), 1)

    def looks_right(self, octets: bytes, record: str) -> None:
        octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self.assertIn(b"X-Envelope-From: <dmarc-reports@example.org>\r\n", octets)
        signed = octets[octets.index(b"DKIM-Signature") :]
        self.assertIs(verified_by_dkimpy(signed, record), True)
        [attachment] = email.message_from_bytes(octets, policy=email.policy.default).iter_attachments()
        report = read_report(attachment.get_content())
        self.assertEqual(faults_by_schema(report_xml(report)), [])
        self.assertEqual({(one.source, one.count, one.disposition, one.spf) for one in report.rows},
                         {("127.0.0.1", 1, "pass", "pass"), ("127.0.0.1", 1, "quarantine", "fail")})  # fmt: skip
        self.assertEqual([[one.kind for one in row.overrides] for row in report.rows if row.spf == "fail"], [["local_policy"]])


class Read(ReportsCase):
    def report(self, message: bytes, sender: str = "r@big.example") -> str:
        """Send it; what its road says."""
        answer = self.send(sender, message, "dmarc-reports@example.org")
        self.assertEqual(answer.code, 250)
        return str(wait_until(lambda: self.road_note(answer.id), self.server.log))

    def bombs(self) -> dict[str, bytes]:
        document = report_xml(OURS)
        blanks = document[:-12] + b" " * (40 << 20) + b"</feedback>\n"
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("report.xml", blanks)
        laughs = b'<!DOCTYPE feedback [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>' + document.partition(b"\n")[2]
        return {
            "its document has": gzip.compress(blanks), "more than 20971520": packed.getvalue(),
            "document type": laughs, "deep": b"<feedback>" + b"<a>" * 50_000, "broken": document[:500],
        }  # fmt: skip

    def test_one_is_shown_and_no_report_is_about_it(self) -> None:
        sender, to = Address("r", "big.example"), Address("dmarc-reports", "example.org")
        message = report_message(OURS, receiver="big.example", sender=sender, to=to, now=0)
        self.assertEqual(self.report(message), "a DMARC report: it is kept")
        shown = self.dmarc("show", domain="example.org")
        self.assertEqual((shown["messages"], shown["passed"], shown["rows"][0]["reporters"]), (13, 12, ["big.example"]))
        said = self.server.command("dmarc", "show", "example.org", "--since", "3650d").stdout
        self.assertRegex(said, r"(?m)^192\.0\.2\.25 +12 +12 +0 +12 +0 +0 +news\.example\.net +big\.example$")
        self.assertIn("13 messages from 2 sources", said)
        self.assertRegex(self.server.command("dmarc", "list").stdout, r"example\.org .*big\.example")
        self.assertEqual(self.dmarc("reports"), [])
        self.assertIn("DMARC has not passed", self.report(message, "r@evil.example"))
        self.assertEqual([row["sender"] for row in self.dmarc("unread")], ["evil.example"])
        self.assertEqual((self.sent(), list((self.server.work / "mail").glob("*dmarc*"))), ([], []))
        route = self.server.command("route", "dmarc-reports@example.org")
        self.assertIn("the filter dmarc_reports", route.stdout)

    def test_one_that_takes_its_time_is_tried_again_as_soon_as_it_has_been_read(self) -> None:
        self.server.stop()
        self.server.install_plugin("slow", SLOW)
        self.server.restart()
        self.assertEqual(self.report(HEAD + b"\r\nHello\r\n"), "not read: no part of the message is a report")
        self.assertEqual(self.send("a@big.example", b"From: a@big.example\r\n\r\nHello").code, 250)
        self.server.wait_for_mail("alice")

    def test_bombs_are_told_and_nobody_hears_of_them(self) -> None:
        import base64

        for words, octets in self.bombs().items():
            head = HEAD + b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            note = self.report(head + base64.encodebytes(octets).replace(b"\n", b"\r\n"))
            self.assertRegex(note, f"^not read: .*{words}")
        self.assertEqual(len(self.dmarc("unread")), 5)
        self.assertEqual((self.dmarc("list"), self.sent()), ([], []))
        wait_until(lambda: self.ask("queue.list", limit=10)["depth"] == 0, self.server.log)
