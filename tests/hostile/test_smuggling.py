"""No octets but CRLF.CRLF end the data, and no octets but CRLF end a command.

Each message below holds something that some server has taken for the end of the data (CVE-2023-51764 to 51766 and their
relatives), followed by a second message.  A server that is fooled answers twice, and delivers to alice.
"""

from __future__ import annotations

from tests.hostile.support import ROOMY, HostileCase
from tests.scenarios.support import BASIC, Server, Wire

BARE = [  # they hold a CR, LF or NUL that stands alone
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r\r.\r\r",
    b"\r\n.\r\r\n",
    b"\n\n.\n\n",
    b"\n\r.\n\r",
    b"\r\n\r.\r\n",
    b"\r\n\n.\r\n",
    b"\r\n.\n\r\n",
    b"\r\n.\0\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\r\0\n",
]
STRANGE = [  # whole lines, unlike the one that ends the data: content
    b"\r\n. \r\n",
    b"\r\n .\r\n",
    b"\r\n..\r\n",
    b"\r\n.\t\r\n",
    b"\r\n.\x0b\r\n",
    b"\r\n.\x0c\r\n",
    b"\r\n.\x1a\r\n",
    b"\r\n.\x85\r\n",
    b"\r\n.\xe2\x80\xa8\r\n",
    b"\r\n\xef\xbc\x8e\r\n",
]
SECOND = b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nsmuggled"


class EndOfData(HostileCase):
    def replies(self, server: Server, ending: bytes, *, octet_by_octet: bool) -> list[int]:
        """What the server says to the data and to the QUIT after them."""
        with Wire(server.port) as wire:
            wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>", "DATA")
            pieces = [b"Subject: outer\r\n\r\nouter", ending, SECOND + b"\r\n.\r\nQUIT\r\n"]
            if octet_by_octet:
                pieces[1:2] = [ending[n : n + 1] for n in range(len(ending))]
                for piece in pieces:
                    wire.send(piece)
            else:
                wire.send(b"".join(pieces))
            codes = []
            try:
                while True:
                    codes.append(wire.reply().code)
            except EOFError:
                return codes

    def test_a_lone_cr_lf_or_nul_never_ends_the_data(self) -> None:
        server = self.serve(ROOMY)
        for ending in BARE:
            for octet_by_octet in (False, True):
                self.assertEqual(
                    self.replies(server, ending, octet_by_octet=octet_by_octet), [250, 221], f"fooled by {ending!r}"
                )
        for message in server.wait_for_mail("bob", 2 * len(BARE)):
            self.assertIn(b"MAIL FROM:<evil@example.net>", message.data)
        self.assertEqual(server.messages("alice"), [])
        self.assertServes(server)

    def test_where_they_are_refused_the_message_is_refused_at_its_true_end(self) -> None:
        server = self.serve(ROOMY + 'stray_line_ends = "refuse"\n')
        for ending in BARE:
            self.assertEqual(self.replies(server, ending, octet_by_octet=False), [550, 221], f"fooled by {ending!r}")
        self.assertEqual((server.messages("alice"), server.messages("bob")), ([], []))

    def test_a_line_that_only_resembles_the_last_one_is_content(self) -> None:
        server = self.serve(ROOMY)
        for ending in STRANGE:
            self.assertEqual(self.replies(server, ending, octet_by_octet=False), [250, 221], f"fooled by {ending!r}")
        stored = server.wait_for_mail("bob", len(STRANGE))
        self.assertEqual(
            {message.body for message in stored},
            {(b"outer" + ending + SECOND + b"\r\n").replace(b"\r\n.", b"\r\n") for ending in STRANGE},
        )
        self.assertEqual(server.messages("alice"), [])

    def test_a_network_that_may_use_lone_lf_cannot_end_the_data_with_it_after_a_crlf(self) -> None:
        server = self.serve(BASIC + '[limits]\nbare_lf_networks = ["127.0.0.0/8"]\n')
        for ending in BARE:
            self.assertEqual(self.replies(server, ending, octet_by_octet=False), [250, 221], f"fooled by {ending!r}")
        for message in server.wait_for_mail("bob", len(BARE)):
            self.assertIn(b"MAIL FROM:<evil@example.net>", message.data)
        self.assertEqual(server.messages("alice"), [])

    def test_a_device_that_knows_lf_alone_sends_its_mail_and_nobody_elses(self) -> None:
        server = self.serve(BASIC + '[limits]\nbare_lf_networks = ["127.0.0.0/8"]\n')
        lines = (b"HELO dev\n", b"MAIL FROM:<s@example.net>\n", b"RCPT TO:<bob@example.org>\n", b"DATA\n")
        with Wire(server.port) as wire:
            for line in lines:
                wire.send(line)
                self.assertIn(wire.reply().code, (250, 354))
            wire.send(b"Subject: scan\n\none\ntwo\n.\n")
            self.assertEqual(wire.reply().code, 250)
            wire.send(b"QUIT\n")
            self.assertEqual(wire.reply().code, 221)
        (message,) = server.wait_for_mail("bob")
        self.assertEqual(message.body, b"one\r\ntwo\r\n")
        for ending in BARE:
            with Wire(server.port) as wire:
                for line in lines:
                    wire.send(line)
                    wire.reply()
                second = (SECOND + b"\r\n.\r\n").replace(b"\r\n", b"\n")
                wire.send(b"Subject: outer\n\nouter" + ending + second + b"\r\n.\r\n")
                self.assertEqual(wire.reply().code, 250, ending)
        server.wait_for_mail("bob", 1 + len(BARE))
        self.assertEqual(server.messages("alice"), [])

    def test_a_chunk_is_as_long_as_it_says_whatever_it_holds(self) -> None:
        """RFC 3030 section 2: octets are counted, nothing is looked for."""
        server = self.serve()
        content = b"Subject: outer\r\n\r\nouter\r\n.\r\n" + SECOND + b"\r\n.\r\nQUIT\r\n"
        with Wire(server.port) as wire:
            wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>")
            wire.send(b"BDAT %d LAST\r\n%bQUIT\r\n" % (len(content), content))
            self.assertEqual([wire.reply().code, wire.reply().code], [250, 221])
            self.assertTrue(wire.is_closed())
        server.wait_for_mail("bob")
        self.assertEqual(server.messages("alice"), [])


class EndOfCommand(HostileCase):
    def test_a_lone_cr_or_lf_makes_one_bad_command_and_not_two(self) -> None:
        server = self.serve()
        for line in (
            b"NOOP\nNOOP",
            b"NOOP\rNOOP",
            b"RCPT TO:<bob@example.org>\nRCPT TO:<alice@example.org>",
            b"RCPT TO:<bob@example.org>\n",
            b"RCPT TO:<bob@example.org>\r",
            b"NOOP\0",
            b"RSET\n.\n",
        ):
            with Wire(server.port) as wire:
                wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>")
                wire.send(line + b"\r\nQUIT\r\n")
                codes = [wire.reply().code, wire.reply().code]
                self.assertTrue(500 <= codes[0] < 600, (line, codes))
                self.assertEqual(codes[1], 221, line)
                self.assertTrue(wire.is_closed())

    def test_a_size_of_a_chunk_is_ascii_digits_or_an_error(self) -> None:
        server = self.serve()
        for size in ("-5", "+5", "1.5", "0x10", "1_0", "１２", "", "5 5", "9" * 40, "NaN"):
            with Wire(server.port) as wire:
                wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>")
                code = wire.command(f"BDAT {size} LAST").code
                self.assertTrue(400 <= code < 600, (size, code))
        self.assertEqual(server.messages("bob"), [])
        self.assertServes(server)
