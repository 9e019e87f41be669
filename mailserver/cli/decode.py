"""``mailserver decode``: the sessions of SMTP and LMTP in a capture file."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import IO, TYPE_CHECKING, Any

from mailserver.cli.decode_output import heading, line_of, say_figures, session_as_json, summary
from mailserver.cli.output import EX_IOERR, Unable, say, size

if TYPE_CHECKING:
    from mailserver.capture.events import Event
    from mailserver.capture.figures import Figures
    from mailserver.capture.sessions import Session
    from mailserver.capture.transcript import Transcript, TranscriptLine

__all__ = ["add_to"]

READ_OCTETS = 1 << 20
LINES = 2000  # of a session that wait for its end
ALL_LINES = 200_000  # of all sessions
PROGRESS_SECONDS = 1.0
GZIP = b"\x1f\x8b"
SECOND = 1_000_000_000


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    decode = commands.add_parser("decode", parents=[common], help=summary, description=summary.capitalize() + ".")
    decode.add_argument("file", metavar="FILE", help="pcap or pcapng, also gzipped; - for standard input, shown as it comes")
    decode.add_argument("--peer", metavar="ADDRESS", type=_network, default=None, help="with this host or network alone")
    decode.add_argument("--port", metavar="PORT", type=_port, default=None, help="with this port alone")
    decode.add_argument("--address", metavar="ADDRESS", default="",
        help="that name this sender or recipient; @DOMAIN: any of it")  # fmt: skip
    decode.add_argument("--since", metavar="TIME", type=_moment, default=None, help="2026-11-30T08:00, or how long ago: 2h")
    decode.add_argument("--until", metavar="TIME", type=_moment, default=None, help="begun before")
    decode.add_argument("--save", metavar="DIR", default="", help="write each message into a file in this folder")
    decode.add_argument("--stats", action="store_true", help="figures in place of dialogues")
    decode.add_argument("--secrets", action="store_true", help="show what AUTH says")
    decode.set_defaults(run=run_decode, needs_configuration=False)


def run_decode(options: argparse.Namespace) -> int:
    """Print the sessions.  Damage in the middle is told after what came before it."""
    from mailserver.capture.files import CaptureFault, CaptureReader
    from mailserver.capture.sessions import Sessions

    reader, sessions = CaptureReader(), Sessions(wants=_wants(options))
    shown = _Shown(options)
    fault = ""
    try:
        with _opened(options.file) as file:
            for octets in _read(file, is_live=options.file == "-"):
                for frame in reader.feed(octets):
                    for said in sessions.feed(frame):
                        shown.add(said.session, said.event)
                if options.file == "-":
                    sys.stdout.flush()
    except CaptureFault as error:
        fault = str(error)
    except (OSError, EOFError, zlib.error) as error:
        fault = str(error)
        if isinstance(error, BrokenPipeError):
            raise
    except KeyboardInterrupt:
        if options.file != "-":
            raise
    for said in sessions.finish():
        shown.add(said.session, said.event)
    shown.finish(sessions.frames, sessions.segments, sessions.other)
    if fault:
        sys.stdout.flush()
        raise Unable(f"{options.file}: {fault}", EX_IOERR)
    if reader.is_cut and options.file != "-":
        print(f"mailserver: {options.file} ends within a packet", file=sys.stderr)
    return 0


# --- in ---


def _opened(path: str) -> IO[bytes]:
    if path == "-":
        return os.fdopen(os.dup(0), "rb", buffering=0)
    try:
        return open(path, "rb", buffering=0)
    except (OSError, ValueError) as error:
        raise Unable(f"{path}: {getattr(error, 'strerror', None) or error}", EX_IOERR) from error


def _read(file: IO[bytes], *, is_live: bool) -> Iterator[bytes]:
    """The octets of a file, unpacked where they are gzipped; progress on a terminal."""
    whole, done, next_at = 0 if is_live else os.fstat(file.fileno()).st_size, 0, time.monotonic() + PROGRESS_SECONDS
    tells = whole > 0 and sys.stderr.isatty()
    unpacker = None
    while octets := file.read(READ_OCTETS):
        if not done and octets.startswith(GZIP):
            unpacker = zlib.decompressobj(31)
        done += len(octets)
        if unpacker is None:
            yield octets
        else:
            yield from _unpacked(unpacker, octets)
        if tells and time.monotonic() >= next_at:
            print(f"\r{100 * done // whole:3} % of {size(whole)} ", end="", file=sys.stderr, flush=True)
            next_at = time.monotonic() + PROGRESS_SECONDS
    if tells and done:
        print("\r" + " " * 20 + "\r", end="", file=sys.stderr, flush=True)
    if unpacker is not None and not unpacker.eof:
        raise EOFError("the gzipped octets end too early")


def _unpacked(unpacker: Any, octets: bytes) -> Iterator[bytes]:
    """A little at a time: a megabyte can unpack to a thousand."""
    while octets and not unpacker.eof:
        yield unpacker.decompress(octets, READ_OCTETS)
        octets = unpacker.unconsumed_tail


def _wants(options: argparse.Namespace) -> Callable[[bytes, int, bytes, int], bool] | None:
    """What chooses connections by their ends."""
    peer, port = options.peer, options.port
    if peer is None and port is None:
        return None
    octets = peer.network_address.packed if peer is not None else b""
    mask = int.from_bytes(peer.netmask.packed, "big") if peer is not None else 0
    wanted = int.from_bytes(octets, "big")

    def is_meant(source: bytes, source_port: int, destination: bytes, destination_port: int) -> bool:
        if port is not None and port not in (source_port, destination_port):
            return False
        if peer is None:
            return True
        ends = (source, destination)
        return any(len(one) == len(octets) and int.from_bytes(one, "big") & mask == wanted for one in ends)

    return is_meant


# --- out ---


class _Shown:
    """What becomes of sessions: dialogues, JSON or figures; messages in files."""

    def __init__(self, options: argparse.Namespace) -> None:
        from mailserver.capture.figures import Figures

        self._options = options
        self._figures: Figures = Figures()
        self._is_live = options.file == "-" and not (options.json or options.stats or options.address)
        self._open: dict[int, _Open] = {}
        self._lines = 0
        self._folder = _folder(options.save) if options.save else ""
        self.sessions = 0

    def add(self, session: Session, event: Event | None) -> None:
        """Take something that was said."""
        one = self._open.get(session.number)
        if one is None:
            if not self._is_in_time(session):
                return
            one = self._open[session.number] = _Open(session, self._options.secrets, self._folder)
        if event is None:
            self._end(one)
            return
        if self._options.stats:
            one.events += one.hear(event)
            if self._is_meant(one):
                for each in one.events:
                    self._figures.add(session, each)
                one.events = []
            return
        lines = one.transcribe(event)
        if self._is_live:
            self._say_live(one, lines)
        else:
            one.lines += lines
            self._lines += len(lines)
            if not self._options.json and (len(one.lines) > LINES or self._lines > ALL_LINES) and self._is_meant(one):
                self._say(one, is_end=False)
        if len(one.lines) > 2 * LINES:  # a session that is not meant as far as is known, or in JSON
            self._lines -= LINES
            del one.lines[:LINES]
            one.is_cut = True

    def finish(self, frames: int, segments: int, others: int) -> None:
        """The capture has ended."""
        if self._options.stats:
            say_figures(self._figures, self._options.json, frames, segments, others)
        elif not self.sessions and not self._options.json:
            print(f"mailserver: no session of SMTP in {frames:,} frames, {segments:,} of TCP", file=sys.stderr)

    def _is_in_time(self, session: Session) -> bool:
        since, until = self._options.since, self._options.until
        began = session.started / SECOND
        return (since is None or began >= since) and (until is None or began < until)

    def _is_meant(self, one: _Open) -> bool:
        wanted = self._options.address.lower()
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
            self._lines -= len(one.lines)
            one.forget()
            return
        self.sessions += 1
        if self._options.stats:
            for each in one.events:
                self._figures.add(one.transcript.session, each)
            self._figures.end(one.transcript.session)
        elif self._options.json:
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
        for line in one.lines:
            say(line_of(session, line))
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
        from mailserver.capture.transcript import Transcript

        self.transcript: Transcript = Transcript(session, has_secrets=has_secrets)
        self.lines: list[TranscriptLine] = []
        self.events: list[Event] = []
        self.is_begun = False
        self.is_cut = False
        self._folder = folder
        self._path = ""
        self._saved: list[str] = []

    def hear(self, event: Event) -> list[Event]:
        """Take an event of which no line is wanted."""
        from mailserver.capture.events import ContentStretch

        self.transcribe(event)
        return [] if isinstance(event, ContentStretch) else [event]

    def transcribe(self, event: Event) -> list[TranscriptLine]:
        """Take an event; return its lines."""
        from mailserver.capture.events import ContentEnd, ContentStretch

        if self._folder and isinstance(event, ContentStretch):
            self._write(event.octets)
        lines = self.transcript.add(event)
        if self._folder and isinstance(event, ContentEnd):
            self._write(b"")
            self.close(is_whole=event.is_whole)
            self.transcript.messages[-1].saved = self._saved[-1]
            lines[-1] = lines[-1]._replace(text=f"{lines[-1].text} in {self._saved[-1]}")
        return lines

    def _write(self, octets: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        name = f"{self.transcript.session.number}-{self.transcript.coming.number}.eml"
        try:
            if (not self._path and octets != b"") or not self._path:
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


# --- the command line ---


def _network(text: str) -> Any:
    try:
        return ip_network(text.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an address nor a network") from error


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _moment(text: str) -> float:
    from mailserver.cli.explain import moment_of

    return moment_of(text)
