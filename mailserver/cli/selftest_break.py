"""``mailserver selftest --break``: a sandbox in which something is broken, and what is said then.  No other server is touched.

A server of its own runs in a folder of its own, on loopback, for as long as this takes.  One message is brought to its port 25
for its user, one is handed over for another domain.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.control.client import CommandRefused, ControlError

__all__ = ["BROKEN", "broken_configuration", "show_break"]

START_SECONDS, END_SECONDS = 60.0, 20.0
PAUSE_SECONDS = 0.1
RELAY = 'use      = "capture"'
OUTSIDE, STRANGER = "bob@example.net", "you@example.net"
REFUSAL = 400
MESSAGE = b"Subject: selftest\r\n\r\nWhat is said when something is broken?\r\n"
TOLD = re.compile(r" - (?:warn|error|critical) | (?:deferred|refused|failed|rejected) ")  # lines of the log
TOO_MUCH = 1 << 50  # octets: hardly a disk has so much room, and no larger reserve can be configured
# What postmaster hears of it, which takes longer than this looks on (the notes of docs/operating.md).
NOTES = {
    "dns": "none: the senders are told, after the times of [queue] warn and expire",
    "disk": "one on the disk, within a minute; it is written when there is room again",
    "smarthost": "none: the senders are told, after the times of [queue] warn and expire",
}
SECTIONS = ("at_smtp", "queue", "log", "status", "notes")
BROKEN = {
    "dns": "no name server answers",
    "disk": "the disk has no room beside limits.minimum_free_bytes",
    "smarthost": "nobody listens where the smarthost should be",
}


def show_break(options: Any) -> int:
    """Break it, and print what is said at SMTP, of the queue, in the log, by `status` and in notes.  Return 0."""
    said = _broken(options.broken, time.monotonic() + options.seconds) | {"notes": [NOTES[options.broken]]}
    if options.json:
        as_json({"break": options.broken, "means": BROKEN[options.broken], **said})
        return 0
    say(f"In a sandbox of its own: {BROKEN[options.broken]}.")
    for section in SECTIONS:
        say("", f"{section.replace('_', ' ')}:", *[f"  {plain(line)}" for line in said[section] or ["nothing"]])
    return 0


def broken_configuration(text: str, kind: str, port: int) -> str:
    """The sandbox's configuration with a fault; `port` is one at which nobody listens."""
    if kind == "smarthost":
        return text.replace(RELAY, f'use = "smarthost"\nhost = "127.0.0.1"\nport = {port}\ntls = "none"', 1)
    if kind == "dns":
        return text.replace(RELAY, 'use = "mx"', 1) + f'\n[dns]\nservers = ["127.0.0.1:{port}"]\n'
    return text + f"\n[limits]\nminimum_free_bytes = {TOO_MUCH}\n"


def _broken(kind: str, until: float) -> dict[str, list[str]]:
    from mailserver.assembly.sandbox import SANDBOX_USER, prepare

    folder = tempfile.mkdtemp(prefix="selftest-")
    try:
        path = prepare(folder)
        with socket.socket() as nobody:  # bound, so that nobody else takes the port; not listening
            nobody.bind(("127.0.0.1", 0))
            with open(path, encoding="utf-8") as file:
                text = broken_configuration(file.read(), kind, nobody.getsockname()[1])
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            with _running(folder) as log:
                return _seen(folder, log, SANDBOX_USER, until)
    except OSError as error:
        raise Unable(f"the sandbox cannot be made: {error}", EX_IOERR) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(folder: str) -> Iterator[Callable[[], str]]:
    """The server; gives what it has said so far."""
    path = os.path.join(folder, "said")
    program = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    with open(path, "wb") as said:
        process = subprocess.Popen(
            [*program, "-n", "--pidfile=", "mailserver", "--sandbox", folder],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def log() -> str:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    try:
        end = time.monotonic() + START_SECONDS
        while "Stop the server with" not in log():
            if process.poll() is not None or time.monotonic() > end:
                raise Unable(f"the sandbox does not start: {(log().strip().splitlines() or ['it says nothing'])[-1]}")
            time.sleep(PAUSE_SECONDS)
        yield log
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _seen(folder: str, log: Callable[[], str], user: str, until: float) -> dict[str, list[str]]:
    data, before = os.path.join(folder, "data"), len(log())
    listeners = ask_server(data, "status", {})["listeners"]
    port = next(int(one["endpoint"].split(":")[1]) for one in listeners if one["service"] == "mx")
    at_smtp = _brought(port, user, until)
    _handed_over(folder, user)
    queue: list[str] = []
    while not queue and time.monotonic() < until:
        time.sleep(PAUSE_SECONDS)
        with contextlib.suppress(ControlError, CommandRefused):
            found = ask_server(data, "queue.select", {"selection": {"recipient": OUTSIDE}, "after": 0})["entries"]
            queue = [line for entry in found for line in _state(data, entry["id"])]
        if "has to wait" in log()[before:]:
            break
    status = ask_server(data, "status", {})
    figures = [
        f"{part}.{name} = {value}" for part in ("queue", "dns", "relay") for name, value in status.get(part, {}).items() if value
    ]
    lines = [line for line in log()[before:].splitlines() if TOLD.search(line) is not None]
    return {"at_smtp": at_smtp, "queue": queue, "log": lines, "status": figures}


def _brought(port: int, user: str, until: float) -> list[str]:
    """The replies to a message for the user."""
    said = []
    try:
        with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=max(1.0, until - time.monotonic())) as client:
            client.ehlo()
            for line in (f"MAIL FROM:<{STRANGER}> SIZE={len(MESSAGE)}", f"RCPT TO:<{user}>", "DATA"):
                code, reply = client.docmd(line)
                said.append(f"{line}: {code} {reply.decode('utf-8', 'replace')}")
                if code >= REFUSAL:
                    return said
            client.send(MESSAGE + b".\r\n")
            code, reply = client.getreply()
            said.append(f"content: {code} {reply.decode('utf-8', 'replace')}")
    except (OSError, smtplib.SMTPException) as error:
        said.append(str(error))
    return said


def _handed_over(folder: str, user: str) -> None:
    path, message = os.path.join(folder, "mailserver.toml"), MESSAGE.replace(b"\r\n", b"\n")
    command = [sys.executable, "-m", "mailserver.cli", "sendmail", "-C", path, "-f", user, OUTSIDE]
    try:
        subprocess.run(command, input=message, check=True, capture_output=True, timeout=END_SECONDS, cwd=folder)
    except subprocess.SubprocessError as error:
        raise Unable(f"the sandbox takes no message: {error}") from error


def _state(data: str, id: str) -> list[str]:
    """What has become of a message that waits, once it was tried."""
    steps = ask_server(data, "explain", {"id": id})["steps"]
    return [
        " ".join([f"{id} {one['step']}", *[str(one["fields"][key]) for key in ("reply", "note") if one["fields"].get(key)]])
        for one in steps if one["step"] not in ("handed_over", "accepted", "connected")
    ]  # fmt: skip
