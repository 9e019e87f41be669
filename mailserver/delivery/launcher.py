"""The launcher: a small process that runs one command for one message at a time, with the identity of a user.

It is started with root's privileges, and is told first which command, as whom, and for how long at most.  What
comes over the socket later (see `privileged`) is only what to put into the placeholders, and the message:

    {"values": {placeholder: text}, "fields", "skip", "size", "binary"}   →   [0, "", status, output] or [errno or -1, note]

`fields` go in front of the octets from `skip` to `size` of the content's file.  A forked child becomes the user for good, starts
the command, feeds it and listens to it.  The command gets CRLF as LF, ends where its message ends, and is killed with its process
group when its time is over, when the server does not wait any more, or when the message cannot be read to its end: it never sees
the end of a message that is torn.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailserver.delivery.command_template import PLACEHOLDERS, CommandTemplate, UnsafeValue
from mailserver.delivery.errno_outcomes import NO_ERRNO
from mailserver.delivery.maildir_format import local_form
from mailserver.processes import privileged
from mailserver.processes.privileged import Lookup, RequestError, account_of, become
from mailserver.processes.spawning import ProcessStart, name_version, outlive_signals

__all__ = ["EACH_ITS_USER", "OUTPUT_OCTETS", "TIMED_OUT", "UNSAFE", "Launch", "main", "parse_request"]

EACH_ITS_USER = "{user}"
OUTPUT_OCTETS = 4096  # kept of what the command says
CHUNK_OCTETS = 65536
DRAIN_READS = 16  # of what the command left in the pipe when it ended
TIMED_OUT = -2  # in place of an errno, beside NO_ERRNO
UNSAFE = -3
LAST_SECONDS = 10.0  # of a child whose command has had its time; the server waits a little longer

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "SHELL": "/bin/sh"}


@dataclass(frozen=True, slots=True)
class Launch:
    """What the launcher was started for.  `user` is a name or ``{user}``; `directory` is absolute or ``{home}``."""

    command: tuple[str, ...]
    user: str
    group: str
    uid_min: int
    directory: str
    environment: Mapping[str, str]
    seconds: float
    at_once: int

    def encoded(self) -> bytes:
        """The form in which it goes to the process."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode("ascii")

    def start(self) -> ProcessStart:
        """How the launcher is started."""
        return ProcessStart("mailserver.delivery.launcher", instructions=self.encoded())

    @classmethod
    def decoded(cls, octets: bytes) -> Launch:
        """The reverse of `encoded`."""
        members: dict[str, Any] = json.loads(octets)
        return cls(**{**members, "command": tuple(members["command"])})


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One message for one destination: see the module."""

    values: Mapping[str, str]
    fields: bytes
    skip: int
    size: int
    binary: bool


@dataclass(frozen=True, slots=True)
class LaunchJob:
    """A command that is ready to run."""

    launch: Launch
    request: LaunchRequest
    account: pwd.struct_passwd
    arguments: list[str]

    @property
    def user(self) -> str:
        """Whom it runs as."""
        return self.account.pw_name

    def run(self, reply: int, content: int) -> tuple[object, ...]:
        """In the child: become the user, run the command to its end.  Raises OSError."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a command inherits what is ignored
            signal.signal(number, signal.SIG_DFL)
        become(self.account)
        if not privileged.server_waits(reply):  # it has given this attempt up, and will make another
            raise TimeoutError(errno.ETIMEDOUT, "the server does not wait any more")
        account, launch = self.account, self.launch
        environment = {**ENVIRONMENT, "HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
        command = subprocess.Popen(
            self.arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=account.pw_dir if launch.directory == "{home}" else launch.directory,
            env={**environment, **launch.environment},
            start_new_session=True,
        )
        try:
            return Running(command, _pieces(self.request, content), reply, launch.seconds).until_end()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if command.returncode is None:
                    os.killpg(command.pid, signal.SIGKILL)
                    command.wait()


def parse_request(octets: bytes) -> LaunchRequest:
    """Check every member.  Raises `RequestError`."""
    try:
        members = json.loads(octets)
        values = members["values"]
        skip, size, fields = members["skip"], members["size"], members["fields"].encode("latin-1")
        valid = type(skip) is int and type(size) is int and 0 <= skip <= size and sorted(values) == sorted(PLACEHOLDERS)
        valid = valid and all(isinstance(text, str) for text in values.values())
        binary = members["binary"] is True
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(f"not a request: {type(error).__name__}") from None
    if not valid:
        raise RequestError("not a request")
    return LaunchRequest(values, fields, skip, size, binary)


def account_for(launch: Launch, user: str, lookup: Lookup) -> pwd.struct_passwd:
    """Whom the command runs as: the one who was named at the start, or the mailbox's `user`.  Raises `RequestError`."""
    if launch.user == EACH_ITS_USER:
        return account_of(user, uid_min=launch.uid_min, lookup=lookup)
    account = account_of(launch.user, uid_min=1, lookup=lookup)
    if not launch.group:
        return account
    import grp

    try:
        number = grp.getgrnam(launch.group).gr_gid
    except KeyError:
        raise RequestError("there is no such group") from None
    if number == 0:
        raise RequestError("no command runs with root's group")
    return pwd.struct_passwd((*account[:3], number, *account[4:]))


def _pieces(request: LaunchRequest, content: int) -> Iterator[bytes]:
    """What the command reads.  Raises OSError where the file is shorter than it was."""

    def octets() -> Iterator[bytes]:
        place = request.skip
        while place < request.size:
            piece = os.pread(content, min(CHUNK_OCTETS, request.size - place), place)  # others may share its position
            if not piece:
                raise OSError(f"the message's file is {request.size - place} octets short")
            place += len(piece)
            yield piece

    if request.fields:
        yield request.fields
    yield from octets() if request.binary else local_form(octets())


class Running:
    """A command under way: it is fed, its output kept, its end waited for, all at once and none for ever."""

    def __init__(self, command: subprocess.Popen[bytes], pieces: Iterator[bytes], reply: int, seconds: float) -> None:
        if command.stdin is None or command.stdout is None:
            raise ValueError("the command needs both pipes")
        self._command = command
        self._stdin, self._stdout = command.stdin, command.stdout
        self._pieces = pieces
        self._piece = b""
        self._reply = reply
        self._end = time.monotonic() + seconds
        self._output = b""

    def until_end(self) -> tuple[object, ...]:
        """Return the reply's members.  Raises OSError; whoever called then ends the command."""
        ended = os.pidfd_open(self._command.pid)
        poll = select.poll()
        for descriptor, events in (
            (ended, select.POLLIN),
            (self._reply, 0),  # a hang-up: the server does not wait
            (self._stdout.fileno(), select.POLLIN),
            (self._stdin.fileno(), select.POLLOUT),
        ):
            poll.register(descriptor, events)
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        try:
            return self._wait(poll, ended)
        finally:
            os.close(ended)

    def _wait(self, poll: select.poll, ended: int) -> tuple[object, ...]:
        takes_from = self._stdout.fileno()
        gives_to = self._stdin.fileno()
        while (left := self._end - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000 + 1):
                if descriptor == ended:
                    self._drain()
                    return 0, "", self._command.wait(), self._said()
                if descriptor == self._reply:
                    return NO_ERRNO, "the server does not wait any more"
                if descriptor == takes_from and not self._listen():
                    poll.unregister(takes_from)
                elif descriptor == gives_to and not self._feed():
                    poll.unregister(gives_to)
                    self._stdin.close()
        return TIMED_OUT, "its time was over", self._said()

    def _said(self) -> str:
        return self._output.decode("utf-8", "replace")

    def _feed(self) -> bool:
        """Write what the pipe takes.  False when there is no more to write, or nobody who reads."""
        if not self._piece:
            self._piece = next(self._pieces, b"")
            if not self._piece:
                return False
        try:
            self._piece = self._piece[os.write(self._stdin.fileno(), self._piece) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # it has read enough; its exit code says what it thinks of the message
            return False
        return True

    def _listen(self) -> bool:
        """Read what the command says.  False when it says no more."""
        try:
            said = os.read(self._stdout.fileno(), CHUNK_OCTETS)
        except BlockingIOError:
            return True
        self._output += said[: OUTPUT_OCTETS - len(self._output)]
        return bool(said)

    def _drain(self) -> None:
        """The rest of the output.  Not to its end: a process that the command left behind may hold the pipe open."""
        ready = select.poll()
        ready.register(self._stdout.fileno(), select.POLLIN)
        for _ in range(DRAIN_READS):
            if not ready.poll(0) or not self._listen():
                return


def main(arguments: Sequence[str], lookup: Lookup = pwd.getpwnam) -> None:
    """The argument is the number of our end of the socket pair, on which the `Launch` comes first."""
    [number] = arguments
    outlive_signals()
    os.umask(0o077)
    with socket.socket(fileno=int(number)) as control:
        control.set_inheritable(False)
        name_version(control)
        try:
            launch = Launch.decoded(privileged.instructions(control))
        except (EOFError, ConnectionError):  # whoever started us has gone
            return
        template = CommandTemplate(launch.command)
        privileged.serve(
            control,
            lambda octets: check_request(octets, launch, template, lookup),
            children_at_once=launch.at_once,
            children_of_a_user=launch.at_once,
            child_seconds=launch.seconds + LAST_SECONDS,
        )


def check_request(octets: bytes, launch: Launch, template: CommandTemplate, lookup: Lookup) -> privileged.Job:
    """The job that a request asks for.  Raises `RequestError`."""
    request = parse_request(octets)
    try:
        filled = template.arguments(request.values)
    except UnsafeValue as error:
        return Unsafe(error.placeholder, str(error))
    return LaunchJob(launch, request, account_for(launch, request.values["user"], lookup), filled)


@dataclass(frozen=True, slots=True)
class Unsafe:
    """Nothing to run: a value would change the command's meaning."""

    placeholder: str
    why: str
    user: str = ""

    def run(self, reply: int, content: int) -> tuple[object, ...]:
        """Say so."""
        return UNSAFE, self.why, self.placeholder


if __name__ == "__main__":
    main(sys.argv[1:])
