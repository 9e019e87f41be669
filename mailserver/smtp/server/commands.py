"""The arguments of the commands (RFC 5321 section 4.1.1 and the extensions' own RFCs).

Each function parses what follows the verb and returns the event, or the `Reply` that refuses it.  The line has been decoded and
holds no control characters.  Whether the command may come now has been decided before.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass

from mailserver.mail.address import LOCAL_PART_OCTETS, PATH_OCTETS, Address, AddressError
from mailserver.mail.envelope import MailParameters
from mailserver.mail.reply import Reply
from mailserver.smtp import grammar, replies
from mailserver.smtp.events import Authenticate, Expand, Hello, Mail, Rcpt, StartTLS, Verify
from mailserver.smtp.server.extensions import Extensions
from mailserver.smtp.server.parameters import (
    NO_MAIL_PARAMETERS,
    NO_RECIPIENT_PARAMETERS,
    mail_parameters,
    recipient_parameters,
)

__all__ = [
    "Bdat",
    "command_text",
    "parse_auth",
    "parse_base64",
    "parse_bdat",
    "parse_hello",
    "parse_mail",
    "parse_question",
    "parse_rcpt",
    "parse_starttls",
]


UTF8_COMMANDS = frozenset({b"MAIL ", b"RCPT ", b"VRFY ", b"EXPN ", b"EHLO ", b"HELO ", b"LHLO "})


@dataclass(frozen=True, slots=True)
class Bdat:
    """BDAT: so many octets follow; `is_last` ends the message."""

    octets: int
    is_last: bool


def command_text(line: bytes) -> str | None:
    """The text of a command line; None where it holds octets that no command has.

    A tab between words is a blank; in a quoted string there is none.  UTF-8 stands in addresses only (RFC 6531 section 3.3), and
    in the names of some clients, so only commands that have one may hold it.
    """
    if line.isascii():
        text = line.decode("ascii")
        if text.isprintable():
            return text
        text = text.replace("\t", " ") if '"' not in text else text
        return text if text.isprintable() else None
    if b"\t" in line and b'"' not in line:
        line = line.replace(b"\t", b" ")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if line[:5].upper() in UTF8_COMMANDS and grammar.CONTROLS.search(text) is None else None


def parse_hello(verb: str, argument: str) -> Hello | Reply:
    """EHLO, HELO or LHLO (section 4.1.1.1; RFC 2033 section 4.1)."""
    return Hello(verb, argument) if grammar.HELLO_NAME.fullmatch(argument) is not None else replies.HELLO_SYNTAX


def parse_mail(argument: str, offered: Extensions, *, takes_auth: bool) -> Mail | Reply:
    """MAIL (section 4.1.1.2).  `takes_auth` allows AUTH= among the parameters."""
    plain = grammar.MAIL_PLAIN.fullmatch(argument)
    if plain is not None:
        local, domain, size, body = plain.groups()
        if len(local) <= LOCAL_PART_OCTETS and len(local) + len(domain) < PATH_OCTETS:
            if size is None and body is None:
                return Mail(Address(local, domain), NO_MAIL_PARAMETERS)
            if (size is None or offered.size) and (body is None or offered.eightbitmime):
                parameters = MailParameters(None if size is None else int(size), body.upper() if body else "7BIT")
                return Mail(Address(local, domain), parameters)
    return _parse_mail_with_care(argument, offered, takes_auth)


def _parse_mail_with_care(argument: str, offered: Extensions, takes_auth: bool) -> Mail | Reply:
    found = grammar.MAIL.fullmatch(argument)
    if found is None:
        return replies.MAIL_SYNTAX
    parameters = NO_MAIL_PARAMETERS
    if found[3]:
        parsed = mail_parameters(found[3], offered, takes_auth=takes_auth)
        if isinstance(parsed, Reply):
            return parsed
        parameters = parsed
    path = (found[1] or found[2] or "").strip(" ")
    if not path:
        return Mail(None, parameters)
    sender = _parse_path(path, parameters.smtputf8, replies.BAD_SENDER)
    return sender if isinstance(sender, Reply) else Mail(sender, parameters)


def parse_rcpt(argument: str, offered: Extensions, *, smtputf8: bool) -> Rcpt | Reply:
    """RCPT (section 4.1.1.3).  `smtputf8`: MAIL had SMTPUTF8."""
    plain = grammar.RCPT_PLAIN.fullmatch(argument)
    if plain is not None:
        local, domain = plain.groups()
        if len(local) <= LOCAL_PART_OCTETS and len(local) + len(domain) < PATH_OCTETS:
            return Rcpt(Address(local, domain), NO_RECIPIENT_PARAMETERS)
    found = grammar.RCPT.fullmatch(argument)
    if found is None:
        return replies.RCPT_SYNTAX
    parameters = NO_RECIPIENT_PARAMETERS
    if found[3]:
        parsed = recipient_parameters(found[3], offered, smtputf8=smtputf8)
        if isinstance(parsed, Reply):
            return parsed
        parameters = parsed
    path = (found[1] or found[2] or "").strip(" ")
    if grammar.POSTMASTER.fullmatch(path) is not None:
        return Rcpt(Address(path, ""), parameters)
    address = _parse_path(path, smtputf8, replies.BAD_RECIPIENT)
    return address if isinstance(address, Reply) else Rcpt(address, parameters)


def _parse_path(path: str, smtputf8: bool, refusal: Reply) -> Address | Reply:
    """A path without its angle brackets; a source route is dropped (section 4.1.1.3, appendix C)."""
    route = grammar.SOURCE_ROUTE.match(path)
    if route is not None:
        path = path[route.end() :]
    if not smtputf8 and not path.isascii():
        return replies.UTF8_NEEDED
    try:
        return Address.parse(path, smtputf8)
    except AddressError:
        return refusal


def parse_bdat(argument: str) -> Bdat | Reply:
    """BDAT (RFC 3030 section 2).  At most twenty digits, ASCII ones."""
    found = grammar.BDAT.fullmatch(argument)
    return replies.BDAT_SYNTAX if found is None else Bdat(int(found[1]), found[2] is not None)


def parse_starttls(argument: str, offered: Extensions, *, secured: bool) -> StartTLS | Reply:
    """STARTTLS (RFC 3207 section 4).  `secured`: the connection is encrypted already."""
    if secured:
        return replies.TLS_ALREADY
    if not offered.starttls:
        return replies.COMMAND_NOT_OFFERED
    return replies.ARGUMENT_NOT_ALLOWED if argument else StartTLS()


def parse_auth(argument: str, offered: Extensions, *, authenticated: bool) -> Authenticate | Reply:
    """AUTH (RFC 4954 section 4)."""
    if authenticated:
        return replies.AUTH_ALREADY
    if not offered.auth:
        return replies.AUTH_NEEDS_TLS if offered.auth_needs_tls else replies.COMMAND_NOT_OFFERED
    found = grammar.AUTH.fullmatch(argument)
    if found is None:
        return replies.AUTH_SYNTAX
    mechanism = found[1].upper()
    if mechanism not in offered.auth:
        return replies.AUTH_MECHANISM_UNKNOWN
    if found[2] is None:
        return Authenticate(mechanism, None)
    if found[2] == "=":  # an initial response of no octets
        return Authenticate(mechanism, b"")
    initial = parse_base64(found[2].encode("ascii"))
    return replies.AUTH_BAD_BASE64 if initial is None else Authenticate(mechanism, initial)


def parse_question(verb: str, argument: str, offered: Extensions) -> Verify | Expand | Reply:
    """VRFY and EXPN (section 4.1.1.6, 4.1.1.7; RFC 6531 section 3.7.4.2: SMTPUTF8 may follow the text)."""
    smtputf8 = offered.smtputf8 and argument.upper().endswith(" SMTPUTF8")
    text = argument[: -len(" SMTPUTF8")].rstrip(" ") if smtputf8 else argument
    if not text:
        return replies.ARGUMENT_NEEDED
    if not smtputf8 and not text.isascii():
        return replies.UTF8_NEEDED
    return Verify(text, smtputf8) if verb == "VRFY" else Expand(text, smtputf8)


def parse_base64(line: bytes) -> bytes | None:
    """Decode base64 strictly (RFC 4648 section 4), but for blanks behind it; None where it is invalid."""
    try:
        return binascii.a2b_base64(line.rstrip(b" \t"), strict_mode=True)
    except binascii.Error:
        return None
