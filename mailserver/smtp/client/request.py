"""What a caller wants sent, checked against what the peer offers, and the commands for it.

A need that the peer cannot meet is a permanent answer in our own words: nothing is ever sent with less than was asked for.
The parameters of DSN alone may be dropped (RFC 3461 section 5.2.2); who asked for a report gets it from the caller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mailserver.mail.address import UNPRINTABLE, Address, AddressError
from mailserver.mail.envelope import Recipient, RecipientParameters
from mailserver.mail.reply import Reply
from mailserver.smtp.client.offer import Offer
from mailserver.smtp.grammar import CONTROLS

__all__ = [
    "NEEDS_8BITMIME",
    "NEEDS_BINARYMIME",
    "Request",
    "can_be_said",
    "mail_command",
    "needs_smtputf8",
    "rcpt_command",
    "unmet_need",
]

BODY_TYPES = ("7BIT", "8BITMIME", "BINARYMIME")

# Our own words where the peer has none: RFC 6152 section 3, RFC 3030 section 3, RFC 6531 section 3.4, RFC 1870 section 6.2,
# RFC 8689 section 4.2.1.
NEEDS_8BITMIME = Reply.of(554, "5.6.3", "The next host does not take 8-bit content")
NEEDS_BINARYMIME = Reply.of(554, "5.6.3", "The next host does not take binary content")
NEEDS_SMTPUTF8 = Reply.of(550, "5.6.7", "The next host does not take internationalised mail")
NEEDS_REQUIRETLS = Reply.of(550, "5.7.30", "The next host does not support REQUIRETLS")
TOO_LARGE = Reply.of(552, "5.3.4", "The message is larger than the next host takes")
SENDER_NEEDS_SMTPUTF8 = Reply.of(550, "5.6.7", "The next host does not take the non-ASCII address of the sender")
RECIPIENT_NEEDS_SMTPUTF8 = Reply.of(553, "5.6.7", "The next host does not take the non-ASCII address of the recipient")
BAD_SENDER = Reply.of(553, "5.1.7", "The address of the sender cannot be said in SMTP")
BAD_RECIPIENT = Reply.of(553, "5.1.3", "The address of the recipient cannot be said in SMTP")

NOT_XCHAR = re.compile(r"[^!-*,-<>-~]")  # RFC 3461 section 4
NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 section 3


@dataclass(frozen=True, slots=True)
class Request:
    """A message to be sent.

    `sender` None is the null reverse-path.  `size` is the exact number of octets of the content.  `body`, `smtputf8` and
    `require_tls` are what the message needs; addresses that are not ASCII need SMTPUTF8 whatever `smtputf8` says.  `ret`,
    `envid` and the recipients' parameters are those of RFC 3461, decoded.  `prefers_bdat` has text sent with BDAT too, where
    it is offered.  With `envelope_only` nothing follows RCPT: who is accepted there counts as delivered, and the reply as that to
    the content.  Raises ValueError for a request that cannot be one.
    """

    sender: Address | None
    recipients: tuple[Recipient, ...]
    size: int
    body: str = "7BIT"  # "7BIT" | "8BITMIME" | "BINARYMIME"
    smtputf8: bool = False
    ret: str | None = None  # "FULL" | "HDRS"
    envid: str | None = None
    require_tls: bool = False
    prefers_bdat: bool = False
    envelope_only: bool = False

    def __post_init__(self) -> None:
        if not self.recipients:
            raise ValueError("a request without recipients")
        if self.size < 0 or self.body not in BODY_TYPES or self.ret not in (None, "FULL", "HDRS"):
            raise ValueError(f"not a size, a body type or a RET: {self.size}, {self.body}, {self.ret}")


def unmet_need(request: Request, offer: Offer, *, is_encrypted: bool) -> Reply | None:
    """Why no recipient at all can have this message by way of this peer; None where nothing stands in the way."""
    if request.require_tls and not (offer.requiretls and is_encrypted):
        return NEEDS_REQUIRETLS
    if 0 < offer.size_max < request.size:
        return TOO_LARGE
    utf8 = _lacks_smtputf8(request, offer)  # before the others: a form without eight bits would not help
    if utf8 is not None:
        return utf8
    if request.body == "8BITMIME" and not offer.eightbitmime:
        return NEEDS_8BITMIME
    if request.body == "BINARYMIME" and not offer.binarymime:
        return NEEDS_BINARYMIME
    return None


def _lacks_smtputf8(request: Request, offer: Offer) -> Reply | None:
    if offer.smtputf8:
        return None
    if request.smtputf8:
        return NEEDS_SMTPUTF8
    if request.sender is not None and needs_smtputf8(request.sender):
        return SENDER_NEEDS_SMTPUTF8
    return None


def can_be_said(request: Request, offer: Offer) -> bool:
    """Nothing stands in the way that another form of the content would not change: SMTPUTF8 is there where it is needed."""
    return _lacks_smtputf8(request, offer) is None


def mail_command(request: Request, offer: Offer, *, smtputf8: bool) -> bytes | Reply:
    """MAIL with what was asked for and offered; a reply where it cannot be said.

    `smtputf8`: the transaction has a need of it, and the offer does.
    """
    sender = request.sender
    path = "" if sender is None else _path(sender, smtputf8)
    if path is None:
        return SENDER_NEEDS_SMTPUTF8
    line = f"MAIL FROM:<{path}>"
    if offer.size:
        line += f" SIZE={request.size}"
    if request.body != "7BIT":
        line += f" BODY={request.body}"
    if smtputf8:
        line += " SMTPUTF8"
    if request.require_tls:
        line += " REQUIRETLS"  # RFC 8689 section 2
    if offer.dsn:
        if request.ret is not None:
            line += f" RET={request.ret}"
        if request.envid is not None:
            line += f" ENVID={_xtext(request.envid)}"
    if offer.prdr and len(request.recipients) > 1:
        line += " PRDR"  # draft-hall-prdr; the last one: see `ClientTransaction.begin_one_each`
    return _octets(line) or BAD_SENDER


def rcpt_command(recipient: Recipient, offer: Offer, *, smtputf8: bool) -> bytes | Reply:
    """RCPT, in the same way."""
    path = _path(recipient.address, smtputf8)
    if path is None:
        return RECIPIENT_NEEDS_SMTPUTF8
    parameters = _dsn(recipient.parameters) if offer.dsn else ""
    return _octets(f"RCPT TO:<{path}>{parameters}") or BAD_RECIPIENT


def needs_smtputf8(address: Address) -> bool:
    """Only a local part does: a domain has A-labels (RFC 5891 section 4.4; RFC 6531 section 3.2)."""
    return not address.local.isascii()


def _path(address: Address, smtputf8: bool) -> str | None:
    """An address as it is said; None where it takes SMTPUTF8."""
    path = address.path
    if smtputf8 or path.isascii():
        return path
    if needs_smtputf8(address):
        return None
    try:
        return replace(address, domain=address.domain_key).path
    except AddressError:
        return "\0"  # no name at all: what `_octets` refuses


def _octets(line: str) -> bytes | None:
    """A command line; None where something in it would break it, whatever made such an address."""
    if line.isascii():
        return f"{line}\r\n".encode("ascii") if line.isprintable() else None
    if CONTROLS.search(line) or UNPRINTABLE.search(line):
        return None
    return f"{line}\r\n".encode()


def _dsn(parameters: RecipientParameters) -> str:
    """NOTIFY and ORCPT (RFC 3461 sections 4.1 and 4.2)."""
    said = ""
    if parameters.notify is not None:
        said += " NOTIFY=" + ",".join(sorted(parameters.notify))
    if parameters.orcpt is not None:
        address_type, address = parameters.orcpt
        # RFC 6533 section 3: the form with \x{...} may stand with and without SMTPUTF8.
        encoded = _utf8_xtext(address) if address_type.lower() == "utf-8" else _xtext(address)
        said += f" ORCPT={address_type};{encoded}"
    return said


def _xtext(text: str) -> str:
    return NOT_XCHAR.sub(lambda found: "".join(f"+{octet:02X}" for octet in found[0].encode("utf-8", "replace")), text)


def _utf8_xtext(text: str) -> str:
    return NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", text)
