"""The sink: what a program sends is seen, and what is to go wrong goes wrong."""

from __future__ import annotations

import smtplib
import socket
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.sink import Faults, Sink, parse_reply

MAIL = "Subject: hello\r\n\r\n.dots\r\n"


class Sinks(SynchronousTestCase):
    def sink(self, **options: Faults) -> Sink:
        sink = Sink(**options)
        sink.start()
        self.addCleanup(sink.stop)
        return sink

    def client(self, sink: Sink) -> smtplib.SMTP:
        client = smtplib.SMTP(sink.host, sink.port, "client.example", timeout=20)
        self.addCleanup(client.close)
        return client

    def test_mails_are_there_when_the_client_has_its_answer(self) -> None:
        sink = self.sink()
        client = self.client(sink)
        for n in range(3):
            client.sendmail("bob@example.net", ["a@one.example", "b@two.example"], MAIL)
            self.assertEqual(len(sink.mails), n + 1)
        mail = sink.wait(3)[0]
        self.assertEqual((str(mail.sender), [str(one) for one in mail.recipients]), ("bob@example.net", ["a@one.example", "b@two.example"]))
        self.assertEqual((mail.content, mail.hello), (MAIL.encode(), "client.example"))
        client.sendmail("", ["a@one.example"], MAIL)
        self.assertIsNone(sink.mails[-1].sender)

    def test_it_refuses_where_it_is_asked_to_and_only_there(self) -> None:
        sink = self.sink()
        client = self.client(sink)
        later = Reply.of(451, "4.3.0", "Later")
        for stage, error in (
            ("mail", smtplib.SMTPSenderRefused),
            ("rcpt", smtplib.SMTPRecipientsRefused),
            ("data", smtplib.SMTPDataError),
            ("end", smtplib.SMTPDataError),
        ):
            sink.faults = Faults(**{stage: later})
            with self.assertRaises(error):
                client.sendmail("bob@example.net", ["a@one.example"], MAIL)
            self.assertEqual(sink.mails, [], stage)
        sink.faults = Faults()
        client.sendmail("bob@example.net", ["a@one.example"], MAIL)
        self.assertEqual(len(sink.mails), 1)

    def test_it_drops_the_connection_after_the_dot(self) -> None:
        sink = self.sink(faults=Faults(drop_at_end=True))
        with self.assertRaises(smtplib.SMTPServerDisconnected):
            self.client(sink).sendmail("bob@example.net", ["a@one.example"], MAIL)
        self.assertEqual(sink.mails, [])

    def test_it_ends_while_a_client_says_nothing_and_another_waits_for_its_answer(self) -> None:
        sink = self.sink(faults=Faults(delay_seconds=3600.0))
        with socket.create_connection((sink.host, sink.port)), socket.create_connection((sink.host, sink.port)) as waiting:
            waiting.sendall(b"EHLO client.example\r\n")
            sink.stop()
        with self.assertRaises(OSError):
            socket.create_connection((sink.host, sink.port), timeout=5)

    def test_what_never_comes_is_not_waited_for_for_ever(self) -> None:
        with self.assertRaisesRegex(TimeoutError, "0 of 1 mails"):
            self.sink().wait(1, 0.01)

    def test_a_reply_is_read_with_and_without_its_status(self) -> None:
        self.assertEqual(parse_reply("451 4.3.0 Try later"), Reply.of(451, "4.3.0", "Try later"))
        self.assertEqual(parse_reply("550 No such user"), Reply.of(550, "5.0.0", "No such user"))
        self.assertEqual(parse_reply("550"), Reply.of(550, "5.0.0", "No"))
        for wrong in ("250 OK", "", "x", "4510 no", "\u0664\u0665\u0661 no", "451 4.3.0 a\r\nb"):
            with self.assertRaises(ValueError):
                parse_reply(wrong)

    def test_the_command_prints_what_comes_and_ends_after_so_many(self) -> None:
        command = [sys.executable, "-m", "mailserver.cli", "sink", "--port", "0", "--count", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            port = int(process.stderr.readline().rsplit(" ", 1)[1])
            with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=20) as client:
                client.sendmail("bob@example.net", ["a@one.example"], MAIL + "\x1b[2J\r\n")
                out, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(out, "--- from <bob@example.net> to <a@one.example> (hello client.example)\nSubject: hello\n\n.dots\n?[2J\n\n")
