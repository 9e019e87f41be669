from __future__ import annotations

import os
from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.content import HEADER_OCTETS, Content
from mailserver.mail.edits import AddHeader, DropHeader, Edit, EditError, apply_edits

MESSAGE = b"From: a@x\r\nX-Spam: no\r\n maybe\r\nSubject: s\r\nx-spam: yes\r\n\r\nbody X-Spam: stays\r\n"


def octets(content: Content) -> bytes:
    return b"".join(content.chunks())


class InFileTestCase(SynchronousTestCase):
    def in_file(self, message: bytes, prefix: bytes = b"") -> Content:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(message)
        return Content.at(path, len(message), prefix=prefix)

    def both(self, message: bytes, prefix: bytes = b"") -> Iterable[Content]:
        return Content.of(message, prefix=prefix), self.in_file(message, prefix)


class ContentTests(InFileTestCase):
    def test_the_prefix_comes_first_and_counts(self) -> None:
        for content in self.both(MESSAGE, b"B: 2\r\n"):
            content = content.with_prefix(b"A: 1\r\n")
            self.assertEqual(octets(content), b"A: 1\r\nB: 2\r\n" + MESSAGE)
            self.assertEqual(content.size, len(octets(content)))
            self.assertEqual(content.headers.get("b"), "2")
            self.assertEqual(content.headers.get("subject"), "s")

    def test_the_head_ends_with_the_first_empty_line(self) -> None:
        for message, head in (
            (MESSAGE, MESSAGE[: MESSAGE.index(b"body")]),
            (b"\r\nbody\r\n\r\n", b"\r\n"),
            (b"Only: fields\r\n", b"Only: fields\r\n"),
            (b"", b""),
        ):
            for content in self.both(message, b"A: 1\r\n"):
                self.assertEqual(content.head, b"A: 1\r\n" + head)

    def test_a_head_without_an_end_is_cut_at_its_bound(self) -> None:
        for content in self.both(b"x" * (HEADER_OCTETS + 10)):
            self.assertEqual(len(content.head), HEADER_OCTETS)

    def test_a_file_comes_in_pieces_of_the_size_asked_for(self) -> None:
        pieces = list(self.in_file(b"0123456789").chunks(4))
        self.assertEqual(pieces, [b"0123", b"4567", b"89"])

    def test_a_file_that_lost_its_end_is_an_error_not_a_shorter_message(self) -> None:
        content = self.in_file(MESSAGE)
        assert content.path is not None
        os.truncate(content.path, 20)
        self.assertRaises(OSError, octets, content)

    def test_what_was_appended_to_a_file_is_no_part_of_the_message(self) -> None:
        content = self.in_file(MESSAGE)
        assert content.path is not None
        with open(content.path, "ab") as file:
            file.write(b"more")
        self.assertEqual(octets(content), MESSAGE)


class ApplyEditsTests(InFileTestCase):
    def edited(self, message: bytes, *edits: Edit, prefix: bytes = b"") -> bytes:
        """The edited octets; the same from memory and from a file, and with the right size."""
        results = []
        for content in self.both(message, prefix):
            edited = apply_edits(content, edits)
            results.append(octets(edited))
            self.assertEqual(edited.size, len(results[-1]))
            again = apply_edits(edited, [DropHeader("not-there")])
            self.assertEqual(octets(again), results[-1])
        self.assertEqual(results[0], results[1])
        return results[0]

    def test_a_header_is_added_in_front_the_last_on_top(self) -> None:
        self.assertEqual(
            self.edited(MESSAGE, AddHeader("A", "1"), AddHeader("B", "2\r\n more")),
            b"B: 2\r\n more\r\nA: 1\r\n" + MESSAGE,
        )

    def test_a_drop_takes_every_field_of_the_name_and_leaves_the_body(self) -> None:
        self.assertEqual(
            self.edited(MESSAGE, DropHeader("X-SPAM")), b"From: a@x\r\nSubject: s\r\n\r\nbody X-Spam: stays\r\n"
        )

    def test_edits_are_made_in_their_order(self) -> None:
        self.assertTrue(
            self.edited(MESSAGE, DropHeader("X-Spam"), AddHeader("X-Spam", "new")).startswith(b"X-Spam: new\r\nFrom")
        )
        self.assertTrue(self.edited(MESSAGE, AddHeader("X-Spam", "new"), DropHeader("X-Spam")).startswith(b"From"))

    def test_a_drop_reaches_an_earlier_prefix(self) -> None:
        self.assertEqual(
            self.edited(b"S: s\r\n\r\nb", DropHeader("P"), prefix=b"P: 1\r\nQ: 2\r\n"), b"Q: 2\r\nS: s\r\n\r\nb"
        )

    def test_drops_one_after_the_other_on_a_file(self) -> None:
        content = apply_edits(self.in_file(MESSAGE), [DropHeader("X-Spam")])
        content = apply_edits(content.with_prefix(b"T: 1\r\n"), [DropHeader("Subject"), AddHeader("Z", "1")])
        self.assertEqual(octets(content), b"Z: 1\r\nT: 1\r\nFrom: a@x\r\n\r\nbody X-Spam: stays\r\n")
        self.assertEqual(content.headers.get_all("from"), ["a@x"])

    def test_a_message_of_fields_alone_and_one_of_body_alone(self) -> None:
        self.assertEqual(self.edited(b"A: 1\r\nB: 2\r\n", DropHeader("A")), b"B: 2\r\n")
        self.assertEqual(self.edited(b"A: 1\r\n\r\nbody", DropHeader("A")), b"\r\nbody")
        self.assertEqual(self.edited(b"\r\nA: body", DropHeader("A")), b"\r\nA: body")

    def test_the_file_itself_is_left_alone(self) -> None:
        content = self.in_file(MESSAGE)
        assert content.path is not None
        apply_edits(content, [DropHeader("From"), AddHeader("A", "1")])
        with open(content.path, "rb") as file:
            self.assertEqual(file.read(), MESSAGE)

    def test_a_header_section_without_an_end_cannot_lose_a_field(self) -> None:
        for content in self.both(b"A: 1\r\n" + b"x" * (HEADER_OCTETS + 10)):
            self.assertRaises(EditError, apply_edits, content, [DropHeader("A")])

    def test_binary_stays_binary(self) -> None:
        content = Content.of(MESSAGE, binary=True)
        self.assertTrue(apply_edits(content, [DropHeader("From"), AddHeader("A", "1")]).binary)

    def test_a_value_cannot_smuggle_a_field_or_end_the_header(self) -> None:
        for value in (
            "a\r\nB: c",
            "a\nb",
            "a\rb",
            "a\n b",
            "a\r\n",
            "a\r\n\r\nbody",
            "a\r\n \r\n b",
            "a\0b",
            "a\x1bb",
            "a\x7f",
            "\ud800",
        ):
            self.assertRaises(EditError, AddHeader, "A", value)

    def test_a_name_is_printable_and_without_colon(self) -> None:
        for name in ("", "A:", "A B", "A\r\nB", "é", "A\0"):
            self.assertRaises(EditError, AddHeader, name, "x")
            self.assertRaises(EditError, DropHeader, name)

    def test_a_line_has_998_octets_at_most_rfc5322_2_1_1(self) -> None:
        self.edited(MESSAGE, AddHeader("A", "x" * 995), AddHeader("A", "x" * 995 + "\r\n " + "y" * 997))
        self.assertRaises(EditError, AddHeader, "A", "x" * 996)


class CutHeads(SynchronousTestCase):
    def test_a_header_section_that_does_not_end_within_what_is_looked_at_is_cut(self) -> None:
        long = b"a: " + b"x" * HEADER_OCTETS
        for data, prefix, is_cut in (
            (long, b"", True), (long, b"Received: x\r\n", True), (b"a: b\r\n\r\n" + long, b"", False), (b"a: b", b"", False),
            (long, b"Received: x\r\n\r\n", False), (long, b"\r\n", False),
        ):  # fmt: skip
            self.assertIs(Content.of(data, prefix=prefix).has_cut_head, is_cut, repr((data[:9], prefix)))
