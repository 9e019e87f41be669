"""The extensions that a server offers, and how EHLO and LHLO announce them (RFC 5321 section 4.1.1.1).

    ehlo-line      = ehlo-keyword *( SP ehlo-param )
    ehlo-keyword   = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
    ehlo-param     = 1*(%d33-126)

The keywords are those of each extension's own RFC, named beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mailserver.smtp.server.additions import ExtensionParameter, SMTPExtension, clashes

__all__ = ["Extensions"]


@dataclass(frozen=True)
class Extensions:
    """The extensions offered to a peer; one value serves many sessions.

    `size` is the SIZE announced in octets (RFC 1870), 0 for no announcement; `auth` the mechanisms, in order; `auth_needs_tls`
    says that mechanisms will be offered once the connection is encrypted: AUTH hears 538 until then;
    `recipients_max` and `mail_max` are RCPTMAX and MAILMAX of LIMITS (RFC 9422), 0 for none; `added` are those beside the
    server's own.
    Raises ValueError for a combination that an RFC forbids.
    """

    size: int = 0
    starttls: bool = False  # RFC 3207
    auth: tuple[str, ...] = ()  # RFC 4954
    auth_needs_tls: bool = False
    pipelining: bool = True  # RFC 2920
    eightbitmime: bool = True  # RFC 6152
    smtputf8: bool = True  # RFC 6531
    chunking: bool = True  # RFC 3030
    binarymime: bool = True  # RFC 3030
    dsn: bool = True  # RFC 3461
    prdr: bool = False  # draft-hall-prdr, for a server whose recipients may answer differently
    requiretls: bool = False  # RFC 8689; never on a connection in the clear (section 2)
    enhancedstatuscodes: bool = True  # RFC 2034
    recipients_max: int = 0
    mail_max: int = 0
    added: tuple[SMTPExtension, ...] = ()

    def __post_init__(self) -> None:
        if self.smtputf8 and not self.eightbitmime:
            raise ValueError("SMTPUTF8 needs 8BITMIME (RFC 6531 section 3.1)")
        if self.binarymime and not self.chunking:
            raise ValueError("BINARYMIME needs CHUNKING (RFC 3030 section 3)")
        if twice := clashes(self.added):
            raise ValueError("; ".join(twice))

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The EHLO lines after the first."""
        limits = (("RCPTMAX", self.recipients_max), ("MAILMAX", self.mail_max))
        announced = (
            (self.pipelining, "PIPELINING"),
            (self.size > 0, f"SIZE {self.size}"),
            (self.eightbitmime, "8BITMIME"),
            (self.starttls, "STARTTLS"),
            (bool(self.auth), "AUTH " + " ".join(self.auth)),
            (self.enhancedstatuscodes, "ENHANCEDSTATUSCODES"),
            (self.smtputf8, "SMTPUTF8"),
            (self.chunking, "CHUNKING"),
            (self.binarymime, "BINARYMIME"),
            (self.dsn, "DSN"),
            (self.prdr, "PRDR"),
            (self.requiretls, "REQUIRETLS"),
            (any(most for _, most in limits), "LIMITS " + " ".join(f"{name}={most}" for name, most in limits if most)),
        )
        return (*[line for offered, line in announced if offered], *[one.line for one in self.added])

    @cached_property
    def added_to_mail(self) -> Mapping[str, ExtensionParameter]:
        """The parameters that MAIL has beside the server's own, by keyword."""
        return {parameter.keyword: parameter for one in self.added for parameter in one.mail_parameters}

    @cached_property
    def added_to_recipient(self) -> Mapping[str, ExtensionParameter]:
        """The parameters that RCPT has beside the server's own, by keyword."""
        return {parameter.keyword: parameter for one in self.added for parameter in one.recipient_parameters}

    @cached_property
    def added_commands(self) -> Mapping[str, bool]:
        """The verbs of commands beside the server's own, each with whether it may come amid a transaction."""
        return {command.verb: command.in_transaction for one in self.added for command in one.commands}

    @cached_property
    def octets(self) -> bytes:
        """The EHLO lines after the first, as they go out; empty where nothing is offered."""
        last = len(self.lines) - 1
        return "".join(f"250{' ' if n == last else '-'}{line}\r\n" for n, line in enumerate(self.lines)).encode("ascii")
