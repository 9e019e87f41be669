"""``mailserver decode``: the sessions of SMTP and LMTP in a capture file."""

from __future__ import annotations

import argparse
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import IO, TYPE_CHECKING, Any

from mailserver.cli.output import EX_IOERR, Unable, size

if TYPE_CHECKING:
    from mailserver.capture.sessions import Sessions
    from mailserver.cli.shown_sessions import ShownSessions

__all__ = ["add_to"]

LIVE = "-"  # standard input
LINKS = 10  # that are named
READ_OCTETS = 1 << 20
PROGRESS_SECONDS = 1.0
GZIP = b"\x1f\x8b"


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    decode = commands.add_parser("decode", parents=[common], help=summary, description=summary.capitalize() + ".")
    decode.add_argument("files", metavar="FILE", nargs="+",
        help="pcap or pcapng, also gzipped; several that follow each other; - for standard input, shown as it comes")  # fmt: skip
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
    from mailserver.capture.sessions import Sessions
    from mailserver.cli.shown_sessions import ShownSessions

    files = list(dict.fromkeys(options.files))
    if LIVE in files and len(files) > 1:
        raise Unable(f"{LIVE} is read alone", 2)
    sessions = Sessions(wants=_wants(options))
    shown = ShownSessions(
        is_live=files == [LIVE],
        in_json=options.json,
        has_figures=options.stats,
        address=options.address,
        since=options.since,
        until=options.until,
        save=options.save,
        has_secrets=options.secrets,
    )
    faults = []
    for path in _in_order(files):
        if fault := _read_all(path, sessions, shown):
            faults.append(f"{path}: {fault}")
    for session, event in sessions.finish():
        shown.add(session, event)
    shown.finish(sessions.frames, sessions.segments, sessions.other)
    _tell(sessions)
    if faults:
        sys.stdout.flush()
        raise Unable("; ".join(faults), EX_IOERR)
    return 0


def _read_all(path: str, sessions: Sessions, shown: ShownSessions) -> str:
    """Take a file up to its end; what is wrong with it, "" for nothing."""
    from mailserver.capture.files import CaptureFault, CaptureReader

    reader, is_live = CaptureReader(), path == LIVE
    try:
        with _opened(path) as file:
            for octets in _read(file, is_live=is_live):
                for frame in reader.feed(octets):
                    for session, event in sessions.feed(frame):
                        shown.add(session, event)
                if is_live:
                    sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (CaptureFault, OSError, EOFError, zlib.error) as error:
        return str(error)
    except KeyboardInterrupt:
        if not is_live:
            raise
    if reader.is_cut and not is_live:
        print(f"mailserver: {path} ends within a packet", file=sys.stderr)
    return ""


def _in_order(files: list[str]) -> list[str]:
    """By their first frames: those of a ring (`tcpdump -W`, `dumpcap -b`) are named in another order.

    A pipe can be read only once: with one among them they are read as they are named.
    """
    return sorted(files, key=_began) if len(files) > 1 and all(map(os.path.isfile, files)) else files


def _began(path: str) -> int:
    """The time of the first frame of a file, 0 where it has none."""
    from mailserver.capture.files import CaptureFault, CaptureReader

    reader = CaptureReader()
    try:
        with _opened(path) as file:
            return next((frame.time for octets in _read(file, is_live=True) for frame in reader.feed(octets)), 0)
    except (CaptureFault, OSError, EOFError, zlib.error):
        return 0  # it is told when it is read


def _tell(sessions: Sessions) -> None:
    """What was not read of a capture."""
    from mailserver.capture.links import link_name

    for link, count in sorted(sessions.unread.items(), key=lambda one: -one[1])[:LINKS]:
        print(f"mailserver: {count:,} frames were not read: {link_name(link)} is a link that is not supported", file=sys.stderr)
    if sessions.given_up:
        print(f"mailserver: {sessions.given_up:,} connections were given up: too many were open at once", file=sys.stderr)


# --- in ---


def _opened(path: str) -> IO[bytes]:
    if path == LIVE:
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
        while len(octets) < len(GZIP) and not done and (more := file.read(READ_OCTETS)):
            octets += more
        if not done and octets.startswith(GZIP):
            unpacker = _Unpacker()
        done += len(octets)
        if unpacker is None:
            yield octets
        else:
            yield from unpacker.feed(octets)
        if tells and time.monotonic() >= next_at:
            print(f"\r{100 * done // whole:3} % of {size(whole)} ", end="", file=sys.stderr, flush=True)
            next_at = time.monotonic() + PROGRESS_SECONDS
    if tells and done:
        print("\r" + " " * 20 + "\r", end="", file=sys.stderr, flush=True)
    if unpacker is not None and not unpacker.is_whole:
        raise EOFError("the gzipped octets end too early")


class _Unpacker:
    """Gzipped octets in, unpacked ones out, a little at a time: a megabyte can unpack to a thousand.

    A file may have several members, one behind the other (RFC 1952 section 2.2); `is_whole`: the last one has ended.
    """

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)

    @property
    def is_whole(self) -> bool:
        return self._member.eof

    def feed(self, octets: bytes) -> Iterator[bytes]:
        while octets:
            if self._member.eof:
                octets = octets.lstrip(b"\0")
                if not octets:
                    return
                self._member = zlib.decompressobj(31)
            yield self._member.decompress(octets, READ_OCTETS)
            octets = self._member.unused_data or self._member.unconsumed_tail


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
