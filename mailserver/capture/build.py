"""The octets of each command and reply, and of content, for tests, tools and captures.

Each function returns what goes over the wire, line end included; what is pipelined is joined with ``+``.  Text goes out as UTF-8.
ValueError is raised for whatever would not be the one command or reply that was asked for: a CR, LF, NUL or other control
character, a path that ends early, a code that is none.

The replies of this server are values in `mailserver.smtp.replies`: their `encode()` gives the octets.
"""

from __future__ import annotations

import base64
import re

from mailserver.mail.address import UNPRINTABLE
from mailserver.mail.reply import Reply
from mailserver.smtp import grammar
from mailserver.smtp.client.content import DotWriter
from mailserver.smtp.vocabulary import CommandVerb, ReplyCode

__all__ = [
    "auth",
    "auth_cancel",
    "auth_response",
    "bdat",
    "bdat_command",
    "challenge",
    "command",
    "content",
    "data",
    "ehlo",
    "ehlo_reply",
    "expn",
    "greeting",
    "helo",
    "help",
    "lhlo",
    "mail",
    "noop",
    "quit",
    "rcpt",
    "reply",
    "rset",
    "start_content",
    "starttls",
    "vrfy",
]

VERB = re.compile("[A-Za-z][A-Za-z0-9-]*")
KEYWORD = re.compile("[A-Za-z0-9][A-Za-z0-9-]*")  # RFC 5321 section 4.1.2: esmtp-keyword
VALUE = re.compile("[!-<>-~\u00a0-\U0010ffff]+")  # esmtp-value; RFC 6531 section 3.3 adds UTF-8
PATH = re.compile(grammar.BRACKETED)
MECHANISM = re.compile("[A-Za-z0-9_-]{1,20}")  # RFC 4422 section 3.1
ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
CHUNK_DIGITS = 20  # RFC 3030 section 2 sets no bound; the server's grammar takes as many


# --- commands (RFC 5321 section 4.1.1) ---


def command(verb: str, arguments: str = "") -> bytes:
    """Any command; the verb goes out in upper case.  Blanks around the arguments would be lost on the way and are refused."""
    if VERB.fullmatch(verb) is None:
        raise ValueError(f"not a verb: {verb!r}")
    if arguments != arguments.strip(" ") or grammar.CONTROLS.search(arguments) or UNPRINTABLE.search(arguments):
        raise ValueError(f"not the arguments of a command: {arguments!r}")
    return f"{verb.upper()}{' ' if arguments else ''}{arguments}\r\n".encode()


def ehlo(name: str) -> bytes:
    """EHLO: a domain or an address literal (section 4.1.1.1)."""
    return command(CommandVerb.EHLO, _hello_name(name))


def helo(name: str) -> bytes:
    """HELO, in the same way."""
    return command(CommandVerb.HELO, _hello_name(name))


def lhlo(name: str) -> bytes:
    """LHLO of LMTP (RFC 2033 section 4.1)."""
    return command(CommandVerb.LHLO, _hello_name(name))


def mail(path: str, **parameters: str | int | bool | None) -> bytes:
    """MAIL; `path` without angle brackets, "" for the null one (section 4.1.1.2).

    Parameters in their order: ``size=1000, body="8BITMIME", smtputf8=True``.  True stands for a keyword alone, False and None
    leave it out; an underscore in a name is a hyphen (``mt_priority=4``).  Values go out as they stand, so those that RFC 3461
    wants as xtext have to be that already.
    """
    return command(CommandVerb.MAIL, f"FROM:{_bracketed(path)}{_parameters(parameters)}")


def rcpt(path: str, **parameters: str | int | bool | None) -> bytes:
    """RCPT, in the same way (section 4.1.1.3).  A null path is refused."""
    if not path:
        raise ValueError("no recipient has the null path")
    return command(CommandVerb.RCPT, f"TO:{_bracketed(path)}{_parameters(parameters)}")


def data() -> bytes:
    """DATA; once it is answered with 354 comes `content`."""
    return command(CommandVerb.DATA)


def content(octets: bytes) -> bytes:
    """A message as DATA carries it: dots doubled, the line with a single dot at the end (section 4.5.2).

    The last line gets an end where it has none.  A CR or LF that is not part of CRLF goes out as it is: whether that is allowed
    is the message's matter.
    """
    writer = DotWriter()
    return writer.write(octets) + writer.end()


def bdat_command(octets: int, *, last: bool = False) -> bytes:
    """The line of BDAT, with the number of octets that follow (RFC 3030 section 2)."""
    if octets < 0 or len(str(octets)) > CHUNK_DIGITS:
        raise ValueError(f"not the size of a chunk: {octets}")
    return command(CommandVerb.BDAT, f"{octets}{' LAST' if last else ''}")


def bdat(chunk: bytes, *, last: bool = False) -> bytes:
    """BDAT with its chunk, any octets as they are."""
    return bdat_command(len(chunk), last=last) + chunk


def rset() -> bytes:
    """RSET."""
    return command(CommandVerb.RSET)


def noop(text: str = "") -> bytes:
    """NOOP; its text means nothing."""
    return command(CommandVerb.NOOP, text)


def quit() -> bytes:
    """QUIT."""
    return command(CommandVerb.QUIT)


def help(topic: str = "") -> bytes:
    """HELP."""
    return command(CommandVerb.HELP, topic)


def vrfy(who: str) -> bytes:
    """VRFY: a user or an address."""
    return command(CommandVerb.VRFY, _needed(who))


def expn(name: str) -> bytes:
    """EXPN: the name of a list."""
    return command(CommandVerb.EXPN, _needed(name))


def starttls() -> bytes:
    """STARTTLS (RFC 3207 section 4)."""
    return command(CommandVerb.STARTTLS)


def auth(mechanism: str, initial_response: bytes | None = None) -> bytes:
    """AUTH; the initial response is encoded here, an empty one as "=" (RFC 4954 section 4)."""
    if MECHANISM.fullmatch(mechanism) is None:
        raise ValueError(f"not the name of a mechanism: {mechanism!r}")
    if initial_response is None:
        return command(CommandVerb.AUTH, mechanism.upper())
    return command(CommandVerb.AUTH, f"{mechanism.upper()} {base64.b64encode(initial_response).decode('ascii') or '='}")


def auth_response(octets: bytes) -> bytes:
    """The answer to a challenge of AUTH, encoded here."""
    return base64.b64encode(octets) + b"\r\n"


def auth_cancel() -> bytes:
    """The line that gives AUTH up."""
    return b"*\r\n"


# --- replies (RFC 5321 section 4.2) ---


def reply(code: int, *lines: str, enhanced: str = "") -> bytes:
    """A reply, 200 to 599, of one line or several, each with the enhanced code where there is one (RFC 2034 section 4).

    The last line given is the last line; none at all are one empty line.  Those of EHLO, 220 at the beginning, 334 and 354 have
    no enhanced code.
    """
    if not 200 <= code <= 599:
        raise ValueError(f"not a reply code: {code}")
    if enhanced and (ENHANCED.fullmatch(enhanced) is None or enhanced[0] != str(code)[0]):
        raise ValueError(f"not an enhanced code for {code}: {enhanced!r}")
    return Reply.of(code, enhanced, *(lines or ("",))).encode()


def greeting(hostname: str, *, lmtp: bool = False) -> bytes:
    """220, the name first (section 4.2)."""
    return reply(ReplyCode.SERVICE_READY, f"{_hello_name(hostname)} {'LMTP' if lmtp else 'ESMTP'}")


def ehlo_reply(hostname: str, *keywords: str) -> bytes:
    """The answer to EHLO: a line for each keyword with its parameters, such as ``SIZE 1000`` (section 4.1.1.1)."""
    for line in keywords:
        if KEYWORD.fullmatch(line.partition(" ")[0]) is None:
            raise ValueError(f"not a keyword of EHLO: {line!r}")
    return reply(ReplyCode.OK, _hello_name(hostname), *keywords)


def challenge(octets: bytes) -> bytes:
    """334 with a challenge of AUTH, encoded here (RFC 4954 section 4)."""
    return reply(ReplyCode.AUTH_CHALLENGE, base64.b64encode(octets).decode("ascii"))


def start_content(text: str = "Send the message, end it with <CRLF>.<CRLF>") -> bytes:
    """354: the content may come."""
    return reply(ReplyCode.START_CONTENT, text)


# --- parts ---


def _hello_name(name: str) -> str:
    if grammar.OWN_HELLO_NAME.fullmatch(name) is None:
        raise ValueError(f"not a name of a host: {name!r}")
    return name


def _needed(text: str) -> str:
    if not text:
        raise ValueError("an argument is needed")
    return text


def _bracketed(path: str) -> str:
    bracketed = f"<{path}>"
    if PATH.fullmatch(bracketed) is None or path != path.strip(" "):
        raise ValueError(f"not a path: {path!r}")
    return bracketed


def _parameters(parameters: dict[str, str | int | bool | None]) -> str:
    said = []
    for name, value in parameters.items():
        keyword = name.upper().replace("_", "-")
        if KEYWORD.fullmatch(keyword) is None:
            raise ValueError(f"not the keyword of a parameter: {name!r}")
        if value is True:
            said.append(f" {keyword}")
        elif value is not False and value is not None:
            if VALUE.fullmatch(str(value)) is None:
                raise ValueError(f"not the value of {keyword}: {value!r}")
            said.append(f" {keyword}={value}")
    return "".join(said)
