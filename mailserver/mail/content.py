"""The immutable octets of a message, in memory or in a file.

Lines end with CRLF, as on the wire; dots are undone.  A large message is never whole in memory: read it with `chunks`.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from mailserver.mail.cached import Remembering, cached
from mailserver.mail.headers import Headers
from mailserver.mail.message_parts import MessageParts
from mailserver.mail.quick import quick

__all__ = ["CHUNK_OCTETS", "Content"]

CHUNK_OCTETS = 65536
HEADER_OCTETS = 262144  # what is looked at for header fields


@quick
@dataclass(frozen=True, slots=True)
class Content(Remembering):
    """A message: `prefix` (trace fields that we add), then `data` or what stands in the file `path`.

    Just one of `data` and `path` is not None.  `stored_size` is the length of `data` or of the file.
    `binary` says that it came with BODY=BINARYMIME (RFC 3030): its line ends are data.
    `skip` octets at the start of the file are no part of the message: `prefix` holds the edited fields that replace them
    (`mailserver.mail.edits`).  Only a message in a file has any; one in memory is edited in memory.  A `prefix` that ends with an
    empty line is a whole header section: what is stored is then the body alone (`mailserver.mail.mending`).
    """

    data: bytes | None
    path: str | None
    stored_size: int
    prefix: bytes = b""
    binary: bool = False
    skip: int = 0

    @classmethod
    def of(cls, data: bytes, *, prefix: bytes = b"", binary: bool = False) -> Content:
        """A message in memory."""
        return cls(data, None, len(data), prefix, binary)

    @classmethod
    def at(cls, path: str, size: int, *, prefix: bytes = b"", binary: bool = False, skip: int = 0) -> Content:
        """A message in the file `path` of `size` octets, the first `skip` of which do not count."""
        return cls(None, path, size, prefix, binary, skip)

    @property
    def size(self) -> int:
        """Octets in all, the prefix included."""
        return len(self.prefix) + self.stored_size - self.skip

    def with_prefix(self, more: bytes) -> Content:
        """The same message with header fields put in front."""
        return Content(self.data, self.path, self.stored_size, more + self.prefix, self.binary, self.skip)

    def chunks(self, octets: int = CHUNK_OCTETS) -> Iterator[bytes]:
        """The octets in pieces; a message in memory comes as it lies there.

        Raises OSError where the file cannot be read or is shorter than it was: a torn message is never handed on as a whole one.
        """
        if self.prefix:
            yield self.prefix
        if self.path is None:
            if self.data:
                yield self.data
            return
        missing = self.stored_size - self.skip
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.skip)
            while missing > 0 and (piece := file.read(min(octets, missing))):
                missing -= len(piece)
                yield piece
        if missing > 0:
            raise OSError(errno.EIO, f"the file is {missing} octets short", self.path)

    @cached
    def head(self) -> bytes:
        """The header section with the empty line that ends it, or the first 256 KiB where it does not end before."""
        if not self.prefix:
            return self.stored_head
        return self.prefix if self.has_whole_head_in_front else self.prefix + self.stored_head

    @cached
    def lower_head(self) -> bytes:
        """`head` in lower case, in which fields are found by their names.  Raises OSError as `chunks` does."""
        return self.head.lower()

    @property
    def has_whole_head_in_front(self) -> bool:
        """All of the header section is in `prefix`."""
        return self.prefix.endswith(b"\r\n\r\n") or self.prefix == b"\r\n"

    @property
    def has_cut_head(self) -> bool:
        """The header section does not end within what is looked at: fields may stand where nobody sees them.  Raises OSError."""
        stored = b"" if self.has_whole_head_in_front else self.stored_head
        return len(stored) >= HEADER_OCTETS and not stored.endswith(b"\r\n\r\n")

    @cached
    def stored_head(self) -> bytes:
        """`head` without the prefix.  Raises OSError as `chunks` does."""
        if self.path is None:
            start = self.data or b""
        else:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.skip)
                start = file.read(HEADER_OCTETS)
        if start.startswith(b"\r\n"):
            return b"\r\n"
        end = start.find(b"\r\n\r\n", 0, HEADER_OCTETS)
        return start[: end + 4] if end >= 0 else start[:HEADER_OCTETS]

    def parts(self) -> MessageParts:
        """The MIME parts, one after another: `mailserver.mail.message_parts`.  Iterating raises OSError."""
        return MessageParts(self, functools.partial(self.__dict__.__setitem__, "parts_beyond_bounds"))

    @cached
    def parts_beyond_bounds(self) -> str:
        """What somebody who has iterated `parts` has met beyond the bounds, "" where it was nothing."""
        return ""

    @cached
    def headers(self) -> Headers:
        """The header fields, with their bytes kept."""
        return Headers.parse(self.head)
