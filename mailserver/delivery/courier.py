"""The courier: a small process that writes mail into the homes of the host's users, each file with its user's identity.

It is started before the server drops its privileges and keeps them; so it believes nothing that the server says.  A request names
a user.  The courier looks that user up itself, refuses numbers below `uid_min`, and forks a child that becomes the user for good
before it touches a path.  What the child may do wrong, the user may do too, and no more.  No path comes over the socket.

A request is one frame on a Unix stream socket: four octets of length, then JSON; with the first octet travel two
descriptors, on which the reply is written and from which the content is read.

    {"user", "domain", "folder": [...], "must_exist", "name", "fields", "binary", "again"}   →   [errno or -1 or 0, note]

The child syncs what it wrote before it replies.  Without privileges the courier serves its own user alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import re
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mailserver.delivery.durability import sync_directory
from mailserver.delivery.form import Body
from mailserver.delivery.maildirs import Maildirs
from mailserver.delivery.names import PathTemplate
from mailserver.delivery.process import outlive_signals
from mailserver.delivery.sweep import sweep_tmp
from mailserver.delivery.troubles import NO_ERRNO
from mailserver.delivery.writer import Earlier, store
from mailserver.mail.answers import Mailbox

__all__ = ["FIELDS_OCTETS", "LENGTH", "REQUEST_OCTETS", "Request", "RequestError", "main", "parse_request", "serve"]

LENGTH = struct.Struct("!I")
REQUEST_OCTETS = 131072
FIELDS_OCTETS = 32768  # header fields that travel in the request; more of them go in front of the content
REPLY_OCTETS = 4096
CHILDREN = 32  # at once
CHILDREN_OF_A_USER = 2
CHILD_SECONDS = 60  # then a child that hangs (a home on a server that is down) is ended
CHUNK_OCTETS = 65536

USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
DOMAIN = re.compile(r"[a-z0-9.\-\[\]:]{0,255}")
NAME = re.compile(r"[0-9]{1,20}\.[A-Za-z0-9\-]{1,64}_[0-9]{1,9}\.[A-Za-z0-9.\-_\\%]{1,150}")

Lookup = Callable[[str], pwd.struct_passwd]


class RequestError(ValueError):
    """The request cannot be meant honestly, or the user may not get mail this way."""


@dataclass(frozen=True, slots=True)
class Request:
    """One file to write: see the module."""

    mailbox: Mailbox
    name: str
    fields: bytes
    binary: bool
    again: bool


def parse_request(octets: bytes) -> Request:
    """Check every member.  Raises `RequestError`."""
    try:
        members = json.loads(octets)
        folder = tuple(members["folder"])
        box = Mailbox(members["user"], members["domain"], folder, True, members["must_exist"] is True)
        name, fields, binary = members["name"], members["fields"].encode("latin-1"), members["binary"] is True
        valid = USER.fullmatch(box.user) and DOMAIN.fullmatch(box.domain) and NAME.fullmatch(name)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(f"not a request: {type(error).__name__}") from None
    if not valid or len(folder) > 16 or not all(isinstance(part, str) and 0 < len(part) < 256 for part in folder):
        raise RequestError("a name in the request is not one")
    return Request(box, name, fields, binary, members.get("again") is True)


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
        raise RequestError("the courier has no privileges: it can serve its own user only")
    return account


def serve(control: socket.socket, *, template: PathTemplate, uid_min: int, lookup: Lookup = pwd.getpwnam) -> None:
    """Take requests until the server closes its end."""
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
            reply, content = descriptors
            request = parse_request(octets)
            account = account_of(request.mailbox.user, uid_min=uid_min, lookup=lookup)
            _check_room(children, request.mailbox.user)
            child = os.fork()
            if child == 0:
                control.close()
                _run_child(request, account, template, reply, content)
            children[child] = request.mailbox.user
        except (RequestError, OSError) as error:
            _answer(descriptors[0], (getattr(error, "errno", None) or NO_ERRNO, str(error)))
        except ValueError:  # not two descriptors
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _check_room(children: dict[int, str], user: str) -> None:
    if len(children) >= CHILDREN or list(children.values()).count(user) >= CHILDREN_OF_A_USER:
        raise RequestError("too many deliveries at once")


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


# --- in the child ---


def _run_child(request: Request, account: pwd.struct_passwd, template: PathTemplate, reply: int, content: int) -> None:
    """Become the user, write, answer, end.  Never returns."""
    try:
        try:
            for number in (signal.SIGALRM, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.alarm(CHILD_SECONDS)
            become(account)
            answer: tuple[int, str] = 0, write(request, account.pw_dir, template, reply, content)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            answer = error.errno or NO_ERRNO, f"{error.strerror}{where}"
        except Exception as error:  # noqa: BLE001  # whatever it is, the server must hear of it rather than wait
            answer = NO_ERRNO, f"{type(error).__name__}: {error}"
        _answer(reply, answer)
    finally:
        os._exit(0)


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


def write(request: Request, home: str, template: PathTemplate, reply: int, content: int) -> str:
    """Write the file durably below `home`; return its path.  Raises OSError, or `TemplateError` for an unusable home."""
    os.chdir("/")
    maildirs = Maildirs(
        path_of=lambda box: template.path(user=box.user, domain=box.domain, home=home), open_at_most=1
    )
    if not os.path.isdir(home):
        raise NotADirectoryError(errno.ENOTDIR, "the user has no home", home)
    maildir = maildirs.find(request.mailbox)
    body = Body(lambda: _pieces(content, reply), binary=request.binary, in_memory=False)
    place = store(
        maildir, request.name, request.fields, body, Earlier() if request.again else None, sync=True
    )
    for directory in {f"{maildir.path}/{place.partition('/')[0]}", *maildirs.take_made()}:
        sync_directory(directory)
    sweep_tmp(f"{maildir.path}/tmp", now=time.time())  # noqa: S108  # the Maildir's own
    return f"{maildir.path}/{place}"


def _pieces(descriptor: int, reply: int) -> Iterator[bytes]:
    """Read by place, not by the descriptor's own position: other children may share that.

    A server that has stopped waiting tries again later: then this attempt must not come to its end.
    """
    place = 0
    while piece := os.pread(descriptor, CHUNK_OCTETS, place):
        place += len(piece)
        yield piece
    waits = select.poll()
    waits.register(reply, 0)
    if waits.poll(0):
        raise TimeoutError(errno.ETIMEDOUT, "the server does not wait any more")


def _answer(reply: int, answer: tuple[int, str]) -> None:
    number, note = answer
    with contextlib.suppress(OSError):  # the server does not wait any more, or does not read
        os.set_blocking(reply, False)
        os.write(reply, json.dumps([number, note[: REPLY_OCTETS // 8]]).encode())


def main(arguments: Sequence[str], lookup: Lookup = pwd.getpwnam) -> None:
    """Arguments: the path template, the least uid, the number of our end of the socket pair."""
    template, uid_min, number = arguments
    outlive_signals()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.umask(0o077)
    with socket.socket(fileno=int(number)) as control:
        control.set_inheritable(False)
        serve(control, template=PathTemplate(template, data_directory="/"), uid_min=int(uid_min), lookup=lookup)


def answer_of(octets: bytes) -> tuple[int, str]:
    """The reply's two members.  Raises ValueError for anything else."""
    members: Any = json.loads(octets)
    if not isinstance(members, list) or len(members) != 2 or type(members[0]) is not int or type(members[1]) is not str:
        raise ValueError("the courier's reply is none")
    return members[0], members[1]


if __name__ == "__main__":
    main(sys.argv[1:])
