"""Messages and addresses that a component meets sooner or later."""

from __future__ import annotations

from collections.abc import Mapping

from mailserver.mail.address import Address

__all__ = ["ADDRESSES", "HOSTILE_NAMES", "MESSAGES"]

MESSAGES: Mapping[str, bytes] = {
    "an ordinary one": b"From: a@example.net\r\nTo: user@example.org\r\nSubject: Hello\r\n\r\nHow are you?\r\n",
    "nothing at all": b"",
    "no header": b"\r\nOnly a body.\r\n",
    "no body": b"Subject: Hello\r\n",
    "no line end": b"Subject: Hello\r\n\r\nno line end",
    "UTF-8 in the header": "Subject: Grüße, 世界\r\n\r\nText\r\n".encode(),
    "octets that are no UTF-8": b"Subject: caf\xe9 \xff\r\n\r\n\xfe\xff\r\n",
    "NUL and ESC": b"Subject: a\x00b\x1b[2J\r\n\r\n\x00\x1b\r\n",
    "two subjects": b"Subject: one\r\nSubject: two\r\n\r\nText\r\n",
    "a folded field without a text": b"Subject:\r\n \r\n\tword\r\n\r\nText\r\n",
    "an encoded word that is none": b"Subject: =?utf-8?b?%%%?= =?x-none?q?=ZZ?=\r\n\r\nText\r\n",
    "a multipart without an end": b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nText',
    "a multipart in itself": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * 50,
    "base64 that is none": b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!\r\n=\r\n",
    "a long line": b"Subject: " + b"x" * 5000 + b"\r\n\r\n" + b"y" * 200_000 + b"\r\n",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n",
    "From at a line's start": b"Subject: mbox\r\n\r\nFrom here on\r\n>From there\r\n",
}
ADDRESSES: tuple[Address, ...] = tuple(
    [
        Address.parse(text, utf8=True)
        for text in (
            "user@example.org",
            "USER@EXAMPLE.ORG",
            "user+tag@example.org",
            '"two words"@example.org',
            '"../../etc/passwd"@example.org',
            '"a\\"b"@example.org',
            "user%elsewhere@example.org",
            "user!elsewhere@example.org",
            "user@[192.0.2.1]",
            "user@[IPv6:2001:db8::1]",
            "用户@例子.example",
            "x" * 64 + "@example.org",
        )
    ]
)
HOSTILE_NAMES = (
    "", ".", "..", "../alice", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "a b", "*", "%", "_", "'", '"', "' OR '1'='1",
    "*)(uid=*", "${x}", "$(id)", "`id`", "{user}", "-x", "~root", "a" * 300, "é", "\u202e", "Ａlice", "xn--", "@", "a@b",
)  # fmt: skip
