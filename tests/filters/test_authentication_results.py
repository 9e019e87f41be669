"""The modifier that writes Authentication-Results and Received-SPF."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mailserver.filters.authentication_results import factory
from mailserver.mail.answers import Finding
from mailserver.mail.content import Content
from mailserver.testing import ComponentCase, MailCase
from tests.trust.test_dkim import NOW, RSA, signed

PASS = Finding("spf", properties={"result": "pass", "domain": "example.net", "scope": "mfrom", "mechanism": "ip4:192.0.2.25"})


class Edits(ComponentCase):
    def fields(self, *findings: Finding, sender: str | None = "sender@example.net", **options: Any) -> list[tuple[str, str]]:
        envelope = replace(self.envelope(sender), findings=findings)
        edits = self.answer(self.build(factory, **options).edits(envelope, self.content()))
        return [(one.name, one.value.replace("\r\n\t", " ")) for one in edits]

    def test_one_field_has_the_results_of_all(self) -> None:
        dkim = {"result": "pass", "domain": "example.net", "selector": "s1", "identity": "@example.net", "algorithm": "rsa-sha256"}
        dmarc = {"result": "fail", "domain": "example.com", "policy": "reject", "reason": "neither SPF nor DKIM speaks for it"}
        [(name, value), _] = self.fields(
            Finding("dmarc", properties=dmarc),
            Finding("dkim", properties={**dkim, "bits": 2048}),
            Finding("dkim", properties={"result": "permerror", "domain": "", "reason": "no tag: 'x'"}),
            PASS,
        )
        self.assertEqual(name, "Authentication-Results")
        self.assertEqual(
            value.split("; "),
            [
                "mail.example.test",
                "spf=pass smtp.mailfrom=example.net",
                'dkim=pass (2048-bit key) header.d=example.net header.i="@example.net" header.s=s1 header.a=rsa-sha256',
                "dkim=permerror reason=\"no tag: 'x'\"",
                'dmarc=fail reason="neither SPF nor DKIM speaks for it" header.from=example.com policy.dmarc=reject',
            ],
        )

    def test_received_spf_is_about_the_sender_and_else_about_the_hello_name(self) -> None:
        hello = Finding("spf", properties={"result": "permerror", "domain": "client.example.net", "scope": "helo", "reason": "it holds 'x'"})
        [_, (name, value)] = self.fields(hello, PASS)
        self.assertEqual(name, "Received-SPF")
        self.assertEqual(
            value,
            "pass (mail.example.test: pass for example.net and 192.0.2.25) receiver=mail.example.test; identity=mailfrom; "
            'client-ip=192.0.2.25; envelope-from="sender@example.net"; helo=client.example.net; mechanism="ip4:192.0.2.25"',
        )
        [(_, results), (_, value)] = self.fields(hello, sender=None)
        self.assertIn("identity=helo; client-ip=192.0.2.25; helo=client.example.net; problem=\"it holds 'x'\"", value)
        self.assertIn("smtp.helo=client.example.net", results)

    def test_it_can_be_left_out(self) -> None:
        self.assertEqual([name for name, _ in self.fields(PASS, received_spf=False)], ["Authentication-Results"])

    def test_without_results_nothing_is_written(self) -> None:
        self.assertEqual(self.fields(), [])
        self.assertEqual(self.fields(Finding("dnsbl", 3.0), Finding("spf", properties={"result": "pass; dkim=pass"}), Finding("spf")), [])


class Mail(MailCase):
    def test_a_message_has_one_field_of_ours_and_none_that_says_so_and_is_not(self) -> None:
        self.clock.rightNow = float(NOW)
        self.resolver.zones["example.org"] = {"TXT": ["v=spf1 ip4:192.0.2.25 -all"]}
        self.resolver.zones["s1._domainkey.example.org"] = {"TXT": [RSA.record]}
        self.resolver.zones["_dmarc.example.org"] = {"TXT": ["v=DMARC1; p=reject"]}
        names = ("authentication_results", "dmarc", "dkim", "spf")
        self.serve('hostname = "mail.example.test"\ndata = "data"\n' + "".join(f'[[filter]]\nuse = "{name}"\n' for name in names))
        forged = b"Authentication-Results: mail.example.test; dmarc=pass header.from=bank.example\r\n"
        sent = self.send(forged + b"".join(signed().chunks()), sender="a@example.org", recipients=("alice@example.org",))
        self.assertEqual(sent.code, 250)
        [message] = self.mailbox("alice@example.org")
        headers = Content.of(message).headers
        [results] = headers.get_all("Authentication-Results")
        for one in ("spf=pass smtp.mailfrom=example.org", "dkim=pass (2048-bit key)", "dmarc=pass header.from=example.org"):
            self.assertIn(one, results.replace("\t", " "))
        [received] = headers.get_all("Received-SPF")
        self.assertTrue(received.startswith("pass ("))
        places = [one.name for one in headers]
        self.assertLess(places.index(b"received-spf"), places.index(b"received"))

    def test_what_a_user_sends_has_none(self) -> None:
        self.serve('[[filter]]\nuse = "authentication_results"\n[[filter]]\nuse = "spf"\n[[filter]]\nuse = "dkim"\n')
        message = b"From: alice@example.org\nSubject: Hello\n\nHello.\n"
        sent = self.send(message, sender="alice@example.org", service="submission", login="alice@example.org")
        self.assertEqual(sent.code, 250)
        [message] = self.mailbox("alice@example.org")
        self.assertNotIn("Authentication-Results", Content.of(message).headers)
