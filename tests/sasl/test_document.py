"""docs/sasl.md shows the example as it is, and the example works."""

from __future__ import annotations

import base64
import typing

from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import steps
from mailserver.sasl.steps import ChannelBindings
from tests.documents import example_as_shown, load_example, page_text

EXAMPLE = "sasl_server"


class Page(SynchronousTestCase):
    def test_the_page_shows_the_example_as_it_is_and_every_step(self) -> None:
        page = page_text("sasl.md")
        self.assertIn(example_as_shown(EXAMPLE), page)
        for step in typing.get_args(steps.Step):
            self.assertIn(f"`{step.__name__}(", page)


class Example(SynchronousTestCase):
    def say(self, *lines: bytes) -> list[bytes]:
        example = load_example(EXAMPLE)
        accounts = example.Accounts()
        accounts.add("alice", "secret")
        conversation = example.Conversation(accounts, ChannelBindings())
        conversation.start()
        return [conversation.receive(line + b"\r\n")[:3] for line in lines]

    def plain(self, password: bytes) -> bytes:
        return b"AUTH PLAIN " + base64.b64encode(b"\0alice\0" + password)

    def test_a_login_opens_the_door_and_a_wrong_one_does_not(self) -> None:
        mail = b"MAIL FROM:<alice@example.org>"
        self.assertEqual(self.say(b"EHLO c.example", mail, self.plain(b"secret"), mail), [b"250", b"530", b"235", b"451"])
        self.assertEqual(self.say(b"EHLO c.example", self.plain(b"guess"), mail), [b"250", b"535", b"530"])
