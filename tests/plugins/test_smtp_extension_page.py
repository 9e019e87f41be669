"""docs/plugins/smtp-extension.md: its example runs in a real server, and its tables name what there is."""

from __future__ import annotations

import smtplib

from twisted.trial.unittest import SynchronousTestCase

from mailserver.interfaces import TransactionEnd
from tests.documents import blocks, page_text
from tests.scenarios.support import BASIC, ScenarioCase

PAGE = page_text("plugins/smtp-extension.md")


class Page(SynchronousTestCase):
    def test_it_names_every_end_of_a_transaction(self) -> None:
        for how in TransactionEnd:
            self.assertIn(f"| `{how.name}` |", PAGE)


class Example(ScenarioCase):
    def test_it_serves_as_the_page_says(self) -> None:
        server = self.prepare(BASIC + blocks(PAGE, "toml")[0])
        server.install_plugin("tickets_plugin", blocks(PAGE, "python")[0])
        server.start()
        with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client:
            self.assertEqual(client.docmd("XTICKET", "blue-17")[0], 500)
            client.helo("client.example")
            self.assertEqual(client.docmd("XTICKET", "blue-17")[0], 500)
            client.ehlo("client.example")
            self.assertTrue(client.has_extn("x-tickets"))
            self.assertEqual(client.docmd("XTICKET", "blue-17"), (250, b"2.0.0 This ticket is good"))
            self.assertEqual(client.docmd("XTICKET", "green")[0], 550)
            message = b"Subject: one\r\n\r\nhello\r\n"
            client.sendmail("ann@client.example", ["alice@example.org"], message, ["XTICKET=blue-17"])
            with self.assertRaises(smtplib.SMTPSenderRefused):  # it was good for one message
                client.sendmail("ann@client.example", ["alice@example.org"], message, ["XTICKET=blue-17"])
            client.rset()
            client.sendmail("ann@client.example", ["alice@example.org"], message)
