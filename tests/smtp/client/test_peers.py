"""The client of docs/smtp-client.md with a real peer: Postfix's smtp-sink, in its several moods."""

import os
import socket
import subprocess
import time

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.client.events import ClientEvent, Closing, Done, Lost, Refused
from mailserver.smtp.client.limits import Phase
from mailserver.smtp.client.session import UNCERTAIN, Request
from tests.documents import load_example
from tests.ports import free_port
from tests.requires import require_tool
from tests.smtp.client.client_talk import to, verdict
from tests.smtp.client.test_document import CONTENT, EXAMPLE

START_SECONDS = 10


class SmtpSinkTests(SynchronousTestCase):
    def send(self, *mood: str, body: str = "7BIT") -> list[ClientEvent]:
        """Send a message for two recipients to an smtp-sink with these options."""
        port = free_port()
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        sink = subprocess.Popen([require_tool("smtp-sink"), *user, *mood, f"127.0.0.1:{port}", "100"])
        self.addCleanup(sink.wait)
        self.addCleanup(sink.terminate)
        self.wait_for(port, sink)
        request = Request(None, to("a", "b"), len(CONTENT), body)
        events: list[ClientEvent] = load_example(EXAMPLE).send("127.0.0.1", port, request, CONTENT)
        return events

    def wait_for(self, port: int, sink: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + START_SECONDS
        while sink.poll() is None and time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except ConnectionRefusedError:
                os.sched_yield()
        self.fail("smtp-sink does not listen")

    def verdicts(self, events: list[ClientEvent]) -> list[str]:
        (done,) = [event for event in events if isinstance(event, Done)]
        return [verdict(outcome) for outcome in done.outcomes]

    def test_messages_are_taken_whatever_is_offered(self):
        for mood in ((), ("-p",), ("-e",), ("-8",), ("-E",)):
            self.assertEqual(self.verdicts(self.send(*mood)), ["ok", "ok"], mood)

    def test_8bit_content_goes_where_8bitmime_is_offered_and_nowhere_else(self):
        self.assertEqual(self.verdicts(self.send(body="8BITMIME")), ["ok", "ok"])
        self.assertEqual(self.verdicts(self.send("-8", body="8BITMIME")), ["never 554", "never 554"])

    def test_refusals_at_each_command(self):
        for command in ("mail", "rcpt", "data", "."):
            for option, word in (("-f", "never 500"), ("-r", "later 450")):
                for mood in ((), ("-p",)):
                    self.assertEqual(self.verdicts(self.send(*mood, option, command)), [word, word], (command, mood))

    def test_a_refused_greeting_and_a_refused_ehlo(self):
        self.assertEqual([type(event) for event in self.send("-f", "connect")], [Refused])
        self.assertEqual(self.verdicts(self.send("-f", "ehlo")), ["ok", "ok"])  # with HELO

    def test_a_peer_that_closes_at_each_command(self):
        for command, phase in (("mail", Phase.MAIL), ("rcpt", Phase.RCPT), ("data", Phase.DATA), (".", Phase.END)):
            events = self.send("-q", command)
            self.assertIn(type(events[-1]), (Lost, Closing), command)
            self.assertIs(events[-1].phase, phase)
            self.assertNotIn("ok", self.verdicts(events))
            if isinstance(events[-1], Lost):
                self.assertEqual({outcome.note for outcome in events[-2].outcomes}, {UNCERTAIN if phase is Phase.END else ""})
