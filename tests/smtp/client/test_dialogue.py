"""The dialogue that is kept for people: what was said, without content, bounded."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.client.dialogue import LINE_CHARACTERS, LINES
from tests.smtp.client.client_talk import EHLO_LOCK_STEP, EHLO_PIPELINING, Talk

OPENING = [
    "S: 220 mx.example.org ESMTP",
    "C: EHLO",
    "S: 250 mx.example.org / PIPELINING / 8BITMIME",
]


class DialogueTests(SynchronousTestCase):
    def lines(self, talk: Talk, recipient: int | None = 0) -> list[str]:
        return list(talk.session.dialogue.lines(recipient))

    def test_it_has_the_opening_and_the_transaction_and_no_content(self) -> None:
        talk = Talk().ready()
        talk.send("a")
        talk.hear(b"250 2.1.0 Ok\r\n550 5.1.1 Nobody\r\n503 5.5.1 No recipients\r\n")
        self.assertEqual(
            self.lines(talk),
            [
                *OPENING,
                "C: MAIL FROM:<s@client.example>",
                "S: 250 2.1.0 Ok",
                "C: RCPT TO:<a@example.org>",
                "S: 550 5.1.1 Nobody",
                "C: DATA",
                "S: 503 5.5.1 No recipients",
            ],
        )

    def test_an_answer_to_the_content_stands_behind_a_word_for_it(self) -> None:
        talk = Talk(content=[b"Subject: secret\r\n\r\nsecret\r\n"]).ready()
        talk.send("a")
        talk.hear(b"250 Ok\r\n250 Ok\r\n354 Go\r\n", b"552 5.3.4 Too much\r\n")
        self.assertEqual(self.lines(talk)[-2:], ["C: (the content)", "S: 552 5.3.4 Too much"])
        self.assertNotIn("secret", " ".join(self.lines(talk)))

    def test_it_tells_of_one_recipient_and_not_of_the_others(self) -> None:
        talk = Talk().ready()
        talk.send("a", "b")
        talk.hear(b"250 Ok\r\n450 4.2.1 Busy\r\n550 5.1.1 Nobody\r\n503 5.5.1 No\r\n")
        of_a, of_b = (" ".join(self.lines(talk, index)) for index in (0, 1))
        self.assertIn("450 4.2.1 Busy", of_a)
        self.assertNotIn("b@example.org", of_a)
        self.assertIn("RCPT TO:<b@example.org> S: 550 5.1.1 Nobody", of_b)
        self.assertNotIn("RCPT", " ".join(self.lines(talk, None)))

    def test_the_next_transaction_forgets_the_one_before_and_keeps_the_opening(self) -> None:
        talk = Talk().ready(EHLO_LOCK_STEP)
        talk.send("first")
        talk.hear(b"250 Ok\r\n", b"550 5.1.1 Nobody\r\n")
        talk.forget()
        talk.send("second")
        talk.hear(b"250 Flushed\r\n", b"250 Ok\r\n", b"450 Busy\r\n")
        text = " ".join(self.lines(talk))
        self.assertNotIn("first", text)
        self.assertIn("C: RSET S: 250 Flushed C: MAIL", text)
        self.assertIn("C: RCPT TO:<second@example.org> S: 450 Busy", text)
        self.assertTrue(text.startswith("S: 220 mx.example.org ESMTP C: EHLO"))

    def test_a_command_that_had_no_answer_says_so(self) -> None:
        talk = Talk().ready()
        talk.send("a")
        talk.hear(b"250 Ok\r\n")
        talk.eof()
        self.assertEqual(
            self.lines(talk)[len(OPENING) + 2 :],
            ["C: RCPT TO:<a@example.org>", "S: (no answer)", "C: DATA", "S: (no answer)"],
        )

    def test_421_is_the_answer_to_what_was_said_first(self) -> None:
        talk = Talk().ready()
        talk.send("a")
        talk.hear(b"421 4.3.2 Going\r\n")
        self.assertEqual(
            self.lines(talk)[len(OPENING) : len(OPENING) + 4],
            ["C: MAIL FROM:<s@client.example>", "S: 421 4.3.2 Going", "C: RCPT TO:<a@example.org>", "S: (no answer)"],
        )

    def test_what_nobody_asked_for_stands_alone(self) -> None:
        talk = Talk().ready()
        talk.hear(b"250 Who asked\r\n")
        self.assertEqual(self.lines(talk), [*OPENING, "S: 250 Who asked"])

    def test_a_greeting_that_refuses_is_all_there_is(self) -> None:
        talk = Talk()
        talk.hear(b"554 5.7.1 Not you\r\n")
        self.assertEqual(self.lines(talk), ["S: 554 5.7.1 Not you"])

    def test_lines_are_bounded_in_length_and_number(self) -> None:
        talk = Talk()
        talk.hear(b"220 " + b"x" * 400 + b"\r\n", EHLO_PIPELINING)
        self.assertEqual(len(self.lines(talk)[0]), LINE_CHARACTERS)
        for _ in range(60):
            talk.session.reset()
            talk.take()
            talk.hear(b"250 Ok\r\n")
        self.assertEqual(len(self.lines(talk)), LINES)
        self.assertEqual(self.lines(talk)[0], "…")
