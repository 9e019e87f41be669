from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply


class ReplyTests(SynchronousTestCase):
    def test_one_line_with_its_enhanced_code_rfc2034_4(self) -> None:
        self.assertEqual(Reply.of(250, "2.1.0", "fine").encode(), b"250 2.1.0 fine\r\n")
        self.assertEqual(Reply.of(354, "", "go ahead").encode(), b"354 go ahead\r\n")

    def test_several_lines_repeat_code_and_enhanced_code_rfc5321_4_2_1(self) -> None:
        self.assertEqual(
            Reply.of(550, "5.1.1", "no", "such", "user").encode(),
            b"550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user\r\n",
        )

    def test_its_class_follows_from_the_code(self) -> None:
        for code, classes in (
            (250, (True, False, False)),
            (354, (True, False, False)),
            (451, (False, True, False)),
            (550, (False, False, True)),
        ):
            reply = Reply.of(code, "", "x")
            self.assertEqual((reply.is_positive, reply.is_transient, reply.is_permanent), classes)

    def test_no_text_can_end_a_reply_and_begin_another(self) -> None:
        for line in ("a\r\n250 ok", "a\nb", "a\rb", "a\0", "\x1b[2J", "\x85", "\u2028", "\udc80"):
            self.assertRaises(ValueError, Reply.of, 550, "5.0.0", "first", line)

    def test_a_reply_has_at_least_one_line(self) -> None:
        self.assertRaises(ValueError, Reply.of, 250, "2.0.0")

    @given(st.lists(st.text(max_size=20), max_size=3))
    def test_the_words_of_a_peer_are_made_safe(self, lines: list[str]) -> None:
        reply = Reply.heard(450, "4.0.0", lines)
        self.assertEqual(reply.encode().count(b"\r\n"), max(1, len(lines)))
        self.assertEqual(Reply.heard(450, "4.0.0", reply.lines), reply)
