"""Slow peers beside normal ones, and what happens when places run out."""

from __future__ import annotations

import contextlib

from tests.hostile.support import ROOMY, HostileCase
from tests.scenarios.support import BASIC, Server, Wire, wait_until

SLOW = 300


class SlowSenders(HostileCase):
    def test_three_hundred_slow_senders_do_not_hold_up_normal_mail(self) -> None:
        server = self.serve(ROOMY)
        with self.bounded(server), contextlib.ExitStack() as open_wires:
            slow = [open_wires.enter_context(Wire(server.port)) for _ in range(SLOW)]
            for wire in slow:
                wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>", "DATA")
                wire.send(b"Subject: slow\r\n\r\n")
            before = len(server.messages("alice"))
            for n in range(40):
                for wire in slow:
                    wire.send(b".." if n == 0 else b"s")
                self.assertEqual(server.send(b"Subject: normal\r\n\r\nhello").code, 250)
            server.wait_for_mail("alice", before + 40)
            for wire in slow[::2]:
                wire.send(b"\r\n.\r\n")
            self.assertEqual([wire.reply().code for wire in slow[::2]], [250] * (SLOW // 2))
        stored = server.wait_for_mail("bob", SLOW // 2)
        self.assertEqual({message.body for message in stored}, {b"." + b"s" * 39 + b"\r\n"})

    def test_three_hundred_slow_commands_do_not_hold_up_normal_mail(self) -> None:
        server = self.serve(ROOMY)
        with self.bounded(server), contextlib.ExitStack() as open_wires:
            slow = [open_wires.enter_context(Wire(server.port)) for _ in range(SLOW)]
            for octet in b"MAIL FROM:<s@examp":
                for wire in slow:
                    wire.send(bytes([octet]))
            before = len(server.messages("alice"))
            for _ in range(20):
                self.assertEqual(server.send(b"Subject: normal\r\n\r\nhello").code, 250)
            server.wait_for_mail("alice", before + 20)


class Places(HostileCase):
    def opened(self, server: Server, count: int, open_wires: contextlib.ExitStack) -> list[Wire]:
        return [open_wires.enter_context(Wire(server.port)) for _ in range(count)]

    def test_the_connection_after_the_last_place_hears_421_and_a_free_place_is_given_again(self) -> None:
        server = self.serve(BASIC + "[limits]\nconnections = 20\nconnections_per_network = 20\nstress_percent = 100\n")
        with contextlib.ExitStack() as open_wires:
            wires: list[Wire] = []
            while len(wires) < 20:  # the connection that saw the greeting at the start may still be there
                wire = open_wires.enter_context(Wire(server.port))
                if wire.greeting.code == 220:
                    wires.append(wire)
            with Wire(server.port) as one_more:
                self.assertEqual(one_more.greeting.code, 421)
                self.assertTrue(one_more.is_closed())
            wires[0].close()
            wait_until(lambda: self.is_let_in(server), lambda: "no place became free")

    def test_one_network_cannot_have_all_the_places(self) -> None:
        server = self.serve(BASIC + "[limits]\nconnections = 100\nconnections_per_network = 5\n")
        wait_until(lambda: server.status()["connections"] == 0, server.log)  # that which saw the greeting at the start is gone
        with contextlib.ExitStack() as open_wires:
            codes = [wire.greeting.code for wire in self.opened(server, 12, open_wires)]
        self.assertEqual(codes, [220] * 5 + [421] * 7)
        wait_until(lambda: self.is_let_in(server), lambda: "no place became free")

    def test_under_stress_idle_peers_lose_their_places(self) -> None:
        server = self.serve(
            BASIC
            + "[limits]\nconnections = 50\nconnections_per_network = 50\nstress_percent = 50\nstress_command_seconds = 1\n"
        )
        with contextlib.ExitStack() as open_wires:
            idle = self.opened(server, 50, open_wires)
            self.assertFalse(self.is_let_in(server))
            wait_until(lambda: self.is_let_in(server), lambda: "the idle ones keep their places")
            self.assertEqual(idle[0].reply().code, 421)
            self.assertTrue(idle[0].is_closed())
        self.assertServes(server)

    def test_a_peer_that_gives_no_command_hears_421(self) -> None:
        """RFC 5321 section 4.5.3.2.7."""
        server = self.serve(BASIC + "[limits]\ncommand_seconds = 1\n")
        with Wire(server.port) as wire:
            wire.command("EHLO x.example")
            answer = wire.reply()
            self.assertEqual((answer.code, answer.enhanced), (421, "4.4.2"))
            self.assertTrue(wire.is_closed())

    def test_data_that_stop_end_in_421_and_no_message(self) -> None:
        """RFC 5321 section 4.5.3.2.5."""
        server = self.serve(BASIC + "[limits]\ndata_seconds = 1\n")
        with Wire(server.port) as wire:
            wire.dialogue("EHLO x.example", "MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>", "DATA")
            wire.send(b"Subject: x\r\n\r\nx\r\n")
            self.assertEqual(wire.reply().code, 421)
            self.assertTrue(wire.is_closed())
        self.assertEqual(server.messages("bob"), [])

    def is_let_in(self, server: Server) -> bool:
        with Wire(server.port) as wire:
            return wire.greeting.code == 220
