"""What people may do with what was learnt: the same commands for a server that runs and for its files.

`mailserver learn` reads the messages, with the rights of who types it, and hands over what is learnt of them: the server reads no
file that it is told of.
"""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mailserver.api import Address, AddressError, Argument, CannotDo, ComponentCommand, StorageFault, normal_names
from mailserver.filters.learnt import Learnt
from mailserver.state_store.learnt_file import Kind, Lesson
from mailserver.trust.tokens import TOKENS_MOST, ReducedMessage

__all__ = ["MESSAGES_AT_ONCE", "commands_of", "in_words", "owner_of"]

MESSAGES_AT_ONCE = 100
OWNER = Argument("user", "whose learning it is; absent: the site's", required=False)
ID_CHARACTERS = 40


def commands_of(learnt: Learnt) -> Sequence[ComponentCommand]:
    """``learn``, ``show``, ``forget``."""
    orders = _Orders(learnt)
    learn = (
        Argument("kind", "spam, ham or forget", choices=("spam", "ham", "forget")),
        Argument("messages", "what is learnt of them"),
        OWNER,
    )
    return (
        ComponentCommand("learn", "what `mailserver learn` hands over", orders.learn, learn, deadline_seconds=120.0),
        ComponentCommand("show", "how much the site and each user have learnt", orders.show, (OWNER,)),
        ComponentCommand(
            "forget", "forget all that a user has learnt", orders.forget,
            (Argument("user", "whose; site: the site's"),), deadline_seconds=120.0,
        ),
    )  # fmt: skip


def owner_of(user: str) -> str:
    """A user as his learning is kept: the site's is "".  Raises ValueError for what is no user's name."""
    if not user or user == "site":
        return ""
    if "@" not in user:
        return user.lower()
    local, domain = normal_names(Address.parse(user, utf8=True))
    return f"{local}@{domain}"


def in_words(messages: Sequence[ReducedMessage]) -> str:
    """Messages as the command ``learn`` takes them."""
    return json.dumps(
        [
            [one.digest.hex(), base64.b64encode(struct.pack(f">{len(one.hashes)}q", *one.hashes)).decode(), one.id]
            for one in messages
        ]
    )


def _lessons_in(text: str, kind: Kind) -> list[Lesson]:
    """Raises ValueError."""
    try:
        rows: Any = json.loads(text)
        if not isinstance(rows, list) or len(rows) > MESSAGES_AT_ONCE:
            raise TypeError("too many at once")
        return [_lesson(kind, *row) for row in rows]
    except (TypeError, ValueError, struct.error, RecursionError) as error:  # those of JSON and of base64 are ValueErrors
        raise ValueError("that is nothing that could be learnt") from error


def _lesson(kind: Kind, digest: Any, hashes: Any, id: Any) -> Lesson:
    octets = base64.b64decode(hashes, validate=True)
    found = struct.unpack(f">{len(octets) // 8}q", octets)
    if len(bytes.fromhex(digest)) != 16 or len(found) > TOKENS_MOST or not isinstance(id, str) or len(id) > ID_CHARACTERS:
        raise ValueError("that is nothing that could be learnt")
    return Lesson(kind, bytes.fromhex(digest), found, id if id.isalnum() else "")


class _Orders:
    def __init__(self, learnt: Learnt) -> None:
        self._learnt = learnt

    async def learn(self, kind: Kind, messages: str, user: str = "") -> dict[str, int]:
        """How many were new, moved from the other kind, known, forgotten, unknown."""
        try:
            owner, lessons = _owner(user), _lessons_in(messages, kind)
        except ValueError as error:
            raise CannotDo(str(error)) from error
        try:
            came = Counter(await self._learnt.learn(owner, lessons))
        except StorageFault as error:
            raise CannotDo(str(error)) from error
        return dict(came)

    async def show(self, user: str | None = None) -> list[dict[str, Any]]:
        """A row for each owner."""
        try:
            return await self._learnt.owners(None if user is None else _owner(user))
        except StorageFault as error:
            raise CannotDo(str(error)) from error

    async def forget(self, user: str) -> str:
        """What was done, in words."""
        try:
            if not await self._learnt.drop_owner(_owner(user)):
                raise CannotDo(f"{user} has learnt nothing")
        except StorageFault as error:
            raise CannotDo(str(error)) from error
        return f"all that {user} had learnt is forgotten"


def _owner(user: str) -> str:
    try:
        return owner_of(user)
    except (AddressError, ValueError) as error:
        raise CannotDo(f"{user[:200]!r} is no user: {error}") from error
