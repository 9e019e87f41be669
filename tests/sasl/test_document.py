"""docs/sasl.md shows the example as it is, and the example works."""

from __future__ import annotations

import base64
import importlib.util
import typing
from pathlib import Path
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import steps
from mailserver.sasl.steps import ChannelBindings

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE, PAGE = DOCS / "examples" / "sasl_server.py", DOCS / "sasl.md"


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sasl_server", EXAMPLE)
    if spec is None or spec.loader is None:
        raise ImportError(EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Page(SynchronousTestCase):
    def test_the_page_shows_the_example_as_it_is_and_every_step(self) -> None:
        page = PAGE.read_text(encoding="utf-8")
        self.assertIn(f"```python\n{EXAMPLE.read_text(encoding='utf-8')}```\n", page)
        for step in typing.get_args(steps.Step):
            self.assertIn(f"`{step.__name__}(", page)


class Example(SynchronousTestCase):
    def say(self, *lines: bytes) -> list[bytes]:
        example = load_example()
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
