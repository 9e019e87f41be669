"""Aliases that leave the house and the bounces that come back, in a whole server in memory."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mailserver.api import Delayed, Failed, Finding, ISenderFilter, Pass, Quarantine, Reply
from mailserver.testing import MailCase
from tests.testing.test_mail_case import made_by

ALIASES = """
[domain."example.org"]
catch_all = "carol@example.org"
[domain."example.org".aliases]
sales = ["ann@far.example"]
both = ["ann@far.example", "alice@example.org"]
"""
REFUSED = Failed(Reply.of(550, "5.7.1", "Looks like spam"))


@implementer(ISenderFilter)
class Says:
    """SPF passes for `good`, and `aside` is put aside."""

    async def judge_sender(self, envelope: Any) -> Any:
        if envelope.sender is None or envelope.sender.local == "stranger":
            return Pass()
        if envelope.sender.local == "aside":
            return Quarantine("odd")
        spf = {"result": "pass", "scope": "mfrom", "domain": envelope.sender.domain_key}
        return Pass(findings=(Finding("spf", properties=spf),))


class ForwardCase(MailCase):
    """The aliases, and a filter that says what SPF would."""

    def house(self, more: str = "") -> None:
        self.serve(f'{more}[[filter]]\nuse = "says"\n{ALIASES}', made_by("says", ISenderFilter, lambda services: Says()))
        self.hosts = self.server.component("memory-hosts", "relay")

    def path(self, sender: str = "good@sender.example") -> str:
        """The return path of a message by the alias."""
        before = len(self.steps("forwarded"))
        self.assertEqual(self.send(sender=sender, recipients=["sales@example.org"]).code, 250)
        self.sent_to("ann@far.example")
        self.assertEqual(len(self.steps("forwarded")), before + 1)
        return str(self.steps("forwarded")[-1]["return_path"])


class Bounces(ForwardCase):
    """What comes to a return path."""

    def test_a_bounce_goes_to_the_sender_with_the_null_sender_and_its_own_octets(self) -> None:
        self.house()
        path = self.path()
        sent = self.send(b"Subject: undeliverable\r\n\r\nbody\r\n", sender=None, recipients=[path])
        self.assertEqual(sent.code, 250)
        [bounce] = self.sent_to("good@sender.example")
        self.assertTrue(bounce.startswith(f"Delivered-To: {path}\r\nReceived: ".encode()), bounce)
        self.assertIsNone(self.taken[-1].envelope.sender)

    def test_any_other_sender_is_refused_there_and_so_is_what_was_not_made_here(self) -> None:
        self.house()
        path = self.path()
        [refused] = self.send(sender="good@sender.example", recipients=[path]).recipients.values()
        self.assertEqual((refused.code, refused.lines[0][:5]), (550, "5.7.1"))
        for forged in (path.replace("=good@", "=victim@"), "SRS0=AAAA=BB=x.example=y@example.org", "srs1=a=b==c@example.org"):
            [refused] = self.send(sender=None, recipients=[forged]).recipients.values()
            self.assertEqual((refused.code, refused.lines[0][:5]), (550, "5.1.1"), forged)
        self.clock.advance(23 * 86_400)
        [refused] = self.send(sender=None, recipients=[path]).recipients.values()
        self.assertEqual(refused.code, 550)
        self.assertIn("expired", self.steps("refused")[-1]["why"])
        self.assertEqual(self.mailbox("carol@example.org"), [])  # the catch-all

    def test_what_only_looks_like_one_is_another_hosts_or_somebodys(self) -> None:
        self.serve('[accounts]\nuse = "memory"\nnames = ["srs0-fan@example.org"]\n')
        self.assertEqual(self.send(recipients=["SRS0-fan@example.org"]).code, 250)
        user = "srs0-fan@example.org"
        message = f"From: {user}\r\n\r\nhi\r\n".encode()
        to = ["SRS0=x=y=z=a@far.example"]
        self.assertEqual(self.send(message, login=user, service="submission", sender=user, recipients=to).code, 250)

    def test_one_recipient_who_is_a_return_path_does_no_harm_to_the_others(self) -> None:
        self.house()
        sent = self.send(recipients=["SRS0=AAAA=BB=x.example=y@example.org", "alice@example.org", "bob@example.org"])
        self.assertEqual([one.code for one in sent.recipients.values()], [550, 250, 250])
        self.assertEqual((len(self.mailbox("alice@example.org")), sent.code), (1, 250))

    def test_switched_off_the_sender_stays_and_old_bounces_come_home(self) -> None:
        self.house("[forward]\nsrs = false\n")
        self.assertEqual(self.send(sender="good@sender.example", recipients=["sales@example.org"]).code, 250)
        self.assertEqual((len(self.sent_to("ann@far.example")), self.steps("forwarded")), (1, []))
        self.server.forwards.rules = type(self.server.forwards.rules)()
        path = self.path()
        self.assertEqual(self.send(sender=None, recipients=[path]).code, 250)

    def test_bounces_come_home_to_each_domain_in_which_return_paths_may_be(self) -> None:
        names = '[domain."example.com"]\nsame_as = "example.org"\n[domain."*.example.net".aliases]\nsales = "ann@far.example"\n'
        self.house(names)
        for recipient, domain in (
            ("sales@example.com", "example.com"), ("sales@eu.example.net", "eu.example.net"), ("sales+x@example.org", "example.org"),
        ):  # fmt: skip
            self.assertEqual(self.send(recipients=[recipient]).code, 250)
            self.sent_to("ann@far.example")
            path = str(self.steps("forwarded")[-1]["return_path"])
            self.assertEqual(path.rpartition("@")[2], domain)
            self.assertEqual(self.send(sender=None, recipients=[path]).code, 250)
        host = self.server.configuration.hostname
        self.house(f'[forward]\ndomain = "{host}"\n')
        path = self.path()
        self.assertEqual(path.rpartition("@")[2], host)
        self.assertEqual(self.send(sender=None, recipients=[path]).code, 250)
        self.assertEqual(self.send(sender=None, recipients=["alice@" + host]).code, 550)

    def test_what_is_put_aside_does_not_leave(self) -> None:
        self.house()
        self.assertEqual(self.send(sender="aside@sender.example", recipients=["both@example.org"]).code, 250)
        self.assertEqual((self.sent_to("ann@far.example"), len(self.mailbox("alice@example.org", "Junk"))), ([], 1))


class Refusals(ForwardCase):
    """What the next host refuses."""

    def owed(self, sender: str, *recipients: str, answer: Any = REFUSED, **more: Any) -> list[str]:
        """The reports that are owed."""
        self.hosts.answers["ann@far.example"] = [answer]
        before = len(self.reports)
        to = list(recipients) or ["sales@example.org"]
        message = f"From: {sender}\r\nSubject: hi\r\n\r\nhello\r\n".encode()
        self.assertEqual(self.send(message, sender=sender, recipients=to, **more).code, 250)
        return [one.draft.condition for one in self.reports[before:]]

    def test_a_sender_is_told_where_spf_has_passed_and_no_other(self) -> None:
        self.house()
        self.assertEqual(self.owed("good@sender.example"), ["failure"])
        self.assertEqual(self.owed("stranger@sender.example"), [])
        self.assertEqual(self.owed("stranger@sender.example", "both@example.org", "bob@example.org"), [])
        self.assertEqual([one.quiet for one in self.taken[-1].destinations], [True, False, False])

    def test_whoever_has_logged_in_is_told(self) -> None:
        self.house()
        self.assertEqual(self.owed("alice@example.org", service="submission", login="alice@example.org"), ["failure"])

    def test_nobody_is_told_of_a_delay_either(self) -> None:
        self.house()
        busy = Delayed(Reply.of(450, "4.2.1", "Busy"))
        for sender, told in (("stranger@sender.example", 0), ("good@sender.example", 1)):
            before = len(self.reports)
            self.hosts.answers["ann@far.example"] = [busy] * 1000
            self.send(sender=sender, recipients=["sales@example.org"])
            self.clock.advance(5 * 3600)
            self.assertEqual(len(self.reports) - before, told, sender)

    def test_what_goes_to_another_host_without_an_alias_is_told_as_ever(self) -> None:
        self.house('[relay]\nuse = "memory-hosts"\nnetworks = ["192.0.2.0/24"]\n')
        self.assertEqual(self.owed("stranger@sender.example", "ann@far.example"), ["failure"])
