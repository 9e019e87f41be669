"""Checks what a plugin's directory or router answers: mailboxes and routes, before they go into envelopes, stores and replies.

A wrong one raises TypeError or ValueError.  The words name what was wrong, never the value itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, NotMine, Refused, Remote, Route
from mailserver.mail.outcomes import clean_text
from mailserver.mail.reply import Reply

__all__ = ["ROUTES_MOST", "kind_of", "mailbox_of", "routes_of", "sequence_of", "text_of"]

ROUTES_MOST = 100_000
FOLDERS_MOST = 100
NAME_CHARACTERS = 1000
LINES_MOST = 100
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
STATUS = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}")  # RFC 3463 section 2


def mailbox_of(found: object) -> Mailbox | None:
    """A plain mailbox whose parts can be stored, or None."""
    if found is None:
        return None
    if not isinstance(found, Mailbox):
        raise TypeError(f"the answer is {kind_of(found)}, not a mailbox")
    user, domain, folder = cast("tuple[Any, Any, Any]", (found.user, found.domain, found.folder))
    if (
        found.__class__ is Mailbox
        and folder == ()
        and user.__class__ is domain.__class__ is str
        and user.isprintable()
        and domain.isprintable()
        and len(user) + len(domain) <= NAME_CHARACTERS
        and found.system.__class__ is found.junk.__class__ is found.folder_must_exist.__class__ is bool
    ):
        return found  # an inbox, as most are: quick
    flags = cast("tuple[object, ...]", (found.system, found.folder_must_exist, found.junk))
    if not isinstance(folder, tuple) or len(folder) > FOLDERS_MOST:
        raise TypeError(f"the mailbox's folder is {kind_of(folder)}, not a tuple of at most {FOLDERS_MOST} names")
    if not all(flag is True or flag is False for flag in flags):
        raise TypeError("a flag of the mailbox is neither True nor False")
    parts = _name_of(user, "the mailbox's user"), _name_of(domain, "the mailbox's domain")
    folders = tuple([_name_of(one, "a folder's name") for one in folder]) if folder else ()
    if found.__class__ is Mailbox and parts[0] is user and parts[1] is domain:
        return found
    return Mailbox(*parts, folders, *cast("tuple[bool, bool, bool]", flags))


def routes_of(answer: object) -> Sequence[Route] | NotMine:
    """At least one route, or that the router does not know the address."""
    if isinstance(answer, NotMine):
        return answer
    routes = tuple([_route(one) for one in sequence_of(answer, ROUTES_MOST)])
    if not routes:
        raise ValueError("the answer holds no route; a router that does not know the address says NotMine()")
    return routes


def sequence_of(answer: object, most: int) -> Sequence[Any]:
    """A sequence that is no text and not endless."""
    if isinstance(answer, str | bytes) or not isinstance(answer, Sequence):
        raise TypeError(f"the answer is {kind_of(answer)}, not a sequence")
    if len(answer) > most:
        raise ValueError(f"the answer has more than {most} members")
    return answer


def text_of(value: object, what: str, most: int = NAME_CHARACTERS) -> str:
    """Plain text that is no longer than this and can be written in UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is {kind_of(value)}, not text")
    text = value if value.__class__ is str else str.__str__(value)
    if len(text) > most:
        raise ValueError(f"{what} has more than {most} characters")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeError:
            raise ValueError(f"{what} holds a lone surrogate") from None
    return text


def _name_of(value: object, what: str) -> str:
    """Text without a control character: it becomes part of a path, or of a command of LMTP."""
    text = text_of(value, what)
    if CONTROLS.search(text):
        raise ValueError(f"{what} holds a control character")
    return text


def kind_of(value: object) -> str:
    """Its class, in words."""
    return clean_text(f"a {type(value).__name__}")[:80]


def _route(route: object) -> Route:
    if isinstance(route, Local):
        mailbox = mailbox_of(route.mailbox)
        if mailbox is None:
            raise TypeError("a local route has no mailbox")
        return Local(_address(route.address), mailbox)
    if isinstance(route, Remote):
        return Remote(_address(route.address))
    if isinstance(route, Refused):
        return Refused(_reply(route.reply), text_of(route.why, "the reason of a refusal", 2000))
    raise TypeError(f"a member of the answer is {kind_of(route)}, not a route")


def _address(address: object) -> Address:
    """One that can be written into a command: a line end in it would begin another."""
    if not isinstance(address, Address):
        raise TypeError(f"the address of a route is {kind_of(address)}")
    local, domain = text_of(address.local, "a local part"), text_of(address.domain, "a domain")
    sound = address if address.__class__ is Address else Address(local, domain)
    if domain:
        Address.parse(str(sound), utf8=True)  # raises AddressError, a ValueError
    elif local.lower() != "postmaster":
        raise ValueError("the address of a route has no domain")
    return sound


def _reply(reply: object) -> Reply:
    if not isinstance(reply, Reply):
        raise TypeError(f"the reply of a refusal is {kind_of(reply)}")
    code, lines = cast("tuple[object, object]", (reply.code, reply.lines))
    if type(code) is not int or not 400 <= code <= 599:
        raise ValueError("the reply of a refusal has no code from 400 to 599")
    if not isinstance(lines, tuple | list):
        raise TypeError(f"the lines of a refusal are {kind_of(lines)}")
    status = text_of(reply.enhanced, "the enhanced code of a refusal")
    if not STATUS.fullmatch(status) or status[0] != str(code)[0]:
        status = f"{code // 100}.0.0"
    return Reply.heard(code, status, [text_of(line, "a line of a refusal") for line in lines[:LINES_MOST]])
