"""A handler that was written for aiosmtpd judges mail here, in a server that runs asyncio's reactor."""

from __future__ import annotations

from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire, twistd, wait_until

HANDLERS = '''
import asyncio

from aiosmtpd.handlers import AsyncMessage


class Picky:
    def __init__(self, unwanted="spam"):
        self.unwanted = unwanted

    async def handle_EHLO(self, server, session, envelope, hostname):
        session.host_name = hostname
        return "421 4.7.0 go away" if hostname == "bad.example" else "250 HELP"

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        async with asyncio.timeout(30):
            await asyncio.sleep(0.001)
        if address == "slow@example.net":
            return "451 4.7.1 not now"
        session.senders = [*getattr(session, "senders", []), address]
        envelope.mail_from = address
        envelope.mail_options.extend(mail_options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address == "bob@example.org":
            return "550 5.1.1 no bob for you"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        assert session.peer[0] == "127.0.0.1" and session.host_name == "client.example"
        assert server.hostname == "mx.example.org"
        if b"change" in envelope.content:
            envelope.content = b"X-New: 1\\r\\n" + envelope.content
        if b"nonsense" in envelope.content:
            return "fine"
        if self.unwanted.encode() in envelope.content:
            words = " ".join([*session.senders, "->", *envelope.rcpt_tos])
            return f"554 5.7.1 {words}"
        return "250 Message accepted for delivery"


class Library(AsyncMessage):
    async def handle_message(self, message):
        await asyncio.sleep(0.001)
        if message["Subject"] == "lost":
            raise KeyError("lost")
'''
FILTER = """
[[filter]]
use = "aiosmtpd"
handler = "foreign_handlers:{name}"
"""


class ForeignHandler(ScenarioCase):
    def prepared(self, name: str, more: str = "") -> Server:
        server = self.prepare(BASIC + FILTER.replace("{name}", name) + more)
        site = server.work / "site"
        site.mkdir()
        (site / "foreign_handlers.py").write_text(HANDLERS)
        server.twistd = [*twistd(), "--reactor=asyncio", "-n"]
        return server

    def test_its_answers_at_each_stage_are_verdicts(self) -> None:
        server = self.prepared("Picky", 'arguments = ["viagra"]')
        server.start()
        with Wire(server.port) as wire:
            self.assertEqual(wire.command("EHLO bad.example").code, 421)
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            self.assertEqual(wire.command("MAIL FROM:<slow@example.net>").code, 450)
            self.assertEqual(wire.command("MAIL FROM:<one@example.net>").code, 250)
            self.assertEqual(wire.command("RSET").code, 250)
            self.assertEqual(wire.command("MAIL FROM:<two@example.net>").code, 250)
            self.assertEqual(wire.command("RCPT TO:<bob@example.org>").code, 550)
            self.assertEqual(wire.command("RCPT TO:<alice@example.org>").code, 250)
            self.assertEqual(wire.command("DATA").code, 354)
            self.assertEqual(wire.command("Subject: x\r\n\r\nviagra\r\n.").code, 550)
        wait_until(lambda: "one@example.net two@example.net -> alice@example.org" in server.log(), server.log)
        self.assertEqual(server.send(b"Subject: good\r\n\r\nspam is welcome").code, 250)
        server.wait_for_mail("alice")

    def test_what_it_may_not_or_cannot_do_is_its_failure(self) -> None:
        server = self.prepared("Picky")
        server.start()
        for body, words in (
            (b"Subject: x\r\n\r\nchange", "the handler has changed the content"),
            (b"Subject: x\r\n\r\nnonsense", "no status such as '250 OK'"),
        ):
            self.assertEqual(server.send(body).code, 450)
            wait_until(lambda words=words: words in server.log(), server.log)

    def test_a_handler_of_aiosmtpds_own_kind_sees_the_message(self) -> None:
        server = self.prepared("Library")
        server.start()
        self.assertEqual(server.send(b"Subject: kept\r\n\r\nx").code, 250)
        self.assertEqual(server.send(b"Subject: lost\r\n\r\nx").code, 450)
        wait_until(lambda: "KeyError" in server.log(), server.log)

    def test_with_another_reactor_the_start_says_which_one_to_use(self) -> None:
        server = self.prepared("Picky")
        server.twistd = [*twistd(), "-n"]
        server.launch()
        self.assertEqual(server.ended(), 78)
        self.assertIn("the filter aiosmtpd: asyncio needs another reactor", server.log())
        self.assertIn("twistd --reactor=asyncio", server.log())

    def test_a_handler_that_is_not_there_stops_the_start(self) -> None:
        server = self.prepared("Missing")
        server.launch()
        self.assertEqual(server.ended(), 78)
        self.assertIn("Missing", server.log())
