"""What is added up over the sessions of a capture."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.capture.events import CommandReply, Encrypted, ReplyCause
from mailserver.capture.figures import Figures
from mailserver.capture.transcript import Transcript

SECOND = 1_000_000_000


def session(**more: Any) -> Any:
    """Of which two came."""
    facts = {"client_octets": 10, "server_octets": 5, "retransmitted": 3, "out_of_order": 2, "lost": 7, "ending": "closed", "has_start": True, "started": 0}
    return SimpleNamespace(**{**facts, **more})


class Sums(SynchronousTestCase):
    def test_sessions_and_what_they_lost_add_up(self) -> None:
        figures = Figures()
        for one in (session(), session(lost=1, ending="reset")):
            figures.end(one)
        self.assertEqual((figures.sessions, figures.octets, figures.retransmitted, figures.out_of_order, figures.lost), (2, 30, 6, 4, 8))
        self.assertEqual(dict(figures.endings), {"closed": 1, "reset": 1})

    def test_replies_count_by_their_codes_and_commands_without_one_by_themselves(self) -> None:
        figures, one = Figures(), session()
        for n in range(1, 4):
            figures.add(one, CommandReply(n * SECOND, ReplyCause.COMMAND, b"NOOP\r\n", (n + 1) * SECOND, b"250 ok\r\n", "NOOP"))
        for reply in (b"rubbish\r\n", b"550 no\r\n"):
            figures.add(one, CommandReply(SECOND, ReplyCause.COMMAND, b"VRFY x\r\n", 3 * SECOND, reply, "VRFY"))
        for _ in range(2):
            figures.add(one, CommandReply(SECOND, ReplyCause.COMMAND, b"QUIT\r\n", None, None, "QUIT"))
        figures.add(one, Encrypted(5 * SECOND))
        self.assertEqual((dict(figures.replies), figures.without_reply, figures.encrypted), ({250: 3, 0: 1, 550: 1}, 2, 1))
        found = figures.latencies()
        self.assertEqual([(phase, times[0], times.longest) for phase, times in found.items()], [("NOOP", 3, 1.0), ("VRFY", 2, 2.0)])

    def test_a_session_is_encrypted_from_where_it_is_seen(self) -> None:
        transcript = Transcript(session())
        self.assertFalse(transcript.is_encrypted)
        [line] = transcript.add(Encrypted(SECOND))
        self.assertEqual((transcript.is_encrypted, line.text), (True, "TLS from here on"))
