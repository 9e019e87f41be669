"""Sessions in captures: dialogues as they were, with what is missing said to be so."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from mailserver.capture import build, dialogue
from mailserver.capture.dialogue import DialogueReader
from mailserver.capture.events import CommandReply, ContentEnd, ContentStretch, Encrypted, NotCaptured, ReplyCause
from mailserver.capture.files import CapturedFrame
from mailserver.capture.reassembly import Gap, Piece
from mailserver.capture.session import Session, SessionEnding
from mailserver.capture.sessions import Said, Sessions
from tests.any_octets import any_octets
from tests.capture.wire import ACK, FIN, RST, SECOND, SYN, Connection

Pair = tuple[str, str | None]


def decoded(frames: Iterable[CapturedFrame], **more: object) -> list[Said]:
    sessions = Sessions(**more)  # type: ignore[arg-type]
    return [said for frame in frames for said in sessions.feed(frame)] + list(sessions.finish())


def pairs(said: Iterable[Said]) -> list[Pair]:
    """Each exchange, as text: the command, or in brackets what it is in its place; the reply."""
    found = [one.event for one in said if isinstance(one.event, CommandReply)]
    return [
        (
            f"[{one.cause.value}]" if one.command is None else one.command.decode("latin-1").strip(),
            None if one.reply is None else one.reply.decode("latin-1").strip(),
        )
        for one in found
    ]


def content(said: Iterable[Said]) -> bytes:
    return b"".join([one.event.octets for one in said if isinstance(one.event, ContentStretch)])


def ends(said: Iterable[Said]) -> list[ContentEnd]:
    return [one.event for one in said if isinstance(one.event, ContentEnd)]


def session(said: Sequence[Said]) -> Session:
    assert said[-1].event is None
    return said[-1].session


MESSAGE = b"Subject: dots\r\n\r\n.one\r\n..\r\nand more\r\n"
PLAIN = (
    b"S: 220 mx.example ESMTP\r\n", b"C: EHLO client.example\r\n", b"S: 250-mx.example\r\n250 PIPELINING\r\n",
    b"C: MAIL FROM:<ann@example.org>\r\n", b"S: 250 2.1.0 Ok\r\n", b"C: RCPT TO:<bob@example.net>\r\n", b"S: 250 2.1.5 Ok\r\n",
    b"C: DATA\r\n", b"S: 354 Go on\r\n", b"C: " + build.content(MESSAGE), b"S: 250 2.0.0 Queued\r\n", b"C: QUIT\r\n", b"S: 221 Bye\r\n",
)  # fmt: skip
PLAIN_PAIRS = [
    ("[greeting]", "220 mx.example ESMTP"), ("EHLO client.example", "250-mx.example\r\n250 PIPELINING"), ("MAIL FROM:<ann@example.org>", "250 2.1.0 Ok"),
    ("RCPT TO:<bob@example.net>", "250 2.1.5 Ok"), ("DATA", "354 Go on"), ("[content]", "250 2.0.0 Queued"), ("QUIT", "221 Bye"),
]  # fmt: skip


class Dialogues(TestCase):
    def test_each_command_has_its_reply_and_the_content_is_whole(self) -> None:
        connection = Connection()
        said = decoded([*connection.opened(), *connection.said(*PLAIN), *connection.closed()])
        self.assertEqual(pairs(said), PLAIN_PAIRS)
        self.assertEqual(content(said), MESSAGE)
        self.assertEqual([(one.size, one.is_whole) for one in ends(said)], [(len(MESSAGE), True)])
        one = session(said)
        self.assertEqual((str(one.client), one.client_port, str(one.server), one.server_port), ("192.0.2.1", 40000, "192.0.2.25", 25))
        self.assertEqual((one.ending, one.has_start, one.lost, one.retransmitted, one.is_lmtp, one.is_tls), (SessionEnding.CLOSED, True, 0, 0, False, False))
        self.assertEqual(one.client_octets, sum([len(line) - 3 for line in PLAIN if line[:1] == b"C"]))

    def test_times_are_those_of_the_last_octets(self) -> None:
        connection = Connection(at=0)
        said = decoded([*connection.opened(), *connection.said(b"S: 220 mx ESMTP\r\n", b"C: EH", b"C: LO me\r\n", b"S: 250-a\r\n", b"S: 250 b\r\n")])
        one = said[1].event
        assert isinstance(one, CommandReply)
        self.assertEqual((one.time, one.replied), (6_000_000, 8_000_000))
        self.assertEqual(one.view.command, "EHLO")
        self.assertEqual(one.reply_view.reply_code, 250)

    def test_pipelined_commands_have_the_replies_in_their_order(self) -> None:
        connection = Connection()
        said = decoded([*connection.opened(), *connection.said(
            b"S: 220 mx ESMTP\r\n", b"C: EHLO me\r\n", b"S: 250-mx\r\n250 PIPELINING\r\n",
            b"C: MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c@b.example>\r\nDATA\r\n", b"S: 250 m\r\n550 5.1.1 a\r\n", b"S: 250 c\r\n354 go\r\n",
            b"C: x\r\n.\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<d@b.example>\r\nDATA\r\n", b"S: 250 x\r\n250 r\r\n250 m\r\n550 d\r\n554 none\r\n", b"C: RSET\r\nQUIT\r\n", b"S: 250 r\r\n221 q\r\n",
        )])  # fmt: skip
        self.assertEqual(pairs(said)[2:], [
            ("MAIL FROM:<>", "250 m"), ("RCPT TO:<a@b.example>", "550 5.1.1 a"), ("RCPT TO:<c@b.example>", "250 c"), ("DATA", "354 go"), ("[content]", "250 x"),
            ("RSET", "250 r"), ("MAIL FROM:<>", "250 m"), ("RCPT TO:<d@b.example>", "550 d"), ("DATA", "554 none"), ("RSET", "250 r"), ("QUIT", "221 q"),
        ])  # fmt: skip

    def test_bdat_has_its_octets_whatever_they_are(self) -> None:
        connection = Connection()
        said = decoded([*connection.opened(), *connection.said(
            b"S: 220 mx ESMTP\r\n", b"C: EHLO me\r\n", b"S: 250 CHUNKING\r\n", b"C: MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 7\r\nQUIT\r\n.BDAT 5 LA", b"C: ST\r\n\r\n.\r\nQUIT\r\n",
            b"S: 250 m\r\n250 r\r\n250 7\r\n250 12\r\n221 q\r\n",
        )])  # fmt: skip
        self.assertEqual(content(said), b"QUIT\r\n.\r\n.\r\n")
        self.assertEqual(pairs(said)[-3:], [("BDAT 7", "250 7"), ("BDAT 5 LAST", "250 12"), ("QUIT", "221 q")])
        self.assertEqual([(one.size, one.is_whole) for one in ends(said)], [(12, True)])

    def test_lmtp_has_a_reply_for_each_recipient_that_was_accepted(self) -> None:
        for end in (b"C: DATA\r\n", b"C: BDAT 3 LAST\r\nx\r\n"):
            lines = [
                b"S: 220 mx LMTP\r\n", b"C: LHLO me\r\n", b"S: 250 mx\r\n", b"C: MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@b>\r\n", b"S: 250 m\r\n250 a\r\n550 b\r\n250 c\r\n", end,
            ]  # fmt: skip
            lines += [b"S: 354 go\r\n", b"C: x\r\n.\r\n"] if end == b"C: DATA\r\n" else []
            lines += [b"S: 250 a\r\n452 c\r\n", b"C: QUIT\r\n", b"S: 221 q\r\n"]
            connection = Connection(server=("192.0.2.25", 2003))
            said = decoded([*connection.opened(), *connection.said(*lines), *connection.closed()])
            first = "[content]" if end == b"C: DATA\r\n" else "BDAT 3 LAST"
            second = "[content]" if end == b"C: DATA\r\n" else "[command]"
            self.assertEqual(pairs(said)[-3:], [(first, "250 a"), (second, "452 c"), ("QUIT", "221 q")])
            self.assertTrue(session(said).is_lmtp)

    def test_prdr_has_an_answer_for_each_recipient_and_one_for_all(self) -> None:
        connection = Connection()
        said = decoded([*connection.opened(), *connection.said(
            b"S: 220 mx ESMTP\r\n", b"C: EHLO me\r\n", b"S: 250 PRDR\r\n", b"C: MAIL FROM:<> PRDR\r\nRCPT TO:<a@b>\r\nRCPT TO:<b@b>\r\nDATA\r\n", b"S: 250 m\r\n250 a\r\n250 b\r\n354 go\r\n",
            b"C: x\r\n.\r\nNOOP\r\n", b"S: 353 each\r\n250 a\r\n550 b\r\n250 all\r\n250 noop\r\n",
        )])  # fmt: skip
        self.assertEqual(pairs(said)[-5:], [("[content]", "353 each"), ("[content]", "250 a"), ("[content]", "550 b"), ("[content]", "250 all"), ("NOOP", "250 noop")])

    def test_responses_of_auth_are_known_as_such(self) -> None:
        connection = Connection()
        said = decoded([*connection.opened(), *connection.said(
            b"S: 220 mx ESMTP\r\n", b"C: EHLO me\r\n", b"S: 250 AUTH LOGIN\r\n", b"C: AUTH LOGIN\r\n", b"S: 334 VXNlcm5hbWU6\r\n", b"C: YW5u\r\n", b"S: 334 UGFzc3dvcmQ6\r\n",
            b"C: c2VjcmV0\r\n", b"S: 535 5.7.8 no\r\n", b"C: QUIT\r\n", b"S: 221 q\r\n",
        )])  # fmt: skip
        sent = [one.event.cause for one in said if isinstance(one.event, CommandReply)]
        self.assertEqual(sent, [ReplyCause.GREETING, ReplyCause.COMMAND, ReplyCause.COMMAND, ReplyCause.RESPONSE, ReplyCause.RESPONSE, ReplyCause.COMMAND])

    def test_secrets_that_nobody_asks_for_are_known_as_such_up_to_a_command(self) -> None:
        begin = (b"S: 220 mx ESMTP\r\n", b"C: EHLO me\r\n", b"S: 250 AUTH LOGIN\r\n")
        refused = (*begin, b"C: AUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\nNOOP\r\n", b"S: 504 no\r\n500 what\r\n500 what\r\n250 noop\r\n")
        connection = Connection()
        said = decoded([*connection.opened(), *connection.said(*refused)])
        causes = [one.event.cause for one in said if isinstance(one.event, CommandReply)]
        self.assertEqual(causes[2:], [ReplyCause.COMMAND, ReplyCause.RESPONSE, ReplyCause.RESPONSE, ReplyCause.COMMAND])
        asked = (*begin, b"C: AUTH LOGIN\r\n", b"S: 334 VXNlcm5hbWU6\r\n", b"C: YW5u\r\n", b"S: 334 UGFzc3dvcmQ6\r\n", b"C: c2VjcmV0\r\n", b"S: 235 yes\r\n")
        for lines in (asked, (*begin, b"C: AUTH PLAIN\r\n", b"S: 334 \r\n", b"C: c2VjcmV0\r\n", b"S: 235 yes\r\n")):
            for lost in range(len(lines)):
                for end in range(lost + 1, len(lines) + 1):
                    connection = Connection()
                    frames = [*connection.opened(), *connection.said(*lines)][: 3 + end]
                    del frames[3 + lost]
                    for begins in (0, 3):
                        said = decoded([*frames[begins:], *connection.closed()])
                        shown = [one.event.command for one in said if isinstance(one.event, CommandReply) and one.event.cause is ReplyCause.COMMAND]
                        self.assertFalse([one for one in shown if one and (b"YW5u" in one or b"c2Vj" in one)], (lost, end, begins))

    def test_after_starttls_nothing_can_be_read_and_after_its_refusal_all(self) -> None:
        begin = (b"S: 220 mx ESMTP\r\n", b"C: EHLO me\r\n", b"S: 250 STARTTLS\r\n", b"C: STARTTLS\r\n")
        connection = Connection()
        said = decoded([*connection.opened(), *connection.said(*begin, b"S: 220 go\r\n", b"C: \x16\x03\x01..MAIL FROM:<>\r\n", b"S: 250 x\r\n"), *connection.closed()])
        self.assertEqual(pairs(said)[-1], ("STARTTLS", "220 go"))
        self.assertIsInstance(said[-2].event, Encrypted)
        self.assertGreater(session(said).client_octets, 30)
        connection = Connection()
        said = decoded([*connection.opened(), *connection.said(*begin, b"S: 454 later\r\n", b"C: MAIL FROM:<>\r\n", b"S: 250 x\r\n")])
        self.assertEqual(pairs(said)[-2:], [("STARTTLS", "454 later"), ("MAIL FROM:<>", "250 x")])

    def test_tls_from_the_first_octet_is_a_session_that_cannot_be_read(self) -> None:
        connection = Connection(server=("192.0.2.25", 465))
        said = decoded([*connection.opened(), connection.client(b"\x16\x03\x01\x02\x00hello"), connection.server(b"\x16\x03\x03..."), *connection.closed()])
        self.assertEqual([type(one.event) for one in said], [Encrypted, type(None)])
        self.assertTrue(session(said).is_tls)

    def test_content_may_be_split_anywhere(self) -> None:
        stuffed = build.content(MESSAGE + b"\r\n.\r\n.\r\n..x\r\n\r.\n.\r\n")
        for cut in range(1, len(stuffed)):
            connection = Connection()
            said = decoded([*connection.opened(), *connection.said(*PLAIN[:9], b"C: " + stuffed[:cut], b"C: " + stuffed[cut:] + b"QUIT\r\n", *PLAIN[10:11], PLAIN[12])])
            self.assertEqual(content(said), MESSAGE + b"\r\n.\r\n.\r\n..x\r\n\r.\n.\r\n", cut)
            self.assertEqual(pairs(said), PLAIN_PAIRS)

    def test_an_empty_message_is_empty(self) -> None:
        connection = Connection()
        said = decoded([*connection.opened(), *connection.said(*PLAIN[:9], b"C: .\r\n", *PLAIN[10:])])
        self.assertEqual((content(said), ends(said)[0].size, ends(said)[0].is_whole), (b"", 0, True))
        self.assertEqual(pairs(said), PLAIN_PAIRS)


class WhatIsMissing(TestCase):
    def lose(self, *indexes: int, lines: Sequence[bytes] = PLAIN) -> list[Said]:
        connection = Connection()
        frames = [*connection.opened(), *connection.said(*lines), *connection.closed()]
        return decoded([frame for n, frame in enumerate(frames) if n - 3 not in indexes])

    def test_a_command_that_was_not_captured_leaves_its_reply_and_the_others_have_their_own(self) -> None:
        for n in (1, 3, 5):
            said = self.lose(n)
            wanted = list(PLAIN_PAIRS)
            wanted[(n + 1) // 2] = ("[unknown]", wanted[(n + 1) // 2][1])
            self.assertEqual(pairs(said), wanted)
            self.assertEqual(content(said), MESSAGE)
            self.assertEqual(session(said).lost, len(PLAIN[n]) - 3)
            self.assertEqual([one.event.is_client for one in said if isinstance(one.event, NotCaptured)], [True])

    def test_a_reply_that_was_not_captured_leaves_its_command_without_one(self) -> None:
        for n in (2, 4, 6):
            said = self.lose(n)
            wanted = list(PLAIN_PAIRS)
            wanted[n // 2] = (wanted[n // 2][0], None)
            self.assertEqual(pairs(said), wanted)
            self.assertEqual(content(said), MESSAGE)

    def test_content_is_content_though_354_was_not_captured(self) -> None:
        said = self.lose(8)
        self.assertEqual(content(said), MESSAGE)
        self.assertIn(("DATA", None), pairs(said))
        self.assertEqual(pairs(said)[-2:], PLAIN_PAIRS[-2:])

    def test_content_is_content_though_data_was_not_captured(self) -> None:
        said = self.lose(7)
        self.assertIn(("[unknown]", "354 Go on"), pairs(said))
        self.assertEqual(content(said), MESSAGE)
        self.assertTrue(ends(said)[0].is_whole)

    def test_a_hole_in_the_content_is_said_and_the_rest_is_read(self) -> None:
        stuffed = build.content(MESSAGE)
        lines = (*PLAIN[:9], b"C: " + stuffed[:10], b"C: " + stuffed[10:20], b"C: " + stuffed[20:], *PLAIN[10:])
        said = self.lose(10, lines=lines)
        self.assertEqual(content(said), MESSAGE[:10] + MESSAGE[19:])
        self.assertEqual(pairs(said), PLAIN_PAIRS)
        self.assertFalse(ends(said)[0].is_whole)

    def test_the_end_of_the_content_may_be_in_the_hole(self) -> None:
        stuffed = build.content(MESSAGE)
        lines = (*PLAIN[:9], b"C: " + stuffed[:20], b"C: " + stuffed[20:], *PLAIN[10:])
        said = self.lose(10, lines=lines)
        self.assertEqual(pairs(said), PLAIN_PAIRS)
        self.assertFalse(ends(said)[0].is_whole)

    def test_one_direction_alone_is_read_as_far_as_it_goes(self) -> None:
        client = self.lose(*[n for n, line in enumerate(PLAIN) if line[:1] == b"S"])
        self.assertEqual([command for command, _ in pairs(client)], ["EHLO client.example", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>", "DATA", "[content]", "QUIT"])
        self.assertEqual({reply for _, reply in pairs(client)}, {None})
        self.assertEqual(content(client), MESSAGE)
        server = self.lose(*[n for n, line in enumerate(PLAIN) if line[:1] == b"C"])
        self.assertEqual([reply for _, reply in pairs(server)], [reply for _, reply in PLAIN_PAIRS])

    def test_a_capture_that_begins_in_the_middle_is_read_from_there(self) -> None:
        connection = Connection()
        frames = [*connection.opened(), *connection.said(*PLAIN), *connection.closed()]
        for start in range(4, len(frames) - 6):
            said = decoded(frames[start:])
            wanted = PLAIN_PAIRS[max((start - 1) // 2, 6 if start == 12 else 0) :]
            self.assertEqual(pairs(said)[-len(wanted) :], wanted, start)
            self.assertFalse(session(said).has_start)

    def test_doubled_and_reordered_frames_change_nothing(self) -> None:
        for seed in range(60):
            chance = random.Random(seed)
            connection = Connection()
            frames = [*connection.opened(), *connection.said(*PLAIN), *connection.closed()]
            edited: list[CapturedFrame] = frames[:3]
            for frame in frames[3:-3]:
                edited += [frame] * chance.choice((1, 1, 2))
            for _ in range(4):
                at = chance.randrange(3, len(edited) - 1)
                edited[at], edited[at + 1] = edited[at + 1], edited[at]
            said = decoded([*edited, *frames[-3:]])
            self.assertEqual(pairs(said), PLAIN_PAIRS, seed)
            self.assertEqual(content(said), MESSAGE)

    def test_a_capture_that_has_each_frame_twice_has_each_session_once(self) -> None:
        # As on a host with bridges; what is told with the last FIN would else begin another session.
        connection = Connection()
        frames = [*connection.opened(), *connection.said(*PLAIN[:-1]), connection.frame(True, FIN | ACK)]
        frames += [connection.frame(False, FIN | ACK, b"221 Bye\r\n"), connection.frame(True, ACK)]
        for edited in ([one for one in frames for _ in range(2)], [*frames, *frames[5:]], [frames[0], *frames[1:9], frames[0], *frames[9:]]):
            said = decoded(edited)
            self.assertEqual([one.session.number for one in said if one.event is None], [1])
            self.assertEqual(pairs(said)[:-1], PLAIN_PAIRS[:-1])
        another = Connection(start=99)
        said = decoded([*frames, *another.opened(), *another.said(*PLAIN)])
        self.assertEqual([one.session.number for one in said if one.event is None], [1, 2])

    def test_a_session_with_a_hole_ends_when_both_ends_have_closed_it(self) -> None:
        connection = Connection()
        frames = [*connection.opened(), *connection.said(*PLAIN), *connection.closed(), connection.frame(True, ACK)]
        sessions = Sessions()
        said = [one for n, frame in enumerate(frames) if n != 8 for one in sessions.feed(frame)]
        self.assertEqual([(one.session.ending, one.session.lost) for one in said if one.event is None], [(SessionEnding.CLOSED, len(PLAIN[5]) - 3)])
        self.assertEqual((len(sessions._connections), sessions._held), (0, 0))
        self.assertEqual([one.event.time for one in said if isinstance(one.event, NotCaptured)], [frames[10].time])

    def test_many_logins_and_contents_of_one_direction_do_not_wait_for_ever(self) -> None:
        for octets, pieces in ((b"AUTH a\r\n" * 1500, 300), (b"x", 12000)):
            dialogue = DialogueReader(from_start=True)
            dialogue.client([Piece(1, b"DATA\r\n", 6)])
            for n in range(pieces):
                dialogue.client([Piece(n, octets)])
                self.assertLess(dialogue.held_memory, 2_000_000)

    def test_a_line_that_comes_octet_by_octet_is_looked_through_once(self) -> None:
        looks = []

        class Pattern:
            def match(self, octets: bytes, at: int) -> None:
                looks.append(len(octets))

        self.patch(dialogue, "WHOLE_REPLY", Pattern())
        reader = DialogueReader(from_start=True)
        for n, octet in enumerate(b"220-" + b"x" * 500 + b"\r\n220 y\r\n"):
            reader.server([Piece(n, bytes([octet]), n + 1)])
        self.assertLess(len(looks), 5)

    def test_what_is_left_at_the_end_is_read_to_its_end_however_it_was_cut(self) -> None:
        lines = [b"AUTH LOGIN\r\n", b"YW5u\r\n", b"c2VjcmV0\r\n", b"QUIT\r\n"]
        for pieces in (lines, [b"".join(lines)]):
            reader, place = DialogueReader(from_start=False), 0
            for one in pieces:
                place += len(one)
                reader.client([Piece(0, one, place)])
            said = [one for one in reader.end(1) if isinstance(one, CommandReply)]
            self.assertEqual([one.command for one in said], lines)
            self.assertEqual([one.cause for one in said][1:3], [ReplyCause.RESPONSE] * 2)

    def test_a_large_piece_is_read_in_parts_that_know_their_places(self) -> None:
        octets = build.content(b"Subject: large\r\n\r\n" + b"0123456789" * 20_000 + b"\r\n")
        dialogue = DialogueReader(from_start=False)
        events = dialogue.client([Piece(1, b"DATA\r\n", 6, 0)]) + dialogue.server([Piece(2, b"354 go\r\n", 8, 6)])
        events += dialogue.client([Piece(3, octets + b"QUIT\r\n", 6 + len(octets) + 6, 8)])
        events += dialogue.server([Piece(4, b"250 ok\r\n221 bye\r\n", 25, 6 + len(octets) + 6)])
        self.assertEqual([one.is_whole for one in events if isinstance(one, ContentEnd)], [True])
        self.assertEqual([one.reply for one in events if isinstance(one, CommandReply)], [b"354 go\r\n", b"250 ok\r\n", b"221 bye\r\n"])
        self.assertLess(max([len(one.octets) for one in events if isinstance(one, ContentStretch)]), 20_000)

    @settings(max_examples=100)
    @given(st.lists(st.tuples(st.booleans(), st.booleans(), any_octets(max_size=40)), max_size=15), st.booleans())
    def test_no_octets_and_no_gaps_raise(self, pieces: list[tuple[bool, bool, bytes]], from_start: bool) -> None:
        dialogue = DialogueReader(from_start=from_start)
        for is_client, is_gap, octets in pieces:
            (dialogue.client if is_client else dialogue.server)([Gap(0, 1 + len(octets)) if is_gap else Piece(0, octets)])
        dialogue.end(0)

    LINES = st.sampled_from([
        b"EHLO me\r\n", b"LHLO me\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b.example>\r\n", b"DATA\r\n", b"BDAT 5\r\n", b"BDAT 3 LAST\r\n", b"BDAT 0 LAST\r\n", b"AUTH LOGIN\r\n", b"STARTTLS\r\n",
        b"RSET\r\n", b"QUIT\r\n", b".\r\n", b"x\r\n", b"250 ok\r\n", b"250-a\r\n", b"354 go\r\n", b"353 each\r\n", b"334 \r\n", b"550 no\r\n", b"220 go\r\n", b"421 bye\r\n", b"\x16\x03\x01",
    ])  # fmt: skip

    @settings(max_examples=200)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 8), LINES), max_size=25), st.booleans())
    def test_no_lines_in_no_order_raise_and_no_octet_of_content_comes_twice(self, lines: list[tuple[bool, int, bytes]], from_start: bool) -> None:
        dialogue, events, said = DialogueReader(from_start=from_start), list[object](), 0
        for is_client, chance, octets in lines:
            events += (dialogue.client if is_client else dialogue.server)([Piece(0, octets) if chance else Gap(0, 4)])
            said += len(octets) if is_client and chance else 0
        events += dialogue.end(0)
        found = sum([len(one.octets) for one in events if isinstance(one, ContentStretch)])
        commands = sum([len(one.command or b"") for one in events if isinstance(one, CommandReply)])
        self.assertLessEqual(found + commands, said)


class Connections(TestCase):
    def test_several_at_once_are_told_apart(self) -> None:
        many = [Connection(client=("192.0.2.1", 41000 + n)) for n in range(20)]
        frames = [[*one.opened(), *one.said(*PLAIN), *one.closed()] for one in many]
        said = decoded([frame for each in zip(*frames, strict=True) for frame in each])
        for n in range(1, 21):
            self.assertEqual(pairs([one for one in said if one.session.number == n]), PLAIN_PAIRS)

    def test_ports_are_guessed_by_what_is_said(self) -> None:
        connection = Connection(client=("2001:db8::1", 3), server=("2001:db8::2", 40001))
        said = decoded([*connection.opened(), *connection.said(*PLAIN)])
        self.assertEqual(pairs(said), PLAIN_PAIRS)
        self.assertEqual(session(said).server, ip_address("2001:db8::2"))
        self.assertEqual(session(said).ending, SessionEnding.NOT_SEEN)

    def test_who_is_the_client_is_found_without_a_beginning(self) -> None:
        connection = Connection(client=("192.0.2.1", 3), server=("192.0.2.2", 40001))
        said = decoded(connection.said(*PLAIN))
        self.assertEqual(pairs(said), PLAIN_PAIRS)
        self.assertEqual(session(said).client_port, 3)

    def test_other_protocols_are_none_of_ours(self) -> None:
        others = (
            (b"S: 220 FTP ready\r\n", b"C: USER ann\r\n", b"S: 331 Password\r\n", b"C: PASS x\r\n", b"S: 230 in\r\n", b"C: QUIT\r\n"),
            (b"C: GET / HTTP/1.1\r\n\r\n", b"S: HTTP/1.1 200 OK\r\n\r\n"), (b"S: +OK POP3\r\n", b"C: USER ann\r\n", b"S: +OK\r\n", b"C: QUIT\r\n"), (b"C: \x16\x03\x01", b"S: \x16\x03\x03"),
            (b"S: * OK IMAP4rev1\r\n", b"C: a LOGIN ann pw\r\n"), (b"C: " + bytes(20000), b"S: 220 mx ESMTP\r\n"),
        )  # fmt: skip
        for lines in others:
            connection = Connection(server=("192.0.2.2", 2121))
            self.assertEqual(decoded([*connection.opened(), *connection.said(*lines), *connection.closed()]), [], lines)

    def test_chosen_connections_alone(self) -> None:
        one, other = Connection(), Connection(client=("192.0.2.9", 40000))
        frames = [*one.opened(), *one.said(*PLAIN), *other.opened(), *other.said(*PLAIN)]
        said = decoded(frames, wants=lambda a, _, b, __: bytes([192, 0, 2, 9]) in (a, b))
        self.assertEqual({str(one.session.client) for one in said}, {"192.0.2.9"})

    def test_how_it_ended_is_said(self) -> None:
        connection = Connection()
        said = decoded([*connection.opened(), *connection.said(*PLAIN[:3]), connection.frame(True, RST)])
        self.assertEqual(session(said).ending, SessionEnding.RESET)
        connection = Connection()
        frames = [*connection.opened(), *connection.said(*PLAIN[:3])]
        again = Connection(start=5000)
        said = decoded([*frames, *again.opened(), *again.said(*PLAIN)])
        self.assertEqual([one.session.ending for one in said if one.event is None], [SessionEnding.REPLACED, SessionEnding.NOT_SEEN])
        self.assertEqual(pairs(said)[-7:], PLAIN_PAIRS)

    def test_a_port_is_used_again_after_a_connection_in_which_nobody_said_anything(self) -> None:
        for first, second in ((1000, 900_000), (900_000, 1000)):
            one, other = Connection(start=first), Connection(start=second)
            for before in (one.opened()[:1], one.opened()):
                said = decoded([*before, *other.opened(), *other.said(*PLAIN), *other.closed()])
                self.assertEqual(pairs(said), PLAIN_PAIRS)
                self.assertEqual((session(said).lost, session(said).retransmitted), (0, 0))
                other = Connection(start=second)
        syn, answer, acknowledged = Connection().opened()
        connection = Connection()
        connection.opened()
        self.assertEqual(pairs(decoded([answer, acknowledged, syn, *connection.said(*PLAIN)])), PLAIN_PAIRS)

    def test_what_makes_room_is_the_one_that_was_quiet_longest(self) -> None:
        first, second, third = [Connection(client=("192.0.2.1", 41000 + n)) for n in range(3)]
        frames = [*first.opened(), *first.said(*PLAIN[:3]), *second.opened(), *second.said(*PLAIN[:3]), *first.said(*PLAIN[3:5]), *third.opened()]
        said = decoded(frames, connections=2)
        self.assertEqual(next((one.session.client_port, one.session.ending) for one in said if one.event is None), (41001, SessionEnding.GIVEN_UP))

    def test_what_is_held_is_bounded_for_all_together(self) -> None:
        many = [Connection(client=("192.0.2.1", 41000 + n)) for n in range(10)]
        sessions = Sessions(held_octets=100_000)
        for one in many:
            for frame in [*one.opened(), *one.said(*PLAIN[:9])]:
                sessions.feed(frame)
            one.next[0] += 100
        lost = 0
        for _ in range(10):
            for one in many:
                lost += sum([isinstance(said.event, NotCaptured) for said in sessions.feed(one.client(b"x" * 5000))])
                self.assertLessEqual(sessions._held, 100_000)
        self.assertGreater(lost, 0)
        list(sessions.finish())
        self.assertEqual((sessions._held, len(sessions._connections)), (0, 0))

    def test_single_octets_are_counted_with_what_they_take(self) -> None:
        for port, step, opening in ((25, 2, b""), (9999, 1, b""), (25, 1, b"DATA\r\n"), (25, 1, b"")):
            many = [Connection(("192.0.2.1", 41000 + n), ("192.0.2.25", port)) for n in range(10)]
            sessions = Sessions(held_octets=100_000)
            for one in many:
                for frame in [*one.opened(), *one.said(*([b"C: " + opening] if opening else []))]:
                    sessions.feed(frame)
            for n in range(100):
                for one in many:
                    sessions.feed(one.frame(True, ACK, b"x", sequence=one.next[0] + n * step + step - 1))
                    self.assertLessEqual(sessions._held, 101_000)
                    self.assertEqual(sessions._held, sum([each.holds() for each in sessions._connections.values()]))
            list(sessions.finish())
            self.assertEqual((sessions._held, len(sessions._holding)), (0, 0))

    def test_what_waits_behind_something_that_was_said_is_counted(self) -> None:
        connection, sessions = Connection(), Sessions()
        for frame in [*connection.opened(), *connection.said(*PLAIN[:3], b"C: NOOP\r\n", b"S: 250 ok\r\n" + b"x" * 9000)]:
            sessions.feed(frame)
            self.assertEqual(sessions._held, sum([each.holds() for each in sessions._connections.values()]))
        self.assertEqual(sessions._held, 9000)

    def test_what_tls_hides_does_not_wait(self) -> None:
        connection, sessions = Connection(), Sessions()
        said = (*PLAIN[:3], b"C: STARTTLS\r\n\x16\x03\x01" + bytes(5000), b"S: 220 go\r\n")
        for frame in [*connection.opened(), *connection.said(*said), connection.client(bytes(100))]:
            sessions.feed(frame)
        self.assertEqual((sessions._held, len(sessions._connections)), (0, 1))

    def test_where_too_much_waits_the_others_are_read_as_ever(self) -> None:
        sessions = Sessions(held_octets=100_000)
        quiet = Connection(client=("192.0.2.2", 41000))
        for frame in quiet.opened():
            sessions.feed(frame)
        for n in range(20):
            sessions.feed(quiet.frame(True, ACK, b"x" * 4700, sequence=quiet.next[0] + 10 + 5000 * n))
        one = Connection()
        beginning, lines = one.opened(), one.said(*PLAIN)
        said = [each for frame in [*beginning, *lines[:9], lines[11], *lines[9:11], *lines[12:]] for each in sessions.feed(frame)]
        said += list(sessions.finish())
        mine = [each for each in said if each.session.client_port == one.ends[0][1]]
        self.assertEqual(pairs(mine), PLAIN_PAIRS)

    def test_the_last_acknowledgement_opens_nothing(self) -> None:
        connection = Connection()
        sessions = Sessions()
        for frame in [*connection.opened(), *connection.said(*PLAIN), *connection.closed(), connection.frame(True, ACK), connection.frame(True, FIN | ACK)]:
            sessions.feed(frame)
        self.assertEqual(len(sessions._connections), 0)

    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from([ACK, SYN, SYN | ACK, FIN | ACK, RST, FIN]), st.integers(0, 300), any_octets(max_size=30)), max_size=25))
    def test_no_segments_raise(self, segments: list[tuple[bool, int, int, bytes]]) -> None:
        connection = Connection()
        decoded([connection.frame(*one[:2], one[3], one[2]) for one in segments])
        self.assertGreaterEqual(connection.at, SECOND)
