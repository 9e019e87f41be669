"""docs/smtp-client.md and the client in it: they are the same, and they work."""

import doctest
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.envelope import Recipient
from mailserver.mail.reply import Reply
from mailserver.smtp.client import events as client_events
from mailserver.smtp.client.events import Broken, Done, Greeted, Lost, Ready, Refused, SendContent
from mailserver.smtp.client.limits import Phase
from mailserver.smtp.client.session import Request
from mailserver.smtp.events import Event, Rcpt, Wait
from tests.documents import DOCS, example_as_shown, load_example, page_text
from tests.smtp.server.conversation import GREETING, NO, Conversation, friendly

EXAMPLE, PAGE = "client_send", "smtp-client.md"
CONTENT = b"Subject: x\r\n\r\n" + b".dot\r\n" * 20_000
REQUEST = Request(
    Address("a", "client.example"),
    (Recipient(Address("b", "example.org")), Recipient(Address("nobody", "example.org"))),
    len(CONTENT),
)


class PageTests(SynchronousTestCase):
    def test_the_page_shows_the_example_as_it_is(self):
        self.assertIn(example_as_shown(EXAMPLE), page_text(PAGE))

    def test_the_dialogue_on_the_page_is_what_happens(self):
        result = doctest.testfile(str(DOCS / PAGE), module_relative=False, encoding="utf-8")
        self.assertEqual(result.failed, 0)
        self.assertGreater(result.attempted, 15)

    def test_the_page_names_every_event_and_every_wait(self):
        page = page_text(PAGE)
        for name in client_events.__all__:
            if name != "ClientEvent":
                self.assertIn(f"`{name}(", page)
        for wait in Wait:
            self.assertIn(f"`Wait.{wait.name}`", page)

    def test_the_core_imports_no_event_loop(self):
        code = (
            "import sys, mailserver.smtp.client.session; "
            "sys.exit(' '.join(m for m in sys.modules if m.split('.')[0] in ('twisted', 'zope', 'asyncio', 'selectors')) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=DOCS.parent)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class ExampleTests(SynchronousTestCase):
    """The example, over a socket on loopback."""

    def setUp(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.server = Conversation(greet=False, answer=self.answer)

    def answer(self, event: Event) -> Reply | None:
        return NO if isinstance(event, Rcpt) and event.address.local == "nobody" else friendly(event)

    def serve(self, accepted: socket.socket) -> None:
        """The server core, for one connection."""
        self.server.session.greet(GREETING)
        self.server.take()
        while True:
            accepted.sendall(self.server.said)
            self.server.said = b""
            octets = accepted.recv(65536)
            if self.server.wait is Wait.CLOSED or not octets:
                return
            self.server.send(octets)

    def send(self, serve: Callable[[socket.socket], None]) -> list[client_events.ClientEvent]:
        def accept() -> None:
            accepted, _ = self.listener.accept()
            accepted.settimeout(10)
            with accepted:
                serve(accepted)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            events: list[client_events.ClientEvent] = load_example(EXAMPLE).send("127.0.0.1", self.listener.getsockname()[1], REQUEST, CONTENT)
            return events
        finally:
            thread.join(10)

    def test_a_message_is_sent_and_each_recipient_has_an_outcome(self):
        events = self.send(self.serve)
        self.assertEqual([type(event) for event in events], [Greeted, Ready, SendContent, Done])
        self.assertEqual([type(outcome).__name__ for outcome in events[-1].outcomes], ["Delivered", "Failed"])
        self.assertEqual(self.server.content, CONTENT)
        self.assertEqual([type(event).__name__ for event in self.server.events][-1], "Quit")

    def test_a_host_that_wants_nothing(self):
        def refuse(accepted: socket.socket) -> None:
            accepted.sendall(b"554 no\r\n")
            self.assertEqual(accepted.recv(100), b"QUIT\r\n")

        self.assertEqual([type(event) for event in self.send(refuse)], [Refused])

    def test_a_host_that_goes_away_or_is_no_mail_server(self):
        self.assertEqual(self.send(lambda accepted: None), [Lost(Phase.GREETING)])
        self.assertIsInstance(self.send(lambda accepted: accepted.sendall(b"HTTP/1.1 400\r\n"))[0], Broken)
