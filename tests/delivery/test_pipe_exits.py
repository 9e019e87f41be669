"""What a command's end means."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.sysexits import outcome_of_end
from mailserver.mail.answers import Delayed, Delivered, Failed

PERMANENT = {
    os.EX_DATAERR: "5.6.0",
    os.EX_NOUSER: "5.1.1",
    os.EX_NOHOST: "5.1.2",
    os.EX_UNAVAILABLE: "5.3.0",
    os.EX_CANTCREAT: "5.2.0",
    os.EX_PROTOCOL: "5.5.0",
    os.EX_NOPERM: "5.7.0",
}


class Ends(SynchronousTestCase):
    def test_zero_is_delivered_with_what_the_command_said(self) -> None:
        self.assertEqual(outcome_of_end(0, "saved as 17\n"), Delivered("the command took it: saved as 17"))
        self.assertEqual(outcome_of_end(0, ""), Delivered("the command took it"))

    def test_what_the_command_says_of_the_message_is_final(self) -> None:
        for status, enhanced in PERMANENT.items():
            outcome = outcome_of_end(status, "")
            assert isinstance(outcome, Failed)
            self.assertEqual((outcome.reply.enhanced, outcome.reply.code // 100), (enhanced, 5))

    def test_every_other_end_is_for_later(self) -> None:
        for status in range(1, 256):
            if status not in PERMANENT:
                outcome = outcome_of_end(status, "words")
                assert isinstance(outcome, Delayed), status
                self.assertEqual((outcome.reply.code, outcome.reply.enhanced[0]), (451, "4"))
                self.assertEqual(outcome.note, f"the command ended with {status}: words")

    def test_a_signal_is_for_later_whatever_was_said(self) -> None:
        outcome = outcome_of_end(-9, "5.7.1 never")
        assert isinstance(outcome, Delayed)
        self.assertEqual(outcome.note, "the command was ended by SIGKILL: 5.7.1 never")
        self.assertIn("signal 63", outcome_of_end(-63, "").note)

    def test_the_command_chooses_its_own_code(self) -> None:
        for status, output, kind, enhanced, words in (
            (1, "5.7.1 No mail for you\nmore", Failed, "5.7.1", "No mail for you"),
            (75, "\n 5.2.2 full", Failed, "5.2.2", "full"),
            (67, "4.2.1 come back", Delayed, "4.2.1", "come back"),
            (69, "5.7.26\nunder it", Failed, "5.7.26", "The message was not taken"),
        ):
            outcome = outcome_of_end(status, output)
            assert isinstance(outcome, kind)
            self.assertEqual((outcome.reply.enhanced, outcome.reply.lines), (enhanced, (words,)))
            self.assertEqual(outcome.reply.code, 554 if kind is Failed else 451)

    def test_what_only_looks_like_a_code_is_none(self) -> None:
        for output in ("2.0.0 fine", "5.7 x", "55.7.1 x", "5.7.1x", "error 5.7.1 x", "5.7.1234 x", "6.1.1 x"):
            outcome = outcome_of_end(67, output)
            assert isinstance(outcome, Failed)
            self.assertEqual(outcome.reply.enhanced, "5.1.1", output)

    @given(st.integers(-64, 255), st.text(max_size=200))
    def test_no_output_breaks_a_reply_or_a_line_of_the_log(self, status: int, output: str) -> None:
        outcome = outcome_of_end(status, "5.7.1 " + output)
        self.assertTrue(outcome.note.isprintable(), repr(outcome.note))
        if isinstance(outcome, Failed | Delayed):
            self.assertEqual(outcome.reply.encode().count(b"\n"), 1)
