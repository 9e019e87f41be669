"""The parameters of MAIL and RCPT (RFC 5321 section 4.1.2; each keyword's own RFC is named at its function).

    Mail-parameters  = esmtp-param *(SP esmtp-param)
    esmtp-param      = esmtp-keyword ["=" esmtp-value]

A function here returns the value or the `Reply` that refuses it; a keyword that is unknown or not offered is 555, one that is
malformed or given twice 501.  What other extensions add (`Extensions.added`) is in `extra`, checked by what they have declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mailserver.mail.address import Address, AddressError
from mailserver.mail.envelope import MailParameters, RecipientParameters
from mailserver.mail.reply import Reply
from mailserver.smtp import replies
from mailserver.smtp.grammar import (
    ADDRESS_TYPE,
    CONTROLS,
    EMBEDDED_CHARACTER,
    HEXCHAR,
    SIZE_VALUE,
    UTF8_ADDRESS,
    XTEXT,
)
from mailserver.smtp.server.additions import ExtensionParameter
from mailserver.smtp.server.extensions import Extensions

__all__ = ["NO_MAIL_PARAMETERS", "NO_RECIPIENT_PARAMETERS", "mail_parameters", "recipient_parameters"]

ENVID_CHARACTERS = 100  # RFC 3461 section 4.4
ORCPT_CHARACTERS = 500  # section 4.2
FLAGS = frozenset({"SMTPUTF8", "PRDR", "REQUIRETLS"})  # keywords that have no value
NOTIFY_WORDS = frozenset({"SUCCESS", "FAILURE", "DELAY"})

NO_MAIL_PARAMETERS = MailParameters()
NO_RECIPIENT_PARAMETERS = RecipientParameters()


class MalformedParameters(ValueError):
    """A parameter's value is not what its RFC allows."""


def mail_parameters(text: str, offered: Extensions, *, takes_auth: bool) -> MailParameters | Reply:
    """Parse what follows the path of MAIL.  `takes_auth`: AUTH= is allowed; ``AUTH=<>``, which claims nothing, is so for all."""
    allowed = {
        "SIZE": offered.size > 0,
        "BODY": offered.eightbitmime or offered.binarymime,
        "SMTPUTF8": offered.smtputf8,
        "RET": offered.dsn,
        "ENVID": offered.dsn,
        "AUTH": takes_auth,
        "PRDR": offered.prdr,
        "REQUIRETLS": offered.requiretls,
    }
    extra = _take_added(text, offered.added_to_mail) if offered.added else (text, ())
    if isinstance(extra, Reply):
        return extra
    words = _split(extra[0], allowed)
    if isinstance(words, Reply):
        return words
    if words.get("BODY", "").upper() == "BINARYMIME" and not offered.binarymime:
        return replies.PARAMETER_UNKNOWN
    try:
        # Only the names in the table can be here, and each function returns what its field holds.
        return MailParameters(
            **{name.lower(): MAIL_VALUES[name](value) for name, value in words.items()},  # type: ignore[arg-type]
            extra=extra[1],
        )
    except MalformedParameters:
        return replies.BAD_PARAMETER


def recipient_parameters(text: str, offered: Extensions, *, smtputf8: bool) -> RecipientParameters | Reply:
    """Parse what follows the path of RCPT.  `smtputf8`: MAIL had SMTPUTF8, so ORCPT may hold UTF-8."""
    extra = _take_added(text, offered.added_to_recipient) if offered.added else (text, ())
    if isinstance(extra, Reply):
        return extra
    words = _split(extra[0], {"NOTIFY": offered.dsn, "ORCPT": offered.dsn})
    if isinstance(words, Reply):
        return words
    try:
        return RecipientParameters(
            notify=_notify(words["NOTIFY"]) if "NOTIFY" in words else None,
            orcpt=_orcpt(words["ORCPT"], smtputf8) if "ORCPT" in words else None,
            extra=extra[1],
        )
    except MalformedParameters:
        return replies.BAD_PARAMETER


def _take_added(
    text: str, added: Mapping[str, ExtensionParameter]
) -> tuple[str, tuple[tuple[str, str | None], ...]] | Reply:
    """The parameters of other extensions, and the text without them."""
    extra: dict[str, str | None] = {}
    others: list[str] = []
    for word in text.split(" "):
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper() if keyword.isascii() else ""
        parameter = added.get(keyword)
        if parameter is None:
            others.append(word)
        elif keyword in extra or not value.isascii() or not parameter.takes(value if equals else None):
            return replies.BAD_PARAMETER
        else:
            extra[keyword] = value if equals else None
    return " ".join(others), tuple(extra.items())


def _split(text: str, allowed: Mapping[str, bool]) -> dict[str, str] | Reply:
    """Keywords in upper case with their values; "" where there is no value, which no keyword takes for one."""
    words: dict[str, str] = {}
    for word in text.split(" "):
        if not word:
            continue
        keyword, equals, value = word.partition("=")
        # Beware of letters that become ASCII in upper case, such as the long s.
        keyword = keyword.upper() if keyword.isascii() else ""
        if not allowed.get(keyword, False) and not (keyword == "AUTH" and value == "<>" and "AUTH" in allowed):
            return replies.PARAMETER_UNKNOWN
        if keyword in words or bool(equals) != bool(value) or (keyword in FLAGS) is bool(value):
            return replies.BAD_PARAMETER
        if not value.isascii() and keyword != "ORCPT":
            return replies.BAD_PARAMETER
        words[keyword] = value
    return words


def _size(value: str) -> int:
    """RFC 1870 section 4."""
    if SIZE_VALUE.fullmatch(value) is None:
        raise MalformedParameters
    return int(value)


def _body(value: str) -> str:
    """RFC 6152 section 2, RFC 3030 section 3."""
    if value.upper() not in ("7BIT", "8BITMIME", "BINARYMIME"):
        raise MalformedParameters
    return value.upper()


def _ret(value: str) -> str:
    """RFC 3461 section 4.3."""
    if value.upper() not in ("FULL", "HDRS"):
        raise MalformedParameters
    return value.upper()


def _envid(value: str) -> str:
    """RFC 3461 section 4.4."""
    if len(value) > ENVID_CHARACTERS:
        raise MalformedParameters
    return _from_xtext(value)


def _auth(value: str) -> str:
    """RFC 4954 section 5: a mailbox or "<>", in xtext."""
    mailbox = _from_xtext(value)
    if mailbox != "<>":
        try:
            Address.parse(mailbox)
        except AddressError:
            raise MalformedParameters from None
    return mailbox


def _notify(value: str) -> frozenset[str]:
    """RFC 3461 section 4.1: NEVER alone, or a list of the others."""
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return frozenset(words)
    if len(set(words)) != len(words) or not NOTIFY_WORDS.issuperset(words):
        raise MalformedParameters
    return frozenset(words)


def _orcpt(value: str, smtputf8: bool) -> tuple[str, str]:
    """RFC 3461 section 4.2, RFC 6533 section 3."""
    address_type, semicolon, address = value.partition(";")
    if not semicolon or len(value) > ORCPT_CHARACTERS or ADDRESS_TYPE.fullmatch(address_type) is None:
        raise MalformedParameters
    if address_type.lower() != "utf-8":
        return address_type, _from_xtext(address)
    if UTF8_ADDRESS.fullmatch(address) is None or not (smtputf8 or address.isascii()):
        raise MalformedParameters
    return address_type, _printable(EMBEDDED_CHARACTER.sub(lambda found: _character(found[1]), address))


def _from_xtext(value: str) -> str:
    """Decode xtext (RFC 3461 section 4).  What it holds is printable ASCII, so it cannot break the lines of a report."""
    if not value or XTEXT.fullmatch(value) is None:
        raise MalformedParameters
    text = HEXCHAR.sub(lambda found: chr(int(found[1], 16)), value)
    if not text.isascii():
        raise MalformedParameters
    return _printable(text)


def _character(digits: str) -> str:
    point = int(digits, 16)
    if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
        raise MalformedParameters
    return chr(point)


def _printable(text: str) -> str:
    if CONTROLS.search(text) is not None:
        raise MalformedParameters
    return text


MAIL_VALUES: Mapping[str, Callable[[str], object]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": lambda value: True,
    "RET": _ret,
    "ENVID": _envid,
    "AUTH": _auth,
    "PRDR": lambda value: True,
    "REQUIRETLS": lambda value: True,
}
