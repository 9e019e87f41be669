"""One command or reply in a buffer, as fields over its octets.

Nothing is copied: the fields are slices of the buffer, found when they are first asked for and decoded each time.  No octets
whatever make anything here raise.  A view sees one buffer and no dialogue: whether a line is a command, a line of a body or a
response of AUTH only its stream knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from mailserver.capture.printable import printable
from mailserver.smtp import grammar
from mailserver.smtp.vocabulary import CommandVerb, reply_code_description

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["FIELD_NAMES", "FieldValue", "SmtpView"]

Parameters: TypeAlias = tuple[tuple[str, str | None], ...]
FieldValue: TypeAlias = bool | int | str | Parameters
Span: TypeAlias = tuple[int, int]

FIELD_NAMES = (
    "is_reply",
    "is_complete",
    "is_multiline",
    "reply_code",
    "enhanced_code",
    "reply_text",
    "command",
    "arguments",
    "reverse_path",
    "forward_path",
    "parameters",
    "chunk_size",
    "is_last_chunk",
    "mechanism",
    "initial_response",
    "text",
)

# RFC 5321 section 4.2.  Whatever a host puts as its second digit is a code; LF alone ends a line too.  Each octet is looked at
# once: a line that is none costs its first four.
REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])([^\n]*)|\r?)(?:(\n)|\Z)")
ENHANCED = re.compile(rb"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?= |\r?\n|\r?\Z)")  # RFC 3463 section 2
# RFC 5321 section 4.1.1; blanks before it are passed over, as Postfix does.
COMMAND = re.compile(rb"[ \t]*([A-Za-z][A-Za-z0-9-]*)(?=[ \t]|\r?\n|\r?\Z)")
LINE_FEED = re.compile(rb"\n")
BLANK = re.compile(rb"[ \t]+")
BLANKS = b" \t\r"
SUMMARY_LENGTH = 200  # characters; RFC 5321 section 4.5.3.1.4 and .5 allow 512 octets
HIDDEN = "****"


T = TypeVar("T")


class _once(Generic[T]):
    """A property that is found once: `functools.cached_property` without its lock, which costs more than most fields do.

    (Python 3.12 has taken it away.)
    """

    def __init__(self, find: Callable[[Any], T]) -> None:
        self._find = find
        self._name = find.__name__
        self.__doc__ = find.__doc__

    def __get__(self, view: Any, owner: Any = None) -> T:
        if view is None:
            return self  # type: ignore[return-value]
        found = view.__dict__[self._name] = self._find(view)
        return found


class SmtpView:
    r"""The first command or reply in a buffer; `rest` is what comes after it.

    `buffer` is anything with the buffer protocol (bytes, bytearray, memoryview, mmap) and is kept, so a bytearray cannot
    change its length while a view of it lives.  Only one that is not contiguous is copied.  Raises TypeError for what is no
    buffer.  Text is decoded as UTF-8 with ``\xff`` for octets that are none; `octets` has them as they are.
    """

    def __init__(self, buffer: ReadableBuffer) -> None:
        view = memoryview(buffer)
        self._whole = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())

    # --- what it is ---

    @_once
    def is_reply(self) -> bool:
        """It begins with a reply code, 200 to 599, that ends there."""
        return REPLY_LINE.match(self._whole) is not None

    @property
    def is_command(self) -> bool:
        """It begins with a word that can be a verb.  Prose does too: `is_known_command` and `looks_like_smtp` say more."""
        return self._verb is not None

    @property
    def is_known_command(self) -> bool:
        """Its verb is one of `CommandVerb`."""
        return self.command in CommandVerb.__members__

    @_once
    def is_complete(self) -> bool:
        """Its last line has its end; of a reply that is the line without a hyphen."""
        if self.is_reply:
            return self._reply_ends
        return self._end > 0 and self._whole[self._end - 1] == 10

    @property
    def raw(self) -> memoryview:
        """The octets of this command or reply, line ends included."""
        return self._whole[: self._end]

    @property
    def rest(self) -> memoryview:
        """The octets that come after it: what was pipelined, a chunk, nothing."""
        return self._whole[self._end :]

    @property
    def text(self) -> str:
        """All of it, without the last line end."""
        return self._decoded((0, self._without_line_end(0, self._end)))

    # --- replies ---

    @property
    def is_multiline(self) -> bool:
        """A reply that goes on after its first line."""
        return self.is_reply and bytes(self._whole[3:4]) == b"-"

    @property
    def reply_code(self) -> int | None:
        """The code, 200 to 599: that of the last line where lines differ (they must not; Postfix takes the last one)."""
        return int(self._whole[self._code_at : self._code_at + 3]) if self.is_reply else None

    @property
    def enhanced_code(self) -> str | None:
        """Such as ``5.1.1``, of the last line; None where its class is not that of the code (RFC 2034 section 4)."""
        return None if self._enhanced is None else self._decoded(self._enhanced)

    @property
    def reply_lines(self) -> tuple[str, ...]:
        """The text of each line, without code and enhanced code; () where it is no reply."""
        return tuple([self._decoded(span) for span in self._text_spans])

    @property
    def reply_text(self) -> str | None:
        """`reply_lines` with a line feed between them."""
        return "\n".join(self.reply_lines) if self.is_reply else None

    # --- commands ---

    @property
    def command(self) -> str | None:
        """The verb in upper case."""
        return None if self._verb is None else self._decoded(self._verb).upper()

    @property
    def arguments(self) -> str | None:
        """What follows the verb, without the blanks around it."""
        return self._decoded_or_none("arguments")

    @property
    def reverse_path(self) -> str | None:
        """The address of MAIL without its angle brackets, "" for the null one; None where none can be read."""
        return self._decoded_or_none("reverse_path")

    @property
    def forward_path(self) -> str | None:
        """The address of RCPT, in the same way."""
        return self._decoded_or_none("forward_path")

    @property
    def parameters(self) -> Parameters:
        """The parameters of MAIL and RCPT in their order: keyword in upper case, value as it stands or None."""
        span = self._spans.get("parameters")
        if span is None:
            return ()
        said = [one.partition("=") for one in self._decoded(span).replace("\t", " ").split(" ") if one]
        return tuple([(keyword.upper(), value if sign else None) for keyword, sign, value in said])

    @property
    def chunk_size(self) -> int | None:
        """How many octets follow BDAT (RFC 3030 section 2)."""
        span = self._spans.get("chunk_size")
        return None if span is None else int(self._whole[slice(*span)])

    @property
    def is_last_chunk(self) -> bool | None:
        """BDAT with LAST; None where it is no BDAT that can be read."""
        return None if self.chunk_size is None else "last" in self._spans

    @property
    def mechanism(self) -> str | None:
        """The mechanism of AUTH in upper case (RFC 4954 section 4)."""
        found = self._decoded_or_none("mechanism")
        return None if found is None else found.upper()

    @property
    def initial_response(self) -> str | None:
        """The initial response of AUTH as it stands: base64 or "=".  A secret."""
        return self._decoded_or_none("initial_response")

    # --- by name, and for people ---

    def field(self, name: str) -> FieldValue | None:
        """The field of this name, None where it is not there.  Raises KeyError for a name not in `FIELD_NAMES`."""
        if name not in FIELD_NAMES:
            raise KeyError(name)
        value: FieldValue | None = getattr(self, name)
        return value

    def fields(self) -> dict[str, FieldValue]:
        """The fields that are there, in the order of `FIELD_NAMES`."""
        found = {name: self.field(name) for name in FIELD_NAMES}
        return {name: value for name, value in found.items() if value is not None and value != ()}

    def octets(self, name: str) -> memoryview | None:
        """The octets of a field as a slice of the buffer, None where it is not there.

        `name` is one of ``arguments``, ``reverse_path``, ``forward_path``, ``parameters``, ``chunk_size``, ``mechanism``,
        ``initial_response``, ``command``, ``reply_code``, ``enhanced_code``, ``text``.  Raises KeyError for another one.  For
        the text of a reply see `reply_octets`.
        """
        if name not in FIELD_NAMES or name in ("is_reply", "is_complete", "is_multiline", "is_last_chunk", "reply_text"):
            raise KeyError(name)
        span = {
            "text": (0, self._without_line_end(0, self._end)),
            "reply_code": (self._code_at, self._code_at + 3) if self.is_reply else None,
            "enhanced_code": self._enhanced,
            "command": self._verb,
        }.get(name, self._spans.get(name))
        return None if span is None else self._whole[slice(*span)]

    @property
    def reply_octets(self) -> tuple[memoryview, ...]:
        """`reply_lines` as slices of the buffer."""
        return tuple([self._whole[slice(*span)] for span in self._text_spans])

    def summary(self, *, secrets: bool = False) -> str:
        """One printable line, such as ``SMTP MAIL FROM:<ann@example.org>``.  Without `secrets` no response of AUTH is in it."""
        hidden = None if secrets else self._secret_at
        end = min(self._first_line_end if hidden is None else hidden, 4 * SUMMARY_LENGTH)
        said = self._decoded((0, end)) + ("" if hidden is None else HIDDEN)
        more = " ..." if self.is_multiline or len(said) > SUMMARY_LENGTH else ""
        return f"SMTP {printable(said[:SUMMARY_LENGTH])}{more}"

    def show(self, *, secrets: bool = False) -> str:
        """A line for each field, its octets made printable; the code with its description."""
        lines, hidden = [], None if secrets else self._secret_at
        for name, value in self.fields().items():
            if name == "text" or (isinstance(value, bool) and not value):
                continue
            if name == "parameters":
                value = " ".join([key if one is None else f"{key}={one}" for key, one in self.parameters])
            if hidden is not None and name in ("arguments", "initial_response"):
                value = self._decoded((self._spans["arguments"][0], hidden)) + HIDDEN if name == "arguments" else HIDDEN
            if name in ("reverse_path", "forward_path"):
                value = f"<{value}>"
            said = " / ".join(self.reply_lines) if name == "reply_text" else "yes" if value is True else str(value)
            meaning = f" ({reply_code_description(int(said))})" if name == "reply_code" else ""
            lines.append(f"{name:16} {printable(said)}{meaning}".rstrip())
        if not self.is_reply and not self.is_command:
            lines.append(f"{'text':16} {printable(self.text)}".rstrip())
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<SmtpView {self.summary()[5:]!r}>"

    # --- where things stand ---

    def _decoded(self, span: Span) -> str:
        return str(self._whole[slice(*span)], "utf-8", "backslashreplace")

    def _decoded_or_none(self, name: str) -> str | None:
        span = self._spans.get(name)
        return None if span is None else self._decoded(span)

    def _without_line_end(self, start: int, end: int) -> int:
        """Where a line ends that goes from `start` to `end`, its CRLF, LF or cut CR left out."""
        if end > start and self._whole[end - 1] == 10:
            end -= 1
        if end > start and self._whole[end - 1] == 13:
            end -= 1
        return end

    @_once
    def _first_line_end(self) -> int:
        found = LINE_FEED.search(self._whole)
        return self._without_line_end(0, len(self._whole) if found is None else found.end())

    @_once
    def _reply(self) -> tuple[list[Span], int, bool]:
        """The lines of a reply, each without its end; where they end; whether the last of them is there and whole."""
        lines, at = [], 0
        while (found := REPLY_LINE.match(self._whole, at)) is not None:
            start, at = found.span()
            lines.append((start, self._without_line_end(start, at)))
            if found.start(4) < 0:  # cut
                return lines, at, False
            if found.start(2) < 0 or self._whole[start + 3] != 45:
                return lines, at, True
        return lines, at, False

    @property
    def _reply_ends(self) -> bool:
        return self._reply[2]

    @_once
    def _end(self) -> int:
        """Where the first command or reply ends."""
        if self.is_reply:
            return self._reply[1]
        found = LINE_FEED.search(self._whole)
        return len(self._whole) if found is None else found.end()

    @property
    def _code_at(self) -> int:
        return self._reply[0][-1][0]

    @_once
    def _enhanced(self) -> Span | None:
        if not self.is_reply:
            return None
        start, end = self._reply[0][-1]
        found = ENHANCED.match(self._whole, start + 4, end)
        return None if found is None or self._whole[start] != self._whole[start + 4] else found.span()

    @_once
    def _text_spans(self) -> tuple[Span, ...]:
        if not self.is_reply:
            return ()
        spans, enhanced = [], self.octets("enhanced_code")
        for line, end in self._reply[0]:
            start = min(line + 4, end)
            if enhanced is not None and self._whole[start : start + len(enhanced)] == enhanced:
                past = start + len(enhanced)
                if past >= end or self._whole[past] == 32:
                    start = min(past + 1, end)
            spans.append((start, end))
        return tuple(spans)

    @_once
    def _verb(self) -> Span | None:
        found = COMMAND.match(self._whole)
        return None if found is None else found.span(1)

    @_once
    def _spans(self) -> dict[str, Span]:
        """Where the arguments of a command stand, and what is in them."""
        if self._verb is None:
            return {}
        start, end = self._verb[1], self._first_line_end
        while start < end and self._whole[start] in BLANKS:
            start += 1
        while end > start and self._whole[end - 1] in BLANKS:
            end -= 1
        spans = {"arguments": (start, end)}
        names = ARGUMENTS.get(self.command or "")
        if names is not None:
            # A character for each octet, so that the places are the same.
            found = names[0].fullmatch(str(self._whole[start:end], "latin-1").replace("\t", " "))
            for number, name in enumerate(names[1], 1):
                if found is not None and found.start(number) >= 0:
                    spans[name] = self._trimmed(start + found.start(number), start + found.end(number))
        return spans

    @_once
    def _secret_at(self) -> int | None:
        """Where what AUTH says after the mechanism begins, well formed or not."""
        if self.command != CommandVerb.AUTH:
            return None
        start, end = self._spans["arguments"]
        blank = BLANK.search(self._whole, start, end)
        return None if blank is None else blank.end()

    def _trimmed(self, start: int, end: int) -> Span:
        while start < end and self._whole[start] in BLANKS:
            start += 1
        while end > start and self._whole[end - 1] in BLANKS:
            end -= 1
        return start, end


# The server's own grammar: what it takes, a view reads.  A path stands in brackets or without them, hence twice.
ARGUMENTS: dict[str, tuple[re.Pattern[str], tuple[str, ...]]] = {
    CommandVerb.MAIL: (grammar.MAIL, ("reverse_path", "reverse_path", "parameters")),
    CommandVerb.RCPT: (grammar.RCPT, ("forward_path", "forward_path", "parameters")),
    CommandVerb.BDAT: (grammar.BDAT, ("chunk_size", "last")),
    CommandVerb.AUTH: (grammar.AUTH, ("mechanism", "initial_response")),
}
