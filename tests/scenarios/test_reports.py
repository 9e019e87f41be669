"""A sender learns why not: reports in the sender's Maildir."""

from __future__ import annotations

import email
import email.policy
from email.message import Message

from tests.scenarios.support import BASIC, ScenarioCase, Server, Stored, Wire, wait_until

PLUGIN = '''
from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IDelivery
from mailserver.mail.answers import Delayed, Failed
from mailserver.mail.reply import Reply


@implementer(IDelivery)
class Elsewhere:
    """The world as this test has it: nobody is there, or nobody answers."""

    stores = True

    async def deliver(self, envelope, content, destinations):
        return {one.index: self.outcome(one.recipient.address.local) for one in destinations}

    def outcome(self, user):
        if user == "slow":
            return Delayed(Reply.of(451, "4.4.1", "No connection"), "timed out", peer="mx.elsewhere.example", phase="CONNECT")
        return Failed(Reply.of(550, "5.1.1", "Nobody of that name"), peer="mx.elsewhere.example", phase="RCPT")

    async def flush(self):
        pass


@implementer(IComponentFactory)
class ElsewhereFactory:
    name = "elsewhere"
    summary = "Refuses everything."
    provides = IDelivery
    options = Options

    def build(self, options, services):
        return Elsewhere()


elsewhere = ElsewhereFactory()
'''
QUICK_NOTES = """
import mailserver.postmaster.notes

mailserver.postmaster.notes.LOOK_SECONDS = 0.5
"""
RELAY = """
[relay]
use = "elsewhere"
networks = ["127.0.0.0/8"]
"""
IMPATIENT = """
[queue]
retry = ["1s"]
warn = "1s"
expire = "3s"
"""


class Reports(ScenarioCase):
    def serving(self, config: str = BASIC + RELAY) -> Server:
        server = self.prepare(config)
        server.install_plugin("elsewhere_plugin", PLUGIN)
        server.start()
        return server

    def say(self, server: Server, *recipients: str, mail: str = "", body: bytes = b"Subject: hi\r\n\r\nhello") -> str:
        """One message of Alice's; its id."""
        with Wire(server.port) as wire:
            lines = ["EHLO client.example", f"MAIL FROM:<alice@example.org>{mail}", *[f"RCPT TO:{to}" for to in recipients]]
            self.assertEqual(set(wire.dialogue(*lines)), {250})
            self.assertEqual(wire.command("DATA").code, 354)
            wire.send(body + b"\r\n.\r\n")
            answer = wire.reply()
            self.assertEqual(answer.code, 250)
            return answer.id

    def parts(self, stored: Stored) -> tuple[Message, str, str, str]:
        message = email.message_from_bytes(stored.data, policy=email.policy.default)
        self.assertEqual(message.get_content_type(), "multipart/report")
        words, status, returned = message.get_payload()  # type: ignore[misc]
        return message, str(words), str(status), str(returned)  # type: ignore[has-type]

    def test_who_writes_to_nobody_reads_it_in_plain_words(self) -> None:
        server = self.serving()
        id = self.say(server, "<bob@elsewhere.example> ORCPT=rfc822;robert@elsewhere.example", mail=" RET=FULL ENVID=QQ314")
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual(stored.header("Return-Path"), "<>")
        message, words, status, returned = self.parts(stored)
        self.assertEqual(message["Auto-Submitted"], "auto-replied")
        self.assertIn("could not be delivered to:", words)
        self.assertIn("bob@elsewhere.example", words)
        self.assertIn("The server mx.elsewhere.example said:\n            550 5.1.1 Nobody of that name", words)
        for field in (
            "Original-Envelope-Id: QQ314",
            "Original-Recipient: rfc822; robert@elsewhere.example",
            "Final-Recipient: rfc822; bob@elsewhere.example",
            "Action: failed",
            "Status: 5.1.1",
        ):
            self.assertIn(field, status)
        self.assertIn("hello", returned)
        wait_until(lambda: "is empty" in server.command("queue", "list").stdout, server.log)
        road = server.command("explain", id).stdout
        self.assertIn("reported", road)

    def test_a_host_that_never_answers_costs_the_sender_a_warning_and_then_a_failure(self) -> None:
        server = self.serving(BASIC + RELAY + IMPATIENT)
        id = self.say(server, "<slow@elsewhere.example>")
        first, second = sorted(server.wait_for_mail("alice", 2), key=lambda one: b"Action: failed" in one.data)
        self.assertIn("Action: delayed", self.parts(first)[2])
        self.assertIn("Will-Retry-Until:", self.parts(first)[2])
        self.assertIn("until its time was over", self.parts(second)[1])
        self.assertEqual(server.command("queue", "show", id).returncode, 1)

    def test_who_asks_is_told_of_success_and_who_asks_for_nothing_hears_nothing(self) -> None:
        server = self.serving()
        self.say(server, "<gone@elsewhere.example> NOTIFY=NEVER", "<bob@example.org> NOTIFY=SUCCESS")
        server.wait_for_mail("bob")
        (stored,) = server.wait_for_mail("alice")
        self.assertIn("Action: delivered", self.parts(stored)[2])
        self.assertNotIn("gone@elsewhere.example", stored.data.decode())

    def test_postmaster_is_told_once_of_a_bounce_that_bounced(self) -> None:
        server = self.prepare(BASIC + RELAY)
        server.install_plugin("elsewhere_plugin", PLUGIN + QUICK_NOTES)
        server.start()
        with Wire(server.port) as wire:
            lines = ["EHLO client.example", "MAIL FROM:<>", "RCPT TO:<bob@elsewhere.example>"]
            self.assertEqual(set(wire.dialogue(*lines)), {250})
            self.assertEqual(wire.command("DATA").code, 354)
            wire.send(b"Subject: a bounce\r\n\r\nhello\r\n.\r\n")
            id = wire.reply().id
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual(stored.header("Auto-Submitted"), "auto-generated")
        self.assertEqual(stored.header("Return-Path"), "<>")
        self.assertIn(f"{id}\n    bob@elsewhere.example: 550 5.1.1 Nobody of that name", stored.data.decode().replace("\r", ""))
        server.stop()
        server.restart()
        self.say(server, "<bob@elsewhere.example>")  # of which the sender is told: a look has passed by then, or two
        self.assertEqual(len(server.wait_for_mail("alice", 2)), 2)

    def test_a_kill_loses_no_report(self) -> None:
        server = self.serving()
        ids = {self.say(server, "<bob@elsewhere.example>") for _ in range(5)}
        server.kill()
        server.restart()
        ids |= {self.say(server, "<bob@elsewhere.example>") for _ in range(5)}
        server.kill()
        server.restart()
        told = wait_until(lambda: self.told(server, ids), lambda: f"{len(server.messages('alice'))}:\n{server.log()}", 90.0)
        self.assertEqual(told, ids)

    def told(self, server: Server, ids: set[str]) -> set[str] | None:
        """The messages that have been reported on, once they are all."""
        found = {id for id in ids for one in server.messages("alice") if id in one.data.decode()}
        return found if found == ids else None


class BetweenServers(ScenarioCase):
    """This server relays to another one, where the sender has a mailbox."""

    FAR = BASIC.replace("example.org", "far.example")

    def pair(self) -> tuple[Server, Server]:
        far = self.serve(self.FAR, accounts=("alice@far.example", "bob@far.example"))
        relay = f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {far.port}\nnetworks = ["127.0.0.0/8"]\n'
        return self.serve(BASIC + relay), far

    def test_what_the_other_host_refuses_is_told_through_the_relay(self) -> None:
        front, far = self.pair()
        self.assertEqual(front.send(b"Subject: hi\r\n\r\nyes", sender="alice@far.example", to="nobody@far.example").code, 250)
        (stored,) = far.wait_for_mail("alice")
        self.assertEqual(stored.header("From"), '"Mail Delivery System" <MAILER-DAEMON@mx.example.org>')
        for field in (
            b"Final-Recipient: rfc822; nobody@far.example",
            b"Status: 5.1.1",
            b"Remote-MTA: dns; 127.0.0.1",
            b"Diagnostic-Code: smtp; 550 5.1.1",
            b"Subject: hi",
        ):
            self.assertIn(field, stored.data)
        wait_until(lambda: "is empty" in front.command("queue", "list").stdout, front.log)

    def test_success_is_told_by_the_host_that_delivers_and_by_no_other(self) -> None:
        front, far = self.pair()
        with Wire(front.port) as wire:
            wire.dialogue(
                "EHLO client.example", "MAIL FROM:<alice@far.example>", "RCPT TO:<bob@far.example> NOTIFY=SUCCESS", "DATA"
            )
            wire.send(b"Subject: hi\r\n\r\nyes\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
        far.wait_for_mail("bob")
        wait_until(lambda: "is empty" in front.command("queue", "list").stdout, front.log)
        (stored,) = far.wait_for_mail("alice")
        self.assertIn(b"Reporting-MTA: dns; mx.far.example", stored.data)
        self.assertIn(b"Action: delivered", stored.data)
