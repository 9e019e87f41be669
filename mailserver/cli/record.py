"""``mailserver record``: what the server says to one peer, and hears from it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from ipaddress import ip_address
from typing import IO, TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server, data_directory
from mailserver.cli.output import EX_IOERR, Unable, plain
from mailserver.cli.queue_orders import who

if TYPE_CHECKING:
    from mailserver.capture.files import CapturedFrame
    from mailserver.capture.packets import BuiltConnection
    from mailserver.cli.shown_sessions import ShownSessions

__all__ = ["add_to"]

OCTETS = 100 << 20
FETCH_SECONDS = 60.0


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    record = commands.add_parser("record", parents=[common], help=summary, description=summary.capitalize() + ".")
    record.add_argument("--peer", metavar="ADDRESS", required=True, help="the peer: an address, or a network up to /24 or /64")
    record.add_argument("--for", dest="lasts", metavar="TIME", default="10m", help="how long: 90s, 10m (10m); up to a day")
    record.add_argument("--to", metavar="FILE", default="-", help="a new file of pcapng; - shows the dialogue (-)")
    record.add_argument("--most", metavar="OCTETS", type=int, default=OCTETS, help=f"end after so many ({OCTETS})")
    record.set_defaults(run=run_record)


def run_record(options: argparse.Namespace) -> int:
    """Record until the time is over or somebody interrupts."""
    from mailserver.config.quantities import seconds

    try:
        lasts = seconds(options.lasts)
    except ValueError as error:
        raise Unable(f"--for: {error}", 2) from error
    data = data_directory(options.config)
    asked = {"peer": options.peer, "seconds": lasts, "octets": options.most, "by": who()[:100]}
    with ExitStack() as closing:
        target: _File | _Dialogue = _Dialogue(options) if options.to == "-" else _File(closing, options.to)
        number = _start(data, asked, target)
        interruption = _Interruption()
        print(f"mailserver: recording {options.peer} for {options.lasts}; connections that are open already are not in it",
            file=sys.stderr, flush=True)  # fmt: skip
        ended, is_stopped = "", False
        try:
            while not ended:
                if interruption.is_asked and not is_stopped:
                    ask_server(data, "record.stop", {"recording": number})
                    is_stopped = True
                ended = _take(ask_server(data, "record.fetch", {"recording": number}, FETCH_SECONDS), target)
        finally:  # also where the server has gone
            target.finish()
    if not is_stopped:
        print(f"mailserver: the recording has ended: {plain(ended)}", file=sys.stderr)
    return 0


class _Interruption:
    """Ctrl-C or SIGTERM asks for the end.  Only the second breaks something off: what the server has handed over is lost then."""

    def __init__(self) -> None:
        self.is_asked = False
        for number in (signal.SIGINT, signal.SIGTERM):  # the first is ignored in the background jobs of a shell's script
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True


def _start(data: str, asked: dict[str, Any], target: _File | _Dialogue) -> int:
    try:
        return int(ask_server(data, "record.start", asked)["recording"])
    except BaseException:
        target.discard()
        raise


def _take(answer: Mapping[str, Any], target: _File | _Dialogue) -> str:
    """Why it has ended, "" while it goes on."""
    for one in answer["recorded"]:
        target.add(one)
    target.flush()
    return str(answer["ended"])


class _Connections:
    """Recorded things in, packets out."""

    def __init__(self) -> None:
        self._built: dict[int, BuiltConnection] = {}
        self._ends: dict[int, tuple[Any, int, Any, int]] = {}

    def frames(self, one: Mapping[str, Any]) -> Iterator[tuple[CapturedFrame, str]]:
        """The packets of what was recorded, each with a comment."""
        time, number, kind = one["time"], one["connection"], one["kind"]
        if kind == "opened":
            client, client_port, server, server_port = one["words"].split()
            self._ends[number] = (ip_address(client), int(client_port), ip_address(server), int(server_port))
            yield from self._open(number, time, "")
            return
        connection = self._built.get(number)
        if connection is None:  # its beginning was lost
            return
        if kind == "encrypted":  # a connection of its own, since readers take what follows STARTTLS for TLS
            yield from self._close(number, time)
            yield from self._open(number, time, f"inside {one['words']}")
        elif kind == "closed":
            yield from self._close(number, time)
        elif kind == "lost":
            side, octets = one["words"].split()
            connection.missed(side == "client", int(octets))
        elif kind in ("client", "server"):
            for frame in connection.said(time, kind == "client", b64decode(one["octets"])):
                yield frame, ""

    def _open(self, number: int, time: int, comment: str) -> Iterator[tuple[CapturedFrame, str]]:
        from mailserver.capture.packets import BuiltConnection

        connection = self._built[number] = BuiltConnection(*self._ends[number], start=time // 1000)
        for frame in connection.opened(time):
            yield frame, comment

    def _close(self, number: int, time: int) -> Iterator[tuple[CapturedFrame, str]]:
        for frame in self._built.pop(number).closed(time):
            yield frame, ""


class _File:
    """A file of pcapng."""

    def __init__(self, closing: ExitStack, path: str) -> None:
        from mailserver.capture.packets import file_header

        self._path = path
        self._connections = _Connections()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Unable(f"{path}: {error.strerror}", EX_IOERR) from error
        self._file: IO[bytes] = closing.enter_context(os.fdopen(descriptor, "wb"))
        self._write(file_header())

    def add(self, one: Mapping[str, Any]) -> None:
        from mailserver.capture.packets import packet_block

        if one["kind"] == "lost":
            _tell_lost(one["words"])
        for frame, comment in self._connections.frames(one):
            self._write(packet_block(frame, comment))

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise Unable(f"{self._path}: {error.strerror}", EX_IOERR) from error

    def finish(self) -> None:
        self.flush()

    def discard(self) -> None:
        """Nothing is recorded: the file that was made for it goes."""
        os.unlink(self._path)

    def _write(self, octets: bytes) -> None:
        try:
            self._file.write(octets)
        except OSError as error:
            raise Unable(f"{self._path}: {error.strerror}", EX_IOERR) from error


class _Dialogue:
    """The terminal."""

    def __init__(self, options: argparse.Namespace) -> None:
        from mailserver.capture.sessions import Sessions
        from mailserver.cli.shown_sessions import ShownSessions

        self._connections = _Connections()
        self._sessions = Sessions(takes_all=True)
        self._shown: ShownSessions = ShownSessions(is_live=True, in_json=options.json)

    def add(self, one: Mapping[str, Any]) -> None:
        if one["kind"] == "lost":
            _tell_lost(one["words"])
        for frame, _ in self._connections.frames(one):
            for said in self._sessions.feed(frame):
                self._shown.add(said.session, said.event)

    def flush(self) -> None:
        sys.stdout.flush()

    def discard(self) -> None:
        pass

    def finish(self) -> None:
        for said in self._sessions.finish():
            self._shown.add(said.session, said.event)
        self.flush()


def _tell_lost(words: str) -> None:
    who, count = words.split()
    what = f"{count} connections" if who == "connections" else f"{count} octets of the {who}"
    print(f"mailserver: {what} came too fast and are not in the recording", file=sys.stderr, flush=True)
