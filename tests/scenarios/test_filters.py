"""A third party's filter in the whole server: what it says counts, and what it breaks does not."""

from __future__ import annotations

import json
import os

from tests.scenarios.support import BASIC, Answer, ScenarioCase, Server, Wire, wait_until

PLUGIN = '''
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import (
    IComponentFactory, IContentFilter, IModifier, IRecipientContentFilter, IRecipientFilter
)
from mailserver.mail.answers import Accept, Defer, Pass, Quarantine, Refuse, Signal
from mailserver.mail.edits import AddHeader, DropHeader


@implementer(IRecipientFilter, IContentFilter, IRecipientContentFilter, IModifier)
class Puppet:
    """Does what the recipient's tag or the message's X-Do field says."""

    def __init__(self, clock):
        self.clock = clock

    async def judge_recipient(self, envelope, recipient):
        tag = recipient.address.local.partition("+")[2]
        if tag == "turn":
            later = Deferred()
            self.clock.callLater(0, later.callback, None)
            await later
        return Refuse("as told") if tag == "refuse" else Pass()

    async def judge_content(self, envelope, content):
        wanted = content.headers.get("X-Do") or ""
        if wanted == "raise":
            raise ValueError("a secret of the filter")
        if wanted == "hang":
            await Deferred()
        if wanted == "nonsense":
            return "250 OK"
        return {"refuse": Refuse("as told"), "defer": Defer("as told"), "quarantine": Quarantine("as told"),
                "accept": Accept("as told"), "signal": Signal("told", 1.0, "as told")}.get(wanted, Pass())

    async def judge_content_for(self, envelope, content, recipient):
        unwanted = content.headers.get("X-Not-For")
        return Refuse("not for them") if unwanted and recipient.address.local == unwanted else Pass()

    async def edits(self, envelope, content):
        return [AddHeader("X-Seen-By", "puppet"), DropHeader("X-Secret")]


@implementer(IComponentFactory)
class PuppetFactory:
    name = "puppet"
    summary = "Does as it is told."
    provides = (IRecipientFilter, IContentFilter, IRecipientContentFilter, IModifier)
    options = Options

    def build(self, options, services):
        return Puppet(services.clock)


puppet = PuppetFactory()


@implementer(IRecipientFilter)
class Wary:
    async def judge_recipient(self, envelope, recipient):
        return Quarantine("not for carol") if recipient.address.local == "carol" else Pass()


@implementer(IComponentFactory)
class WaryFactory:
    name = "wary"
    summary = "Puts carol's mail aside."
    provides = IRecipientFilter
    options = Options

    def build(self, options, services):
        return Wary()


wary = WaryFactory()
'''
FILTER = """
[[filter]]
use = "puppet"
deadline = "300ms"
"""
RELAYING = BASIC + """
[relay]
use = "capture"
networks = ["127.0.0.0/8"]
"""
LMTP = BASIC.replace('service = "mx"', 'service = "lmtp"')


class ForeignFilter(ScenarioCase):
    def serve_with_puppet(self, config: str = BASIC, filters: str = FILTER) -> Server:
        server = self.prepare(config + filters)
        server.install_plugin("puppet_plugin", PLUGIN)
        server.start()
        return server

    def told(self, server: Server, what: str) -> Answer:
        return server.send(f"X-Do: {what}\r\nX-Secret: s\r\nSubject: x\r\n\r\nx".encode())

    def test_what_it_says_is_what_the_peer_hears(self) -> None:
        server = self.serve_with_puppet()
        self.assertEqual([self.told(server, "refuse").code, self.told(server, "defer").code], [550, 450])
        self.assertEqual([self.told(server, what).code for what in ("accept", "signal", "nothing")], [250] * 3)
        server.wait_for_mail("alice", 3)

    def test_a_filter_that_fails_in_any_way_defers_and_gives_nothing_away(self) -> None:
        server = self.serve_with_puppet()
        for what in ("raise", "hang", "nonsense"):
            answer = self.told(server, what)
            self.assertTrue(400 <= answer.code < 500, (what, answer))
            self.assertNotIn("secret", answer.text)
        self.assertEqual(server.messages("alice"), [])
        self.assertServes(server)

    def test_a_filter_that_may_be_skipped_lets_through_when_it_fails(self) -> None:
        server = self.serve_with_puppet(filters=FILTER + 'on_error = "skip"\n')
        for what in ("raise", "hang", "nonsense"):
            self.assertEqual(self.told(server, what).code, 250, what)
        server.wait_for_mail("alice", 3)

    def test_quarantine_delivers_into_junk(self) -> None:
        server = self.serve_with_puppet()
        self.assertEqual(self.told(server, "quarantine").code, 250)
        server.wait_for_mail("alice", folder=".Junk")
        self.assertEqual(server.messages("alice"), [])

    def test_what_is_put_aside_on_its_way_to_another_host_waits_for_a_person(self) -> None:
        server = self.serve_with_puppet(RELAYING, FILTER.replace("puppet", "wary"))
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<s@example.net>")
            for to in ("alice@example.org", "carol@elsewhere.example", "dora@elsewhere.example"):
                wire.command(f"RCPT TO:<{to}>")
            wire.command("DATA")
            id = wire.command(b"Subject: x\r\n\r\nx\r\n.").id
        server.wait_for_mail("alice")
        self.assertEqual(len(self.outbound(server, 1)), 1)
        shown = server.command("queue", "show", id).stdout
        self.assertIn("held", shown)
        self.assertIn("not for carol", shown)
        self.assertIn("not for carol", server.command("queue", "list", "--state", "held").stdout + shown)
        road = json.loads(server.command("explain", id, "--json").stdout)
        (held,) = [step for step in road if step["step"] == "held"]
        self.assertEqual((held["recipients"], held["why"]), (["carol@elsewhere.example"], "not for carol"))
        server.stop()
        server.restart()
        self.assertEqual(len(self.outbound(server, 1)), 1)
        self.assertEqual(server.command("queue", "release", id).returncode, 0)
        self.assertEqual(len(self.outbound(server, 2)), 2)

    def outbound(self, server: Server, count: int) -> list[str]:
        """The names of what went to other hosts, once there are so many."""
        new = server.work / "data/outbound/new"
        return wait_until(lambda: new.is_dir() and len(os.listdir(new)) >= count and os.listdir(new), server.log)  # type: ignore[no-any-return]

    def test_a_modifiers_edits_are_applied(self) -> None:
        server = self.serve_with_puppet()
        self.assertEqual(self.told(server, "nothing").code, 250)
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual((stored.header("X-Seen-By"), stored.header("X-Secret")), ("puppet", None))
        self.assertEqual(stored.body, b"x\r\n")

    def test_in_lmtp_one_recipients_verdict_does_not_decide_anothers(self) -> None:
        server = self.serve_with_puppet(LMTP)
        with Wire(server.port) as wire:
            wire.dialogue("LHLO client.example", "MAIL FROM:<s@example.net>")
            wire.dialogue("RCPT TO:<alice@example.org>", "RCPT TO:<bob@example.org>", "DATA")
            wire.send(b"X-Not-For: alice\r\nSubject: x\r\n\r\nx\r\n.\r\n")
            self.assertEqual([wire.reply().code, wire.reply().code], [550, 250])
        server.wait_for_mail("bob")
        self.assertEqual(server.messages("alice"), [])

    def test_in_smtp_what_one_recipient_refuses_is_held_and_the_other_gets_his(self) -> None:
        server = self.serve_with_puppet()
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<s@example.net>")
            wire.dialogue("RCPT TO:<alice@example.org>", "RCPT TO:<bob@example.org>", "DATA")
            wire.send(b"X-Not-For: alice\r\nSubject: x\r\n\r\nx\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
        server.wait_for_mail("bob")
        (entry,) = json.loads(server.command("queue", "list", "--state", "held", "--json").stdout)
        shown = server.command("queue", "show", entry["id"]).stdout
        self.assertIn("held (refused), discarded in 29d", shown)
        self.assertIn("not for them", shown)
        self.assertEqual(server.command("queue", "bounce", "--yes", entry["id"]).returncode, 1)
        self.assertEqual(server.messages("alice"), [])
        # A moment ago the other copy was on its way, and what it came to may not be written yet.
        wait_until(lambda: server.command("queue", "release", entry["id"]).returncode == 0, server.log)
        server.wait_for_mail("alice")

    def test_a_plugin_that_cannot_be_imported_stops_the_start_with_its_traceback(self) -> None:
        server = self.prepare(BASIC + FILTER)
        server.install_plugin("puppet_plugin", "import nothing_of_this_name\n")
        with self.assertRaises(self.failureException):
            server.start()
        self.assertIn("puppet", server.log())
        self.assertIn("nothing_of_this_name", server.log())
