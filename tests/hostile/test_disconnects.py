"""Peers that go in the middle of everything."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from tests.hostile.support import ROOMY, HostileCase
from tests.scenarios.support import Server, Wire, wait_until

ENVELOPE = b"EHLO x.example\r\nMAIL FROM:<s@example.net>\r\nRCPT TO:<bob@example.org>\r\n"
LARGE = (b"F" * 78 + b"\r\n") * 40_000  # above the size that is kept in memory
STATES = {
    "before a word": b"",
    "amid a command": b"EHL",
    "after EHLO": b"EHLO x.example\r\n",
    "after MAIL": b"EHLO x.example\r\nMAIL FROM:<s@example.net>\r\n",
    "after RCPT": ENVELOPE,
    "after DATA": ENVELOPE + b"DATA\r\n",
    "amid the header": ENVELOPE + b"DATA\r\nSubject: x",
    "amid the body": ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nhalf a",
    "amid the end": ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r",
    "amid a large body": ENVELOPE + b"DATA\r\nSubject: x\r\n\r\n" + LARGE,
    "amid a chunk": ENVELOPE + b"BDAT 1000\r\nSubject: x\r\n\r\n",
    "between chunks": ENVELOPE + b"BDAT 14\r\nSubject: x\r\n\r\n",
    "amid a large chunk": ENVELOPE + b"BDAT 10000000 LAST\r\n" + LARGE,
    "after RSET": ENVELOPE + b"RSET\r\n",
    "with commands unread": ENVELOPE + b"NOOP\r\n" * 90,
}


class Disconnects(HostileCase):
    def test_a_peer_that_goes_in_any_state_leaves_nothing_behind(self) -> None:
        server = self.serve(ROOMY)
        with self.bounded(server):
            for _round in range(3):
                for said in STATES.values():
                    for goes in ("FIN", "RST", "half"):
                        with contextlib.suppress(ConnectionError), Wire(server.port) as wire:
                            wire.send(said)
                            if goes == "RST":
                                wire.reset()
                            elif goes == "half":
                                wire.socket.shutdown(socket.SHUT_WR)
                                while wire.socket.recv(65536):
                                    pass
        self.assertEqual(server.messages("bob"), [])
        wait_until(lambda: not self.spooled(server), lambda: f"left in the spool: {self.spooled(server)}")

    def spooled(self, server: Server) -> list[Path]:
        return [path for path in server.work.glob("data/spool/**/*") if path.is_file()]

    def test_a_peer_that_goes_right_after_the_end_of_the_data_leaves_at_most_one_message(self) -> None:
        server = self.serve(ROOMY)
        for n in range(30):
            with Wire(server.port) as wire:
                wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>", "DATA")
                wire.send(b"Subject: number %d\r\n\r\nwhole\r\n.\r\n" % n)
                wire.reset()
        self.assertServes(server)
        stored = server.messages("bob")
        subjects = [message.header("Subject") for message in stored]
        self.assertEqual(len(subjects), len(set(subjects)))
        self.assertEqual({message.body for message in stored} - {b"whole\r\n"}, set())

    def test_half_a_goodbye_still_gets_its_answers(self) -> None:
        """A client may close its sending side after QUIT; what it asked before is answered."""
        server = self.serve()
        with Wire(server.port) as wire:
            wire.send(ENVELOPE + b"DATA\r\n")
            self.assertEqual([wire.reply().code for _ in range(4)], [250, 250, 250, 354])
            wire.send(b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
            wire.socket.shutdown(socket.SHUT_WR)
            self.assertEqual([wire.reply().code, wire.reply().code], [250, 221])
            self.assertTrue(wire.is_closed())
        server.wait_for_mail("bob")

    def test_a_thousand_connections_that_say_nothing_cost_little(self) -> None:
        server = self.serve(ROOMY)
        with self.bounded(server), contextlib.ExitStack() as open_wires:
            for _ in range(800):
                open_wires.enter_context(Wire(server.port))
            self.assertServes(server)
