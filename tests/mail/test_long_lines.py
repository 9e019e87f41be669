"""Long lines in mail that is handed in."""

import email
import os

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.content import Content
from mailserver.mail.long_lines import short_lines

HEAD = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n"
LONG = HEAD + b"\r\n" + "<p>Viele Grüße</p>".encode() * 200 + b"\r\n"
SIGNED = b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n" + b"x" * 1200 + b"\r\n--b--\r\n"


def octets(content: Content) -> bytes:
    return b"".join(content.chunks())


class ShortLinesTests(SynchronousTestCase):
    def assert_short_and_the_same(self, content: Content, data: bytes) -> None:
        result = octets(content)
        self.assertEqual(len(result), content.size)
        self.assertLessEqual(max(map(len, result.split(b"\r\n"))), 998)
        judges = [email.message_from_bytes(one).get_payload(decode=True) for one in (result, data)]
        self.assertEqual(judges[0], judges[1])

    def test_a_part_with_a_long_line_is_encoded(self):
        content = short_lines(Content.of(LONG, prefix=b"Date: x\r\n"))
        self.assert_short_and_the_same(content, LONG)
        self.assertTrue(octets(content).startswith(b"Date: x\r\n" + HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"))

    def test_what_has_none_stays_the_same_object(self):
        for data in (b"", HEAD + b"\r\ntext\r\n", HEAD + b"\r\n" + b"x" * 998 + b"\r\n", b"Subject: " + b"x" * 2000 + b"\r\n\r\ny\r\n"):
            content = Content.of(data)
            self.assertIs(short_lines(content), content)

    def test_what_is_signed_encrypted_or_binary_stays_as_it_is(self):
        for content in (
            Content.of(b"DKIM-Signature: v=1\r\n" + LONG),
            Content.of(SIGNED),
            Content.of(SIGNED.replace(b"signed", b"encrypted")),
            Content.of(LONG, binary=True),
            Content.of(LONG.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: x-own\r\n\r\n", 1)),
        ):
            self.assertIs(short_lines(content), content)

    def test_what_is_signed_by_us_is_text_of_7_bits_whatever_it_was(self):
        for data in (HEAD + b"\r\ngr\xc3\xbcn\r\n", HEAD + b"\r\nnul \0 and a bare \r or \n\r\n" + bytes(range(128, 256))):
            content = short_lines(Content.of(data, binary=True), seven_bit=True)
            self.assertTrue(octets(content).isascii())
            self.assertFalse(content.binary)
            self.assert_short_and_the_same(content, data)

    def test_a_file_is_written_anew_in_its_place(self):
        path = self.mktemp()
        data = HEAD + b"\r\n" + (b"<p>" * 400_000 + b"\r\n")
        with open(path, "wb") as file:
            file.write(b"away\r\n" + data)
        content = short_lines(Content.at(path, len(data) + 6, prefix=b"Date: x\r\n", skip=6))
        self.assertEqual((content.path, content.size, content.prefix), (path, os.path.getsize(path), b""))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.assert_short_and_the_same(content, data)
        self.assertFalse(os.path.exists(f"{path}.new"))
        self.assertIs(short_lines(content), content)

    def test_where_it_cannot_be_written_the_file_stays_as_it_was(self):
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(LONG)
        os.mkdir(f"{path}.new")
        self.assertRaises(OSError, short_lines, Content.at(path, len(LONG)))
        with open(path, "rb") as file:
            self.assertEqual(file.read(), LONG)
