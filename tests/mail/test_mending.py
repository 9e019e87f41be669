from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailserver.mail.content import HEADER_OCTETS, Content
from mailserver.mail.edits import AddHeader, DropHeader, apply_edits
from mailserver.mail.mending import mended
from tests.mail.test_content import InFileTestCase, octets

TEXT = "an empty line before the text"
MBOX = "the separator line of an mbox is a field"


class MendingTests(InFileTestCase):
    def assertMended(self, message: bytes, expected: bytes, *done: str) -> None:
        for content in self.both(message):
            result, said = mended(content)
            self.assertEqual((octets(result), said), (expected, done))
            self.assertEqual(result.size, len(expected))
            head, empty, _ = expected.partition(b"\r\n\r\n")
            if not expected.startswith(b"\r\n"):
                self.assertEqual(result.with_prefix(b"A: 1\r\n").head, b"A: 1\r\n" + head + empty, message)

    def test_what_is_right_stays_the_same_object(self) -> None:
        for message in (
            b"",
            b"\r\ntext\r\n",
            b"A: b\r\n",
            b"A: b",
            b"A: b\r\n c\r\n\td\r\n\r\ntext without a colon\r\n",
            b"A : b\r\nB\t:\r\n\r\nFrom me\r\n",
            b"A: b\r\n \r\nC: d\r\n\r\n",
            b"From: a@b\r\n\r\nx",
        ):
            for content in self.both(message):
                result, done = mended(content)
                self.assertIs(result, content, message)
                self.assertEqual(done, ())

    def test_text_behind_the_fields_gets_its_empty_line(self) -> None:
        self.assertMended(b"A: b\r\ntext here\r\nmore: text\r\n", b"A: b\r\n\r\ntext here\r\nmore: text\r\n", TEXT)
        self.assertMended(b"A: b\r\n c\r\ntext\r\n\r\nmore\r\n", b"A: b\r\n c\r\n\r\ntext\r\n\r\nmore\r\n", TEXT)
        self.assertMended(b"A: b\r\ntext", b"A: b\r\n\r\ntext", TEXT)
        self.assertMended(b"A: b\r\n: text\r\n", b"A: b\r\n\r\n: text\r\n", TEXT)
        self.assertMended(b"A: b\r\n\xe9: text\r\n", b"A: b\r\n\r\n\xe9: text\r\n", TEXT)
        self.assertMended(b"A: b\r\nFrom me\r\n", b"A: b\r\n\r\nFrom me\r\n", TEXT)
        self.assertMended(b"text alone\r\n", b"\r\ntext alone\r\n", TEXT)
        self.assertMended(b" text\r\nA: b\r\n\r\n", b"\r\n text\r\nA: b\r\n\r\n", TEXT)
        self.assertMended(b".\r\n", b"\r\n.\r\n", TEXT)

    def test_the_separator_line_of_an_mbox_becomes_a_field_as_postfix_does_it(self) -> None:
        self.assertMended(b"From me Mon\r\nA: b\r\n\r\nx", b"X-Mailbox-Line: From me Mon\r\nA: b\r\n\r\nx", MBOX)
        self.assertMended(b">From me\r\nA: b\r\n\r\nx", b"X-Mailbox-Line: >From me\r\nA: b\r\n\r\nx", MBOX)
        self.assertMended(
            b"From me\r\nFrom you\r\nA: b\r\n", b"X-Mailbox-Line: From me\r\nX-Mailbox-Line: From you\r\nA: b\r\n", MBOX
        )
        self.assertMended(b"From me\r\nA: b\r\ntext\r\n", b"X-Mailbox-Line: From me\r\nA: b\r\n\r\ntext\r\n", MBOX, TEXT)
        self.assertMended(b"From me\r\n text\r\n", b"X-Mailbox-Line: From me\r\n\r\n text\r\n", MBOX, TEXT)
        self.assertMended(b"From me\r\n\r\ntext\r\n", b"X-Mailbox-Line: From me\r\n\r\ntext\r\n", MBOX)

    def test_long_text_without_an_empty_line_is_text(self) -> None:
        text = b"a line of a report\r\n" * 20_000
        self.assertGreater(len(text), HEADER_OCTETS)
        self.assertMended(b"A: b\r\n" + text, b"A: b\r\n\r\n" + text, TEXT)

    def test_edits_see_the_mended_header_and_leave_its_end(self) -> None:
        for content in self.both(b"A: b\r\nBcc: c\r\ntext\r\n"):
            content, _ = mended(content)
            self.assertEqual(len(content.headers), 2)
            edited = apply_edits(content, [DropHeader("Bcc"), AddHeader("X", "1")])
            self.assertEqual(octets(edited), b"X: 1\r\nA: b\r\n\r\ntext\r\n")
            edited = apply_edits(edited, [DropHeader("A"), DropHeader("X")])
            self.assertEqual(octets(edited), b"\r\ntext\r\n")
            edited = apply_edits(edited, [AddHeader("Y", "2"), DropHeader("B")])
            self.assertEqual((octets(edited), edited.headers.get("y")), (b"Y: 2\r\n\r\ntext\r\n", "2"))

    def test_binary_stays_binary(self) -> None:
        content, _ = mended(Content.of(b"A: b\r\ntext\n", binary=True))
        self.assertEqual((octets(content), content.binary), (b"A: b\r\n\r\ntext\n", True))

    lines = st.sampled_from([b"A: b", b" c", b"text", b"", b"From me", b">From x", b":", b"D :e"])

    @given(st.lists(lines, max_size=8))
    def test_what_was_mended_is_right(self, lines: list[bytes]) -> None:
        message = b"\r\n".join(lines)
        for content in self.both(message):
            once, _ = mended(content)
            self.assertTrue(octets(once).endswith(message[-3:]))
            again, done = mended(Content.of(octets(once)))
            self.assertEqual((octets(again), done), (octets(once), ()))
            self.assertEqual(once.head, again.head)
