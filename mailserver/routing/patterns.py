"""Rules for addresses by convention: ``{user}.{tag}``, ``{tag}@{user}.example.org``.

A name in braces stands for one character or more.  It ends where the text that follows it in the rule first appears, so a match
takes one walk over the address; the last name takes the rest.  In the domain a name stands for one label.

    pattern = Pattern("{tag}@{user}.example.org", folder="{tag}")
    pattern.match("python", "alice.example.org")        # {"tag": "python", "user": "alice"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["FOLDER_DEPTH", "Pattern", "PatternError", "RoutingError", "folder_parts"]

PIECE = re.compile(r"\{([^{}]*)\}|([^{}]+)|(.)", re.DOTALL)
NAME = re.compile(r"[a-z][a-z0-9_]*")
FOLDER_DEPTH = 8  # folders inside each other that an address may name

Pieces = tuple[tuple[str, bool], ...]  # a name (True) or plain text (False)


class RoutingError(ValueError):
    """The domains' tables cannot be used.  `key` is the place in the configuration, such as ``domain."example.org".aliases``,
    "" where the raising part cannot know it.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key
        self.message = message


class PatternError(RoutingError):
    """A rule cannot be used."""


@dataclass(frozen=True)
class Pattern:
    """One rule.  `user` and `folder` may use the names of `rule`.  Raises `PatternError`.

    `rule` is matched in lower case against the whole address, or against the local part where it has no @.  `user` is the
    account's local part, or its address; `folder` the folder below the inbox with dots between the levels, "" for the inbox.
    """

    rule: str
    user: str = "{user}"
    folder: str = ""
    _local: Pieces = field(init=False, repr=False, compare=False)
    _domain: Pieces = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        local, at, domain = self.rule.lower().rpartition("@")
        if not at:
            local, domain = domain, ""
        object.__setattr__(self, "_local", _pieces(local, self.rule))
        object.__setattr__(self, "_domain", _pieces(domain, self.rule))
        names = [text for text, is_name in self._local + self._domain if is_name]
        for name in names:
            if names.count(name) > 1:
                raise PatternError(f"{{{name}}} stands twice in {self.rule!r}")
        for template in (self.user, self.folder):
            for text, is_name in _pieces(template, template, beside=True):
                if is_name and text not in names:
                    raise PatternError(f"{{{text}}} in {template!r} has no counterpart in {self.rule!r}")
        if not local or not self.user:
            raise PatternError(f"{self.rule!r} leads to no user")

    def match(self, local: str, domain: str) -> dict[str, str] | None:
        """What each name stands for in an address in lower case, None where the rule does not fit."""
        values: dict[str, str] = {}
        if not _fits(self._local, local, values, within_label=False):
            return None
        if self._domain and not _fits(self._domain, domain, values, within_label=True):
            return None
        return values

    def target(self, values: Mapping[str, str]) -> tuple[str, tuple[str, ...], bool]:
        """The account (a local part or an address), the folder, and whether the folder's name came from the address."""
        folder = folder_parts(self.folder.format_map(values)) if self.folder else ()
        return self.user.format_map(values), folder, "{" in self.folder


def folder_parts(text: str) -> tuple[str, ...]:
    """``lists.python`` as a path of folders; () where it cannot be one."""
    parts = tuple(text.split("."))
    return parts if all(parts) and len(parts) <= FOLDER_DEPTH else ()


def _pieces(text: str, rule: str, beside: bool = False) -> Pieces:
    pieces: list[tuple[str, bool]] = []
    for match in PIECE.finditer(text):
        name, plain, stray = match.groups()
        if stray:
            raise PatternError(f"a brace without its counterpart in {rule!r}, at {match.start() + 1}")
        if name is not None and not NAME.fullmatch(name):
            raise PatternError(f"{{{name}}} in {rule!r} is not a name: lower-case letters, digits and _")
        if name is not None and pieces and pieces[-1][1] and not beside:
            raise PatternError(f"nothing stands between {{{pieces[-1][0]}}} and {{{name}}} in {rule!r}")
        pieces.append((plain, False) if name is None else (name, True))
    return tuple(pieces)


def _fits(pieces: Pieces, text: str, values: dict[str, str], within_label: bool) -> bool:
    """Walk once over `text`; note the names' values."""
    at, waiting = 0, ""
    last = len(pieces) - 1
    for n, (piece, is_name) in enumerate(pieces):
        if is_name:
            waiting = piece
            continue
        start = len(text) - len(piece) if n == last else text.find(piece, at + 1 if waiting else at)
        if start < at or not text.startswith(piece, start) or (not waiting and start != at):
            return False
        if waiting:
            values[waiting] = text[at:start]
        at, waiting = start + len(piece), ""
    if waiting:
        values[waiting] = text[at:]
    elif at != len(text):
        return False
    names = [piece for piece, is_name in pieces if is_name]
    return all(values[name] and not (within_label and "." in values[name]) for name in names)
