"""Captures of real dialogues, made by tcpdump and read beside tshark: the same commands, replies and messages."""

from __future__ import annotations

import os
import random
import smtplib
import ssl
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.capture.events import CommandReply, ContentStretch, Encrypted, ReplyCause
from mailserver.capture.files import CapturedFrame, CaptureReader
from mailserver.capture.sessions import Said, Sessions
from mailserver.sink import CaptureServer
from tests.capture.wire import pcap
from tests.relay.postfix import Postfix
from tests.requires import require_root, require_tool
from tests.scenarios.exim import Exim
from tests.scenarios.support import wait_until

BODY = b"Subject: seen\r\n\r\n.a dot\r\n..\r\n. \r\n" + b"and lines of text, enough for several segments\r\n" * 400
SECONDS = 60


def frames_of(octets: bytes) -> list[CapturedFrame]:
    return list(CaptureReader().feed(octets))


def decoded(frames: Iterable[CapturedFrame]) -> list[Said]:
    sessions = Sessions()
    return [said for frame in frames for said in sessions.feed(frame)] + list(sessions.finish())


def commands(said: Iterable[Said]) -> dict[int, list[tuple[str, str]]]:
    """Of each session, by the client's port: verbs and arguments."""
    found = defaultdict(list)
    for one in said:
        if isinstance(one.event, CommandReply) and one.event.cause is ReplyCause.COMMAND and one.event.command is not None:
            view = one.event.view
            found[one.session.client_port].append((view.command or "", view.arguments or ""))
    return dict(found)


def replies(said: Iterable[Said]) -> dict[int, list[tuple[int, str]]]:
    """Of each session: the code and the text of each line of each reply."""
    found = defaultdict(list)
    for one in said:
        if isinstance(one.event, CommandReply) and one.event.reply is not None:
            for line in one.event.reply.decode().splitlines():
                found[one.session.client_port].append((int(line[:3]), line[4:]))
    return dict(found)


def contents(said: Iterable[Said]) -> list[bytes]:
    found: dict[int, bytes] = defaultdict(bytes)
    for one in said:
        if isinstance(one.event, ContentStretch):
            found[one.session.client_port] += one.event.octets
    return sorted(found.values())


class BesideTshark(SynchronousTestCase):
    """One capture for all, since tcpdump takes a while to begin."""

    octets: bytes = b""
    ports = (0, 0)
    received: list[bytes] = []

    def setUp(self) -> None:
        self.tshark = require_tool("tshark")
        if not BesideTshark.octets:
            require_root("tcpdump")
            self.record()
        self.folder = Path(tempfile.mkdtemp(prefix="captures"))
        self.addCleanup(subprocess.run, ["rm", "-rf", self.folder], check=True)

    def record(self) -> None:
        """Dialogues of several clients with one server, while tcpdump looks on."""
        took: list[bytes] = []
        server = CaptureServer(host="127.0.0.1", port=0, tls="none", take=lambda mail: took.append(mail.content))
        hiding = CaptureServer(host="127.0.0.1", port=0, tls="starttls")
        for one in (server, hiding):
            one.start()
            self.addCleanup(one.stop)
        path = os.path.join(tempfile.gettempdir(), f"beside-tshark-{os.getpid()}.pcap")
        command = [require_tool("tcpdump"), "-i", "lo", "-U", "-Z", "root", "-w", path, f"tcp port {server.port} or tcp port {hiding.port}"]
        recorder = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert recorder.stderr is not None
        recorder.stderr.readline()  # "listening on"
        try:
            self.speak(server.port, hiding.port, took)
            self.until_seen(path, server.port)
        finally:
            recorder.terminate()
            recorder.wait(SECONDS)
            recorder.stderr.close()
        BesideTshark.octets = Path(path).read_bytes()
        os.unlink(path)
        BesideTshark.ports, BesideTshark.received = (server.port, hiding.port), sorted(took)

    def speak(self, port: int, hiding: int, took: list[bytes]) -> None:
        with smtplib.SMTP("127.0.0.1", port, "client.example") as client:
            client.sendmail("ann@example.org", ["bob@example.net", "carl@example.net"], BODY)
            client.docmd("VRFY", "bob")
        with smtplib.SMTP("127.0.0.1", hiding, "client.example") as client:
            client.starttls(context=ssl._create_unverified_context())
            client.sendmail("ann@example.org", ["hidden@example.net"], BODY)
        run = subprocess.run
        run([require_tool("swaks"), "--server", f"127.0.0.1:{port}", "--from", "<>", "--to", "you@example.net", "--pipeline"],
            check=True, capture_output=True, timeout=SECONDS)  # fmt: skip
        run([require_tool("smtp-source"), "-m", "6", "-s", "3", "-l", "9000", "-f", "a@example.org", "-t", "b@example.net", f"127.0.0.1:{port}"],
            check=True, capture_output=True, timeout=SECONDS)  # fmt: skip
        postfix = Postfix(f"default_transport = smtp\nrelayhost = [127.0.0.1]:{port}\nsmtpd_recipient_restrictions = permit_mynetworks, reject\n")
        self.addCleanup(postfix.remove)
        postfix.start()
        with smtplib.SMTP("127.0.0.1", postfix.port, "client.example") as client:
            client.sendmail("fay@example.org", ["one@example.net", "two@example.net"], BODY.replace(b"and lines of text, enough", b"t\xc3\xa9xt"))
        wait_until(lambda: any(b"t\xc3\xa9xt" in mail for mail in took), lambda: "Postfix has not sent it")
        for chunking in (False, True):
            exim = Exim(port, chunking=chunking)
            self.addCleanup(exim.close)
            exim.send(BODY.replace(b"\r\n", b"\n"), "dave@example.net", "erin@example.net")

    def until_seen(self, path: str, port: int) -> None:
        """Until tcpdump has written a dialogue that comes after all of them."""
        with smtplib.SMTP("127.0.0.1", port, "the-last-one.example") as client:
            client.ehlo()
        for _ in range(200):
            if b"the-last-one.example" in Path(path).read_bytes()[-20000:]:
                return
            time.sleep(0.05)  # another program writes the file
        self.fail("tcpdump has not written the last dialogue")

    def read(self, path: Path, *fields: str) -> list[list[str]]:
        """What tshark says of each packet."""
        command = [self.tshark, "-r", str(path), *[word for port in self.ports for word in ("-d", f"tcp.port=={port},smtp")], "-Y", "smtp", "-T", "fields"]
        command += ["-E", "separator=/t", "-E", "aggregator=\x01", *[word for field in ("tcp.srcport", "tcp.dstport", *fields) for word in ("-e", field)]]
        done = subprocess.run(command, capture_output=True, check=True, timeout=SECONDS)
        return [line.split("\t") for line in done.stdout.decode().splitlines()]

    def written(self, frames: list[CapturedFrame], name: str) -> Path:
        path = self.folder / name
        path.write_bytes(pcap(frames))
        return path

    def of_tshark(self, path: Path) -> tuple[dict[int, list[tuple[str, str]]], dict[int, list[tuple[int, str]]]]:
        said: dict[int, list[tuple[str, str]]] = defaultdict(list)
        answered: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for source, target, verbs, codes, texts in self.read(path, "smtp.command_line", "smtp.response.code", "smtp.rsp.parameter"):
            if verbs:
                for line in verbs.split("\x01"):
                    verb, _, rest = line.replace("\\r\\n", "").partition(" ")
                    said[int(source)].append((verb.upper(), rest.strip()))
            if codes:
                lines = texts.split("\x01")
                answered[int(target)] += [(int(codes.split("\x01")[0]), line) for line in lines] if len(codes.split("\x01")) == 1 else [
                    (int(code), line) for code, line in zip(codes.split("\x01"), lines, strict=False)
                ]  # fmt: skip
        return dict(said), dict(answered)

    def test_commands_and_replies_are_those_that_tshark_reads(self) -> None:
        frames = frames_of(self.octets)
        ours = decoded(frames)
        theirs, answers = self.of_tshark(self.written(frames, "plain.pcap"))
        mine = commands(ours)
        self.assertGreater(len(mine), 7)
        exims = [port for port, said in mine.items() if said[0] == ("EHLO", "exim.example")]
        for port, said in mine.items():
            if port in exims or said[0] == ("EHLO", "mx.far.example"):  # tshark passes over what is pipelined behind content or with BDAT
                self.assertEqual(said[: len(theirs[port])], theirs[port])
            else:
                self.assertEqual(said, theirs[port])
        self.assertEqual([said[-2:] for said in mine.values() if said[0] == ("EHLO", "mx.far.example")], [[("DATA", ""), ("QUIT", "")]])
        envelope = [("EHLO", "exim.example"), ("MAIL", "FROM:<sender@far.example> SIZE=20523"), ("RCPT", "TO:<dave@example.net>"), ("RCPT", "TO:<erin@example.net>")]
        ends = [said[4:] for said in (mine[port] for port in exims)]
        self.assertEqual([mine[port][:4] for port in exims], [envelope, envelope])
        self.assertEqual([[verb for verb, _ in end] for end in ends], [["DATA", "QUIT"], ["BDAT", "BDAT", "QUIT"]])
        self.assertEqual(replies(ours), answers)

    def test_messages_are_those_that_the_server_took(self) -> None:
        ours = decoded(frames_of(self.octets))
        whole = b"".join(contents(ours))
        self.assertEqual(whole.count(b"Subject: seen"), 4)  # smtplib, Postfix, Exim with DATA, Exim with BDAT
        self.assertEqual(len(self.received), 11)
        for mail in self.received:
            self.assertIn(mail, whole)
        self.assertEqual(len(whole), sum([len(mail) for mail in self.received]))
        self.assertNotIn(b"hidden@example.net", whole)
        self.assertEqual(sum([isinstance(one.event, Encrypted) for one in ours]), 1)

    def test_doubled_and_reordered_packets_change_nothing_and_lost_ones_are_lost_to_both(self) -> None:
        frames = frames_of(self.octets)
        plain = decoded(frames)
        chance = random.Random(1)
        edited = [one for frame in frames for one in [frame] * chance.choice((1, 1, 1, 2))]
        for _ in range(len(edited) // 10):
            at = chance.randrange(len(edited) - 1)
            if not any(one.octets[47] & 3 for one in edited[at : at + 2]):  # SYN and FIN stay where they are
                edited[at], edited[at + 1] = edited[at + 1], edited[at]
        again = decoded(edited)
        self.assertEqual(commands(again), commands(plain))
        self.assertEqual(replies(again), replies(plain))
        self.assertEqual(contents(again), contents(plain))
        theirs, _ = self.of_tshark(self.written([one for n, one in enumerate(edited) if n], "edited.pcap"))
        self.assertEqual(set(theirs), set(commands(again)))
