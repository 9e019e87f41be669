"""Tags: ours into one recipient's copy, those of others out of it."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Finding
from mailserver.mail.content import Content
from mailserver.mail.edits import AddHeader
from mailserver.mail.tags import TAG_OCTETS, added_tags, for_final_delivery, tag_lines
from tests.any_octets import any_octets

FOREIGN = (
    b"X-Spam-Flag: NO\r\nSubject: one\r\nx-spam-status :\r\n no\r\nX-QUARANTINE: x\r\nX-Quarantine-Id: 7\r\nX-Spammer: kept\r\n"
    b"Return-Path: <x@y.example>\r\n\r\nX-Spam-Flag: text\r\n"
)
CLEAN = b"Subject: one\r\nX-Spammer: kept\r\n\r\nX-Spam-Flag: text\r\n"


def finding(*tags: tuple[str, str]) -> Finding:
    return Finding("spam", 1.0, tags=tuple([AddHeader(*tag) for tag in tags]))


class Lines(SynchronousTestCase):
    def test_they_stand_in_their_order_each_once(self) -> None:
        lines = tag_lines([finding(("X-Spam-Flag", "YES")), finding(("A", "ä"), ("X-Spam-Flag", "YES"))], [b"X-Spam-Own: 1\r\n"])
        self.assertEqual(lines, ("X-Spam-Own: 1\r\nX-Spam-Flag: YES\r\nA: ä\r\n".encode(), 0))
        self.assertEqual(tag_lines([Finding("spf")]), (b"", 0))

    def test_there_is_room_for_so_much_and_whole_fields(self) -> None:
        octets, left = tag_lines([finding(*[(f"X-{n}", "y" * 900) for n in range(10)])])
        self.assertLessEqual(len(octets), TAG_OCTETS)
        self.assertEqual((octets.count(b"\r\n"), left), (4, 6))


class Final(SynchronousTestCase):
    def test_what_came_with_the_message_is_left_out_and_nothing_else(self) -> None:
        path = os.path.abspath(self.mktemp())
        with open(path, "wb") as spooled:
            spooled.write(FOREIGN)
        for content in (Content.of(FOREIGN), Content.at(path, len(FOREIGN))):
            self.assertEqual(b"".join(for_final_delivery(content).chunks()), CLEAN)

    def test_a_message_without_any_is_the_same_object(self) -> None:
        for octets in (b"Subject: x\r\n\r\nX-Spam-Flag: y\r\n", b"", b"X-Spam-Flag", b"Subject: X-Spam-Flag: YES\r\n\r\n"):
            content = Content.of(octets)
            self.assertIs(for_final_delivery(content), content)

    def test_a_modifiers_own_is_known_by_its_octets(self) -> None:
        before = Content.of(b"X-Spam-Flag: NO\r\nSubject: x\r\n\r\n")
        after = Content.of(b"X-Spam-Flag: NO\r\nSubject: x\r\n\r\n", prefix=b"X-Spam-Flag: NO\r\nX-Spam-Level: 3\r\n")
        self.assertEqual(added_tags(before, after), [b"X-Spam-Flag: NO\r\n", b"X-Spam-Level: 3\r\n"])
        self.assertEqual(added_tags(before, before), [])

    @given(any_octets(), st.booleans())
    def test_whatever_the_octets_it_never_raises_and_the_text_stays(self, octets: bytes, in_front: bool) -> None:
        content = Content.of(octets, prefix=b"X-Spam-A: 1\r\n" if in_front else b"")
        final = b"".join(for_final_delivery(content).chunks())
        self.assertTrue(final.endswith(octets.partition(b"\r\n\r\n")[2]))
