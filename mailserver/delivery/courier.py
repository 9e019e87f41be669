"""The courier: a small process that writes mail into the homes of the host's users, each file with its user's identity.

It has root's privileges, which the server drops; so it believes nothing that the server says.  A request names
a user.  The courier looks that user up itself, refuses numbers below `uid_min`, and forks a child that becomes the user for good
before it touches a path.  What the child may do wrong, the user may do too, and no more.  No path comes over the socket.

A request is one frame on a Unix stream socket: four octets of length, then JSON; with the first octet travel two
descriptors, on which the reply is written and from which the content is read.

    {"user", "domain", "folder": [...], "must_exist", "junk", "name", "fields", "binary", "again"}   →   [errno or -1 or 0, note]

The child syncs what it wrote before it replies.  Without privileges the courier serves its own user alone.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mailserver.delivery.maildir_format import Body
from mailserver.delivery.names import PathTemplate
from mailserver.delivery.open_maildirs import Maildir, Maildirs
from mailserver.delivery.sweep import sweep_tmp
from mailserver.delivery.writer import Earlier, store
from mailserver.mail.answers import Mailbox
from mailserver.mail.durable import sync_directory
from mailserver.processes import privileged
from mailserver.processes.privileged import Lookup, RequestError, account_of, become, server_waits
from mailserver.processes.spawning import name_version, outlive_signals

__all__ = ["FIELDS_OCTETS", "CourierRequest", "main", "parse_request", "serve"]

FIELDS_OCTETS = 32768  # header fields that travel in the request; more of them go in front of the content
CHILDREN = 128  # at once, with those that a home keeps although their time is over
CHILDREN_OF_A_USER = 2
CHILD_SECONDS = 60  # then a child that hangs (a home on a server that is down) is ended
CHUNK_OCTETS = 65536

USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
DOMAIN = re.compile(r"[a-z0-9.\-\[\]:]{0,255}")
NAME = re.compile(r"[0-9]{1,20}\.[A-Za-z0-9\-]{1,64}_[0-9]{1,9}\.[A-Za-z0-9.\-_\\%]{1,150}")


@dataclass(frozen=True, slots=True)
class CourierRequest:
    """One file to write: see the module."""

    mailbox: Mailbox
    name: str
    fields: bytes
    binary: bool
    again: bool


def parse_request(octets: bytes) -> CourierRequest:
    """Check every member.  Raises `RequestError`."""
    try:
        members = json.loads(octets)
        folder = tuple(members["folder"])
        must_exist, junk = members["must_exist"] is True, members["junk"] is True
        box = Mailbox(members["user"], members["domain"], folder, True, must_exist, junk)
        name, fields, binary = members["name"], members["fields"].encode("latin-1"), members["binary"] is True
        valid = USER.fullmatch(box.user) and DOMAIN.fullmatch(box.domain) and NAME.fullmatch(name)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(f"not a request: {type(error).__name__}") from None
    if not valid or len(folder) > 16 or not all(isinstance(part, str) and 0 < len(part) < 256 for part in folder):
        raise RequestError("a name in the request is invalid")
    return CourierRequest(box, name, fields, binary, members.get("again") is True)


@dataclass(frozen=True, slots=True)
class CourierJob:
    """A request and where it leads."""

    request: CourierRequest
    account: pwd.struct_passwd
    template: PathTemplate

    @property
    def user(self) -> str:
        """Whom it is for."""
        return self.request.mailbox.user

    def run(self, reply: int, content: int) -> tuple[object, ...]:
        """In the child: become the user, write the file.  Raises OSError."""
        signal.alarm(CHILD_SECONDS)
        become(self.account)
        return 0, write(self.request, self.account.pw_dir, self.template, reply, content)


def serve(control: socket.socket, *, template: PathTemplate, uid_min: int, lookup: Lookup = pwd.getpwnam) -> None:
    """Take requests until the server closes its end."""

    def check(octets: bytes) -> CourierJob:
        request = parse_request(octets)
        return CourierJob(request, account_of(request.mailbox.user, uid_min=uid_min, lookup=lookup), template)

    privileged.serve(
        control,
        check,
        children_at_once=CHILDREN,
        children_of_a_user=CHILDREN_OF_A_USER,
        child_seconds=CHILD_SECONDS + 5,
    )


def write(request: CourierRequest, home: str, template: PathTemplate, reply: int, content: int) -> str:
    """Write the file durably below `home`; return its path.  Raises OSError, or `TemplateError` for an unusable home."""
    os.chdir("/")
    maildirs = Maildirs(
        path_of=lambda box: template.path(user=box.user, domain=box.domain, home=home), open_at_most=1
    )
    if not os.path.isdir(home):
        raise NotADirectoryError(errno.ENOTDIR, "the user has no home", home)
    earlier = Earlier() if request.again else None

    def go_on() -> None:
        """A server that has stopped waiting tries again later: then this attempt must not come to its end."""
        if not server_waits(reply):
            raise TimeoutError(errno.ETIMEDOUT, "the server does not wait any more")

    def stands(maildir: Maildir) -> str:
        found = earlier.place(maildir, request.name, "") if earlier is not None else None
        return "" if found is None else "/".join(found)

    maildir = maildirs.find(maildirs.chosen(request.mailbox, lambda maildir: stands(maildir) != ""))
    place = stands(maildir)
    if not place:  # what stands there is whole: it was synced before it had its name
        body = Body(lambda: _pieces(content), binary=request.binary, in_memory=False)
        place = store(maildir, request.name, request.fields, body, earlier, go_on=go_on, sync=True)
    for directory in {f"{maildir.path}/{place.partition('/')[0]}", *maildirs.take_made()}:
        sync_directory(directory, missing_ok=True)
    sweep_tmp(maildir.tmp, now=time.time())
    return f"{maildir.path}/{place}"


def _pieces(descriptor: int) -> Iterator[bytes]:
    """Read by place, not by the descriptor's own position: other children may share that."""
    place = 0
    while piece := os.pread(descriptor, CHUNK_OCTETS, place):
        place += len(piece)
        yield piece


def main(arguments: Sequence[str], lookup: Lookup = pwd.getpwnam) -> None:
    """Arguments: the path template, the least uid, the number of our end of the socket pair."""
    template, uid_min, number = arguments
    outlive_signals()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.umask(0o077)
    with socket.socket(fileno=int(number)) as control:
        control.set_inheritable(False)
        name_version(control)
        serve(control, template=PathTemplate(template, data_directory="/"), uid_min=int(uid_min), lookup=lookup)


def answer_of(octets: bytes) -> tuple[int, str]:
    """The reply's two members.  Raises ValueError for anything else."""
    members: Any = json.loads(octets)
    if not isinstance(members, list) or len(members) != 2 or type(members[0]) is not int or type(members[1]) is not str:
        raise ValueError("the courier's reply is malformed")
    return members[0], members[1]


if __name__ == "__main__":
    main(sys.argv[1:])
