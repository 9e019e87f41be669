"""What a submission server adds."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.completion import completion
from mailserver.mail.content import Content

ALICE = Address("alice", "example.org")


def added(message: bytes, **changes: Any) -> bytes:
    options: dict[str, Any] = {
        "id": "06ABCDEFGHJKMNPQ",
        "hostname": "mail.example.org",
        "seconds": 1_795_395_767.9,
        "author": ALICE,
        "smtputf8": False,
    }
    return completion(Content.of(message), **(options | changes))


class Completion(SynchronousTestCase):
    def test_what_is_missing_is_added(self) -> None:
        self.assertEqual(
            added(b"Subject: x\r\n\r\nbody\r\n"),
            b"From: alice@example.org\r\n"
            b"Date: Mon, 23 Nov 2026 01:02:47 +0000\r\n"
            b"Message-ID: <06ABCDEFGHJKMNPQ@mail.example.org>\r\n",
        )

    def test_what_is_there_stays_alone_however_it_is_written(self) -> None:
        self.assertEqual(added(b"FROM: x@y\r\ndate : now\r\nmessage-id:\r\n <1@x>\r\n\r\n"), b"")
        self.assertEqual(added(b"From: x@y\r\nMessage-ID: <1@x>\r\n\r\nDate: in the body\r\n"), b"Date: Mon, 23 Nov 2026 01:02:47 +0000\r\n")

    def test_a_message_without_header_gets_one(self) -> None:
        self.assertEqual(added(b"\r\nbody\r\n").count(b"\r\n"), 3)

    def test_without_a_login_nobody_is_named_as_author(self) -> None:
        self.assertNotIn(b"From", added(b"\r\n", author=None))

    def test_an_author_outside_ascii_is_written_as_the_message_can_hold_it(self) -> None:
        buecher, mueller = Address("alice", "bücher.example"), Address("müller", "bücher.example")
        self.assertIn(b"From: alice@xn--bcher-kva.example\r\n", added(b"\r\n", author=buecher))
        self.assertIn("From: müller@bücher.example\r\n".encode(), added(b"\r\n", author=mueller, smtputf8=True))
        self.assertNotIn(b"From", added(b"\r\n", author=mueller))
