"""What a server may offer beside the extensions of its own: keywords, parameters and commands that are declared as values.

A service extension adds an EHLO keyword, parameters of MAIL and RCPT, and commands (RFC 5321 section 2.2.2).  All that a session
has to know of one stands in an `SMTPExtension`, checked when it is made, so that nothing which is added can be taken for a
command or a parameter of the protocol itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mailserver.mail.reply import Reply

__all__ = ["ExtensionCommand", "ExtensionParameter", "SMTPExtension", "clashes"]

KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]{0,63}")  # ehlo-keyword, esmtp-keyword (RFC 5321 section 4.1.1.1, 4.1.2), in upper case
ARGUMENT = re.compile(r"[!-~]{1,200}")  # ehlo-param
VERB = re.compile(r"[A-Z][A-Z0-9]{0,19}")
ENHANCED = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}")  # RFC 3463 section 2
VALUE_OCTETS_MOST = 1000
REPLY_LINES_MOST = 20
REPLY_LINE_CHARACTERS_MOST = 400
# All that the protocol itself and its registered extensions have taken, offered here or not.
OWN_KEYWORDS = frozenset(
    "SIZE 8BITMIME STARTTLS AUTH PIPELINING SMTPUTF8 CHUNKING BINARYMIME DSN ENHANCEDSTATUSCODES LIMITS PRDR"
    " ETRN CHECKPOINT DELIVERBY BURL MTRK NO-SOLICITING FUTURERELEASE CONNEG CONPERM REQUIRETLS MT-PRIORITY RRVS VRFY EXPN HELP"
    " VERB ONEX ATRN SUBMITTER SEND SOML SAML TURN EHLO HELO LHLO MAIL RCPT DATA BDAT RSET NOOP QUIT".split()
)
OWN_VERBS = frozenset(
    "EHLO HELO LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY EXPN HELP QUIT STARTTLS AUTH TURN ETRN ATRN BURL SEND SOML SAML"
    " GET POST PUT HEAD DELETE OPTIONS CONNECT PATCH TRACE".split()  # what a browser says is no command of anybody's
)
OWN_MAIL_PARAMETERS = frozenset("SIZE BODY SMTPUTF8 RET ENVID AUTH PRDR REQUIRETLS".split())
OWN_RECIPIENT_PARAMETERS = frozenset("NOTIFY ORCPT".split())


@dataclass(frozen=True, slots=True)
class ExtensionParameter:
    """A parameter of MAIL or RCPT (RFC 5321 section 4.1.2): ``KEYWORD`` or ``KEYWORD=value``.

    `keyword` is in upper case.  `value` says whether it has a value; one of more than `octets` is refused.  Raises ValueError.
    """

    keyword: str
    value: Literal["none", "optional", "required"] = "required"
    octets: int = 100

    def __post_init__(self) -> None:
        if KEYWORD.fullmatch(self.keyword) is None:
            raise ValueError(f"not a parameter's keyword in upper case: {self.keyword!r}")
        if self.value not in ("none", "optional", "required"):
            raise ValueError(f"{self.keyword}: a value is none, optional or required, not {self.value!r}")
        if not 1 <= self.octets <= VALUE_OCTETS_MOST:
            raise ValueError(f"{self.keyword}: a value has 1 to {VALUE_OCTETS_MOST} octets")

    def takes(self, value: str | None) -> bool:
        """Whether it may have this value (None: none)."""
        if value is None:
            return self.value != "required"
        return self.value != "none" and 0 < len(value) <= self.octets


@dataclass(frozen=True, slots=True)
class ExtensionCommand:
    """A command: `verb`, in upper case, and what follows it, of which the session says nothing.

    It may come after EHLO or LHLO, outside a mail transaction, and inside one where `in_transaction` says so (not amid the
    content).  Raises ValueError.
    """

    verb: str
    in_transaction: bool = False

    def __post_init__(self) -> None:
        if VERB.fullmatch(self.verb) is None:
            raise ValueError(f"not a command's verb in upper case: {self.verb!r}")
        if self.verb in OWN_VERBS:
            raise ValueError(f"{self.verb} is a command of the protocol itself")


@dataclass(frozen=True, slots=True)
class SMTPExtension:
    """One service extension.

    `keyword` and `arguments` are its EHLO line.  `replies` is the catalogue of all that its commands may be answered with, by
    names of the author's; each has an enhanced status code of its class (RFC 2034), at most 20 lines and no intermediate code
    (3yz).  Raises ValueError where the protocol has a word already, or something is not well formed.
    """

    keyword: str
    arguments: tuple[str, ...] = ()
    mail_parameters: tuple[ExtensionParameter, ...] = ()
    recipient_parameters: tuple[ExtensionParameter, ...] = ()
    commands: tuple[ExtensionCommand, ...] = ()
    replies: Mapping[str, Reply] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if KEYWORD.fullmatch(self.keyword) is None:
            raise ValueError(f"not an EHLO keyword in upper case: {self.keyword!r}")
        if self.keyword in OWN_KEYWORDS:
            raise ValueError(f"{self.keyword} is an extension of the server's own, or a registered one")
        for argument in self.arguments:
            if ARGUMENT.fullmatch(argument) is None:
                raise ValueError(f"{self.keyword}: not an argument of an EHLO keyword: {argument!r}")
        if sum(map(len, (self.keyword, *self.arguments))) + len(self.arguments) > REPLY_LINE_CHARACTERS_MOST:
            raise ValueError(f"{self.keyword}: its EHLO line is longer than {REPLY_LINE_CHARACTERS_MOST} characters")
        _check_parameters(self.keyword, "MAIL", self.mail_parameters, OWN_MAIL_PARAMETERS)
        _check_parameters(self.keyword, "RCPT", self.recipient_parameters, OWN_RECIPIENT_PARAMETERS)
        verbs = [one.verb for one in self.commands]
        if len(set(verbs)) != len(verbs):
            raise ValueError(f"{self.keyword}: one of its commands is there twice")
        if verbs and not self.replies:
            raise ValueError(f"{self.keyword}: it has commands and no replies")
        answers: Mapping[Any, Any] = self.replies  # a plugin's: of any type
        for name, reply in answers.items():
            if not isinstance(name, str) or not isinstance(reply, Reply):
                raise ValueError(f"{self.keyword}: its replies are `Reply`s by names")
            _check_reply(f"{self.keyword}: its reply {name!r}", reply)

    @property
    def line(self) -> str:
        """The EHLO line."""
        return " ".join((self.keyword, *self.arguments))


def clashes(extensions: Iterable[SMTPExtension]) -> list[str]:
    """The words that two of them claim, each said as a sentence."""
    seen: dict[tuple[str, str], str] = {}
    found: list[str] = []
    for one in extensions:
        words = [("the EHLO keyword", one.keyword)]
        words += [("the parameter of MAIL", parameter.keyword) for parameter in one.mail_parameters]
        words += [("the parameter of RCPT", parameter.keyword) for parameter in one.recipient_parameters]
        words += [("the command", command.verb) for command in one.commands]
        for kind, word in words:
            if (kind, word) in seen:
                found.append(f"{kind} {word} belongs to two extensions, {seen[kind, word]} and {one.keyword}")
            seen[kind, word] = one.keyword
    return found


def _check_parameters(keyword: str, command: str, parameters: Iterable[ExtensionParameter], own: frozenset[str]) -> None:
    seen: set[str] = set()
    for one in parameters:
        if one.keyword in own:
            raise ValueError(f"{keyword}: {one.keyword} is a parameter of {command} already")
        if one.keyword in seen:
            raise ValueError(f"{keyword}: the parameter {one.keyword} of {command} is there twice")
        seen.add(one.keyword)


def _check_reply(what: str, reply: Reply) -> None:
    if not (200 <= reply.code < 300 or 400 <= reply.code < 600):
        raise ValueError(f"{what} has the code {reply.code}: only 2yz, 4yz and 5yz end a command")
    enhanced = ENHANCED.fullmatch(reply.enhanced)
    if enhanced is None or enhanced[1] != str(reply.code)[0]:
        raise ValueError(f"{what} has no enhanced status code of its class")
    if len(reply.lines) > REPLY_LINES_MOST or any(len(line) > REPLY_LINE_CHARACTERS_MOST for line in reply.lines):
        raise ValueError(f"{what} is longer than {REPLY_LINES_MOST} lines of {REPLY_LINE_CHARACTERS_MOST} characters")
    if not all(line.isascii() for line in reply.lines):
        raise ValueError(f"{what} holds what is not ASCII")
