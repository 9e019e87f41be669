"""What users may send through the whole server (RFC 6409)."""

from __future__ import annotations

import smtplib

from tests.scenarios.support import Wire, wait_until
from tests.scenarios.test_login import ALICE, MESSAGE, PASSWORD, SUBMISSION, LoginCase


class Sending(LoginCase):
    def logged_in(self, more: str = "", accounts: str = "") -> smtplib.SMTP:
        self.server = self.with_password(SUBMISSION + more)
        if accounts:
            self.assertEqual(self.server.command(*accounts.split()).returncode, 0)
        client = self.client(self.server)
        client.login(ALICE, PASSWORD)
        return client

    def refusal(self, client: smtplib.SMTP, sender: str, message: bytes = MESSAGE) -> tuple[int, bytes]:
        try:
            client.sendmail(sender, ["bob@elsewhere.example"], message)
        except smtplib.SMTPSenderRefused as error:
            return error.smtp_code, bytes(error.smtp_error)
        except smtplib.SMTPDataError as error:
            return error.smtp_code, bytes(error.smtp_error)
        return 250, b""

    def test_the_sender_must_be_the_users_own(self) -> None:
        # RFC 6409 section 6.1
        client = self.logged_in('\n[domain."example.org".aliases]\nsales = ["alice", "bob"]\ninfo = ["bob"]\n')
        own = MESSAGE.replace(b"From: alice@", b"From: %s@")
        for name, code in ((b"alice", 250), (b"alice+news", 250), (b"sales", 250), (b"info", 553), (b"bob", 553)):
            sender = name.decode() + "@example.org"
            self.assertEqual(self.refusal(client, sender, own % name)[0], code, name)
        self.assertEqual(self.refusal(client, "alice@elsewhere.example")[0], 553)

    def test_a_second_name_of_the_domain_is_the_users_own(self) -> None:
        client = self.logged_in('\n[domain."second.example"]\nsame_as = "example.org"\n')
        for name, code in ((b"alice", 250), (b"alice+news", 250), (b"bob", 553)):
            sender = name.decode() + "@second.example"
            message = MESSAGE.replace(b"From: alice@example.org", b"From: " + sender.encode())
            self.assertEqual(self.refusal(client, sender, message)[0], code, name)

    def test_the_from_field_must_be_the_users_own_too(self) -> None:
        client = self.logged_in()
        code, words = self.refusal(client, ALICE, MESSAGE.replace(b"alice@", b"boss@"))
        self.assertEqual(code, 550)
        self.assertIn(b"5.7.1", words)
        two = MESSAGE.replace(b"To:", b"From: boss@example.org\r\nTo:")
        self.assertEqual(self.refusal(client, ALICE, two)[0], 550)

    def test_what_is_granted_may_be_used(self) -> None:
        client = self.logged_in(accounts=f"user sender add {ALICE} @elsewhere.example")
        message = MESSAGE.replace(b"From: alice@example.org", b"From: any@elsewhere.example")
        self.assertEqual(self.refusal(client, "any@elsewhere.example", message)[0], 250)

    def test_missing_fields_are_completed(self) -> None:
        # RFC 6409 section 8
        client = self.logged_in()
        client.sendmail(ALICE, ["bob@elsewhere.example"], b"Subject: bare\r\n\r\nyes\r\n")
        [message] = self.sent(self.server)
        head = message.partition(b"\n\n")[0]
        self.assertRegex(head, rb"(?m)^Date: \w{3}, ")
        self.assertRegex(head, rb"(?m)^Message-ID: <[^>]+@mx\.example\.org>")
        self.assertRegex(head, rb"(?m)^From: <?alice@example\.org>?")

    def test_over_the_limit_is_450_with_a_clear_text_and_a_line_in_the_log(self) -> None:
        client = self.logged_in("\n[submission]\nmessages_per_hour = 2\n")
        codes = [self.refusal(client, ALICE) for _ in range(3)]
        self.assertEqual([code for code, _ in codes], [250, 250, 450])
        self.assertIn(b"You may not send more than 2 messages within an hour", codes[2][1])
        self.assertIn("alice@example.org has sent", self.noted_limit())

    def noted_limit(self) -> str:
        return str(wait_until(lambda: self.server.log() if "has sent" in self.server.log() else "", self.server.log))

    def test_mail_for_some_recipients_needs_tls(self) -> None:
        server = self.serve(
            SUBMISSION.replace('service = "submission"\nendpoint = "tcp:{port}', 'service = "mx"\nendpoint = "tcp:{port}')
            .replace('certificate = "{work}/server.pem"\nkey = "{work}/server.key"\n', 'required_for = ["alice@example.org"]\nrequired_from = ["*.bank.example"]\n')
        )  # fmt: skip
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            self.assertEqual(wire.dialogue("MAIL FROM:<x@mail.bank.example>"), [530])
            self.assertEqual(
                wire.dialogue("MAIL FROM:<x@y.example>", "RCPT TO:<alice@example.org>", "RCPT TO:<bob@example.org>"),
                [250, 530, 250],
            )
