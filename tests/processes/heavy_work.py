"""Functions that tests have called in another process."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import time
from typing import Any

from mailserver.mail.content import Content


def length(octets: bytes) -> int:
    return len(octets)


def process_number() -> int:
    return os.getpid()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


def raise_this(kind: str) -> None:
    raise {**vars(builtins), **globals()}[kind]("no \r\n good")


def for_ever() -> None:
    while True:
        time.sleep(60)


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def write_everywhere() -> str:
    print("noise " * 100_000)
    sys.stderr.write("noise")
    os.write(1, b"noise")
    sys.stdout.flush()
    return "written"


def as_it_is(value: Any) -> Any:
    return value


def an_object() -> object:
    return Content.of(b"")


def much(octets: int) -> bytes:
    return bytes(octets)


def octets_of(content: Content) -> bytes:
    return b"".join(content.chunks())


def kinds_of(content: Content) -> list[str]:
    return [part.kind for part in content.parts()]


def surroundings() -> tuple[list[str], int, int, str, int]:
    with open("/proc/self/status") as file:
        status = file.read()
    folder = "/proc/self/fd"
    found = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder) if os.path.lexists(f"{folder}/{name}")]
    return found, os.umask(0o077), status.count("NoNewPrivs:\t1"), os.getcwd(), os.getsid(0)


def child_that_waits() -> int:
    return subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL).pid


def fork_and_return() -> str:
    """Both return."""
    return "the child's" if os.fork() == 0 else "the parent's"


def fork_and_raise() -> str:
    if os.fork() == 0:
        raise ValueError("the child's")
    return "the parent's"
