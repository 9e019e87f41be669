"""The whole server in a process of its own, on free loopback ports, with the configuration that the test writes.

A test says what it wants on one screen: a TOML text with placeholders, what a client sends, what stands in the Maildirs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.trial.unittest import FailTest, SynchronousTestCase

from mailserver.control.server import ask
from tests.ports import free_port
from tests.scenarios.nursery import Nursed, nursed

__all__ = ["BASIC", "ID", "RUN", "Answer", "ScenarioCase", "Server", "Stored", "Wire", "run_nursed", "wait_until"]

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 40.0
RUN = "from twisted.scripts.twistd import run; run()"  # twistd, by an interpreter that may have no script of this name
PLACEHOLDER = re.compile(r"\{(work|data|[a-z]*port)\}")
ID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{16}\b")

BASIC = """
hostname = "mx.example.org"
data = "{work}/data"

[[listen]]
service = "mx"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "none"

[accounts]
use = "file"
path = "{work}/accounts.toml"

[delivery]
use = "maildir"
path = "{work}/mail/{user}"

[domain."example.org"]
"""


def wait_until(condition: Callable[[], Any], what: Callable[[], str], seconds: float = 15.0) -> Any:
    """Return the condition's first true value; fail with the words of `what` when it has none within `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise FailTest(f"after {seconds:g} s: {what()[-8000:]}")
        time.sleep(0.01)
    return value


# A component's failure is a warning with its traceback, in lines that go on; a fault of the server's is not told there.
FAILURE_OF_A_PLUGIN = re.compile(r"^\S+ - warn \[mailserver\.plugins\.failure_log\] .*\n(?:    .*\n)*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of a Maildir."""

    path: Path
    data: bytes

    @property
    def body(self) -> bytes:
        """What follows the header section, with CRLF line ends whatever the file has."""
        return as_wire(self.data).partition(b"\r\n\r\n")[2]

    def header(self, name: str) -> str | None:
        """The first field of this name, unfolded."""
        head = as_wire(self.data).partition(b"\r\n\r\n")[0] + b"\r\n"
        match = re.search(rb"(?im)^" + re.escape(name.encode()) + rb":[ \t]*((?:.*\r\n)(?:[ \t].*\r\n)*)", head)
        return None if match is None else re.sub(rb"\r\n[ \t]+", b" ", match[1]).strip().decode()


def as_wire(data: bytes) -> bytes:
    return re.sub(rb"(?<!\r)\n", b"\r\n", data)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply as a client reads it."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def enhanced(self) -> str:
        match = re.match(r"[245]\.\d{1,3}\.\d{1,3}(?= )", self.lines[0])
        return match[0] if match else ""

    @property
    def id(self) -> str:
        """The message id that the reply names, "" where it names none."""
        match = ID.search(self.text)
        return match[0] if match else ""


class Wire:
    """A client that sends what it is told and understands nothing but replies."""

    def __init__(self, port: int, *, greet: bool = True, timeout: float = 15.0, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect(("127.0.0.1", port))
            self._buffer = b""
            self.greeting = self.reply() if greet else Answer(0, ())
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Go with a RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> Answer:
        """The next reply.  Raises EOFError at the end of the connection."""
        lines: list[str] = []
        while True:
            line = self._line()
            if re.match(rb"[2-5][0-9][0-9][ -]", line) is None:
                raise FailTest(f"not a reply: {line!r}")
            lines.append(line[4:-2].decode())
            if line[3:4] == b" ":
                return Answer(int(line[:3]), tuple(lines))

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            piece = self.socket.recv(65536)
            if not piece:
                raise EOFError(f"the server has closed; left over: {self._buffer!r}")
            self._buffer += piece
        line, self._buffer = self._buffer[: end + 2], self._buffer[end + 2 :]
        return line

    def command(self, line: str | bytes) -> Answer:
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.reply()

    def dialogue(self, *lines: str | bytes) -> list[int]:
        """Say each line in turn; the codes that came."""
        return [self.command(line).code for line in lines]

    def is_closed(self) -> bool:
        """The server has ended the connection and said nothing more."""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionError:
            return True


class Server:
    """A server process.  `port` is that of the placeholder ``{port}``; others stand in `ports`.

    Where TLS is spoken from the first octet on, a port's name begins with "tls"; behind a proxy, with "proxied"; of HTTP, with "web".
    """

    def __init__(self, work: Path, config: str, accounts: tuple[str, ...]) -> None:
        self.work = work
        self.ports: dict[str, int] = {}
        self.config_path = work / "mailserver.toml"
        self.log_path = work / "log"
        self.mail = work / "mail"
        self.twistd = [*twistd(), "-n"]  # with its own options
        self.python_path = [str(work / "site")]
        self.start_seconds = START_SECONDS
        self.is_forked = True  # from a process that has imported all; else an interpreter begins anew
        self.changed: dict[str, Any] = {}  # see `nursed`
        self.process: subprocess.Popen[bytes] | Nursed | None = None
        (work / "accounts.toml").write_text("".join(f'[account."{address}"]\n' for address in accounts))
        self.configure(config)

    # --- its life ---

    def configure(self, config: str) -> None:
        """Write the configuration file; a running server does not know yet."""
        self.config_path.write_text(PLACEHOLDER.sub(self._value, config))

    def _value(self, placeholder: re.Match[str]) -> str:
        name = placeholder[1]
        if name in ("work", "data"):
            return str(self.work if name == "work" else self.work / "data")
        return str(self.ports.setdefault(name, free_port()))

    @property
    def port(self) -> int:
        return self.ports["port"]

    def start(self) -> None:
        self.launch()
        self.wait_until_it_greets()

    def launch(self) -> None:
        command = [*self.twistd, "--pidfile", str(self.work / "pid"), "mailserver", "--config", str(self.config_path)]
        with self.log_path.open("ab") as log:
            if nursery := self.nursery():
                python, words = nursery
                arguments = [*words, *command[len(self.twistd) :]]
                self.process = nursed(
                    arguments, cwd=str(ROOT), env=self._environment(), output=log.fileno(), errors=log.fileno(), python=python, changed=self.changed,
                )  # fmt: skip
                return
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def nursery(self) -> tuple[str, list[str]] | None:
        """The interpreter whose nursery has the server, and the script with its options; None where it is started as it is."""
        if self.is_forked and self.twistd[:1] == twistd():  # not where there is no script
            return sys.executable, self.twistd
        python, *options = self.twistd
        options = options[options[:1] == ["-P"] :]
        if self.is_forked and options[:2] == ["-c", RUN]:
            return python, [str(Path(python).parent / "twistd"), *options[2:]]
        if self.changed:
            raise FailTest("what is started as it is has no values changed")
        return None

    def wait_until_it_greets(self) -> None:
        for name, port in self.ports.items():
            if name.startswith(("proxied", "web")):  # they open with the others, and greet nobody whom no proxy brings, or who speaks HTTP
                continue
            wait_until(
                lambda port=port, name=name: self._greets(port, in_tls=name.startswith("tls")),
                lambda port=port: f"no greeting on port {port}:\n{self.log()}",
                self.start_seconds,
            )

    def install_plugin(self, name: str, source: str) -> None:
        """Lay a plugin module where a third party's would lie; before `start`."""
        folder = self.work / "site" / "twisted" / "plugins"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text(source)

    def _environment(self) -> dict[str, str]:
        path = [*self.python_path, *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}

    def _greets(self, port: int, in_tls: bool) -> bool:
        if self.process is None or self.process.poll() is not None:
            self.process = None
            raise FailTest(f"the server has not started:\n{self.log()}")
        try:
            with Wire(port, greet=not in_tls) as wire:
                wire.send(b"QUIT\r\n")
                return in_tls or wire.greeting.code == 220
        except OSError:
            return False

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status, 0 where all was brought to its end."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end of a server that was told to stop; its exit status.

        twistd itself, once all has stopped, ends by the signal that it was sent.
        """
        status = self._wait()
        return 0 if status == -signal.SIGTERM and "Server Shut Down" in self.log() else status

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self.signal(signal.SIGKILL)
        self._wait()

    def restart(self) -> None:
        """Start again after `stop` or `kill`, with the same files and ports."""
        with contextlib.suppress(FileNotFoundError):
            (self.work / "pid").unlink()
        self.start()

    def _wait(self) -> int:
        process = self.process
        if process is None:
            return 0
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise FailTest(f"the server does not end:\n{self.log()}") from None
        finally:
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    # --- what can be seen of it ---

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def resident_kib(self) -> int:
        """VmRSS of the process and its children."""
        if self.process is None:
            raise FailTest("the server is not running")
        return sum(_resident_kib(pid) for pid in family(self.process.pid))

    def command(self, *arguments: str, timeout: float = 30.0, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """``mailserver … --config`` of this server."""
        command = [str(Path(sys.executable).parent / "mailserver"), *arguments, "--config", str(self.config_path)]
        done = run_nursed(command, cwd=str(ROOT), env=self._environment(), timeout=timeout, input=(input or "").encode())
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    def status(self) -> dict[str, Any]:
        """What the server says of itself over its control socket."""
        return ask(str(self.work / "data" / "control.sock"), "status")

    def messages(self, user: str, folder: str = "") -> list[Stored]:
        """What stands in a user's Maildir, in ``new`` and ``cur``."""
        found = []
        for box in ("new", "cur"):
            for path in sorted((self.mail / user / folder / box).glob("*")):
                with contextlib.suppress(FileNotFoundError):  # replaced or moved meanwhile
                    found.append(Stored(path, path.read_bytes()))
        return found

    def wait_for_mail(self, user: str, count: int = 1, folder: str = "", seconds: float = 15.0) -> list[Stored]:
        """Wait until there are `count` messages; fail where there are more."""
        wait_until(
            lambda: len(self.messages(user, folder)) >= count,
            lambda: f"{user} has {len(self.messages(user, folder))} of {count} messages:\n{self.log()}",
            seconds,
        )
        messages = self.messages(user, folder)
        if len(messages) != count:
            raise FailTest(f"{user} has {len(messages)} messages, not {count}")
        return messages

    def send(self, body: bytes, *, sender: str = "sender@example.net", to: str = "alice@example.org") -> Answer:
        """One message by the plainest client; the reply after the data."""
        with Wire(self.port) as wire:
            wire.dialogue("EHLO client.example", f"MAIL FROM:<{sender}>", f"RCPT TO:<{to}>", "DATA")
            wire.send(body + b"\r\n.\r\n")
            return wire.reply()


def run_nursed(
    command: list[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    timeout: float,
    input: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """A command of the nursery from its beginning to its end.  What it prints is read when it has ended, whoever still holds it open."""
    with contextlib.ExitStack() as files:
        given, output, errors = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(input)
        given.seek(0)
        process = nursed(command, cwd=cwd, env=env, output=output.fileno(), errors=errors.fileno(), stdin=given.fileno())
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        said = [file.read() for file in (output, errors) if file.seek(0) == 0]
    return subprocess.CompletedProcess(command, status, *said)


def twistd() -> list[str]:
    """The command that `make run` uses, by the interpreter that runs the tests."""
    script = Path(sys.executable).parent / "twistd"
    return [str(script)] if script.exists() else [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


def family(pid: int) -> Iterator[int]:
    """The process and all that it has started, from whichever thread."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in (thread / "children").read_text().split():
                yield from family(int(child))


def _resident_kib(pid: int) -> int:
    try:
        match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(match[1]) if match else 0


class ScenarioCase(SynchronousTestCase):
    """`serve` starts a server that is stopped at the end; a server that does not stop cleanly fails the test."""

    timeout = 120

    def prepare(
        self, config: str = BASIC, *, accounts: tuple[str, ...] = ("alice@example.org", "bob@example.org")
    ) -> Server:
        """A server that has not been started."""
        top = Path(tempfile.mkdtemp(prefix="mail")).resolve()  # short: a Unix socket's path has 107 octets at most
        self.addCleanup(shutil.rmtree, top, ignore_errors=True)
        work = top / "server"
        work.mkdir()
        server = Server(work, config, accounts)
        self.addCleanup(self._finish, server)
        return server

    def serve(
        self, config: str = BASIC, *, accounts: tuple[str, ...] = ("alice@example.org", "bob@example.org")
    ) -> Server:
        server = self.prepare(config, accounts=accounts)
        server.start()
        return server

    def _finish(self, server: Server) -> None:
        if server.process is None:
            return
        if server.process.poll() is not None:
            self.fail(f"the server has ended by itself with status {server.process.returncode}:\n{server.log()}")
        status = server.stop()
        self.assertEqual(status, 0, server.log())
        self.assertNotIn("Traceback (most recent call last)", FAILURE_OF_A_PLUGIN.sub("", server.log()))

    def assertServes(self, server: Server) -> None:
        """The server still takes a normal message."""
        mark = os.urandom(8).hex()  # others may still be on their way to her
        self.assertEqual(server.send(b"Subject: still there?\r\n\r\n" + mark.encode()).code, 250)
        wait_until(lambda: any(mark.encode() in one.data for one in server.messages("alice")), server.log)
