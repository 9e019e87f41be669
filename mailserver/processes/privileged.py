"""What the privileged processes have in common: how they take requests and change identity.

Such a process has privileges that the server has dropped, so it trusts nothing that the server says.  It serves a Unix stream
socket.  A request is one frame (`frames`) of JSON.  Descriptors travel with it: one on which the reply is written and, for mail,
one from which the content is read.  Each request is handled by a forked child.  The server's end is `kept`.

The reply is a JSON list that begins with a number (0, an errno, or -1) and a note.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from mailserver.processes.frames import FRAME_OCTETS, LENGTH, receive

__all__ = [
    "LENGTH",
    "NO_ERRNO",
    "Lookup",
    "REQUEST_OCTETS",
    "Job",
    "RequestError",
    "account_of",
    "answer",
    "become",
    "instructions",
    "server_waits",
    "serve",
]

ENDING_SECONDS = 0.2
NO_ERRNO = -1  # an error that is not the operating system's
REQUEST_OCTETS = FRAME_OCTETS
NOTE_CHARACTERS = 512

Lookup = Callable[[str], pwd.struct_passwd]


class RequestError(ValueError):
    """The request is malformed, or the user may not be served."""


class Job(Protocol):
    """A checked request for `user`.  `run` is called in the child and returns the reply.

    `content` is the descriptor of the content, -1 where none came.
    """

    @property
    def user(self) -> str: ...

    def run(self, reply: int, content: int) -> tuple[object, ...]: ...


@dataclass(frozen=True, slots=True)
class Child:
    """A running child: its user, and when its time is over (monotonic clock, seconds)."""

    user: str
    end: float


def serve(
    control: socket.socket,
    check: Callable[[bytes], Job],
    *,
    children_at_once: int,
    children_of_a_user: int,
    child_seconds: float,
) -> None:
    """Take requests until the server closes its end.  `check` makes the job of a request or raises `RequestError`.

    A child normally ends by itself.  After `child_seconds` it is killed: the user whose identity it has may have stopped it.
    """
    children: dict[int, Child] = {}
    while True:
        _reap(children)
        _kill_late(children)
        if not select.select([control], [], [], 1.0 if children else None)[0]:
            continue
        try:
            octets, descriptors = receive(control)
        except (EOFError, OSError):
            return
        try:
            reply, content, *more = *descriptors, -1
            if more not in ([], [-1]):
                return
            job = check(octets)
            if not _has_room(children, job.user, children_at_once, children_of_a_user):
                raise RequestError("too many at once")
            child = os.fork()
            if child == 0:
                control.close()
                _run_child(job, reply, content)
            children[child] = Child(job.user, time.monotonic() + child_seconds)
        except (RequestError, OSError) as error:
            answer(descriptors[0], (getattr(error, "errno", None) or NO_ERRNO, str(error)))
        except ValueError:  # no descriptor
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _has_room(children: dict[int, Child], user: str, at_once: int, of_a_user: int) -> bool:
    """Whether one more child may begin.  The bounds allow for children that have answered and not ended yet."""
    end = time.monotonic() + ENDING_SECONDS
    while len(children) >= at_once or [child.user for child in children.values()].count(user) >= of_a_user:
        if time.monotonic() >= end:
            return False
        time.sleep(0.002)
        _reap(children)
    return True


def instructions(control: socket.socket) -> bytes:
    """Read the server's first frame, which it sends while it is still privileged.  Raises EOFError, OSError.

    The instructions are not arguments, since every user of the host can read a program's arguments.
    """
    octets, descriptors = receive(control)
    for descriptor in descriptors:
        os.close(descriptor)
    return octets


def account_of(user: str, *, uid_min: int, lookup: Lookup) -> pwd.struct_passwd:
    """The user's entry in the user table.  Raises `RequestError` for users that may not be served."""
    try:
        account = lookup(user)
    except KeyError:
        raise RequestError("there is no such user") from None
    if account.pw_name != user:
        raise RequestError("the user has another name")
    if account.pw_uid == 0 or account.pw_uid < uid_min or account.pw_gid == 0:
        raise RequestError(f"users below {uid_min} get no mail")
    if os.geteuid() != 0 and account.pw_uid != os.geteuid():
        raise RequestError("without privileges only the own user can be served")
    return account


def become(account: pwd.struct_passwd) -> None:
    """Take the user's identity and give up every other, including all groups that are not the user's.  Raises OSError."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        own = {account.pw_gid, *os.getgrouplist(account.pw_name, account.pw_gid)}
        os.initgroups(account.pw_name, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        if not own.issuperset(os.getgroups()):
            raise PermissionError("a group is left that is not the user's")
    if os.getresuid() != (account.pw_uid,) * 3 or 0 in os.getresgid():
        raise PermissionError("the identity did not change")


def answer(reply: int, members: tuple[object, ...]) -> None:
    """Write the reply, its note cut to a sensible length."""
    number, note, *more = members
    with contextlib.suppress(OSError):  # the server no longer waits, or does not read
        os.set_blocking(reply, False)
        os.write(reply, json.dumps([number, str(note)[:NOTE_CHARACTERS], *more]).encode())


def server_waits(reply: int) -> bool:
    """Whether the server still waits: it has not closed its end of the reply."""
    waits = select.poll()
    waits.register(reply, 0)
    return not waits.poll(0)


def _run_child(job: Job, reply: int, content: int) -> NoReturn:
    try:
        try:
            for number in (signal.SIGALRM, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            members = job.run(reply, content)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            members = error.errno or NO_ERRNO, f"{error.strerror or error}{where}"
        except Exception as error:  # noqa: BLE001  # whatever it is, the server must hear of it rather than wait
            members = NO_ERRNO, f"{type(error).__name__}: {error}"
        answer(reply, members)
    finally:
        os._exit(0)


def _kill_late(children: dict[int, Child]) -> None:
    """Kill children whose time is over.

    What a child has started is killed first: a command must not take a truncated message for a whole one.
    """
    now = time.monotonic()
    for number in [number for number, child in children.items() if child.end <= now]:
        for group in _started_by(number):
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGKILL)


def _started_by(number: int) -> list[int]:
    """The process groups that a child of ours has started."""
    try:
        with open(f"/proc/{number}/task/{number}/children") as file:
            return [int(word) for word in file.read().split()]
    except (OSError, ValueError):
        return []


def _reap(children: dict[int, Child]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            children.pop(ended, None)
