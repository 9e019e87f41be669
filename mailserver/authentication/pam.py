"""The process that asks PAM.  It keeps the privileges that the server drops, since only root can read the system's passwords.

It trusts nothing that the server says.  It answers for users from `uid_min` on and never for root.  Each question has a forked
child of its own, which ends itself when its time is over.  See `processes.privileged`.

    {"user", "password", "client"}   →   [0, "", PAM's code, its words] or [-1, note]

A question about any other user is asked for a user who does not exist: the answer takes as long, and is no.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mailserver.processes import privileged
from mailserver.processes.privileged import Lookup, RequestError
from mailserver.processes.spawning import name_version, outlive_signals

__all__ = ["AT_ONCE", "NOBODY", "NO", "YES", "PAMQuestion", "main", "parse_question"]

NOBODY = "mailserver-no-such-user"
PASSWORD_OCTETS = 4096
AT_ONCE = 16
SECONDS = 30

# Linux-PAM's codes: _pam_types.h
YES = 0
NO = (6, 7, 8, 10, 11, 12, 13)  # permission, wrong, insufficient, unknown, too many tries, password or account expired
SILENT = 0x8000
NO_NULL_PASSWORD = 0x0001


@dataclass(frozen=True, slots=True)
class PAMQuestion:
    """The question whether this is the user's password.  `client` is a numeric address, "" where it is unknown."""

    service: str
    user: str
    password: str
    client: str

    def run(self, reply: int, content: int) -> tuple[object, ...]:
        """In the child: ask PAM, and return the reply.  Raises `PAMError` where PAM fails before the question."""
        import pamela

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)
        conversation = pamela.new_simple_password_conv((self.password,), "utf-8")
        handle = pamela.pam_start(self.service, self.user, conv_func=conversation)
        if self.client:
            handle.set_item(pamela.PAM_RHOST, self.client)
        code = pamela.PAM_AUTHENTICATE(handle, SILENT | NO_NULL_PASSWORD)
        if code == YES:
            code = pamela.PAM_ACCT_MGMT(handle, SILENT | NO_NULL_PASSWORD)
        words = pamela.pam_strerror(handle, code)
        pamela.PAM_END(handle, code)
        return 0, "", code, words


def parse_question(octets: bytes, *, service: str, uid_min: int, lookup: Lookup) -> PAMQuestion:
    """Check every member.  Raises `RequestError`."""
    try:
        members: dict[str, Any] = json.loads(octets)
        user, password, client = members["user"], members["password"], members["client"]
        texts = all(isinstance(text, str) and "\0" not in text for text in (user, password, client))
        valid = texts and 0 < len(password.encode("utf-8")) <= PASSWORD_OCTETS and len(client) <= 64
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(f"not a question: {type(error).__name__}") from None
    if not valid:
        raise RequestError("not a question")
    return PAMQuestion(service, user if _is_served(user, uid_min, lookup) else NOBODY, password, client)


def _is_served(user: str, uid_min: int, lookup: Lookup) -> bool:
    try:
        account = lookup(user)
    except (KeyError, ValueError):
        return False
    return account.pw_name == user and account.pw_uid >= max(uid_min, 1)


def main(arguments: Sequence[str], lookup: Lookup = pwd.getpwnam) -> None:
    """The arguments are the PAM service, `uid_min`, and the number of our end of the socket pair."""
    import pamela  # noqa: F401  # once, for all children

    service, uid_min, number = arguments
    outlive_signals()
    os.umask(0o077)
    with socket.socket(fileno=int(number)) as control:
        control.set_inheritable(False)
        name_version(control)
        privileged.serve(
            control,
            lambda octets: parse_question(octets, service=service, uid_min=int(uid_min), lookup=lookup),
            children_at_once=2 * AT_ONCE,  # children that have answered take a moment to end
            children_of_a_user=2 * AT_ONCE,
            child_seconds=SECONDS + 5,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
