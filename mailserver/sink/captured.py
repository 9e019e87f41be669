"""A message that the sink has taken."""

from __future__ import annotations

import email
import email.policy
from dataclasses import dataclass
from email.message import EmailMessage

from mailserver.mail.envelope import MailParameters, RecipientParameters

__all__ = ["CapturedMessage"]


@dataclass(frozen=True, slots=True)
class CapturedMessage:
    """One message, as it was accepted.

    `sender` is "" for the null reverse-path; `recipients` are the accepted ones, in order, and `recipient_parameters` what each
    came with (RFC 3461).  `content` is what came between DATA and the final dot, dots undone, lines ending in CRLF.  `hello` is
    the name given with EHLO or HELO, `tls` the version such as "TLSv1.3" or "" in the clear, `login` who was logged in or "".
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    hello: str
    tls: str
    login: str
    parameters: MailParameters
    recipient_parameters: tuple[RecipientParameters, ...]

    @property
    def email(self) -> EmailMessage:
        """The content, parsed by Python's own `email` with its default policy; another object each time."""
        return email.message_from_bytes(self.content, policy=email.policy.default)
