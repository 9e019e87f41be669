"""Whether a buffer looks like SMTP."""

from __future__ import annotations

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from mailserver.capture import Confidence, looks_like_smtp
from tests.any_octets import any_octets

SAID = {
    Confidence.CERTAIN: [
        "220 mail.example.org ESMTP Postfix", "220-mx.example\r\n220 esmtp", "250 2.1.0 Ok", "550 5.1.1 no", "EHLO client.example", "helo x", "LHLO [192.0.2.1]",
        "250-mx\r\n250-PIPELINING\r\n250 SIZE", "MAIL FROM:<>", "mail from:<a@b.example> SIZE=3", "RCPT TO:<postmaster>", "BDAT 0 LAST", "XCLIENT ADDR=192.0.2.1",
        "XFORWARD NAME=client.example",
    ],
    Confidence.LIKELY: ["354 go on", "334 VXNlcm5hbWU6", "DATA", "data ", "STARTTLS", "VRFY ann", "MAIL FROM: a@b", "RCPT TO:<ann>", "EHLO my computer", "RCPT TO:<>", "571 5.7.1 no",
                        "BURL IMAP://mail.example/x LAST"],
    Confidence.POSSIBLE: ["220 FTP ready", "250 fine", "571 no", "QUIT", "RSET", "NOOP", "HELP", "HELP MAIL", "AUTH PLAIN", "EHLO", "421-a\r\n421 b"],
    Confidence.NONE: [
        "", ".", "Help me, please", "Data are missing", "Quit smoking now", "MAIL from me", "Mail from: the office", "000 x", "331 Password required", "200 fine",
        "GET / HTTP/1.1", "* OK IMAP4rev1", "+OK POP3", "USER ann", "a1 LOGIN ann pw", "dGVzdA==", "BDAT many", "From: ann", "2500 x", "SSH-2.0-OpenSSH",
        "XFORWARD", "XFORWARD to all", "XCLIENT", "XCLIENT of ours", "BURL", "BURL of mine",
    ],
}  # fmt: skip


class Likeness(SynchronousTestCase):
    def test_how_sure_each_line_makes(self) -> None:
        for confidence, lines in SAID.items():
            for line in lines:
                self.assertIs(looks_like_smtp(f"{line}\r\n".encode()), confidence, line)

    def test_a_cut_line_is_possible_at_most(self) -> None:
        for line in SAID[Confidence.CERTAIN]:
            self.assertLessEqual(looks_like_smtp(line.encode()), Confidence.POSSIBLE, line)
        self.assertIs(looks_like_smtp(b"250-2.0.0 a\r\n250-"), Confidence.POSSIBLE)

    def test_tls_is_not(self) -> None:
        self.assertIs(looks_like_smtp(bytes.fromhex("1603010200010001fc0303") + bytes(32)), Confidence.NONE)

    def test_what_follows_the_first_line_makes_no_difference(self) -> None:
        self.assertIs(looks_like_smtp(b"BDAT 3\r\n\xff\xfe\xfd"), Confidence.CERTAIN)

    def test_none_alone_is_false(self) -> None:
        self.assertEqual([bool(one) for one in Confidence], [False, True, True, True])

    @given(any_octets())
    def test_no_octets_make_it_raise(self, octets: bytes) -> None:
        self.assertIsInstance(looks_like_smtp(octets), Confidence)
