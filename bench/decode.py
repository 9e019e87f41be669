"""How fast `mailserver decode` reads captures, beside tshark; and how much memory a large capture takes.

    python -m bench.decode                       three captures, made here; tshark has to be installed
    python -m bench.decode --memory GB           one capture of so many gigabytes with 10,000 sessions, written to a pipe

Processor time is compared: each reads the same file to its end, several times by turns; the median counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from mailserver.capture import build
from mailserver.capture.packets import BuiltConnection, file_header, packet_block

ROUNDS = 3
SEGMENT = 1448  # octets of payload on an Ethernet
LINE = b"A line of a message that is as long as lines of text are.\r\n"
CAPTURES = (
    ("5,000 messages of 4 KB", 5000, 4000),
    ("500 messages of 100 KB", 500, 100_000),
    ("20 messages of 5 MB", 20, 5_000_000),
)
SERVER = ip_address("192.0.2.25")


def session(number: int, size: int) -> Iterator[bytes]:
    """The packets of one session with one message of this size."""
    client = ip_address((10 << 24) + number)
    connection = BuiltConnection(client, 1024 + number % 60000, SERVER, 25, start=number * 7919)
    at = 1_796_000_000_000_000_000 + number * 1_000_000
    said = [
        (False, b"220 mx.example ESMTP\r\n"),
        (True, build.ehlo("client.example")),
        (False, build.ehlo_reply("mx.example", "PIPELINING", "SIZE 52428800")),
        (True, build.mail("ann@example.org") + build.rcpt("bob@example.net") + build.data()),
        (False, b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go on\r\n"),
        (True, build.content(b"Subject: a letter\r\n\r\n" + LINE * (size // len(LINE)))),
        (False, b"250 2.0.0 Ok\r\n"),
        (True, build.quit()),
        (False, b"221 2.0.0 Bye\r\n"),
    ]
    frames = connection.opened(at)
    for is_client, octets in said:
        for start in range(0, len(octets), SEGMENT):
            at += 10_000
            frames += connection.said(at, is_client, octets[start : start + SEGMENT])
    for frame in [*frames, *connection.closed(at)]:
        yield packet_block(frame)


def capture(sessions: int, size: int) -> Iterator[bytes]:
    yield file_header()
    for number in range(sessions):
        yield b"".join(session(number, size))


def seconds(command: list[str]) -> float:
    """The processor time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def beside_tshark() -> None:
    ours = [sys.executable, "-m", "mailserver.cli", "decode"]
    fields = ("tcp.stream", "frame.time_epoch", "smtp.command_line", "smtp.response")
    theirs = ["tshark", "-n", "-Y", "smtp", "-T", "fields", *[word for one in fields for word in ("-e", one)], "-r"]
    print(f"{'capture':34} {'decode':>12} {'decode --stats':>15} {'tshark':>12} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for name, count, size in CAPTURES:
            path = Path(folder) / "capture.pcapng"
            with path.open("wb") as file:
                for octets in capture(count, size):
                    file.write(octets)
            took: list[list[float]] = [[], [], []]
            for _ in range(ROUNDS):
                commands = [*ours, str(path)], [*ours, "--stats", str(path)], [*theirs, str(path)]
                for times, command in zip(took, commands, strict=True):
                    times.append(seconds(command))
            megabytes = path.stat().st_size / 1e6
            speeds = [megabytes / statistics.median(times) for times in took]
            ratios = sorted(tshark / decode for decode, tshark in zip(took[0], took[2], strict=True))
            said = " ".join(f"{speed:7.1f} MB/s" for speed in speeds)
            print(f"{name:34} {said}   {ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


def memory(gigabytes: float) -> None:
    size = int(gigabytes * 1e9 / 10_000)
    process = subprocess.Popen([sys.executable, "-m", "mailserver.cli", "decode", "--stats", "-"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    for octets in capture(10_000, size):
        process.stdin.write(octets)
    process.stdin.close()
    _, _, usage = os.wait4(process.pid, 0)
    print(f"at most {usage.ru_maxrss / 1024:.0f} MB of memory, {usage.ru_utime + usage.ru_stime:.1f} s of processor time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", type=float, default=0.0)
    given = parser.parse_args()
    if given.memory:
        memory(given.memory)
    else:
        beside_tshark()
