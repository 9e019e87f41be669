"""docs/smtp-core.md and the server in it: they are the same, and they work."""

import asyncio
import doctest
import smtplib
import sys
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.smtp import events
from tests.documents import DOCS, example_as_shown, load_example, page_text

EXAMPLE, PAGE = "smtp_core_server", "smtp-core.md"


class PageTests(SynchronousTestCase):
    def test_the_page_shows_the_example_as_it_is(self):
        self.assertIn(example_as_shown(EXAMPLE), page_text(PAGE))

    def test_the_dialogue_on_the_page_is_what_happens(self):
        result = doctest.testfile(str(DOCS / PAGE), module_relative=False, encoding="utf-8")
        self.assertEqual(result.failed, 0)
        self.assertGreater(result.attempted, 10)

    def test_the_page_names_every_event_and_every_wait(self):
        page = page_text(PAGE)
        for name in events.__all__:
            if name not in ("Event", "Wait"):
                self.assertIn(f"`{name}(", page)
        for wait in events.Wait:
            self.assertIn(f"`Wait.{wait.name}`", page)

    def test_the_core_imports_no_event_loop(self):
        import subprocess

        code = (
            "import sys, mailserver.smtp.server.session; "
            "sys.exit(' '.join(m for m in sys.modules if m.split('.')[0] in ('twisted', 'zope', 'asyncio', 'selectors')) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=DOCS.parent)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class ExampleTests(SynchronousTestCase):
    def setUp(self):
        self.kept: list[Any] = []
        self.example = load_example(EXAMPLE)

    def deliver(self, *message: Any) -> None:
        self.kept.append(message)

    def test_in_memory(self):
        conversation = self.example.Conversation(self.deliver, "example.org")
        self.assertEqual(conversation.start(), b"220 mail.example.org ESMTP\r\n")
        self.assertIn(b"250-PIPELINING\r\n", conversation.receive(b"EHLO c.example\r\n"))
        group = b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<b@elsewhere.example>\r\nDATA\r\n"
        self.assertEqual([int(line[:3]) for line in conversation.receive(group).splitlines()], [250, 250, 550, 354])
        said = conversation.receive(b"Subject: x\r\n\r\n..\r\n.\r\nQUIT\r\n")
        self.assertEqual(said, b"250 2.0.0 OK\r\n221 2.0.0 Goodbye\r\n")
        self.assertTrue(conversation.is_over)
        self.assertEqual(
            self.kept, [(Address("a", "c.example"), (Address("b", "example.org"),), b"Subject: x\r\n\r\n.\r\n")]
        )

    def test_a_fault_a_failing_disk_and_a_peer_that_leaves_keep_nothing(self):
        def fail(*message: Any) -> None:
            raise OSError

        conversation = self.example.Conversation(fail, "example.org")
        conversation.start()
        conversation.receive(b"EHLO c.example\r\n")
        endless = b"".join([b"A: %d\r\n" % n for n in range(50_000)])
        group = b"MAIL FROM:<>\r\nRCPT TO:<PostMaster>\r\nDATA\r\n"
        for content, code in ((endless + b".\r\n", b"552"), (b"a\r\n.\r\n", b"451")):
            self.assertTrue(conversation.receive(group).endswith(b"354 Go ahead\r\n"))
            self.assertEqual(conversation.receive(content)[:3], code)
        conversation.receive(group + b"half a mess")
        self.assertEqual(conversation.receive(b""), b"")
        self.assertTrue(conversation.is_over)

    def test_over_a_socket_with_smtplib(self):
        started = threading.Event()
        port: list[int] = []
        stop: list[Any] = []

        async def main() -> None:
            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
                return self.example.serve(reader, writer, self.example.Conversation(self.deliver, "example.org"))

            server = await asyncio.start_server(connected, "127.0.0.1", 0)
            port.append(server.sockets[0].getsockname()[1])
            finished = asyncio.Event()
            stop.append((asyncio.get_running_loop(), finished))
            started.set()
            await finished.wait()
            server.close()
            await server.wait_closed()

        thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
        thread.start()
        self.assertTrue(started.wait(10))
        try:
            with smtplib.SMTP("127.0.0.1", port[0], "c.example", timeout=10) as client:
                body = "Subject: x\r\n\r\n" + ".dot\r\n" * 20_000
                refused = client.sendmail("a@c.example", ["b@example.org", "c@elsewhere.example"], body, ["BODY=8BITMIME"])
                self.assertEqual(list(refused), ["c@elsewhere.example"])
                self.assertRaises(smtplib.SMTPRecipientsRefused, client.sendmail, "a@c.example", ["x@elsewhere.example"], "x")
                self.assertEqual(client.noop()[0], 250)
        finally:
            loop, finished = stop[0]
            loop.call_soon_threadsafe(finished.set)
            thread.join(10)
        self.assertFalse(thread.is_alive())
        self.assertEqual(self.kept, [(Address("a", "c.example"), (Address("b", "example.org"),), body.encode())])
