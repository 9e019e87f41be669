"""What `mailserver decode` makes of captures that have no end: how much memory it takes, and whether it tells what it left out.

    python -m tests.proofs.captures [--only NAME] [--part N]        N: so many parts of a hundred (100)

Each capture is written to a pipe, so that none of it needs a disk.  A line for each; the exit status is 0 where memory stayed
below its bound and what had to be said was said.
"""

from __future__ import annotations

import argparse
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

from mailserver.capture import build
from mailserver.capture.packets import BuiltConnection, file_header, packet_block

SERVER = ip_address("192.0.2.25")
BEGAN = 1_796_000_000_000_000_000
SEGMENT = 1448
ENVELOPE = build.mail("ann@example.org") + build.rcpt("bob@example.net") + build.data()
GREETING = (False, b"220 mx.example ESMTP\r\n")
HELLO = (True, build.ehlo("client.example"))
MEGABYTE = 1 << 20
Said = tuple[bool, bytes]


def connection(number: int = 0) -> BuiltConnection:
    return BuiltConnection(ip_address((10 << 24) + number), 1024 + number % 60000, SERVER, 25, start=number * 7919)


def packets(one: BuiltConnection, said: Iterator[Said], *, is_closed: bool) -> Iterator[bytes]:
    """A connection whose ends say this, a microsecond after each other."""
    at = BEGAN
    yield b"".join(map(packet_block, one.opened(at)))
    for is_client, octets in said:
        at += 1000
        yield b"".join([packet_block(frame) for start in range(0, len(octets), SEGMENT) for frame in one.said(at, is_client, octets[start : start + SEGMENT])])  # fmt: skip
    if is_closed:
        yield b"".join(map(packet_block, one.closed(at)))


def many_connections(part: int) -> Iterator[bytes]:
    """100,000 connections, none of which ends."""
    for number in range(1000 * part):
        yield from packets(connection(number), iter([GREETING, HELLO, (False, b"250 mx.example\r\n")]), is_closed=False)


def endless_line(part: int) -> Iterator[bytes]:
    """200 MB of the client without a line end."""
    said = [GREETING, *[(True, b"x" * 64 * SEGMENT)] * (part * 2 * MEGABYTE // (64 * SEGMENT))]
    yield from packets(connection(), iter(said), is_closed=True)


def endless_reply(part: int) -> Iterator[bytes]:
    """200 MB of a reply whose lines all go on."""
    said = [GREETING, HELLO, *[(False, b"250-and more\r\n" * 4000)] * (part * 2 * MEGABYTE // 56_000)]
    yield from packets(connection(), iter(said), is_closed=True)


def endless_reply_line(part: int) -> Iterator[bytes]:
    """200 MB of a reply without a line end."""
    said = [GREETING, HELLO, (False, b"250 "), *[(False, b"x" * 64 * SEGMENT)] * (part * 2 * MEGABYTE // (64 * SEGMENT))]
    yield from packets(connection(), iter(said), is_closed=True)


def messages(part: int) -> Iterator[Said]:
    """500,000 messages in one session."""
    yield from (GREETING, HELLO, (False, build.ehlo_reply("mx.example", "PIPELINING")))
    for number in range(5000 * part):
        yield True, ENVELOPE
        yield False, b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go on\r\n"
        yield True, b"Subject: %d\r\n\r\n.\r\n" % number
        yield False, b"250 2.0.0 Ok\r\n"
    yield True, build.quit()
    yield False, b"221 2.0.0 Bye\r\n"


def many_messages(part: int) -> Iterator[bytes]:
    """500,000 messages in one session."""
    yield from packets(connection(), messages(part), is_closed=True)


class Case(NamedTuple):
    """Where `told` is in what it says, and it takes no more than `most` MB, all is well."""

    capture: str
    options: tuple[str, ...]
    most: int
    told: str


CAPTURES = {one.__name__: one for one in (many_connections, endless_line, endless_reply, endless_reply_line, many_messages)}
CASES = (
    Case("many_connections", ("--stats",), 200, "80,000 connections were given up"),
    Case("many_connections", (), 200, "80,000 connections were given up"),
    Case("endless_line", (), 200, "closed after"),
    Case("endless_line", ("--json",), 200, '"client_octets": 209'),
    Case("endless_reply", (), 100, "closed after"),
    Case("endless_reply", ("--stats",), 100, "1 closed"),
    Case("endless_reply_line", (), 100, "closed after"),
    Case("many_messages", (), 100, "closed after"),
    Case("many_messages", ("--json",), 100, '"messages_left_out": 498000'),
    Case("many_messages", ("--stats",), 100, "500,000 messages"),
)


def run(case: Case, part: int) -> bool:
    """Whether it went as it should."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        # `/dev/stdin` is read as a file is; "-" would be shown as it comes.
        command = [sys.executable, "-m", "mailserver.cli", "decode", "/dev/stdin", *case.options]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT)
        assert process.stdin is not None
        process.stdin.write(file_header())
        for octets in CAPTURES[case.capture](part):
            process.stdin.write(octets)
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        size = out.seek(0, os.SEEK_END)
        with mmap.mmap(out.fileno(), 0, access=mmap.ACCESS_READ) as said:
            is_told = said.find(case.told.encode()) >= 0
    memory = usage.ru_maxrss / 1024
    is_well = process.returncode == 0 and memory <= case.most and (is_told or part != 100)
    print(f"{case.capture:20} {' '.join(case.options):8} {memory:5.0f} MB  {usage.ru_utime + usage.ru_stime:6.1f} s  said {size:>13,} octets"
        f"  {case.told if is_told else 'NOT SAID: ' + case.told}{'' if is_well else '  WRONG'}  ({time.monotonic() - began:.0f} s)", flush=True)  # fmt: skip
    return is_well


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", choices=["", *CAPTURES])
    parser.add_argument("--part", type=int, default=100)
    given = parser.parse_args()
    went = [run(case, given.part) for case in CASES if given.only in ("", case.capture)]
    sys.exit(0 if all(went) else 1)
