"""`Services.send` for tests: keeps what a component has sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.assembly.sending import checked_addresses, checked_message
from mailserver.mail.address import Address

__all__ = ["ComponentMail", "FakeSend"]


@dataclass(frozen=True, slots=True)
class ComponentMail:
    """A message that a component has sent."""

    content: bytes
    sender: Address | None
    recipients: tuple[Address, ...]
    reports: bool = True


class FakeSend:
    """`sent` has the messages.  With `failing` set to an error, that is raised.

    What is no message raises as in the server; nothing is added to it.
    """

    def __init__(self) -> None:
        self.sent: list[ComponentMail] = []
        self.failing: Exception | None = None

    async def __call__(
        self, content: bytes, /, *, sender: Address | None, recipients: Sequence[Address], reports: bool = True
    ) -> str:
        """Keep it; an id."""
        message = ComponentMail(checked_message(content), sender, checked_addresses(recipients), reports)
        if self.failing is not None:
            raise self.failing
        self.sent.append(message)
        return f"{len(self.sent):016d}"
