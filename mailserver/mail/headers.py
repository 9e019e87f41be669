"""Header fields that keep their bytes (RFC 5322 section 2.2).

A field here is all its octets, name and folding included, without the CRLF that ends it: ``b"Subject: a\\r\\n b"``.  Joining the
fields with CRLF gives back what came in, so a signature over them stays good.  A line that is not a field (no colon, a blank in
the name) is kept in its place with the name ``b""``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mailserver.mail.quick import quick

__all__ = ["NO_FIELD", "HeaderField", "Headers"]

FIELD_END = re.compile(rb"\r\n(?![ \t])")  # RFC 5322 section 2.2.3: a line that begins with a blank goes on
FOLD = re.compile(rb"\r\n(?=[ \t])")
NAME = re.compile(rb"[!-9;-~]+")  # section 2.2: printable, without the colon
# The end of a line, and the beginning of one that neither is a field nor continues one (section 4.5: blanks before the colon).
# It matches only what can be told from the octets that are there: not where the line may yet become a field.
NO_FIELD = re.compile(rb"\r\n(?:(?![ \t\r])[!-9;-~]*+[ \t]*+[^:]|:)")


@quick
@dataclass(frozen=True, slots=True)
class HeaderField:
    """One field as it came: `raw` without its last CRLF, `name` in lower case, b"" where the line is not a field."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> str:
        """The unfolded text after the colon, without the blanks around it.  Octets that are not UTF-8 become U+FFFD."""
        return _unfolded(self.raw.partition(b":")[2] if self.name else self.raw)


def _unfolded(body: bytes) -> str:
    if b"\r\n" in body:
        body = FOLD.sub(b"", body)
    return body.strip(b" \t\r\n").decode("utf-8", "replace")


class Headers:
    """The fields of one header section, in their order.  Names are compared without regard to case."""

    __slots__ = ("_names", "_raw")

    def __init__(self, raw: list[bytes]) -> None:
        self._raw = raw
        self._names: list[bytes] | None = None

    @classmethod
    def parse(cls, head: bytes) -> Headers:
        """Split a header section, with or without the empty line that ends it.  Never raises: see the module's words."""
        raw = FIELD_END.split(head)
        while raw and not raw[-1]:
            raw.pop()
        return cls(raw)

    def get(self, name: str) -> str | None:
        """The unfolded value of the first field of this name, None where there is none."""
        key = name.lower().encode("utf-8")
        names = self._names or self._lower_names()
        if key not in names:
            return None
        place = names.index(key)
        return _unfolded(self._raw[place].partition(b":")[2] if key else self._raw[place])

    def get_all(self, name: str) -> list[str]:
        """The unfolded values of all fields of this name."""
        key = name.lower().encode("utf-8")
        return [
            HeaderField(key, raw).value
            for found, raw in zip(self._lower_names(), self._raw, strict=True)
            if found == key
        ]

    def fields(self, name: str) -> list[HeaderField]:
        """All fields of this name."""
        key = name.lower().encode("utf-8")
        return [HeaderField(key, raw) for found, raw in zip(self._lower_names(), self._raw, strict=True) if found == key]

    def by_name(self) -> dict[bytes, list[bytes]]:
        """The octets of all fields by their names in lower case, each name's in their order; lines that are no field are b""."""
        found: dict[bytes, list[bytes]] = {}
        for name, raw in zip(self._lower_names(), self._raw, strict=True):
            found.setdefault(name, []).append(raw)
        return found

    def count(self, name: str) -> int:
        """How many fields have this name."""
        return self._lower_names().count(name.lower().encode("utf-8"))

    @property
    def has_other_lines(self) -> bool:
        """Some line is not a field."""
        return not all(map(NAME.fullmatch, self._lower_names()))

    def without(self, names: frozenset[str]) -> bytes:
        """The octets of all fields but those of `names` (in lower case), each with its CRLF."""
        keys = {name.encode("utf-8") for name in names}
        return b"".join(
            [raw + b"\r\n" for found, raw in zip(self._lower_names(), self._raw, strict=True) if found not in keys]
        )

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower().encode("utf-8") in self._lower_names()

    def __iter__(self) -> Iterator[HeaderField]:
        for name, raw in zip(self._lower_names(), self._raw, strict=True):
            yield HeaderField(name if NAME.fullmatch(name) else b"", raw)

    def __len__(self) -> int:
        return len(self._raw)

    def _lower_names(self) -> list[bytes]:
        """For each field what stands before the colon, b"" without one.  RFC 5322 section 4.5 allows blanks before the colon."""
        if self._names is None:
            split = [raw.partition(b":") for raw in self._raw]
            self._names = [name.rstrip().lower() if colon else b"" for name, colon, _ in split]
        return self._names
