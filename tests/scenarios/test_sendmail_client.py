"""Sendmail hands its mail to the whole server, as to the exchanger of a domain and as to a smarthost."""

from __future__ import annotations

from tests.scenarios.sendmail import Sendmail
from tests.scenarios.support import BASIC, Server, as_wire, wait_until
from tests.scenarios.test_login import ALICE, PASSWORD, SUBMISSION, LoginCase

TLS = """
[tls]
certificate = "{work}/server.pem"
key = "{work}/server.key"
"""
MX = BASIC.replace('tls = "none"', 'tls = "starttls"') + TLS
HEADER = b"From: sender@example.net\nTo: alice@example.org\nSubject: from sendmail\n"
MIME = HEADER + b"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
GATE = '''
import os

from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IRecipientFilter
from mailserver.mail.answers import Defer, Pass


@implementer(IRecipientFilter)
class Gate:
    async def judge_recipient(self, envelope, recipient):
        is_shut = recipient.address.local == "bob" and not os.path.exists("{path}")
        return Defer("the gate is shut") if is_shut else Pass()


@implementer(IComponentFactory)
class GateFactory:
    name = "gate"
    summary = "Defers bob until a file is there."
    provides = IRecipientFilter
    options = Options

    def build(self, options, services):
        return Gate()


gate = GateFactory()
'''


class SendmailCase(LoginCase):
    def sendmail(self, server: Server, login: tuple[str, str, str] | None = None) -> Sendmail:
        sendmail = Sendmail(server.port, login)
        self.addCleanup(sendmail.close)
        return sendmail

    def mx(self, more: str = "", users: int = 0) -> Server:
        accounts = [f"user{n}@example.org" for n in range(users)]
        server = self.prepare(MX + more, accounts=("alice@example.org", "bob@example.org", *accounts))
        self.certify(server)
        return server


class ToTheExchanger(SendmailCase):
    def assert_arrives(self, header: bytes, *bodies: bytes, expected: bytes | None = None) -> None:
        server = self.mx()
        server.start()
        sendmail = self.sendmail(server)
        for n, body in enumerate(bodies, 1):
            self.assertEqual(sendmail.send(header + b"\n" + body, ALICE), 0, sendmail.said)
            stored = max(server.wait_for_mail("alice", n, seconds=30), key=lambda message: message.path.stat().st_mtime_ns)
            self.assertTrue(stored.body == as_wire(body if expected is None else expected), f"{stored.body[:500]!r}")
            self.assertIn("with ESMTPS id", stored.header("Received") or "")

    def test_lines_of_dots_arrive_as_they_were(self) -> None:
        self.assert_arrives(HEADER, b"A line\n.\n..\n...two\n.x\nFrom here\n\n\n", b".\n" * 5000)

    def test_a_missing_last_line_end_is_put_in(self) -> None:
        self.assert_arrives(HEADER, b"one\n\nno final newline", expected=b"one\n\nno final newline\n")

    def test_eight_bit_arrives_whether_it_is_labelled_or_not(self) -> None:
        self.assert_arrives(MIME, bytes(range(128, 256)) + b"\n\xc3\xa4\n")
        self.assert_arrives(HEADER, bytes(range(128, 256)) + b"\n\xc3\xa4\n")

    def test_twenty_megabytes_arrive_whole(self) -> None:
        self.assert_arrives(HEADER, b"".join(b"%07d %s\n" % (n, b"x" * 70) for n in range(260_000)))

    def test_fifty_recipients_have_it_once_each(self) -> None:
        server = self.mx(users=50)
        server.start()
        sendmail = self.sendmail(server)
        recipients = [f"user{n}@example.org" for n in range(50)]
        self.assertEqual(sendmail.send(HEADER + b"\nfifty\n", *recipients), 0, sendmail.said)
        self.assertEqual(sendmail.said.count(">>> DATA"), 1)
        for n in range(50):
            [stored] = server.wait_for_mail(f"user{n}")
            self.assertEqual(stored.body, b"fifty\r\n")

    def test_a_deferred_recipient_has_it_later_and_the_others_once(self) -> None:
        server = self.mx('\n[[filter]]\nuse = "gate"\n')
        server.install_plugin("gate", GATE.replace("{path}", str(server.work / "open")))
        server.start()
        sendmail = self.sendmail(server)
        sendmail.send(HEADER + b"\nlater\n", ALICE, "bob@example.org")
        server.wait_for_mail("alice")
        self.assertRegex(sendmail.said, r"(?m)^450 4\.")
        self.assertEqual((sendmail.queued(), server.messages("bob")), (1, []))
        (server.work / "open").touch()
        self.assertEqual(sendmail.run_queue(), 0, sendmail.said)
        [stored] = server.wait_for_mail("bob")
        self.assertEqual(stored.body, b"later\r\n")
        server.wait_for_mail("alice")
        self.assertEqual(sendmail.queued(), 0)


class ToTheSmarthost(SendmailCase):
    def test_it_logs_in_and_its_mail_goes_out(self) -> None:
        server = self.with_password(SUBMISSION)
        message = HEADER.replace(b"sender@example.net", ALICE.encode()) + b"\nout\n.\n\xc3\xa4"
        for n, mechanism in enumerate(("PLAIN", "LOGIN", "SCRAM-SHA-256"), 1):
            sendmail = self.sendmail(server, (ALICE, PASSWORD, mechanism))
            status = sendmail.send(message, "bob@elsewhere.example", sender=ALICE, options=("-N", "failure,delay"))
            self.assertEqual(status, 0, sendmail.said)
            sent = self.sent(server, n)
            self.assertEqual(len(sent), n)
            self.assertTrue(all(as_wire(one).endswith(b"\r\n\r\nout\r\n.\r\n\xc3\xa4\r\n") for one in sent), sent)
            wait_until(lambda line=f"method={mechanism}": line in server.log(), server.log)

    def test_without_a_login_it_keeps_its_mail_or_returns_it(self) -> None:
        server = self.with_password(SUBMISSION)
        sendmail = self.sendmail(server)
        self.assertNotEqual(sendmail.send(HEADER + b"\nout\n", "bob@elsewhere.example", sender=ALICE), 0)
        self.assertIn("530 5.7.0", sendmail.said)
