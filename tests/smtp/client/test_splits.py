"""However the octets of a peer arrive, the events and the commands are the same; and whatever they are, nothing is lost."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Delivered
from mailserver.smtp.client.events import Done
from mailserver.smtp.client.session import ClientLimits
from mailserver.smtp.events import Wait
from tests.any_octets import any_octets
from tests.smtp.client.client_talk import EHLO_LOCK_STEP, EHLO_PIPELINING, Talk

TIGHT = ClientLimits(reply_line_octets=60, reply_lines=4, reply_octets=150)
EHLO_LIMITS = b"250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=2\r\n"
EHLO_CHUNKING = b"250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n"

# What a peer may say to each command.
ANSWERS = {
    "MAIL": [b"250 ok\r\n"] * 4 + [b"250\r\n", b"550-a\r\n550 b\r\n", b"421 bye\r\n", b"451 no\r\n", b"354 x\r\n"],
    "RCPT": [b"250 2.1.5 ok\r\n"] * 4
    + [b"251 x\r\n", b"550-5.1.1 a\r\n550 5.1.1 b\r\n", b"452 4.5.3 many\r\n", b"552 many\r\n", b"421 bye\r\n", b"<html>\r\n", b"450\r\n"],
    "DATA": [b"354 go\r\n"] * 4 + [b"354-go\r\n354 on\r\n", b"554 no\r\n", b"451 no\r\n", b"421 bye\r\n", b"250 ok\r\n"],
    "RSET": [b"250 ok\r\n"] * 4 + [b"500 no\r\n", b"421 bye\r\n"],
    "content": [b"250 ok\r\n"] * 4 + [b"250-ok\r\n250 id\r\n", b"554 5.7.1 spam\r\n", b"451 x\r\n", b"421 bye\r\n", b"250 " + b"x" * 60 + b"\r\n"],
}


class Peer:
    """Answers the commands of a client, each with one of its answers, as `choices` has it."""

    def __init__(self, choices: list[int], lmtp: bool) -> None:
        self.choices = [*choices, 0]
        self.lmtp = lmtp
        self.accepted = 0

    def choose(self, command: str) -> bytes:
        choice = self.choices.pop(0) if len(self.choices) > 1 else 0
        answer = ANSWERS[command][choice % len(ANSWERS[command])]
        self.accepted = 0 if command == "MAIL" else self.accepted + (command == "RCPT" and answer.startswith(b"25"))
        return answer

    def answers(self, written: bytes) -> bytes:
        """To all that was written in one go."""
        verb = written[:4].decode("latin-1")
        if verb not in ANSWERS:  # content
            return b"".join([self.choose("content") for _ in range(max(self.accepted, 1) if self.lmtp else 1)])
        return b"".join(self.choose(line[:4].decode()) for line in written.split(b"\r\n") if line)


def converse(choices: list[int], cuts: list[int], hello: bytes, lmtp: bool, messages: list[int], bdat: bool, end: int) -> tuple[object, ...]:
    """All that came of some messages; `cuts` say where the answers are cut, `end` after how many flights the peer has gone."""
    peer = Peer(choices, lmtp)
    talk = Talk(lmtp=lmtp, limits=TIGHT)
    talk.hear(b"220 mx\r\n", hello)
    told: list[bytes] = []
    flights = 0
    for count in messages:
        if not talk.session.is_ready:
            break
        written = talk.send(*[f"u{n}" for n in range(count)], prefers_bdat=bdat)
        while written:
            told.append(written)
            octets = peer.answers(written)
            flights += 1
            borders = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
            written = talk.hear(*[octets[a:b] for a, b in pairwise(borders)])
            if flights == end:
                talk.eof()
                break
    return told, talk.events, talk.wait, talk.session.state, talk.session.phase


class SplitTests(SynchronousTestCase):
    @settings(max_examples=500)
    @given(
        st.lists(st.integers(0, 40), max_size=25),
        st.lists(st.integers(0, 150), max_size=8),
        st.sampled_from([EHLO_PIPELINING, EHLO_LOCK_STEP, EHLO_LIMITS, EHLO_CHUNKING]),
        st.booleans(),
        st.lists(st.integers(1, 5), min_size=1, max_size=4),
        st.booleans(),
        st.integers(0, 6),
    )
    def test_any_split_gives_the_same_story(self, choices, cuts, hello, lmtp, messages, bdat, end):
        whole = converse(choices, [], hello, lmtp, messages, bdat, end)
        self.assertEqual(converse(choices, cuts, hello, lmtp, messages, bdat, end), whole)
        self.assertEqual(converse(choices, list(range(200)), hello, lmtp, messages, bdat, end), whole)
        self.assertTrue(any(isinstance(event, Done) for event in whole[1]))

    def test_the_stories_are_many(self):
        """The answers above lead somewhere: each kind of event comes up."""
        kinds = set()
        for choice in range(12):
            for place in range(6):
                told = converse([0] * place + [choice], [], EHLO_LIMITS, False, [3, 1], False, 0)
                kinds |= {type(event).__name__ for event in told[1]}
        self.assertEqual(kinds, {"Greeted", "Ready", "SendContent", "Done", "Closing", "Broken"})


class FuzzTests(SynchronousTestCase):
    PIECES = st.one_of(
        st.sampled_from(
            [b"220 mx\r\n", b"250 ok\r\n", b"250-a\r\n", b"250", b"354 go\r\n", b"421 x\r\n", b"550 5.1.1 no\r\n", b"452\r\n", b"\r\n", b"\r", b"\n", b"\0"]
        ),
        any_octets(max_size=30),
        st.just(EHLO_PIPELINING),
    )

    @settings(max_examples=500)
    @given(st.lists(PIECES, max_size=25), st.booleans(), st.booleans())
    def test_whatever_a_peer_says_nothing_raises_and_every_message_has_its_outcomes(self, pieces, lmtp, is_greeted):
        talk = Talk(lmtp=lmtp, limits=TIGHT)
        if is_greeted:
            talk.ready()
        sent = 0
        for piece in pieces:
            talk.hear(piece)
            if talk.session.is_ready:
                talk.send("a", "b")
                sent += 1
        talk.eof()
        self.assertIs(talk.wait, Wait.CLOSED)
        done = [event for event in talk.events if isinstance(event, Done)]
        self.assertEqual(len(done), sent)
        self.assertTrue(all(len(event.outcomes) == 2 for event in done))
        told_delivered = sum(isinstance(outcome, Delivered) for event in done for outcome in event.outcomes)
        self.assertLessEqual(told_delivered, 2 * talk.written.count(b"\r\n.\r\n"))
