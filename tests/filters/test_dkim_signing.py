"""The signer: what it signs and what not, with which keys, and how it learns of others."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

from mailserver.filters.dkim_signing import factory
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer
from mailserver.testing import FilterCase
from mailserver.trust.signing_keys import make_keys, read_keys, rotate_keys
from tests.trust.dkimpy_peer import verified_by_dkimpy
from tests.trust.test_dkim import results

MESSAGE = b"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: hello\r\n\r\nHello.\r\n"
USER = Peer("192.0.2.1", 1, "submission", login="ann@example.org")


class Signing(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock.rightNow = time.time() - 1000
        self.keys = self.mktemp()
        os.makedirs(self.keys)
        self.signer: Any = factory.build(None, replace(self.services, keys_directory=self.keys))

    def signed(self, message: bytes = MESSAGE, peer: Peer = USER) -> Content:
        envelope = Envelope("ID", peer, None, (), self.clock.seconds())
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
        self.clock.advance(1)
        self.assertEqual(len(self.domains(self.signed())), 2)
        rotate_keys(self.keys, "example.org", now=self.clock.seconds(), retired_seconds=1000)
        self.clock.advance(1)
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
        self.clock.advance(1)
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


