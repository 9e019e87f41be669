"""A trial test case with a whole server in memory: an SMTP dialogue or a message goes in, and everything can be looked at."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no annotations)

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mailserver.mail.envelope import TLSFacts
from mailserver.testing.case import FilterCase
from mailserver.testing.golden import assert_golden
from mailserver.testing.memory.dialogue import Heard, SentMail, SMTPDialogue
from mailserver.testing.memory.logins import PASSWORD
from mailserver.testing.memory.queue import DeliveryAttempt, OwedReport, TakenMail
from mailserver.testing.memory.server import MemoryServer, Step

__all__ = ["MailCase"]

USUAL_TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")
MESSAGE = b"From: sender@example.net\nTo: alice@example.org\nSubject: Hello\n\nHow are you?\n"


def facts_of(tls: bool | TLSFacts) -> TLSFacts | None:
    """What a handshake shows; True stands for a usual one, without a client's certificate."""
    return USUAL_TLS if tls is True else tls or None


class MailCase(FilterCase):
    """The server's own judging, routing and submission rules, from the dialogue to the delivery, on `clock`.

        class GreylistTest(MailCase):
            def test_who_comes_back_is_let_in(self):
                self.serve('[[filter]]\\nuse = "come_again"\\n', factory)
                self.assertEqual(self.send().code, 450)
                self.clock.advance(60)
                self.assertEqual(self.send().code, 250)
                self.assertEqual(len(self.mailbox("alice@example.org")), 1)

    `resolver` and `clock` are as in `ComponentCase`; every component of the server has these, and a space of the state store for
    itself: `self.state.space("come_again")` is that of the component of this name, `self.records.space("come_again")`
    its records.
    """

    server: MemoryServer

    # --- The server. ---

    def serve(self, configuration: str = "", *factories: Any) -> MemoryServer:
        """Start a server with this configuration (TOML) and these components beside those that are installed.

        Raises `ConfigurationError` as a start does.
        """
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        self.server = MemoryServer(
            configuration,
            factories,
            clock=self.clock,
            state=self.state,
            records=self.records,
            quarantine=self.quarantine,
            services=self.services_for,
            folder=folder,
        )
        self.answer(self.server.start())
        self.addCleanup(self.server.stop)
        return self.server

    def component(self, name: str) -> Any:
        """The component that the configuration calls so."""
        return self.server.component(name)

    # --- What goes in. ---

    def connect(
        self,
        address: str = "192.0.2.25",
        *,
        service: str = "mx",
        hello: str = "client.example.net",
        login: str = "",
        tls: bool | TLSFacts = False,
    ) -> SMTPDialogue:
        """A connection that has read the greeting and said EHLO (LHLO); with `hello=""` it has said nothing.

        With `tls` the listener offers STARTTLS, and the connection has used it, unless it has said nothing: `Peer.tls` are those
        facts then.  With `login` it has logged in as this account.
        """
        dialogue = self.server.connect(address, service=service, settle=self._settle, tls=facts_of(tls))
        if hello:
            dialogue.heard()
            dialogue.say(f"{'LHLO' if service == 'lmtp' else 'EHLO'} {hello}")
            if tls:
                dialogue.start_tls(hello)
        if login:
            self.assertEqual(dialogue.log_in(login, PASSWORD).code, 235)
        return dialogue

    def send(
        self,
        message: bytes = MESSAGE,
        *,
        sender: str | None = "sender@example.net",
        recipients: Sequence[str] = ("alice@example.org",),
        address: str = "192.0.2.25",
        service: str = "mx",
        hello: str = "client.example.net",
        login: str = "",
        tls: bool | TLSFacts = False,
    ) -> SentMail:
        """A message over a connection of its own.  A connection that the server ends before MAIL counts as its reply to MAIL."""
        dialogue = self.server.connect(address, service=service, settle=self._settle, tls=facts_of(tls))
        greeting = dialogue.heard()
        if greeting is None or greeting.code != 220:
            return SentMail(greeting or Heard(0, ()))
        polite = dialogue.must(f"{'LHLO' if service == 'lmtp' else 'EHLO'} {hello}")
        if polite.code != 250:
            return SentMail(polite)
        if tls:
            polite = dialogue.start_tls(hello)
            if polite.code != 250:
                return SentMail(polite)
        if login:
            self.assertEqual(dialogue.log_in(login, PASSWORD).code, 235)
        sent = dialogue.transaction(message, sender, recipients)
        dialogue.say("QUIT")
        return sent

    def _settle(self) -> None:
        """What is due now happens now."""
        for _ in range(20):
            self.clock.advance(0)

    # --- What has come of it. ---

    @property
    def taken(self) -> list[TakenMail]:
        """The messages for which the sender has heard 250."""
        self._settle()
        return self.server.queue.taken

    @property
    def attempts(self) -> list[DeliveryAttempt]:
        """Every attempt to deliver, with its outcome."""
        self._settle()
        return self.server.queue.attempts

    @property
    def reports(self) -> list[OwedReport]:
        """The reports that senders are owed; nobody writes them here."""
        self._settle()
        return self.server.queue.reports

    def mailbox(self, account: str, folder: str = "") -> list[bytes]:
        """The messages in a folder of an account, "" for the inbox."""
        self._settle()
        found: list[bytes] = self._in_memory("memory", "delivery").folders.get((account, folder), [])
        return found

    def sent_to(self, address: str) -> list[bytes]:
        """The messages that went to another host for this recipient."""
        self._settle()
        found: list[bytes] = self._in_memory("memory-hosts", "relay").sent.get(address, [])
        return found

    def _in_memory(self, name: str, section: str) -> Any:
        try:
            return self.server.component(name, section)
        except KeyError:
            self.fail(f"[{section}] names another component than the one in memory: look where that keeps its mail")

    def road(self, id: str) -> list[Step]:
        """The steps of one message or connection, as observers see them."""
        return self.server.road(id)

    def steps(self, name: str) -> list[Step]:
        """All steps of this name."""
        return [one for one in self.server.steps_seen if one["step"] == name]

    def verdicts(self) -> list[tuple[str, str, str]]:
        """What filters have said, in this order: the filter's name, the stage, the verdict's class ("" for a failure).

        A `Pass` is recorded only where the table says ``log_passes = true``.
        """
        return [(one.get("filter", ""), one["stage"], one["verdict"]) for one in self.steps("filter")]

    def assertGolden(self, dialogue: SMTPDialogue, path: str) -> None:
        """The dialogue must be as the file `path` has it; ids and times count for nothing.

        With the environment's ``MAILSERVER_GOLDEN=update`` the file is written anew.
        """
        assert_golden(self, dialogue.said, path)
