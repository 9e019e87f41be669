"""The signer: what it signs and what not, with which keys, and how it learns of others."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace
from typing import Any

from twisted.logger import capturedLogs

from mailserver.filters.dkim_signing import DKIMSigningOptions, factory
from mailserver.mail.answers import Finding
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer
from mailserver.testing import FilterCase, MailCase
from mailserver.trust.dkim_key import PrivateKey
from mailserver.trust.signing_keys import make_keys, read_keys, rotate_keys
from tests.trust.dkimpy_peer import verified_by_dkimpy
from tests.trust.test_dkim import results

MESSAGE = b"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: hello\r\n\r\nHello.\r\n"
USER = Peer("192.0.2.1", 1, "submission", login="ann@example.org")


# A new RSA key takes some tenths of a second; six are more than any test here has at once.
KEYS = {kind: itertools.cycle([PrivateKey.generate(kind) for _ in range(6)]) for kind in ("rsa", "ed25519")}
STRANGER = Peer("203.0.113.9", 1, "mx")


def dmarc(domain: str, result: str = "pass", aligned: str = "") -> Finding:
    return Finding("dmarc", properties={"result": result, "domain": domain, "aligned": aligned})


def dkim(*, partial: bool) -> Finding:
    return Finding("dkim", properties={"result": "pass", "domain": "example.org", "partial": partial})


class SigningCase(FilterCase):
    OPTIONS: dict[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.patch(PrivateKey, "generate", lambda kind: next(KEYS[kind]))
        self.clock.rightNow = time.time() - 1000
        self.keys = self.mktemp()
        os.makedirs(self.keys)
        self.signer: Any = factory.build(DKIMSigningOptions(**self.OPTIONS), replace(self.services, keys_directory=self.keys))

    def signed(self, message: bytes = MESSAGE, peer: Peer = USER, **more: Any) -> Content:
        envelope = Envelope("ID", peer, None, (), self.clock.seconds(), **more)
        content = Content.of(message)
        fields = self.answer(self.signer.sign(envelope, content))
        for field in fields:
            content = content.with_prefix(f"{field.name}: {field.value}\r\n".encode())
        return content

    def start(self) -> None:
        self.answer(self.signer.start())

    def domains(self, content: Content) -> list[tuple[str, str]]:
        """Domain and algorithm of each signature, all of which verify."""
        records = {
            keys.name_of(key): key.key.record.encode() for keys in read_keys(self.keys).values() for key in keys.keys
        }
        found = results(content, records, self.clock.seconds())
        self.assertEqual([one.result for one in found], ["pass"] * len(found))
        return sorted((one.domain, one.algorithm) for one in found)


class Signing(SigningCase):
    def test_what_users_programs_and_the_server_send_is_signed_with_both_keys(self) -> None:
        make_keys(self.keys, "example.org", now=self.clock.seconds())
        self.start()
        for peer in (USER, Peer("local", 0, "submission", login="root"), Peer("127.0.0.1", 0, "report", "mx.example.org")):
            self.assertEqual(
                self.domains(self.signed(peer=peer)), [("example.org", "ed25519-sha256"), ("example.org", "rsa-sha256")], peer
            )

    def test_what_a_stranger_sends_in_our_name_is_not(self) -> None:
        make_keys(self.keys, "example.org", now=self.clock.seconds())
        self.start()
        for peer in (Peer("203.0.113.9", 1, "mx"), Peer("203.0.113.9", 1, "mx", hello="mail.example.org"), Peer("unix", 0, "lmtp")):
            self.assertEqual(self.domains(self.signed(peer=peer)), [])

    def test_what_an_alias_sends_on_is_where_dmarc_has_passed_for_its_author(self) -> None:
        make_keys(self.keys, "example.org", now=self.clock.seconds())
        self.start()
        by_spf, by_dkim = dmarc("example.org", aligned="spf"), dmarc("example.org", aligned="dkim")
        whole, partial = dkim(partial=False), dkim(partial=True)
        two = MESSAGE.replace(b"ann@example.org", b"ann@example.org, eve@evil.example")
        below = MESSAGE.replace(b"ann@example.org", b"ann@sub.example.org")
        for findings, message, count in (
            ((by_spf,), MESSAGE, 2),
            ((by_dkim, whole), MESSAGE, 2),
            ((dmarc("sub.example.org", aligned="spf"),), below, 2),
            ((by_spf, partial), MESSAGE, 2),
            ((by_dkim, partial), MESSAGE, 0),  # anybody may have added what we would sign
            ((), MESSAGE, 0),
            ((dmarc("example.org", "fail"),), MESSAGE, 0),
            ((dmarc("example.org", "none"),), MESSAGE, 0),
            ((dmarc("evil.example", aligned="spf"),), MESSAGE, 0),
            ((by_spf,), two, 0),
            ((by_spf,), b"From: eve@evil.example\r\n" + MESSAGE, 0),
        ):
            found = self.domains(self.signed(message, STRANGER, findings=findings, sent_on=True))
            self.assertEqual(len(found), count, (findings, message))
        self.assertEqual(self.domains(self.signed(MESSAGE, STRANGER, findings=(by_spf,))), [])  # it stays here
        for peer in (replace(STRANGER, service="lmtp"), replace(STRANGER, service="submission")):
            self.assertEqual(self.domains(self.signed(MESSAGE, peer, findings=(by_spf,), sent_on=True)), [])

    def test_another_program_verifies_it(self) -> None:
        keys = make_keys(self.keys, "example.org", now=self.clock.seconds())
        self.start()
        whole = b"".join(self.signed().chunks())
        first = keys.in_state("active")[-1]  # the field on top is the last one
        self.assertIs(verified_by_dkimpy(whole, first.key.record), True)

    def test_the_domain_is_the_authors_or_the_nearest_above(self) -> None:
        for domain in ("example.org", "sub.example.org"):
            make_keys(self.keys, domain, now=self.clock.seconds())
        self.start()
        for author, domain in (
            ("a@example.org", "example.org"), ("a@sub.example.org", "sub.example.org"), ("a@x.sub.example.org", "sub.example.org"),
            ("a@y.example.org", "example.org"), ("a@EXAMPLE.ORG", "example.org"), ("a@xexample.org", ""), ("a@org", ""),
        ):  # fmt: skip
            found = self.domains(self.signed(MESSAGE.replace(b"ann@example.org", author.encode())))
            self.assertEqual({name for name, _ in found}, {domain} - {""}, author)

    def test_an_author_that_cannot_be_understood_has_no_domain(self) -> None:
        make_keys(self.keys, "example.org", now=self.clock.seconds())
        self.start()
        for field in (b"From: ann@example.org\r\nFrom: b@example.org", b"From: <ann@example.org", b"X: y"):
            self.assertEqual(self.domains(self.signed(field + b"\r\n\r\nx\r\n")), [], field)

    def test_keys_that_are_made_or_rotated_while_it_runs_are_used_from_the_next_message_on(self) -> None:
        self.start()
        self.assertEqual(self.domains(self.signed()), [])
        make_keys(self.keys, "example.org", now=self.clock.seconds())
        self.assertEqual(len(self.domains(self.signed())), 2)
        rotate_keys(self.keys, "example.org", now=self.clock.seconds(), retired_seconds=1000)
        active = {key.selector for key in read_keys(self.keys)["example.org"].in_state("active")}
        records = {keys.name_of(key): key.key.record.encode() for keys in read_keys(self.keys).values() for key in keys.keys}
        self.assertEqual({one.selector for one in results(self.signed(), records, self.clock.seconds())}, active)

    def test_keys_that_cannot_be_read_any_more_are_told_and_those_of_before_are_used(self) -> None:
        make_keys(self.keys, "example.org", now=self.clock.seconds())
        self.start()
        states = os.path.join(self.keys, "dkim", "example.org", "selectors.json")
        with open(states) as file:
            good = file.read()
        with open(states, "w") as file:
            file.write("{")
        os.utime(os.path.join(self.keys, "dkim", "changes"), (1, 1))
        content = self.signed()
        with open(states, "w") as file:
            file.write(good)
        self.assertEqual(len(self.domains(content)), 2)

    def test_at_the_start_they_end_the_start(self) -> None:
        make_keys(self.keys, "example.org", now=self.clock.seconds())
        with open(os.path.join(self.keys, "dkim", "example.org", "selectors.json"), "w") as file:
            file.write("{")
        self.assertRaises(OSError, self.answer, self.signer.start())

    def test_retired_keys_are_removed_when_their_time_is_over(self) -> None:
        now = self.clock.seconds()
        make_keys(self.keys, "example.org", now=now)
        rotate_keys(self.keys, "example.org", now=now + 10, retired_seconds=1000)
        found = rotate_keys(self.keys, "example.org", now=now + 500, retired_seconds=1000)
        self.assertEqual(len(found.in_state("retired")), 4)
        found = rotate_keys(self.keys, "example.org", now=now + 1200, retired_seconds=1000)
        self.assertEqual(len(found.in_state("retired")), 4)
        files = [name for name in os.listdir(os.path.join(self.keys, "dkim", "example.org")) if name.endswith(".pem")]
        self.assertEqual(len(files), len(found.keys))




class Records(SigningCase):
    """Whether the DNS shows what is signed with."""

    def setUp(self) -> None:
        super().setUp()
        self.made = make_keys(self.keys, "example.org", now=self.clock.seconds())
        self.start()

    def show(self, *states: Any) -> None:
        shown = [one for state in states for one in self.made.in_state(state)]
        self.resolver.zones = {self.made.name_of(one): {"TXT": [one.key.record.replace("; ", ";")]} for one in shown}

    def looked(self, seconds: float = 300) -> int:
        """How many are missing after a look."""
        self.clock.advance(seconds)
        self.answer(self.signer.run_periodically())
        counts = self.signer.counts()
        self.assertEqual(counts["domains"], 1)
        return int(counts["records_missing"])

    def test_they_are_missing_until_they_are_seen(self) -> None:
        self.assertEqual(self.signer.counts(), {"domains": 1, "records_missing": 0})
        with capturedLogs() as logs:
            self.assertEqual([self.looked(), self.looked()], [2, 2])
            self.show("active")
            self.assertEqual([self.looked(), self.looked()], [0, 0])
        self.assertEqual([one["log_level"].name for one in logs], ["warn", "info"])
        self.assertIn(self.made.name_of(self.made.keys[0]), logs[0]["names"])

    def test_what_was_seen_is_asked_for_again_after_an_hour(self) -> None:
        self.show("active")
        self.assertEqual(self.looked(), 0)
        self.show()
        asked = len(self.resolver.asked)
        self.assertEqual([self.looked(), len(self.resolver.asked) - asked], [0, 0])
        self.assertEqual(self.looked(3600), 2)

    def test_another_key_of_the_name_is_none(self) -> None:
        self.show("active")
        other = PrivateKey.generate("ed25519").record
        self.resolver.zones[self.made.name_of(self.made.keys[0])] = {"TXT": [other, "nonsense;;"]}
        self.assertEqual(self.looked(), 1)

    def test_a_dns_that_cannot_tell_changes_nothing(self) -> None:
        self.resolver.failing |= {self.made.name_of(one) for one in self.made.keys}
        self.assertEqual(self.looked(), 0)
        self.resolver.failing.clear()
        self.assertEqual(self.looked(), 2)
        self.resolver.failing |= {self.made.name_of(one) for one in self.made.keys}
        self.assertEqual(self.looked(), 2)

    def test_after_a_rotation_the_next_ones_are_looked_for(self) -> None:
        self.show("active")
        self.assertEqual(self.looked(), 0)
        rotate_keys(self.keys, "example.org", now=self.clock.seconds(), retired_seconds=1000)
        self.assertEqual(self.looked(), 2)


class WithoutSentOn(SigningCase):
    OPTIONS = {"sent_on": False}

    def test_what_an_alias_sends_on_is_not(self) -> None:
        make_keys(self.keys, "example.org", now=self.clock.seconds())
        self.start()
        findings = (dmarc("example.org", aligned="spf"),)
        self.assertEqual(self.domains(self.signed(MESSAGE, STRANGER, findings=findings, sent_on=True)), [])


class Aliases(MailCase):
    CONFIGURATION = (
        '[[filter]]\nuse = "spf"\n[[filter]]\nuse = "dkim"\n[[filter]]\nuse = "dmarc"\n[[filter]]\nuse = "dkim_signing"\n'
        '[domain."example.org"]\n[domain."example.org".aliases]\n'
        'team = ["alice@example.org", "far@example.com"]\nhere = ["alice@example.org"]\n'
    )

    def setUp(self) -> None:
        super().setUp()
        self.patch(PrivateKey, "generate", lambda kind: next(KEYS[kind]))
        self.keys = self.mktemp()
        os.makedirs(self.keys)
        make_keys(self.keys, "example.org", now=self.clock.seconds())
        self.resolver.zones["example.org"] = {"TXT": ["v=spf1 ip4:192.0.2.25 -all"]}
        self.resolver.zones["_dmarc.example.org"] = {"TXT": ["v=DMARC1; p=reject"]}
        self.serve(self.CONFIGURATION)

    def services_for(self, name: str) -> Any:
        return replace(super().services_for(name), keys_directory=self.keys)

    def signatures(self, messages: list[bytes]) -> list[int]:
        return [Content.of(one).headers.count("DKIM-Signature") for one in messages]

    def test_only_what_leaves_this_host_and_passes_is_signed(self) -> None:
        for address, recipient in (("192.0.2.25", "team"), ("192.0.2.99", "team"), ("192.0.2.25", "here")):
            sent = self.send(MESSAGE, sender="ann@example.org", recipients=[f"{recipient}@example.org"], address=address)
            self.assertEqual(sent.code, 250)
        self.assertEqual(self.signatures(self.sent_to("far@example.com")), [2])  # what fails is put aside, and goes nowhere
        self.assertEqual(sorted(self.signatures(self.mailbox("alice@example.org"))), [0, 2])
        self.assertEqual(self.send(MESSAGE.replace(b"example.org", b"evil.example"), recipients=["team@example.org"]).code, 250)
        self.assertEqual(self.signatures(self.sent_to("far@example.com")), [2, 0])

    def test_who_logs_in_and_writes_to_an_alias_is_signed_wherever_it_goes(self) -> None:
        message = MESSAGE.replace(b"ann@", b"alice@")
        for recipient in ("team", "here"):
            sent = self.send(
                message, sender="alice@example.org", recipients=[f"{recipient}@example.org"], service="submission",
                login="alice@example.org",
            )  # fmt: skip
            self.assertEqual(sent.code, 250)
        self.assertEqual(self.signatures(self.sent_to("far@example.com")), [2])
        self.assertEqual(self.signatures(self.mailbox("alice@example.org")), [2, 2])
