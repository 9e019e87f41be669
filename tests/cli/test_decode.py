"""`mailserver decode`: dialogues, messages and figures of a capture, whatever is wrong with it."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from mailserver.capture import build, sessions, transcript
from mailserver.capture.files import CaptureReader
from mailserver.cli import shown_sessions
from tests.capture.test_sessions import MESSAGE, PLAIN
from tests.capture.wire import CLIENT, Connection, interface, packet, pcap, pcapng, section
from tests.cli import support

LOGIN = (
    b"S: 220 mx ESMTP\r\n", b"C: EHLO me\r\n", b"S: 250 AUTH\r\n", b"C: AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", b"S: 535 no\r\n", b"C: AUTH LOGIN\r\n", b"S: 334 VXNlcm5hbWU6\r\n", b"C: YW5u\r\n",
    b"S: 334 UGFzc3dvcmQ6\r\n", b"C: c2VjcmV0\r\n", b"S: 235 yes\r\n",
)  # fmt: skip


def capture(*dialogues: tuple[bytes, ...], at: int = 1_796_000_000) -> bytes:
    """Each dialogue a connection of its own, from hosts 192.0.2.1, .2 …; the ports 40000, 40001 …"""
    frames = []
    for n, lines in enumerate(dialogues):
        one = Connection(client=(f"192.0.2.{n + 1}", CLIENT[1] + n), at=(at + n) * 10**9)
        frames += [*one.opened(), *one.said(*lines), *one.closed()]
    return pcap(frames)


def run(*arguments: str) -> tuple[int, str, str]:
    said = support.run(*arguments)
    return said.code, said.out, said.err


class Decoding(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)

    def file(self, octets: bytes, name: str = "capture.pcap") -> str:
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(octets)
        return path

    def test_each_session_is_a_dialogue_with_times(self) -> None:
        code, out, err = run("decode", self.file(capture(PLAIN[:5])))
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out.splitlines(), [
            "Session 1  192.0.2.1:40000 -> 192.0.2.25:25  SMTP  2026-11-30 00:53:20.001 UTC",
            "    0.003  S  220 mx.example ESMTP",
            "    0.004  C  EHLO client.example",
            "    0.005  S  250-mx.example",
            "           S  250 PIPELINING",
            "    0.006  C  MAIL FROM:<ann@example.org>",
            "    0.007  S  250 2.1.0 Ok",
            "            *  closed after 0.009 s; 50 octets of the client, 68 of the server",
            "",
        ])  # fmt: skip

    def test_messages_are_written_as_they_were(self) -> None:
        folder = os.path.join(self.folder, "messages")
        code, out, _ = run("decode", self.file(capture(PLAIN, (*PLAIN[:9], b"C: cut"))), "--save", folder)
        self.assertEqual(code, 0)
        self.assertEqual(sorted(os.listdir(folder)), ["1-1.eml", "2-1.eml.part"])
        with open(os.path.join(folder, "1-1.eml"), "rb") as file:
            self.assertEqual(file.read(), MESSAGE)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(folder, "1-1.eml")).st_mode), 0o600)
        self.assertIn(f"(content of {len(MESSAGE)} octets) in {folder}/1-1.eml", out)
        self.assertIn(f"(content of 3 octets, not whole) in {folder}/2-1.eml.part", out)

    def test_an_empty_message_has_the_file_of_its_own_number(self) -> None:
        lines: list[bytes] = [b"S: 220 mx ESMTP\r\n"]
        for message in (b"", MESSAGE, b"", MESSAGE):
            lines += [b"C: DATA\r\n", b"S: 354 go\r\n", b"C: " + build.content(message), b"S: 250 ok\r\n"]
        folder = os.path.join(self.folder, "saved")
        code, _, err = run("decode", self.file(capture(tuple(lines))), "--save", folder)
        self.assertEqual((code, err), (0, ""))
        sizes = {name: os.path.getsize(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
        self.assertEqual(sizes, {"1-1.eml": 0, "1-2.eml": len(MESSAGE), "1-3.eml": 0, "1-4.eml": len(MESSAGE)})

    def test_nothing_that_is_there_is_written_over(self) -> None:
        folder = os.path.join(self.folder, "messages")
        os.mkdir(folder)
        victim = self.file(b"precious", "victim")
        for name in ("1-1.eml", "1-1.eml.part"):
            os.symlink(os.path.abspath(victim), os.path.join(folder, name))
            code, _, err = run("decode", self.file(capture(PLAIN)), "--save", folder)
            self.assertEqual((code, name in err), (74, True), err)
            os.unlink(os.path.join(folder, name))
            for left in os.listdir(folder):
                os.unlink(os.path.join(folder, left))
        with open(victim, "rb") as file:
            self.assertEqual(file.read(), b"precious")

    def test_secrets_are_masked_unless_they_are_asked_for(self) -> None:
        path = self.file(capture(LOGIN))
        for more in ((), ("--json",)):
            _, out, _ = run("decode", path, *more)
            for secret in ("AGFubgBzZWNyZXQ=", "YW5u", "c2VjcmV0"):
                self.assertNotIn(secret, out)
            self.assertIn("AUTH PLAIN ****", out)
        _, out, _ = run("decode", path, "--secrets")
        for secret in ("AUTH PLAIN AGFubgBzZWNyZXQ=", "YW5u", "c2VjcmV0"):
            self.assertIn(secret, out)

    def test_a_signature_of_scram_is_a_secret(self) -> None:
        lines = (*LOGIN[:3], b"C: AUTH SCRAM-SHA-256 biws\r\n", b"S: 334 cj1ub25jZQ==\r\n", b"C: Yz1iaXdz\r\n", b"S: 334 dj1zaWduYXR1cmU=\r\n", b"C: \r\n", b"S: 235 yes\r\n")
        _, out, _ = run("decode", self.file(capture(lines)))
        self.assertEqual([line.split("S  ")[1] for line in out.splitlines() if "S  334" in line], ["334 cj1ub25jZQ==", "334 ****"])
        self.assertIn("dj1zaWduYXR1cmU=", run("decode", self.file(capture(lines)), "--secrets")[1])

    def test_the_end_of_a_signature_of_scram_is_a_secret_though_its_beginning_is_lost(self) -> None:
        connection = Connection()
        frames = [*connection.opened(), *connection.said(*LOGIN[:3], b"C: AUTH SCRAM-SHA-1 biws\r\n", b"S: 334 cj1h\r\n", b"C: Yz1i\r\n", b"S: 334 dj1T", b"S: U0lHTg==\r\n", b"C: \r\n", b"S: 235 yes\r\n")]
        del frames[9]
        code, out, _ = run("decode", self.file(pcap([*frames, *connection.closed()])))
        self.assertEqual((code, "U0lHTg" in out, "235 yes" in out), (0, False, True))

    def test_what_could_change_a_terminal_is_made_printable(self) -> None:
        _, out, _ = run("decode", self.file(capture((b"S: 220 mx \x1b[2J ESMTP\r\n", b"C: EHLO \xe2\x80\xae\x9b1m\r\n", b"S: 250 \xff\r\n"))))
        self.assertIn("220 mx \\x1b[2J ESMTP", out)
        self.assertIn("EHLO \\u202e\\x9b1m", out)
        self.assertTrue(all(one.isprintable() or one == "\n" for one in out))

    def test_json_has_a_session_a_line(self) -> None:
        code, out, _ = run("decode", self.file(capture(PLAIN, LOGIN)), "--json")
        first, second = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(code, 0)
        self.assertEqual(first["messages"], [{
            "sender": "ann@example.org", "recipients": ["bob@example.net"], "refused": [], "octets": len(MESSAGE), "is_whole": True, "replies": ["250 2.0.0 Queued"], "file": None,
        }])  # fmt: skip
        self.assertEqual((first["client"], first["server_port"], first["ending"], first["protocol"]), ("192.0.2.1", 25, "closed", "smtp"))
        self.assertEqual(first["lines"][1], {"time": first["started"] + 0.003, "from": "client", "text": "EHLO client.example"} | {"time": first["lines"][1]["time"]})
        self.assertEqual(second["messages"], [])

    def test_the_envelope_of_a_pipelined_chunk_is_that_of_its_transaction(self) -> None:
        lines = (
            b"S: 220 mx ESMTP\r\n", b"C: EHLO me\r\n", b"S: 250 CHUNKING\r\n",
            b"C: MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nBDAT 3 LAST\r\nx\r\nMAIL FROM:<>\r\nRCPT TO:<g@h>\r\nBDAT 3 LAST\r\ny\r\n",
            b"S: 250 m\r\n250 c\r\n550 e\r\n250 x\r\n250 m\r\n250 g\r\n452 y\r\n",
        )  # fmt: skip
        _, out, _ = run("decode", self.file(capture(lines)), "--json")
        messages = json.loads(out)["messages"]
        self.assertEqual(
            [(one["sender"], one["recipients"], one["refused"], one["replies"]) for one in messages],
            [("a@b", ["c@d"], ["e@f"], ["250 x"]), ("", ["g@h"], [], ["452 y"])],
        )

    def test_sessions_are_chosen_by_peer_port_address_and_time(self) -> None:
        other = tuple(line.replace(b"bob@example.net", b"Carl@Example.com") for line in PLAIN)
        path = self.file(capture(PLAIN, other, LOGIN))
        for arguments, wanted in (
            (("--peer", "192.0.2.2"), [2]), (("--peer", "192.0.2.0/30"), [1, 2, 3]), (("--peer", "2001:db8::/32"), []), (("--port", "40002"), [3]),
            (("--address", "carl@example.com"), [2]), (("--address", "@EXAMPLE.NET"), [1]), (("--address", "ann@example.org"), [1, 2]),
            (("--since", "2026-11-30T00:53:21+00:00"), [2, 3]), (("--until", "2026-11-30T00:53:21+00:00"), [1]),
        ):  # fmt: skip
            _, out, _ = run("decode", path, *arguments, "--json")
            found = [int(json.loads(line)["client"].rsplit(".", 1)[1]) for line in out.splitlines()]
            self.assertEqual(found, wanted, arguments)

    def test_files_of_sessions_that_are_not_meant_do_not_stay(self) -> None:
        folder = os.path.join(self.folder, "messages")
        run("decode", self.file(capture(PLAIN)), "--save", folder, "--address", "nobody@example.org")
        self.assertEqual(os.listdir(folder), [])

    def test_figures(self) -> None:
        path = self.file(capture(PLAIN, PLAIN, LOGIN))
        code, out, _ = run("decode", path, "--stats")
        self.assertEqual(code, 0)
        self.assertIn("3 sessions (0 with TLS), 2 messages of", out)
        rows = {line.split()[0]: line.split()[1] for line in out.splitlines() if line and line.split()[0] in ("250", "535", "MAIL", "content", "response", "greeting")}
        self.assertEqual(rows, {"250": "9", "535": "1", "MAIL": "2", "content": "2", "response": "2", "greeting": "3"})
        _, out, _ = run("decode", path, "--stats", "--json", "--address", "bob@example.net")
        figures = json.loads(out)
        self.assertEqual((figures["sessions"], figures["messages"], figures["replies"]["354"], figures["content_octets"]), (2, 2, 2, 2 * len(MESSAGE)))
        self.assertAlmostEqual(figures["latency_seconds"]["DATA"]["median"], 0.001)
        self.assertEqual(figures["latency_seconds"]["greeting"]["replies"], 2)

    def test_gzipped_and_pcapng(self) -> None:
        plain = run("decode", self.file(capture(PLAIN)))
        self.assertEqual(run("decode", self.file(gzip.compress(capture(PLAIN)), "capture.pcap.gz")), plain)
        one = Connection(at=1_796_000_000 * 10**9)
        frames = [*one.opened(), *one.said(*PLAIN), *one.closed()]
        self.assertEqual(run("decode", self.file(pcapng(frames), "capture.pcapng")), plain)
        cut = self.file(gzip.compress(capture(PLAIN))[:-20], "cut.gz")
        code, _, err = run("decode", cut)
        self.assertEqual((code, "too early" in err), (74, True), err)

    def test_a_gzipped_file_of_several_members_is_read_to_its_end(self) -> None:
        octets = capture(PLAIN)
        plain = run("decode", self.file(octets))
        for pieces in ((octets[:300], octets[300:]), (octets[:24], b"", octets[24:])):
            packed = b"".join([gzip.compress(piece) for piece in pieces])
            self.assertEqual(run("decode", self.file(packed + bytes(100), "members.gz")), plain)

    def test_times_that_no_calendar_knows_are_shown_as_the_last_or_first_one(self) -> None:
        one = Connection(at=1_796_000_000 * 10**9)
        frames = [*one.opened(), *one.said(*PLAIN), *one.closed()]
        seconds = section() + interface(options=b"\x09\x00\x01\x00" + bytes(4)) + b"".join([packet(frame) for frame in frames])
        for more in ((), ("--json",), ("--stats",), ("--since", "2h")):
            code, _, err = run("decode", self.file(seconds), *more)
            self.assertEqual((code, err), (0, ""), more)
        self.assertIn("9999-12-31", run("decode", self.file(seconds))[1])

    def test_of_many_messages_the_first_ones_are_listed(self) -> None:
        self.patch(transcript, "MESSAGES", 3)
        lines = [b"S: 220 mx ESMTP\r\n", *[b"C: BDAT 1 LAST\r\n%d" % n for n in range(5)]]
        folder = os.path.join(self.folder, "saved")
        found = json.loads(run("decode", self.file(capture(tuple(lines))), "--json", "--save", folder)[1])
        self.assertEqual((len(found["messages"]), found["messages_left_out"]), (3, 2))
        self.assertEqual([one["file"] for one in found["messages"]], [os.path.join(folder, f"1-{n}.eml") for n in (1, 2, 3)])
        self.assertEqual(len(os.listdir(folder)), 5)

    def test_faults_of_the_file_are_told_after_what_came_before_them(self) -> None:
        good = capture(PLAIN)
        for octets, code, words in (
            (good[:-5], 0, "ends within a packet"), (good + b"\xff" * 40, 74, "damaged at octet"), (b"From: nobody\r\n\r\n", 74, "neither pcap nor pcapng"), (b"", 0, "no session of SMTP"),
        ):  # fmt: skip
            found, out, err = run("decode", self.file(octets))
            self.assertEqual((found, words in err), (code, True), err)
            self.assertEqual("250 2.0.0 Queued" in out, octets[:4] == good[:4])
        self.assertEqual(run("decode", os.path.join(self.folder, "absent"))[0], 74)
        self.assertEqual(run("decode", self.folder)[0], 74)
        code, _, err = run("decode", self.file(capture(PLAIN)), "--save", self.file(b"", "a-file"))
        self.assertEqual((code, "a-file" in err), (74, True))

    def test_files_of_a_ring_are_one_capture_in_the_order_of_their_times(self) -> None:
        frames = []
        for n in range(3):
            one = Connection(client=("192.0.2.1", CLIENT[1] + n), at=(1_796_000_000 + n) * 10**9)
            frames += [*one.opened(), *one.said(*PLAIN), *one.closed()]
        whole = run("decode", self.file(pcap(frames)))
        names = ("ring2", "ring0", "ring1")  # the first two have been written over
        paths = [self.file(pcap(frames[at : at + 25]), name) for name, at in zip(names, (0, 25, 50), strict=True)]
        self.assertEqual(run("decode", *sorted(paths)), whole)
        self.assertEqual(run("decode", *paths, paths[0]), whole)
        code, out, err = run("decode", paths[0], paths[2], self.file(b"no capture at all", "ring3"), paths[1])
        self.assertEqual((code, out, err), (74, whole[1], f"mailserver: {self.folder}/ring3: neither pcap nor pcapng\n"))
        self.assertEqual(run("decode", *paths, "-"), (2, "", "mailserver: - is read alone\n"))

    def test_with_a_pipe_among_them_files_are_read_as_they_are_named(self) -> None:
        whole = capture(PLAIN)
        _, plain, _ = run("decode", self.file(whole))
        frames = list(CaptureReader().feed(whole))
        ends = []
        for part in (frames[:7], frames[7:]):
            reading, writing = os.pipe()
            self.addCleanup(os.close, reading)
            os.write(writing, pcap(part))
            os.close(writing)
            ends.append(f"/dev/fd/{reading}")
        self.assertEqual(run("decode", *ends), (0, plain, ""))

    def test_a_link_that_is_not_supported_is_named(self) -> None:
        one = Connection()
        frames = [frame._replace(link=127) for frame in one.opened()]
        code, out, err = run("decode", self.file(pcapng([]) + interface(127) + b"".join([packet(frame, 1) for frame in frames])))
        self.assertEqual((code, out), (0, ""))
        self.assertIn("3 frames were not read: Wi-Fi with radiotap headers (127) is a link that is not supported", err)
        self.assertIn("an unknown link type (999)", run("decode", self.file(pcap([frames[0]._replace(link=999)])))[2])

    def test_how_many_connections_were_given_up_is_told(self) -> None:
        self.patch(sessions.Sessions.__init__, "__kwdefaults__", {**sessions.Sessions.__init__.__kwdefaults__, "connections": 2})
        ones = [Connection(client=("192.0.2.1", 2000 + n), server=("192.0.2.25", 25 if n < 3 else 80)) for n in range(5)]
        code, out, err = run("decode", self.file(pcap([frame for one in ones for frame in [*one.opened(), *one.said(*PLAIN[:2])]])))
        self.assertEqual((code, err), (0, "mailserver: 3 connections were given up: too many were open at once\n"))
        self.assertEqual(out.count("given up after"), 3)

    def test_figures_of_a_session_that_names_the_address_late_say_what_is_not_in_them(self) -> None:
        self.patch(shown_sessions, "LINES", 3)
        noise = [line for _ in range(6) for line in (b"C: NOOP\r\n", b"S: 250 ok\r\n")]
        path = self.file(capture((*PLAIN[:3], *noise, *PLAIN[3:])))
        code, out, err = run("decode", path, "--stats", "--json", "--address", "ann@example.org")
        figures = json.loads(out)
        self.assertEqual((code, figures["events_left_out"], figures["latency_seconds"]["NOOP"]["replies"]), (0, 3, 5))
        self.assertIn("3 events are not in these figures: they came long before ann@example.org was named", err)
        self.assertEqual(json.loads(run("decode", path, "--stats", "--json")[1])["events_left_out"], 0)

    def test_what_waits_of_all_sessions_is_bounded(self) -> None:
        self.patch(shown_sessions, "ALL_LINES", 0)
        self.patch(shown_sessions, "HELD_MOST", 20)
        ones = [Connection(client=("192.0.2.1", 2000 + n)) for n in range(4)]
        frames = [frame for step in (Connection.opened, lambda one: one.said(*PLAIN), Connection.closed) for one in ones for frame in step(one)]
        out = [json.loads(line) for line in run("decode", self.file(pcap(frames)), "--json")[1].splitlines()]
        self.assertEqual([one["is_cut"] for one in out], [False, True, True, True])
        self.assertLessEqual(sum([len(one["lines"]) for one in out]), 30)
        figures = json.loads(run("decode", self.file(pcap(frames)), "--json", "--stats", "--address", "bob@example.net")[1])
        self.assertEqual(figures["sessions"], 4)

    def test_wrong_options_are_told(self) -> None:
        for arguments in (("--peer", "nobody"), ("--port", "0"), ("--port", "x"), ("--since", "noon")):
            self.assertEqual(run("decode", "x.pcap", *arguments)[0], 2)

    def test_a_long_session_is_shown_in_parts(self) -> None:
        self.patch(shown_sessions, "LINES", 10)
        lines = [b"S: 220 mx ESMTP\r\n", *[one for n in range(30) for one in (b"C: NOOP %d\r\n" % n, b"S: 250 ok\r\n")]]
        path = self.file(capture(tuple(lines)))
        _, out, _ = run("decode", path)
        self.assertEqual([f"NOOP {n}" in out for n in range(30)], [True] * 30)
        self.assertIn("(goes on below)", out)
        self.assertIn("(it goes on)", out)
        _, out, _ = run("decode", path, "--json")
        session = json.loads(out)
        self.assertTrue(session["is_cut"])
        self.assertIn("NOOP 29", session["lines"][-2]["text"])

    def test_a_pipe_is_shown_as_it_comes(self) -> None:
        one = Connection(at=1_796_000_000 * 10**9)
        begin, rest = pcap([*one.opened(), *one.said(*PLAIN[:3])]), pcap([*one.said(*PLAIN[3:]), *one.closed()])[24:]
        command = [sys.executable, "-m", "mailserver.cli", "decode", "-"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            self.addCleanup(process.kill)
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(begin)
            process.stdin.flush()
            for words in (b"Session 1", b"220 mx.example", b"EHLO client.example", b"250-mx", b"250 PIPELINING"):
                self.assertIn(words, process.stdout.readline())
            process.stdin.write(rest)
            out, _ = process.communicate(timeout=30)
        self.assertIn(b"#1     0.013  S  250 2.0.0 Queued", out)
        self.assertIn(b"#1 closed after", out)

    def test_a_full_disk_is_told(self) -> None:
        path = self.file(capture(PLAIN))
        with open("/dev/full", "wb") as full:
            done = subprocess.run([sys.executable, "-m", "mailserver.cli", "decode", path], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
        self.assertEqual((done.returncode, "No space left" in done.stderr, "Traceback" in done.stderr), (74, True, False), done.stderr)

    def test_content_is_not_in_the_dialogue(self) -> None:
        _, out, _ = run("decode", self.file(capture((*PLAIN[:9], b"C: " + build.content(b"Subject: secret\r\n\r\nprivate\r\n")))))
        self.assertNotIn("private", out)
