"""What becomes of the sessions of a capture or of a recording: dialogues, JSON, figures, messages in files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from mailserver.capture.events import ContentEnd, ContentStretch, Event
from mailserver.capture.figures import Figures
from mailserver.capture.session import Session
from mailserver.capture.transcript import Transcript, TranscriptLine
from mailserver.cli.decode_output import heading, line_of, say_figures, session_as_json, summary
from mailserver.cli.output import EX_IOERR, Unable, say

__all__ = ["ShownSessions"]

LINES = 2000  # of a session that wait for its end
ALL_LINES = 200_000  # of all sessions
HELD_MOST = 1_000_000  # lines or events of all sessions of which nobody knows yet whether they are wanted, or in JSON
SECOND = 1_000_000_000


class ShownSessions:
    """What becomes of sessions: dialogues, JSON or figures; messages in files.

    `is_live`: each line as it comes.  `address` chooses sessions that name it, "@domain" those that name any of the domain;
    `since` and `until` by their beginning, in seconds since 1970.  `save` is a folder for messages, "" for none.
    """

    def __init__(
        self,
        *,
        is_live: bool,
        in_json: bool = False,
        has_figures: bool = False,
        address: str = "",
        since: float | None = None,
        until: float | None = None,
        save: str = "",
        has_secrets: bool = False,
    ) -> None:
        self._figures = Figures()
        self._in_json = in_json
        self._has_figures = has_figures
        self._is_live = is_live and not (in_json or has_figures or address)
        self._address = address.lower()
        self._since = since
        self._until = until
        self._has_secrets = has_secrets
        self._open: dict[int, _Open] = {}
        self._lines = 0
        self._folder = _folder(save) if save else ""
        self.sessions = 0

    def add(self, session: Session, event: Event | None) -> None:
        """Take something that was said."""
        one = self._open.get(session.number)
        if one is None:
            if not self._is_in_time(session):
                return
            one = self._open[session.number] = _Open(session, self._has_secrets, self._folder)
        if event is None:
            self._end(one)
            return
        if self._has_figures:
            heard = one.hear(event)
            one.events += heard
            self._lines += len(heard)
            if self._is_meant(one):
                self._count(one)
            elif count := self._surplus(len(one.events)):
                one.left_out += count
                self._lines -= count
                del one.events[:count]
            return
        lines = one.transcribe(event)
        if self._is_live:
            self._say_live(one, lines)
            return
        one.lines += lines
        self._lines += len(lines)
        if len(one.lines) > LINES or self._lines > ALL_LINES:
            self._make_room(one)

    def _count(self, one: _Open) -> None:
        """The events of a session that is wanted."""
        for each in one.events:
            self._figures.add(one.transcript.session, each)
        self._figures.left_out += one.left_out
        self._lines -= len(one.events)
        one.events, one.left_out = [], 0

    def _make_room(self, one: _Open) -> None:
        """Too many lines wait: say those of this session, or leave out its first ones."""
        if not self._in_json and self._is_meant(one):
            self._say(one, is_end=False)
        elif count := self._surplus(len(one.lines)):
            self._lines -= count
            del one.lines[:count]
            one.is_cut = True

    def _surplus(self, held: int) -> int:
        """How many of those that a session holds, which is not meant as far as is known, or in JSON, are too many."""
        if held > 2 * LINES:
            return LINES
        return (held + 1) // 2 if self._lines > HELD_MOST else 0

    def finish(self, frames: int, segments: int, others: int) -> None:
        """The capture has ended."""
        if self._figures.left_out:
            late = f"{self._figures.left_out:,} events are not in these figures: they came long before {self._address}"
            print(f"mailserver: {late} was named in their session", file=sys.stderr)
        if self._has_figures:
            say_figures(self._figures, self._in_json, frames, segments, others)
        elif not self.sessions and not self._in_json:
            print(f"mailserver: no session of SMTP in {frames:,} frames, {segments:,} of TCP", file=sys.stderr)

    def _is_in_time(self, session: Session) -> bool:
        since, until = self._since, self._until
        began = session.started / SECOND
        return (since is None or began >= since) and (until is None or began < until)

    def _is_meant(self, one: _Open) -> bool:
        wanted = self._address
        if not wanted:
            return True
        if wanted.startswith("@"):
            return any(address.endswith(wanted) for address in one.transcript.addresses)
        return wanted in one.transcript.addresses

    def _end(self, one: _Open) -> None:
        del self._open[one.transcript.session.number]
        one.transcript.finish()
        one.close()
        if not self._is_meant(one):
            self._lines -= len(one.lines) + len(one.events)
            one.forget()
            return
        self.sessions += 1
        if self._has_figures:
            self._count(one)
            self._figures.end(one.transcript.session)
        elif self._in_json:
            self._lines -= len(one.lines)
            say(json.dumps(session_as_json(one.transcript, one.lines, is_cut=one.is_cut), ensure_ascii=True))
        elif self._is_live:
            self._say_live(one, [])
            say(f"#{one.transcript.session.number} {summary(one.transcript.session)}")
        else:
            self._say(one, is_end=True)

    def _say(self, one: _Open, *, is_end: bool) -> None:
        """A session, or as much of it as there is room for."""
        session = one.transcript.session
        say(heading(session) + (" (it goes on)" if one.is_begun else ""))
        if one.is_cut:
            say("            *  lines before these were left out")
        say("\n".join([line_of(session, line) for line in one.lines]))
        self._lines -= len(one.lines)
        one.lines, one.is_begun, one.is_cut = [], True, False
        say(f"            *  {summary(one.transcript.session)}" if is_end else "            *  (goes on below)", "")

    def _say_live(self, one: _Open, lines: list[TranscriptLine]) -> None:
        session = one.transcript.session
        if not one.is_begun:
            one.is_begun = True
            say(f"#{session.number} {heading(session)}")
        for line in lines:
            say(f"#{session.number} {line_of(session, line)}")


class _Open:
    """A session that is being read, and the file of the message that comes."""

    def __init__(self, session: Session, has_secrets: bool, folder: str) -> None:
        self.transcript: Transcript = Transcript(session, has_secrets=has_secrets)
        # Takes an event, returns its lines.
        self.transcribe: Callable[[Event], list[TranscriptLine]] = self._save if folder else self.transcript.add
        self.lines: list[TranscriptLine] = []
        self.events: list[Event] = []
        self.left_out = 0  # events before these
        self.is_begun = False
        self.is_cut = False
        self._folder = folder
        self._path = ""
        self._saved: list[str] = []

    def hear(self, event: Event) -> list[Event]:
        """Take an event of which no line is wanted."""
        self.transcribe(event)
        return [] if isinstance(event, ContentStretch) else [event]

    def _save(self, event: Event) -> list[TranscriptLine]:
        """Take an event, and write the messages into files."""
        if isinstance(event, ContentStretch | ContentEnd):  # an empty message has no stretch and yet a file
            self._write(b"" if isinstance(event, ContentEnd) else event.octets)
        lines = self.transcript.add(event)
        if isinstance(event, ContentEnd):
            self.close(is_whole=event.is_whole)
            if not self.transcript.left_out:
                self.transcript.messages[-1].saved = self._saved[-1]
            lines[-1] = lines[-1]._replace(text=f"{lines[-1].text} in {self._saved[-1]}")
        return lines

    def _write(self, octets: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        name = f"{self.transcript.session.number}-{self.transcript.coming.number}.eml"
        try:
            if not self._path:
                self._path = os.path.join(self._folder, name + ".part")
                os.close(os.open(self._path, flags, 0o600))
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                left = memoryview(octets)
                while left:
                    left = left[file.write(left) or 0 :]
        except OSError as error:
            raise Unable(f"{self._path}: {error.strerror}", EX_IOERR) from error

    def close(self, *, is_whole: bool = False) -> None:
        """The message that comes is over: give its file its name.  What is not whole keeps ``.part``."""
        if not self._path:
            return
        path, self._path = self._path, ""
        if is_whole:
            named = path.removesuffix(".part")
            try:
                os.link(path, named)  # unlike a rename it puts nothing in another's place
                os.unlink(path)
            except OSError as error:
                raise Unable(f"{named}: {error.strerror}", EX_IOERR) from error
            path = named
        self._saved.append(path)

    def forget(self) -> None:
        """It is not a session that was asked for: its files go."""
        for path in self._saved:
            os.unlink(path)


def _folder(path: str) -> str:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unable(f"{path}: {error.strerror}", EX_IOERR) from error
    return path
