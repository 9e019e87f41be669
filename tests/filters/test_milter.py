"""The filter `milter` with milters that do as the test says, on the wire: what they are told, what follows from their answers."""

from __future__ import annotations

import gc
import struct
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from mailserver.config import ConfigurationError
from mailserver.filters.milter import _endpoint, factory
from mailserver.filters.milter_macros import ClientName
from mailserver.filters.milter_macros import values as macro_values
from mailserver.interfaces import IRecipientFilter, TransactionEnd
from mailserver.mail.answers import Accept, Pass, Refuse
from mailserver.mail.edits import AddHeader
from mailserver.plugins.catalogue import PluginError
from mailserver.receive.judging import BoundFilter
from tests.filters.fake_milter import (
    ACCEPT,
    CONTINUE,
    DISCARD,
    NAMES,
    PROGRESS,
    REJECT,
    SKIP,
    TEMPFAIL,
    cutting,
    negotiates,
    reply,
    said,
    silent,
)
from tests.filters.milter_case import TEXT, Dialled, MilterCase
from tests.filters.scanner import turn
from tests.receive.test_editing import Edits

HELLO = ["negotiate", "connect [203.0.113.9] 4 4711 203.0.113.9", "helo client.example"]
ALICE = ["mail <a@example.net>", "rcpt <alice@example.org>"]
WHOLE = ["data", "header Subject one", "header X-Old 1", "header X-Old 2", "eoh", "body 7", "eom", "abort"]
INDEX = struct.Struct("!I")


def add(name: str, value: str) -> bytes:
    return said(b"h", f"{name}\0{value}\0".encode())


def insert(at: int, name: str, value: str) -> bytes:
    return said(b"i", INDEX.pack(at) + f"{name}\0{value}\0".encode())


def change(index: int, name: str, value: str) -> bytes:
    return said(b"m", INDEX.pack(index) + f"{name}\0{value}\0".encode())


class Told(MilterCase):
    async def test_a_message_is_told_step_by_step(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter))
        dialled = await self.send(listener)
        self.assertEqual(dialled.codes, [220, 250, 250, 250, 354, 250, 221])
        await self.settled(milter)
        self.assertEqual(self.told(milter), [*HELLO, *ALICE, *WHOLE, "quit"])

    async def test_with_each_command_come_its_macros(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter))
        await self.send(listener)
        ((envelope, _, _),) = listener.store.taken
        macros = [one for one in self.told(milter, macros=True) if one.startswith("macros")]
        self.assertEqual(
            [one.split()[1] for one in macros], ["connect", "helo", "mail", "rcpt", "data", "eoh", "eom"]
        )
        self.assertIn("_=unknown [203.0.113.9] {daemon_name}=mail.example.test {client_addr}=203.0.113.9", macros[0])
        self.assertEqual(macros[2], f"macros mail i={envelope.id} {{mail_addr}}=a@example.net {{mail_host}}=example.net")
        self.assertEqual(macros[3], f"macros rcpt i={envelope.id} {{rcpt_addr}}=alice@example.org {{rcpt_host}}=example.org")

    async def test_an_address_is_written_as_everybody_does(self) -> None:
        milter = self.milter()
        dialled = await self.dial(self.serve(self.filter_for(milter)), address="2001:db8::9")
        dialled.lost()
        _, macros, connect = self.told(milter, macros=True)[:3]
        self.assertEqual(connect, "connect [2001:db8::9] 6 4711 2001:db8::9")
        self.assertIn("_=unknown [2001:db8::9] ", macros)
        self.assertIn(" {client_addr}=IPv6:2001:db8::9 ", macros)

    async def test_of_a_unix_socket_no_address_is_told(self) -> None:
        milter = self.milter()
        dialled = await self.dial(self.serve(self.filter_for(milter), service="lmtp"), address="unix")
        self.assertEqual(await dialled.say(b"LHLO client.example\r\n"), 250)
        dialled.lost()
        self.assertEqual(self.told(milter)[1], "connect unknown U 0 ")

    def test_a_client_without_a_port_has_none(self) -> None:
        for peer, address, port in ((self.peer("203.0.113.9", port=4711), "203.0.113.9", "4711"), (self.peer("unix", port=0), "", ""), (self.peer("local", port=0), "127.0.0.1", "")):
            found = macro_values(hostname="mx", version="1", daemon_name="mx", client=ClientName(), peer=peer)
            self.assertEqual((found.get("{client_addr}", ""), found.get("{client_port}", "")), (address, port))

    def test_whether_the_client_has_a_name_is_told_and_whether_anybody_could_tell(self) -> None:
        for client, resolved in ((ClientName("c.example"), "OK"), (ClientName(), "FAIL"), (ClientName(could_tell=False), "TEMP")):
            found = macro_values(hostname="mx", version="1", daemon_name="mx", client=client, peer=self.peer())
            self.assertEqual((found["{client_resolve}"], found["{client_name}"]), (resolved, client.name or "unknown"))

    async def test_a_milter_gets_the_macros_that_it_asks_for(self) -> None:
        wanted = INDEX.pack(2) + b"{mail_addr} {nothing} i\0" + INDEX.pack(5) + b"\0" + INDEX.pack(3) + b"nrcpts,rcpt_addr\0"
        milter = self.milter({b"O": negotiates(macros=wanted)})
        listener = self.serve(self.filter_for(milter))
        await self.send(listener)
        ((envelope, _, _),) = listener.store.taken
        macros = [one for one in self.told(milter, macros=True) if one.startswith("macros")]
        self.assertIn(f"macros mail {{mail_addr}}=a@example.net i={envelope.id}", macros)
        self.assertIn("macros rcpt {nrcpts}=0 {rcpt_addr}=alice@example.org", macros)
        self.assertIn("macros eom ", macros)

    async def test_what_a_milter_leaves_out_it_is_not_told(self) -> None:
        milter = self.milter({b"O": negotiates(steps=0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x200)})
        await self.send(self.serve(self.filter_for(milter)))
        await self.settled(milter)
        self.assertEqual(self.told(milter), ["negotiate", "eom", "abort", "quit"])

    async def test_nobody_waits_for_answers_that_a_milter_will_not_give(self) -> None:
        milter = self.milter(dict.fromkeys((b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B"), b""))
        milter.script[b"O"] = negotiates(steps=0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x80 | 0x40000 | 0x80000)
        dialled = await self.send(self.serve(self.filter_for(milter)))
        await self.settled(milter)
        self.assertEqual(dialled.codes[-2], 250)
        self.assertEqual(self.told(milter), [*HELLO, *ALICE, *WHOLE, "quit"])

    async def test_one_that_has_seen_enough_of_the_body_gets_no_more_of_it(self) -> None:
        milter = self.milter({b"B": SKIP})
        listener = self.serve(self.filter_for(milter))
        await self.send(listener, text=b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 4000)
        self.assertEqual([one for one in self.told(milter) if one.startswith(("body", "eom"))], ["body 65535", "eom"])

    async def test_a_large_body_goes_in_pieces_and_whole(self) -> None:
        milter = self.milter()
        for memory in (1_000_000, 1_000):  # in memory, and in a file
            del milter.heard[:]
            body = b"".join([b"%070d\r\n" % n for n in range(4000)])
            dialled = await self.send(self.serve(self.filter_for(milter), memory_octets=memory), text=b"Subject: x\r\n\r\n" + body)
            self.assertEqual(dialled.codes[-2], 250)
            self.assertEqual(b"".join([data for name, data in milter.heard if name == "body"]), body)
            self.assertLessEqual(max(len(data) for name, data in milter.heard if name == "body"), 65_535)

    async def test_values_come_with_their_blanks_where_a_milter_wants_that(self) -> None:
        text = b"A: one\r\nB:  two\r\nC:none\r\nD:\ttab\r\nE: fo\r\n\tld\r\n\r\nx\r\n"
        for steps, values in ((0, [b"one", b" two", b"none", b"\ttab", b"fo\n\tld"]), (0x100000, [b" one", b"  two", b"none", b"\ttab", b" fo\n\tld"])):
            milter = self.milter({b"O": negotiates(steps=steps)})
            await self.send(self.serve(self.filter_for(milter)), text=text)
            self.assertEqual([data[2:-1] for name, data in milter.heard if name == "header"], values)

    async def test_parameters_of_mail_and_rcpt_are_told(self) -> None:
        milter = self.milter()
        dialled = await self.dial(self.serve(self.filter_for(milter)))
        await dialled.say(b"EHLO client.example\r\n")
        await dialled.say(b"MAIL FROM:<> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=a+2Bb\r\n")
        await dialled.say(b"RCPT TO:<alice@example.org> NOTIFY=NEVER ORCPT=rfc822;a+2Bb@x\r\n")
        dialled.lost()
        self.assertIn("mail <> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=a+2Bb", self.told(milter))
        self.assertIn("rcpt <alice@example.org> NOTIFY=NEVER ORCPT=rfc822;a+2Bb@x", self.told(milter))

    async def test_a_name_that_is_given_again_is_told_again(self) -> None:
        milter = self.milter()
        dialled = await self.dial(self.serve(self.filter_for(milter)))
        for name in (b"a.example", b"b.example"):
            await dialled.say(b"EHLO " + name + b"\r\n")
            await dialled.say(b"MAIL FROM:<a@example.net>\r\n")
        dialled.lost()
        self.assertEqual(self.told(milter)[2:6], ["helo a.example", "mail <a@example.net>", "abort", "helo b.example"])


class Connections(MilterCase):
    async def test_messages_of_one_connection_share_one_with_the_milter(self) -> None:
        milter = self.milter()
        dialled = await self.send(self.serve(self.filter_for(milter, reuse=True)), quits=False)
        await dialled.message("alice", "bob")
        await dialled.hang_up()
        await self.settled(milter)
        self.assertEqual(milter.made, 1)
        self.assertEqual(self.told(milter)[len(HELLO) + 10 :], ["mail <a@example.net>", "rcpt <alice@example.org>", "rcpt <bob@example.org>", *WHOLE, "quit_nc"])

    async def test_the_next_connection_gets_what_the_last_one_has_left(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter, reuse=True))
        for _ in range(3):
            await self.send(listener)
        await self.settled(milter)
        self.assertEqual(milter.made, 1)
        self.assertEqual(self.told(milter).count("connect [203.0.113.9] 4 4711 203.0.113.9"), 3)
        self.assertEqual(self.told(milter).count("negotiate"), 1)

    async def test_not_where_that_is_not_wanted_or_the_milter_is_too_old(self) -> None:
        for script, options in (({}, {"reuse": False}), ({b"O": negotiates(version=4)}, {"reuse": True})):
            milter = self.milter(script)
            listener = self.serve(self.filter_for(milter, **options))
            for _ in range(2):
                await self.send(listener)
            await self.until(lambda milter=milter: not milter.open)
            self.assertEqual((milter.made, self.told(milter)[-1]), (2, "quit"))

    async def test_one_that_was_closed_meanwhile_costs_nobody_an_answer(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter, reuse=True))
        await self.send(listener)
        milter.script[b"C"] = [CONTINUE, cutting]  # the second SMTP connection on it
        dialled = await self.send(listener)
        self.assertEqual((dialled.codes, milter.made, self.errors(listener)), ([220, 250, 250, 250, 354, 250, 221], 2, ""))

    async def test_one_that_stood_idle_for_a_minute_is_not_used(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter, reuse=True))
        await self.send(listener)
        self.clock.advance(61)
        await self.send(listener)
        await self.until(lambda: len(milter.open) == 1)
        self.assertEqual(milter.made, 2)

    async def test_who_is_between_messages_gives_his_up_and_is_introduced_again(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter, connections=1, reuse=True))
        first = await self.send(listener, quits=False)
        await self.send(listener)
        await self.settled(milter)
        del milter.heard[:]
        self.assertEqual(await first.message(), 250)
        await first.hang_up()
        await self.settled(milter)
        self.assertEqual(self.told(milter), [*HELLO[1:], *ALICE, *WHOLE, "quit_nc"])
        self.assertEqual(milter.made, 1)

    async def test_who_is_amid_a_message_keeps_his_and_others_are_deferred(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter, connections=1, reuse=True))
        first = await self.dial(listener)
        await first.say(b"EHLO a.example\r\n")
        await first.say(b"MAIL FROM:<a@example.net>\r\n")
        _, wire = listener.connect()
        self.clock.advance(11)
        await self.until(lambda: wire.value())
        self.assertTrue(wire.value().startswith(b"421 "), wire.value())
        self.assertIn("cannot be reached within 10 seconds", self.errors(listener))
        self.assertEqual(await first.say(b"RCPT TO:<alice@example.org>\r\n"), 250)
        first.lost()

    async def test_who_waits_for_one_gets_it_when_anothers_message_is_over(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter, connections=1))
        first = await self.dial(listener)
        await first.say(b"EHLO a.example\r\n")
        for octets in (b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<alice@example.org>\r\n"):
            await first.say(octets)
        protocol, wire = listener.connect()
        await turn(0.01)
        self.assertEqual(wire.value(), b"")
        await first.say(b"RSET\r\n")
        await self.until(lambda: wire.value())
        self.assertTrue(wire.value().startswith(b"220 "))
        self.assertEqual(await first.message(), 250, "and gets it back when he needs it")
        first.lost()
        protocol.connectionLost(Failure(ConnectionDone()))

    async def test_a_peer_that_goes_while_its_message_is_judged_leaves_nothing_behind(self) -> None:
        milter = self.milter({b"E": silent})
        bound = self.filter_for(milter)
        listener = self.serve(bound)
        dialled = await self.dial(listener)
        for octets in (b"EHLO a.example\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<alice@example.org>\r\n", b"DATA\r\n"):
            await dialled.say(octets)
        dialled.protocol.dataReceived(TEXT + b".\r\n")
        await self.until(lambda: "eom" in self.told(milter))
        dialled.lost()
        component: Any = bound.component
        self.assertEqual(len(component._sessions), 1)
        milter.open[0].say(CONTINUE)
        await self.until(lambda: listener.store.taken)
        await self.until(lambda: not milter.open)
        self.assertEqual((len(component._sessions), self.errors(listener)), (0, ""))

    async def test_a_peer_that_goes_while_it_is_introduced_is_no_failure(self) -> None:
        milter = self.milter({b"C": silent})
        bound = self.filter_for(milter)
        listener = self.serve(bound)
        protocol, _ = listener.connect()
        await self.until(lambda: milter.heard and milter.heard[-1][0] == "connect")
        protocol.connectionLost(Failure(ConnectionDone()))
        milter.open[0].say(CONTINUE)
        await self.until(lambda: not milter.open)
        component: Any = bound.component
        self.assertEqual((self.told(milter)[-1], len(component._sessions), self.errors(listener)), ("quit", 0, ""))
        self.assertEqual(component._pool._turns.tokens, 100)

    async def test_what_no_end_is_told_of_is_forgotten_with_the_connection(self) -> None:
        milter = self.milter()
        component = self.build(factory, endpoint=milter.endpoint, client_names=False)
        peer = self.peer()
        await component.judge_sender(self.envelope(peer=peer))
        self.assertEqual(len(component._sessions), 1)
        del peer
        gc.collect()
        self.assertEqual(len(component._sessions), 0)
        await self.until(lambda: not milter.open)

    async def test_a_program_of_this_host_is_introduced_and_forgotten(self) -> None:
        milter = self.milter()
        component = self.build(factory, endpoint=milter.endpoint)
        envelope = self.envelope(peer=self.peer("local", port=0, service="submission", hello="userid 0", login="root"))
        self.assertPassed(await component.judge_sender(envelope))
        await component.ended(envelope, TransactionEnd.REFUSED)
        await self.settled(milter)
        self.assertEqual(self.told(milter)[1:3], ["connect localhost 4 0 127.0.0.1", "helo mail.example.test"])
        self.assertEqual(len(component._sessions), 0)

    async def test_a_filter_that_stops_says_goodbye(self) -> None:
        milter = self.milter()
        bound = self.filter_for(milter, reuse=True)
        listener = self.serve(bound)
        waiting = await self.send(listener)
        open_one = await self.dial(listener)
        component: Any = bound.component
        await component.stop()
        await self.until(lambda: not milter.open)
        self.assertEqual(self.told(milter)[-1], "quit")
        self.assertEqual(waiting.codes[-1], 221)
        open_one.lost()

    async def test_a_connection_that_goes_amid_a_message_leaves_none_behind(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter, reuse=True))
        for steps in ((), (b"EHLO a.example\r\n",), (b"EHLO a.example\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<alice@example.org>\r\n")):
            dialled = await self.dial(listener)
            for step in steps:
                await dialled.say(step)
            dialled.lost()
            await self.until(lambda: self.told(milter)[-1] == "quit_nc")
        self.assertEqual(milter.made, 1)


class Answers(MilterCase):
    """What the peer hears."""

    async def heard(self, script: dict[bytes, Any], *recipients: str) -> tuple[list[int], Any, Any]:
        milter = self.milter(script)
        listener = self.serve(self.filter_for(milter))
        protocol, wire = listener.connect()
        await self.until(lambda: wire.value())
        codes = [int(wire.value()[:3])]
        if codes == [220]:
            wire.clear()
            dialled = Dialled(self, protocol, wire)
            if await dialled.say(b"EHLO client.example\r\n") == 250:
                await dialled.message(*recipients)
            codes += dialled.codes
            self.lines = dialled.lines
            dialled.lost()
        else:
            self.lines = wire.value().decode().split("\r\n")[:-1]
            protocol.connectionLost(Failure(ConnectionDone()))
        await self.settled(milter)
        return codes, listener, milter

    async def test_a_refusal_at_each_step_is_one_of_that_step(self) -> None:
        for letter, codes in (
            (b"C", [554]),
            (b"H", [220, 550]),
            (b"M", [220, 250, 550]),
            (b"R", [220, 250, 250, 550, 250]),
            *[(one, [220, 250, 250, 250, 354, 550]) for one in (b"T", b"L", b"N", b"B", b"E")],
        ):
            heard, listener, _ = await self.heard({letter: REJECT})
            self.assertEqual((heard, listener.store.taken), (codes, []), letter)

    async def test_so_is_a_tempfail(self) -> None:
        for letter, codes in (
            (b"C", [421]), (b"H", [220, 450]), (b"M", [220, 250, 450]), (b"R", [220, 250, 250, 450, 250]), (b"E", [220, 250, 250, 250, 354, 450]),
        ):  # fmt: skip
            heard, listener, _ = await self.heard({letter: TEMPFAIL})
            self.assertEqual((heard, listener.store.taken), (codes, []), letter)

    async def test_a_milter_may_have_words_and_codes_of_its_own(self) -> None:
        for letter in (b"M", b"T", b"E"):
            await self.heard({letter: reply("554-5.7.9 Clean 100%% of\r\n554 5.7.9 your disk")})
            first, last = self.lines[-2:]
            self.assertEqual(first, "554-5.7.9 Clean 100% of")
            self.assertRegex(last, r"554 5\.7\.9 your disk \(\w{16}\)")
        await self.heard({b"R": reply("451 4.3.2 Not today")})
        self.assertRegex(self.lines[-2], r"451 4\.3\.2 Not today \(\w{16}\)")
        await self.heard({b"C": reply("550 5.7.0 Go")})
        self.assertEqual(self.lines, ["550 Go"])

    async def test_one_recipient_may_be_refused_and_the_others_not(self) -> None:
        codes, listener, _ = await self.heard({b"R": [REJECT, CONTINUE, TEMPFAIL]}, "alice", "bob", "postmaster")
        self.assertEqual(codes, [220, 250, 250, 550, 250, 450, 354, 250])
        self.assertEqual([one.address.local for one in listener.store.taken[0][0].recipients], ["bob"])

    async def test_an_accept_ends_the_questions_and_decides_nothing_for_others(self) -> None:
        for letter, left in ((b"C", 2), (b"H", 3), (b"M", 4), (b"R", 5), (b"T", 6), (b"L", 7)):
            codes, listener, milter = await self.heard({letter: ACCEPT})
            self.assertEqual(codes[-1], 250, letter)
            self.assertEqual(len([one for one in self.told(milter) if one not in ("abort", "quit")]), left, letter)
            self.assertEqual(self.answers(listener), [])

    async def test_a_discard_throws_the_whole_message_away(self) -> None:
        for letter in (b"M", b"R", b"T", b"L", b"N", b"B", b"E"):
            codes, listener, _ = await self.heard({letter: DISCARD}, "alice", "bob")
            self.assertEqual((codes[-1], listener.store.taken), (250, []), letter)
            discarded = [fields["recipients"] for _, step, fields in listener.steps if step == "discarded"]
            self.assertEqual(discarded, [["alice@example.org"], ["bob@example.org"]], letter)

    async def test_a_shutdown_closes_the_connection_where_that_can_be(self) -> None:
        for letter, codes in (
            (b"C", [421]), (b"H", [220, 421]), (b"M", [220, 250, 421]), (b"R", [220, 250, 250, 450, 250]), (b"E", [220, 250, 250, 250, 354, 450]),
        ):  # fmt: skip
            for answer in (said(b"4"), said(b"f"), reply("421 4.3.0 bye")):
                self.assertEqual((await self.heard({letter: answer}))[0], codes, (letter, answer))

    async def test_a_quarantine_puts_the_message_aside(self) -> None:
        codes, listener, _ = await self.heard({b"E": said(b"q", b"odd \x1b[1m\0") + CONTINUE}, "alice", "bob")
        self.assertEqual(codes[-1], 250)
        self.assertEqual([one.route.mailbox.junk for one in listener.store.taken[0][2]], [True, True])
        self.assertIn("PutAside odd ?[1m", str(listener.steps))

    async def test_a_finding_says_what_it_was(self) -> None:
        _, listener, _ = await self.heard({b"M": reply("550 5.7.1 no")})
        step = listener.step("filter")
        self.assertEqual((step["findings"], step["why"]), (["milter 0: 550 5.7.1 no"], "a milter: 550 5.7.1 no"))


class Changes(MilterCase):
    async def changed(self, *changes: bytes, recipients: tuple[str, ...] = ("alice",), steps: int = 0, text: bytes = TEXT) -> Any:
        milter = self.milter({b"E": b"".join(changes) + CONTINUE, b"O": negotiates(steps=steps)})
        listener = self.serve(self.filter_for(milter))
        dialled = await self.send(listener, *recipients, text=text)
        self.assertEqual(dialled.codes[-2], 250, listener.steps)
        self.listener = listener
        return listener.store.taken[0] if listener.store.taken else None

    def fields(self, taken: Any) -> list[str]:
        head = taken[1].partition(b"\r\n\r\n")[0].decode().replace("\r\n\t", "\t").replace("\r\n ", " ")
        return ["Received" if line.startswith("Received: from") else line for line in head.split("\r\n")]

    async def test_fields_come_where_the_milter_wants_them(self) -> None:
        taken = await self.changed(add("X-Last", "a"), insert(0, "X-Top", "b"), insert(2, "X-Third", "c"), insert(99, "X-End", "d"))
        self.assertEqual(
            self.fields(taken), ["X-Top: b", "Received", "X-Third: c", "Subject: one", "X-Old: 1", "X-Old: 2", "X-Last: a", "X-End: d"]
        )

    async def test_fields_change_and_go(self) -> None:
        taken = await self.changed(
            change(2, "x-old", "two"), change(1, "X-Old", ""), change(1, "X-Not", ""), change(1, "X-New", "there"), change(0, "Subject", "zero")
        )
        self.assertEqual(self.fields(taken), ["Received", "Subject: zero", "x-old: two", "X-New: there"])

    async def test_our_own_received_is_neither_shown_nor_changed(self) -> None:
        taken = await self.changed(change(1, "Received", "from nowhere"), text=b"Received: by a\r\nReceived: by b\r\n\r\nx\r\n")
        self.assertEqual(self.fields(taken), ["Received", "Received: from nowhere".replace("Received: from nowhere", "Received"), "Received: by b"])
        taken = await self.changed(change(2, "Received", ""), text=b"Received: by a\r\nReceived: by b\r\n\r\nx\r\n")
        self.assertEqual(self.fields(taken), ["Received", "Received: by a"])

    async def test_values_are_folded_as_they_have_to_be(self) -> None:
        taken = await self.changed(add("X-A", "one\n two\r\n\tthree\nfour\n\n"), add("X-B", "x " * 900), add("X-C", "a\x01b"))
        self.assertIn(b"\r\nX-A: one\r\n two\r\n\tthree\r\n\tfour\r\n", taken[1])
        self.assertLessEqual(max(map(len, taken[1].split(b"\r\n"))), 998)
        self.assertIn(b"X-C: a?b\r\n", taken[1])

    async def test_what_no_field_may_be_is_left_out_and_told(self) -> None:
        taken = await self.changed(add("X Bad", "x"), add("X-Long", "x" * 2000), add("X-Good", "y"))
        self.assertEqual(self.fields(taken)[-1], "X-Good: y")
        self.assertNotIn(b"X-Long", taken[1])

    async def test_with_leading_space_the_blank_is_the_milters(self) -> None:
        taken = await self.changed(add("X-A", " one"), insert(0, "X-B", "two"), steps=0x100000)
        self.assertEqual((self.fields(taken)[0], self.fields(taken)[-1]), ("X-B: two", "X-A: one"))

    async def test_the_body_is_replaced_small_or_large(self) -> None:
        taken = await self.changed(said(b"b", b"new\r\n"), said(b"b", b"body"))
        self.assertEqual(taken[1].partition(b"\r\n\r\n")[2], b"new\r\nbody\r\n")
        taken = await self.changed(said(b"b", b""))
        self.assertEqual(taken[1].partition(b"\r\n\r\n")[2], b"")
        lines = b"".join([b"%062d\r\n" % n for n in range(1000)])
        taken = await self.changed(*[said(b"b", lines)] * 20, add("X-A", "b"))
        self.assertEqual(taken[1].partition(b"\r\n\r\n")[2], lines * 20)
        self.assertEqual(self.fields(taken)[-1], "X-A: b")

    async def test_sender_and_recipients_change(self) -> None:
        taken = await self.changed(
            said(b"e", b"<new@example.net>\0SIZE=5\0"), said(b"+", b"<bob@example.org>\0"), said(b"-", b"<ALICE@example.org>\0"),
            said(b"-", b"alice@EXAMPLE.org\0"), said(b"2", b"<postmaster@example.org>\0NOTIFY=NEVER BAD=1\0"), said(b"+", b"bob@example.org\0"),
        )  # fmt: skip
        self.assertEqual(str(taken[0].sender), "new@example.net")
        self.assertEqual([str(one.recipient.address) for one in taken[2]], ["bob@example.org", "postmaster@example.org"])
        self.assertEqual(taken[2][1].recipient.parameters.notify, frozenset({"NEVER"}))
        taken = await self.changed(said(b"e", b"<>\0"))
        self.assertIsNone(taken[0].sender)

    async def test_where_a_milter_leaves_nobody_the_message_is_thrown_away(self) -> None:
        self.assertIsNone(await self.changed(said(b"-", b"<alice@example.org>\0")))
        self.assertIn("discarded", [step for _, step, _ in self.listener.steps])

    async def test_each_milter_sees_what_those_before_it_have_changed(self) -> None:
        first = self.milter({b"E": add("X-First", "yes") + said(b"b", b"changed\r\n") + change(1, "Subject", "two") + CONTINUE})
        second = self.milter({b"E": change(1, "X-First", "seen") + CONTINUE})
        bound = [self.filter_for(first), self.filter_for(second, bound={"name": "second"})]
        listener = self.serve(BoundFilter("ours", Edits(AddHeader("X-Ours", "top"))), *bound)
        await self.send(listener)
        self.assertEqual(
            [one for one in self.told(second) if one.startswith(("header", "body"))],
            ["header X-Ours top", "header Subject two", "header X-Old 1", "header X-Old 2", "header X-First yes", "body 9"],
        )
        self.assertTrue(self.fields(listener.store.taken[0])[-1].startswith("X-First: seen"))

    async def test_what_one_milter_refuses_the_next_is_not_shown(self) -> None:
        first, second = self.milter({b"E": REJECT}), self.milter()
        listener = self.serve(self.filter_for(first), self.filter_for(second, bound={"name": "second"}))
        self.assertEqual((await self.send(listener)).codes[-2], 550)
        self.assertNotIn("eom", self.told(second))


class Together(MilterCase):
    """With other filters."""

    async def test_a_recipient_whom_others_refuse_is_taken_back(self) -> None:
        class NotBob:
            async def judge_recipient(self, envelope: Any, recipient: Any) -> Any:
                return Refuse("no") if recipient.address.local == "bob" else Pass()

        milter, other = self.milter(), NotBob()
        directlyProvides(other, IRecipientFilter)
        listener = self.serve(self.filter_for(milter), BoundFilter("not-bob", other, cost=900))
        dialled = await self.send(listener, "alice", "bob", "postmaster", "bob")
        self.assertEqual(dialled.codes[3:7], [250, 550, 250, 550])
        told = self.told(milter)[3:]
        self.assertEqual(
            told[: told.index("data") + 1],
            [
                "mail <a@example.net>", "rcpt <alice@example.org>", "rcpt <bob@example.org>", "rcpt <postmaster@example.org>", "rcpt <bob@example.org>",
                "abort", "mail <a@example.net>", "rcpt <alice@example.org>", "rcpt <postmaster@example.org>", "data",
            ],
        )  # fmt: skip

    async def test_an_accept_of_another_filter_that_calls_it_off_spares_nobody_the_message(self) -> None:
        class Friends:
            async def judge_recipient(self, envelope: Any, recipient: Any) -> Any:
                await turn()
                return Accept("a friend")

        friends = Friends()
        directlyProvides(friends, IRecipientFilter)
        milter = self.milter({b"R": silent})
        bound = self.filter_for(milter, bound={"cost": 0})
        listener = self.serve(bound, BoundFilter("friends", friends))
        dialled = await self.dial(listener)
        await dialled.say(b"EHLO a.example\r\n")
        await dialled.say(b"MAIL FROM:<a@example.net>\r\n")
        self.assertEqual(await dialled.say(b"RCPT TO:<alice@example.org>\r\n"), 250)
        milter.script[b"R"] = CONTINUE
        await dialled.say(b"DATA\r\n")
        self.assertEqual(await dialled.say(TEXT + b".\r\n"), 250)
        await self.until(lambda: self.told(milter)[-2:] == ["eom", "abort"], lambda: self.told(milter))
        self.assertEqual(milter.made, 2)
        dialled.lost()

    async def test_in_the_shadow_it_is_asked_and_not_obeyed(self) -> None:
        for letter in (b"C", b"H", b"M", b"R", b"T", b"E"):
            milter = self.milter({letter: REJECT})
            listener = self.serve(self.filter_for(milter, bound={"shadow": True}))
            self.assertEqual((await self.send(listener)).codes[-2], 250, letter)
            self.assertIn("Refuse", [verdict for _, verdict in self.answers(listener)])
            self.assertEqual(self.errors(listener).strip(), "")


class Misbehaviour(MilterCase):
    async def outcome(self, milter: Any, **rules: Any) -> tuple[int, Any]:
        listener = self.serve(self.filter_for(milter, bound=rules))
        protocol, wire = listener.connect()
        await self.until(lambda: wire.value())
        if not wire.value().startswith(b"220"):
            code = int(wire.value()[:3])
            return code, listener
        wire.clear()
        dialled = Dialled(self, protocol, wire)
        code = await dialled.say(b"EHLO client.example\r\n")
        if code == 250:
            code = await dialled.message()
        dialled.lost()
        return code, listener

    async def test_one_that_closes_at_any_step_has_failed_and_nothing_is_taken(self) -> None:
        for letter in (b"O", b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E"):
            code, listener = await self.outcome(self.milter({letter: cutting}))
            self.assertIn(code, (421, 450), letter)
            self.assertEqual(listener.store.taken, [], letter)
            self.assertIn("MilterFailed: the milter has closed the connection", self.errors(listener), letter)

    async def test_with_skip_the_message_goes_on_as_it_is(self) -> None:
        for letter in (b"O", b"C", b"M", b"R", b"T", b"E"):
            code, listener = await self.outcome(self.milter({letter: cutting}), on_error="skip")
            self.assertEqual((code, len(listener.store.taken)), (250, 1), letter)

    async def test_with_refuse_it_is_refused(self) -> None:
        self.assertEqual((await self.outcome(self.milter({b"E": cutting}), on_error="refuse"))[0], 550)

    async def test_nonsense_at_any_step_is_a_failure(self) -> None:
        nonsense = (
            said(b"?"), said(b"y", b"250 fine\0"), said(b"y", b"\0"), said(b"y", b"550 no end"), said(b"h", b"a\0"), b"HTTP/1.1 400 Bad\r\n\r\n",
            struct.pack("!I", 0) + b"c", struct.pack("!I", 2**31) + b"c", CONTINUE + CONTINUE, said(b"O", b"\0" * 12), said(b"i", b"\0\0"),
        )  # fmt: skip
        for octets in nonsense:
            for letter in (b"O", b"C", b"M", b"E"):
                code, listener = await self.outcome(self.milter({letter: octets}))
                self.assertIn(code, (421, 450), (letter, octets))
                self.assertIn("MilterFailed: the milter", self.errors(listener), (letter, octets))
                self.assertEqual(listener.store.taken, [])

    async def test_changes_before_the_end_and_skips_at_the_wrong_place_are_nonsense(self) -> None:
        for letter, octets in ((b"M", add("X-A", "b") + CONTINUE), (b"B", said(b"q", b"x\0") + CONTINUE), (b"M", SKIP), (b"E", SKIP), (b"C", DISCARD)):
            code, listener = await self.outcome(self.milter({letter: octets}))
            self.assertIn(code, (421, 450))
            self.assertIn("is not understood", self.errors(listener))

    async def test_so_is_an_agreement_to_what_was_not_offered(self) -> None:
        for offer in (negotiates(version=7), negotiates(version=1), negotiates(steps=0x10000000), negotiates(actions=0x200), negotiates(steps=0x800)):
            code, listener = await self.outcome(self.milter({b"O": offer}))
            self.assertEqual(code, 421)
            self.assertIn("is not understood", self.errors(listener))

    async def test_changes_beyond_every_bound_are_a_failure(self) -> None:
        long = add("X-A", "x" * 60_000)
        for changes, words in ((add("X-A", "b") * 1001, "more than 1000 changes"), (long * 18, "more than 1000 changes, or"), (said(b"+", b"<a b>\0"), "an address that is none"), (said(b"e", b"<a@@b>\0"), "an address that is none")):
            code, listener = await self.outcome(self.milter({b"E": changes + CONTINUE}))
            self.assertEqual((code, listener.store.taken), (450, []))
            self.assertIn(words, self.errors(listener))

    async def test_a_body_that_is_too_large_is_one(self) -> None:
        milter = self.milter({b"E": said(b"b", b"x" * 60_000) * 20 + CONTINUE})
        listener = self.serve(self.filter_for(milter, body="1M"))
        self.assertEqual((await self.send(listener)).codes[-2], 450)
        self.assertIn("the new body has more than 1048576 octets", self.errors(listener))

    async def test_who_refuses_now_what_it_has_accepted_has_failed(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter))
        dialled = await self.dial(listener)
        await dialled.say(b"EHLO a.example\r\n")
        await dialled.say(b"MAIL FROM:<a@example.net>\r\n")
        await dialled.say(b"RCPT TO:<alice@example.org>\r\n")
        for one in list(milter.open):
            one.cut()
        await self.until(lambda: not milter.open)
        await turn(0.01)
        milter.script[b"R"] = REJECT
        await dialled.say(b"DATA\r\n")
        self.assertEqual(await dialled.say(TEXT + b".\r\n"), 450)
        self.assertIn("refuses a recipient that was accepted", self.errors(listener))
        dialled.lost()

    async def test_one_that_was_restarted_amid_a_message_is_told_again(self) -> None:
        milter = self.milter()
        listener = self.serve(self.filter_for(milter))
        dialled = await self.dial(listener)
        await dialled.say(b"EHLO a.example\r\n")
        await dialled.say(b"MAIL FROM:<a@example.net>\r\n")
        await dialled.say(b"RCPT TO:<alice@example.org>\r\n")
        for one in list(milter.open):
            one.cut()
        await self.until(lambda: not milter.open)
        await turn(0.01)
        del milter.heard[:]
        await dialled.say(b"RCPT TO:<bob@example.org>\r\n")
        self.assertEqual(self.told(milter)[3:], [*ALICE, "rcpt <bob@example.org>"])
        await dialled.say(b"DATA\r\n")
        self.assertEqual(await dialled.say(TEXT + b".\r\n"), 250)
        dialled.lost()


class Time(MilterCase):
    async def waits(self, letter: bytes, answer: Any, **options: Any) -> tuple[Any, Any, Any]:
        """A client that has been brought to where the milter does not answer."""
        milter = self.milter({letter: answer})
        listener = self.serve(self.filter_for(milter, **options))
        protocol, wire = listener.connect()
        for octets in (b"EHLO client.example\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<alice@example.org>\r\n", b"DATA\r\n", TEXT + b".\r\n"):
            before = len(wire.value())
            if not before:
                await self.until(lambda: wire.value() or any(name == words_of(letter) for name, _ in milter.heard))
            if any(name == words_of(letter) for name, _ in milter.heard):
                break
            wire.clear()
            protocol.dataReceived(octets)
            await self.until(lambda: wire.value() or any(name == words_of(letter) for name, _ in milter.heard))
        await self.until(lambda: any(name == words_of(letter) for name, _ in milter.heard))
        wire.clear()
        return listener, wire, milter

    async def test_silence_at_any_step_ends_with_that_steps_time(self) -> None:
        for letter, seconds in ((b"O", 10), (b"C", 20), (b"H", 20), (b"M", 20), (b"R", 20), (b"T", 20), (b"L", 25), (b"N", 25), (b"B", 25), (b"E", 25)):
            listener, wire, milter = await self.waits(letter, silent)
            self.clock.advance(seconds - 1)
            await turn(0.01)
            self.assertEqual(wire.value(), b"", letter)
            self.clock.advance(2)
            await self.until(lambda wire=wire: wire.value())
            self.assertIn(wire.value()[:3], (b"421", b"450"), letter)
            self.assertRegex(self.errors(listener), f"within {seconds} seconds", letter)
            await self.until(lambda milter=milter: not milter.open)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_one_that_drips_gains_no_time(self) -> None:
        listener, wire, milter = await self.waits(b"E", lambda one, _: one.say(struct.pack("!I", 100)))
        for _ in range(26):
            milter.open[0].say(b"h") if milter.open else None
            await turn(0.002)
            self.clock.advance(1)
        await self.until(lambda: wire.value())
        self.assertIn("within 25 seconds", self.errors(listener))

    async def test_one_that_says_that_it_still_works_gains_time_up_to_the_deadline(self) -> None:
        listener, wire, milter = await self.waits(b"E", PROGRESS)
        for _ in range(4):
            self.clock.advance(20)
            milter.open[0].say(PROGRESS)
            await self.until(lambda: [one.getTime() for one in self.clock.getDelayedCalls()] == [self.clock.seconds() + 25])
        self.assertEqual(wire.value(), b"")
        listener.clock.advance(11)  # the core's, which counts from the question on
        await self.until(lambda: wire.value())
        self.assertTrue(wire.value().startswith(b"450 "))
        self.assertIn("DeadlineExceeded", self.errors(listener))
        await self.until(lambda: not milter.open)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_milter_that_does_not_read_ends_with_its_time(self) -> None:
        def deaf(one: Any, _: bytes) -> bytes:
            one.transport.pauseProducing()
            return CONTINUE

        milter = self.milter({b"N": deaf, b"O": negotiates(steps=0x80000)})
        listener = self.serve(self.filter_for(milter), memory_octets=100_000_000)
        protocol, wire = listener.connect()
        dialled = Dialled(self, protocol, wire)
        await dialled.heard(1)
        for octets in (b"EHLO client.example\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<alice@example.org>\r\n", b"DATA\r\n"):
            await dialled.say(octets)
        protocol.dataReceived(b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 12_000 + b".\r\n")
        await turn(0.2)
        self.assertEqual(wire.value(), b"")
        self.clock.advance(26)
        await self.until(lambda: wire.value())
        self.assertTrue(wire.value().startswith(b"450 "), wire.value())
        dialled.lost()
        for one in milter.open:
            one.transport.resumeProducing()

    async def test_a_question_that_is_called_off_leaves_neither_timer_nor_connection(self) -> None:
        for letter in (b"O", b"C", b"M", b"E"):
            milter = self.milter({letter: silent})
            component = self.build(factory, endpoint=milter.endpoint, client_names=False)
            envelope = self.envelope()
            answer = Deferred.fromCoroutine(component.edits(envelope, self.content()))
            await self.until(lambda milter=milter, letter=letter: NAMES[letter] in [name for name, _ in milter.heard])
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
            self.assertEqual(self.clock.getDelayedCalls(), [], letter)
            await self.until(lambda milter=milter: not milter.open)

    async def test_two_questions_at_once_are_asked_one_after_the_other(self) -> None:
        milter = self.milter()
        component = self.build(factory, endpoint=milter.endpoint, client_names=False)
        self.addCleanup(component.stop)
        envelope = self.envelope()
        asked = [Deferred.fromCoroutine(component.edits(envelope, self.content())) for _ in range(2)]
        self.assertEqual([await one for one in asked], [[], []])
        self.assertEqual((milter.made, self.told(milter).count("eom")), (1, 2))

    async def test_a_milter_that_is_not_there_defers(self) -> None:
        component = self.build(factory, endpoint="unix:/nonexistent/milter.sock")
        listener = self.serve(BoundFilter("milter", component))
        _, wire = listener.connect()
        await self.until(lambda: wire.value())
        self.assertTrue(wire.value().startswith(b"421 "))
        self.assertIn("cannot be reached", self.errors(listener))


    async def test_a_clients_name_is_told_and_a_dns_that_hangs_keeps_nobody_away(self) -> None:
        milter = self.milter()
        component = self.build(factory, endpoint=milter.endpoint)
        self.addCleanup(component.stop)
        self.resolver.zones["25.2.0.192.in-addr.arpa"] = {"PTR": ["client.example.net"]}
        self.resolver.zones["client.example.net"] = {"A": ["192.0.2.25"]}
        self.assertPassed(await component.judge_peer(self.peer("192.0.2.25", hello="")))
        self.assertIn("connect client.example.net 4 ", self.told(milter)[-1])
        del milter.heard[:]
        peer = replace(self.peer("192.0.2.26", hello=""), look_up=lambda name, record_type: Deferred())
        verdict = Deferred.fromCoroutine(component.judge_peer(peer))
        self.clock.advance(6)
        self.assertPassed(await verdict)
        self.assertIn("{client_resolve}=TEMP", " ".join(self.told(milter, macros=True)))


class Options(MilterCase):
    def test_endpoints_may_be_written_as_postfix_and_sendmail_do(self) -> None:
        for given, meant in (
            ("inet:127.0.0.1:8891", "tcp:127.0.0.1:8891"), ("inet:8891@localhost", "tcp:localhost:8891"), ("inet:[::1]:8891", "tcp:\\:\\:1:8891"),
            ("local:/run/x.sock", "unix:/run/x.sock"), ("unix:/run/x.sock", "unix:/run/x.sock"), ("tcp:127.0.0.1:1", "tcp:127.0.0.1:1"),
        ):  # fmt: skip
            self.assertEqual(_endpoint(given), meant)

    def test_what_is_none_is_a_fault_of_the_configuration(self) -> None:
        for wrong in ({}, {"endpoint": "8891"}, {"endpoint": "inet:"}, {"endpoint": "tcp:a:b", "connections": 0}):
            with self.assertRaises((ConfigurationError, PluginError), msg=str(wrong)):
                self.build(factory, **wrong)


def words_of(letter: bytes) -> str:
    return NAMES[letter]
