"""What a milter wants to have changed, as edits.  Pure.

A milter counts the fields of a message without our own Received, which it is not shown, where it changes one, and with it where
it inserts one; so it is with Sendmail and Postfix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mailserver.api import (
    AddRecipient,
    Address,
    AddressError,
    ChangeHeader,
    ChangeSender,
    Discard,
    Edit,
    EditError,
    InsertHeader,
    PutAside,
    Recipient,
    RecipientParameters,
    ReplaceRecipient,
)
from mailserver.filters.milter_answers import (
    AddedField,
    BodyPart,
    Change,
    ChangedField,
    InsertedField,
    LostRecipient,
    NewRecipient,
    NewSender,
    PutAway,
)
from mailserver.filters.milter_wire import MilterFault

__all__ = ["Changed", "changed", "field_value", "own_received"]

LINE_OCTETS = 990  # less than the 998 that a line may have
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
NOTIFY = re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*")


@dataclass(slots=True)
class Changed:
    """The edits, in their order, and in words what could not be done; `discard` where they leave nobody who would get it."""

    edits: list[Edit] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    discard: Discard | None = None


def own_received(fields: Sequence[tuple[str, bytes]], id: str) -> int | None:
    """The place of the Received field that this server has put in front: the one that names the message's id."""
    mark = f" id {id}".encode()
    for place, (name, raw) in enumerate(fields):
        if name == "received" and mark in raw.replace(b"\t", b" "):
            return place
    return None


def changed(
    changes: Sequence[Change],
    names: Sequence[str],
    own: int | None,
    recipients: Sequence[Recipient],
    *,
    leading_space: bool = False,
) -> Changed:
    """The edits for a message with fields of these `names` (in lower case), the one at `own` ours and not shown to the milter.

    `leading_space`: the milter's values begin with the blank after the colon.  Pieces of a body are not looked at.  Raises
    `MilterFault` for an address that is none.
    """
    return _Changing(list(names), own, [one.address for one in recipients], leading_space).all(changes)


class _Changing:
    """The message as the changes before have made it."""

    def __init__(self, names: list[str], own: int | None, recipients: list[Address], leading_space: bool) -> None:
        self._names: list[tuple[str, bool]] = [(name, place == own) for place, name in enumerate(names)]
        self._recipients = recipients
        self._leading_space = leading_space
        self._done = Changed()

    def all(self, changes: Sequence[Change]) -> Changed:
        had = bool(self._recipients)
        for change in changes:
            match change:
                case AddedField(name, value):
                    self._insert(len(self._names), name, value)
                case InsertedField(at, name, value):
                    self._insert(min(at, len(self._names)), name, value)
                case ChangedField(index, name, value):
                    self._change(max(index, 1), name, value)
                case NewSender(path, parameters):
                    self._done.edits.append(ChangeSender(_address(path, may_be_null=True)))
                    if parameters:
                        self._done.left_out.append("parameters of a new sender")
                case NewRecipient(path, parameters):
                    self._add(path, parameters)
                case LostRecipient(path):
                    self._remove(path)
                case PutAway(why):
                    self._done.edits.append(PutAside(why or "a milter says so"))
                case BodyPart():
                    pass
        if had and not self._recipients:
            self._done.discard = Discard("a milter has taken all recipients away")
        return self._done

    # --- fields ---

    def _insert(self, at: int, name: bytes, value: bytes) -> None:
        text = name.decode("ascii", "replace")
        if self._made(lambda: InsertHeader(at, text, self._text(name, value))):
            self._names.insert(at, (text.lower(), False))

    def _change(self, index: int, name: bytes, value: bytes) -> None:
        """What is not there is added, or need not be taken away."""
        text = name.decode("ascii", "replace")
        key = text.lower()
        all_of_it = [place for place, (one, _) in enumerate(self._names) if one == key]
        seen = [place for place in all_of_it if not self._names[place][1]]
        if index > len(seen):
            if value:
                self._insert(len(self._names), name, value)
            return
        place = seen[index - 1]
        nth = all_of_it.index(place)
        if value:
            self._made(lambda: ChangeHeader(text, nth, self._text(name, value)))
        elif self._made(lambda: ChangeHeader(text, nth, None)):
            del self._names[place]

    def _text(self, name: bytes, value: bytes) -> str:
        if self._leading_space and value.startswith(b" "):
            value = value[1:]
        return field_value(value, len(name))

    def _made(self, make: Callable[[], Edit]) -> bool:
        try:
            self._done.edits.append(make())
        except EditError as error:
            self._done.left_out.append(str(error)[:200])
            return False
        return True

    # --- recipients ---

    def _add(self, path: bytes, parameters: bytes) -> None:
        address = _address(path, may_be_null=False)
        if address is None or _key(address) in map(_key, self._recipients):
            return
        notify = None
        for one in parameters.decode("ascii", "replace").upper().split():
            keyword, _, value = one.partition("=")
            if keyword == "NOTIFY" and NOTIFY.fullmatch(value):
                notify = frozenset(value.split(","))
            else:
                self._done.left_out.append("a parameter of a new recipient that is no NOTIFY")
        self._done.edits.append(AddRecipient(address, RecipientParameters(notify=notify)))
        self._recipients.append(address)

    def _remove(self, path: bytes) -> None:
        """Nobody minds one who is none."""
        address = _address(path, may_be_null=False)
        meant = [one for one in self._recipients if address is not None and _key(one) == _key(address)]
        self._done.edits += [ReplaceRecipient(one, ()) for one in dict.fromkeys(meant)]
        self._recipients[:] = [one for one in self._recipients if one not in meant]


def field_value(value: bytes, name_octets: int = 0) -> str:
    """The value of a field, as our edits want it: folded with CRLF, no line longer than a line may be, no control character."""
    text = value.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    lines: list[str] = []
    for line in CONTROLS.sub("?", text).split("\n"):
        if lines and line[:1] not in (" ", "\t"):
            line = "\t" + line  # else it would be a field of its own
        if line.strip(" \t") or not lines:
            lines += _folded(line, 0 if lines else name_octets + 2)
    return "\r\n".join(lines)


def _folded(line: str, before: int) -> Sequence[str]:
    """The same line, on several where it is too long: broken at its blanks.  `before` stands in front of it."""
    if before + len(line) * 4 <= LINE_OCTETS or before + len(line.encode()) <= LINE_OCTETS:
        return (line,)
    lines, current = [], ""
    for word in re.findall(r"[ \t]*[^ \t]+|[ \t]+", line):
        if current.strip(" \t") and word[:1] in (" ", "\t") and before + len((current + word).encode()) > LINE_OCTETS:
            lines.append(current)
            current, before = "", 0
        current += word
    if current.strip(" \t"):
        lines.append(current)
    return lines


def _key(address: Address) -> tuple[str, str]:
    return address.local, address.domain.lower()


def _address(path: bytes, *, may_be_null: bool) -> Address | None:
    text = path.decode("utf-8", "replace").strip()
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    if not text and may_be_null:
        return None
    try:
        return Address.parse(text, utf8=True)
    except AddressError as error:
        raise MilterFault(f"an address that is none: {error}") from None

