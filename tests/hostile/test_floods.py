"""Too much of everything: commands, lines, headers, octets, and replies that nobody fetches."""

from __future__ import annotations

import contextlib
import select

from tests.hostile.support import ROOMY, HostileCase, flood
from tests.scenarios.support import BASIC, Wire
from tests.scenarios.test_filters import FILTER, PLUGIN

MEGABYTE = 1 << 20
PATIENT = ROOMY + "junk_commands = 1000000\nhard_errors = 1000000\nsoft_errors = 1000000\n"


class Commands(HostileCase):
    def test_ten_thousand_pipelined_commands_are_answered_in_order(self) -> None:
        """RFC 2920 section 3.1: replies in the order of the commands."""
        server = self.serve(PATIENT)
        with self.bounded(server), Wire(server.port, timeout=30) as wire:
            wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>")
            asked: dict[bytes, int] = {
                b"NOOP\r\n": 250,
                b"VRFY bob\r\n": 252,
                b"RCPT TO:<nobody@example.org>\r\n": 550,
                b"MAIL FROM:<s@example.net>\r\n": 503,
                b"XYZZY\r\n": 500,
            }
            order = [command for n in range(2000) for command in list(asked)[n % 5 :] + list(asked)[: n % 5]]
            self.assertEqual(len(order), 10_000)
            wire.send(b"".join(order))
            self.assertEqual([wire.reply().code for _ in order], [asked[command] for command in order])

    def test_ten_thousand_pipelined_commands_wait_for_a_slow_filter_and_are_answered_in_order(self) -> None:
        server = self.prepare(PATIENT + "recipients = 10000\n" + FILTER)
        server.install_plugin("puppet_plugin", PLUGIN.replace("IRecipientContentFilter, ", ""))
        server.start()
        with self.bounded(server), Wire(server.port, timeout=30) as wire:
            wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>")
            wire.send(b"RCPT TO:<bob+turn@example.org>\r\nRCPT TO:<bob+refuse@example.org>\r\n" * 5000)
            self.assertEqual([wire.reply().code for _ in range(10_000)], [250, 550] * 5000)

    def test_ten_thousand_idle_commands_end_in_421(self) -> None:
        server = self.serve(BASIC + "[limits]\njunk_commands = 100\nsoft_errors = 20\nhard_errors = 20\n")
        with self.bounded(server), Wire(server.port) as wire:
            wire.command("EHLO x.example")
            with contextlib.suppress(ConnectionError):
                wire.send(b"NOOP\r\n" * 10_000)
            codes = []
            with contextlib.suppress(EOFError, ConnectionError):
                while True:
                    codes.append(wire.reply().code)
            self.assertEqual(codes[:100], [250] * 100)
            self.assertLessEqual(len(codes), 130)
            self.assertEqual(codes[-1], 421)

    def test_errors_beyond_the_hard_limit_end_in_421(self) -> None:
        server = self.serve(BASIC + "[limits]\nsoft_errors = 20\nhard_errors = 20\n")
        with Wire(server.port) as wire:
            wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>")
            wire.send(b"".join(b"RCPT TO:<user%d@example.org>\r\n" % n for n in range(100)))
            codes = []
            with contextlib.suppress(EOFError, ConnectionError):
                while True:
                    codes.append(wire.reply().code)
        self.assertEqual(codes[-1], 421)
        self.assertEqual(set(codes[:-1]), {550})
        self.assertLessEqual(len(codes), 21)
        self.assertServes(server)

    def test_control_and_eight_bit_octets_in_commands_are_refused_and_not_echoed(self) -> None:
        server = self.serve(PATIENT)
        with Wire(server.port) as wire:
            wire.command("EHLO x.example")
            for line in (
                b"\xff\xfb\x01\xff\xfb\x03",  # telnet
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS ClientHello
                b"MAIL FROM:<\xff\xfe@example.net>",
                b"MAIL FROM:<s@example.net> SMTPUTF8=\xc3\x28",
                b"MAIL FROM:<\xc3\x28@example.net> SMTPUTF8",  # not UTF-8
                b"MAIL FROM:<\xed\xa0\x80@example.net> SMTPUTF8",  # a surrogate
                b"MAIL FROM:<a\0b@example.net>",
                b"MAIL FROM:<a\x1b[2Jb@example.net>",
                b"EHLO \xe9t\xe9.example",
                b"EHLO x\x07.example",
                b"\x80\x81\x82 \x83",
                b"VRFY \x00\x01",
                b"\0" * 500,
            ):
                wire.send(line + b"\r\n")
                answer = wire.reply()
                self.assertTrue(500 <= answer.code < 600, (line, answer))
                self.assertTrue(answer.text.isascii() and answer.text.replace("\n", "").isprintable(), answer)
            self.assertEqual(wire.command("NOOP").code, 250)
        self.assertServes(server)


class Octets(HostileCase):
    def test_an_endless_command_line_is_refused_or_cut_off(self) -> None:
        server = self.serve()
        with self.bounded(server), Wire(server.port) as wire:
            wire.command("EHLO x.example")
            flood(wire, b"A" * MEGABYTE, 50 * MEGABYTE)
            with contextlib.suppress(EOFError, ConnectionError):
                wire.send(b"\r\n")
                answer = wire.reply()
                self.assertIn(answer.code, (500, 421))

    def test_fifty_megabytes_of_data_without_a_line_end_stay_out_of_memory(self) -> None:
        server = self.serve()
        with self.bounded(server), Wire(server.port, timeout=30) as wire:
            wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>", "DATA")
            wire.send(b"Subject: x\r\n\r\n")
            sent = flood(wire, b"A" * MEGABYTE, 49 * MEGABYTE)
            wire.send(b"\r\n.\r\n")
            answer = wire.reply()
            self.assertIn(answer.code, (250, 500, 550, 552, 554))
            self.assertEqual(wire.command("NOOP").code, 250)
        if answer.code == 250:
            (stored,) = server.wait_for_mail("bob")
            self.assertEqual(len(stored.body), sent + 2)

    def test_a_message_far_above_the_limit_is_read_to_its_end_and_refused(self) -> None:
        server = self.serve(BASIC + "[limits]\nmessage_bytes = 1000000\n")
        with self.bounded(server), Wire(server.port, timeout=30) as wire:
            wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>", "DATA")
            flood(wire, (b"B" * 1022 + b"\r\n") * 1024, 100 * MEGABYTE)
            with contextlib.suppress(EOFError, ConnectionError):
                wire.send(b".\r\n")
                self.assertIn(wire.reply().code, (552, 421))
        self.assertEqual(server.messages("bob"), [])

    def test_an_endless_header_is_refused(self) -> None:
        server = self.serve()
        with self.bounded(server), Wire(server.port, timeout=30) as wire:
            wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>", "DATA")
            flood(wire, b"".join(b"X-Header-%d: %b\r\n" % (n, b"C" * 60) for n in range(14_000)), 40 * MEGABYTE)
            wire.send(b"\r\nbody\r\n.\r\n")
            self.assertEqual(wire.reply().code, 552)
            self.assertEqual(wire.command("NOOP").code, 250)
        self.assertEqual(server.messages("bob"), [])

    def test_fifty_claims_of_ten_gigabytes_cost_nothing(self) -> None:
        server = self.serve(ROOMY)
        with self.bounded(server), contextlib.ExitStack() as open_wires:
            wires = [open_wires.enter_context(Wire(server.port)) for _ in range(50)]
            for wire in wires:
                wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>")
                wire.send(b"BDAT 10000000000 LAST\r\n" + b"D" * 4096)
        self.assertEqual(server.messages("bob"), [])

    def test_forty_large_messages_at_once_do_not_stand_in_memory(self) -> None:
        server = self.serve(ROOMY)
        piece = (b"E" * 78 + b"\r\n") * 800
        with self.bounded(server), contextlib.ExitStack() as open_wires:
            wires = [open_wires.enter_context(Wire(server.port, timeout=60)) for _ in range(40)]
            for wire in wires:
                wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>", "DATA")
                wire.send(b"Subject: x\r\n\r\n")
            for _ in range(32):  # all of them advance together: 2 MB each
                for wire in wires:
                    wire.send(piece)
            for wire in wires:
                wire.send(b".\r\n")
            self.assertEqual([wire.reply().code for wire in wires], [250] * 40)
        server.wait_for_mail("bob", 40, seconds=30)


class Replies(HostileCase):
    def test_a_peer_that_never_reads_is_not_read_from(self) -> None:
        server = self.serve(PATIENT)
        with self.bounded(server), Wire(server.port, receive_buffer=4096) as wire:
            wire.command("EHLO x.example")
            wire.socket.setblocking(False)
            sent = 0
            while select.select([], [wire.socket], [], 1.0)[1]:
                with contextlib.suppress(BlockingIOError):
                    sent += wire.socket.send(b"HELP\r\n" * 10_000)
                self.assertLess(sent, 64 * MEGABYTE, "the server reads on")
            self.assertServes(server)  # beside the one that is stuck
