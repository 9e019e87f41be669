"""What the small processes that keep the privileges have in common, on both ends of their socket.

Such a process is started before the server drops its privileges; so it believes nothing that the server says.  It serves a Unix
stream socket.  A request is one frame: four octets of length, then JSON; with the first octet travel descriptors, one on which
the reply is written and, for mail, one from which the content is read.  For each request it forks a child.

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
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import NoReturn, Protocol

__all__ = [
    "LENGTH",
    "NO_ERRNO",
    "Lookup",
    "REQUEST_OCTETS",
    "Job",
    "PrivilegedProcess",
    "RequestError",
    "account_of",
    "answer",
    "become",
    "instructions",
    "server_waits",
    "serve",
]

LENGTH = struct.Struct("!I")
NO_ERRNO = -1  # an error that is not the operating system's
REQUEST_OCTETS = 131072
NOTE_CHARACTERS = 512

Lookup = Callable[[str], pwd.struct_passwd]
Spawn = Callable[[], tuple["subprocess.Popen[bytes]", socket.socket]]


class RequestError(ValueError):
    """The request cannot be meant honestly, or the user may not be served."""


class Job(Protocol):
    """A request that was checked.  `user` is whom it is for; `run` is called in the child and returns the reply.

    `content` is -1 where none came.
    """

    @property
    def user(self) -> str: ...

    def run(self, reply: int, content: int) -> tuple[object, ...]: ...


class PrivilegedProcess:
    """The server's end.  `spawn` starts the process; `send` may be called in several threads."""

    def __init__(self, *, spawn: Spawn) -> None:
        self._spawn = spawn
        self._lock = threading.Lock()
        self._started_as = os.geteuid()
        self._process, self._control = spawn()

    def send(self, request: bytes, descriptors: list[int]) -> None:
        """Hand a request over, with the descriptors of its reply and (for mail) its content.  Blocking.  Raises OSError."""
        if len(request) > REQUEST_OCTETS:
            raise OSError(f"a request of {len(request)} octets is too long")
        with self._lock:
            if self._process.poll() is not None:
                self._restart()
            socket.send_fds(self._control, [LENGTH.pack(len(request))], descriptors)
            self._control.sendall(request)

    def close(self) -> None:
        """Let the process end, and wait for it.  Its children finish what they have begun."""
        with self._lock:
            self._control.close()
            self._process.wait()

    def _restart(self) -> None:
        if self._started_as != os.geteuid():
            raise OSError("it has died, and to start it again needs the privileges that were dropped: restart the server")
        self._control.close()
        self._process, self._control = self._spawn()


# --- in the process ---


def serve(
    control: socket.socket, check: Callable[[bytes], Job], *, children_at_once: int, children_of_a_user: int
) -> None:
    """Take requests until the server closes its end.  `check` gives the job of a request or raises `RequestError`."""
    children: dict[int, str] = {}
    while True:
        _reap(children)
        if not select.select([control], [], [], 1.0 if children else None)[0]:
            continue
        try:
            octets, descriptors = _received(control)
        except (EOFError, OSError):
            return
        try:
            reply, content, *more = *descriptors, -1
            if more not in ([], [-1]):
                return
            job = check(octets)
            if len(children) >= children_at_once or list(children.values()).count(job.user) >= children_of_a_user:
                raise RequestError("too many at once")
            child = os.fork()
            if child == 0:
                control.close()
                _run_child(job, reply, content)
            children[child] = job.user
        except (RequestError, OSError) as error:
            answer(descriptors[0], (getattr(error, "errno", None) or NO_ERRNO, str(error)))
        except ValueError:  # no descriptor
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def instructions(control: socket.socket) -> bytes:
    """What the server says first, while it has the privileges itself: a frame without descriptors.  Raises EOFError, OSError.

    A program's arguments could be read by everybody on the machine.
    """
    length = LENGTH.unpack(_exactly(control, LENGTH.size))[0]
    return _exactly(control, min(length, REQUEST_OCTETS))


def account_of(user: str, *, uid_min: int, lookup: Lookup) -> pwd.struct_passwd:
    """The user's own entry.  Raises `RequestError` for those that must not get mail in this way."""
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
    """Take the user's identity and give up every other.  Raises OSError."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    if os.getresuid() != (account.pw_uid,) * 3 or 0 in os.getresgid():
        raise PermissionError("the identity did not change")


def answer(reply: int, members: tuple[object, ...]) -> None:
    """Write the reply, its note cut to a sensible length."""
    number, note, *more = members
    with contextlib.suppress(OSError):  # the server does not wait any more, or does not read
        os.set_blocking(reply, False)
        os.write(reply, json.dumps([number, str(note)[:NOTE_CHARACTERS], *more]).encode())


def server_waits(reply: int) -> bool:
    """The server has not closed its end of the reply."""
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


def _reap(children: dict[int, str]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            children.pop(ended, None)


def _received(control: socket.socket) -> tuple[bytes, list[int]]:
    head, descriptors, flags, _ = socket.recv_fds(control, LENGTH.size, 4)
    try:
        if flags & socket.MSG_CTRUNC:
            raise EOFError("more descriptors than two")
        head += _exactly(control, LENGTH.size - len(head)) if head else b""
        if len(head) != LENGTH.size or LENGTH.unpack(head)[0] > REQUEST_OCTETS:
            raise EOFError("the end, or no request")
        return _exactly(control, LENGTH.unpack(head)[0]), descriptors
    except (EOFError, OSError):
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _exactly(control: socket.socket, octets: int) -> bytes:
    data = b""
    while len(data) < octets:
        more = control.recv(octets - len(data))
        if not more:
            raise EOFError("the end within a request")
        data += more
    return data
