"""``mailserver checkpassword``: whether a password is right, asked in the way of DJB's checkpassword, as Dovecot does.

User name, password and a time come on descriptor 3, each with a NUL behind it, 512 octets at most; the client's address is in
$TCPREMOTEIP.  Who is let in: the program that the arguments name is run, with $USER, $HOME, and in $EXTRA the names of further
variables for Dovecot.  Else the exit code says why: 1 no, 2 the question is malformed, 111 nobody can tell now.

It reads no configuration, which its caller may not: all it has is the authentication socket.  What goes wrong is 111, never 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from mailserver.control.client import ControlError, ask

__all__ = ["SOCKET", "add_to", "environment_of", "question_in"]

SOCKET = "/run/mailserver/auth.sock"
QUESTION_FD = 3
QUESTION_OCTETS = 512
WAIT_SECONDS = 60.0
EX_NO, EX_MISUSED, EX_LATER = 1, 2, 111


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "checkpassword", parents=[common], help=summary, description=summary.capitalize() + ": user name, password and time "
        "on descriptor 3, the client's address in TCPREMOTEIP.",
    )  # fmt: skip
    parser.add_argument("--service", choices=("imap", "pop3"), required=True, help="what the client speaks")
    parser.add_argument("--socket", metavar="PATH", default=SOCKET, help="authentication.socket (default: %(default)s)")
    parser.add_argument("reply", metavar="REPLY", nargs=argparse.REMAINDER, help="the program to run where the password is right")
    parser.set_defaults(run=check_password, needs_configuration=False)


def check_password(options: argparse.Namespace) -> int:
    """Check the password.  Does not return where it is right: the program is run in our place."""
    try:
        return _check_password(options)
    except Exception as error:  # noqa: BLE001  # a fault of ours is not a wrong password
        return _later(f"{type(error).__name__}")


def _check_password(options: argparse.Namespace) -> int:
    if not options.reply:
        return _told("there is no program to run where the password is right", EX_MISUSED)
    if "AUTHORIZED" in os.environ:
        return _later("a look-up without a password is not answered: use a userdb of its own, such as prefetch")
    client = os.environ.get("TCPREMOTEIP", "")
    if not client:
        return _later("TCPREMOTEIP does not say who the client is")
    try:
        found = question_in(_read())
    except OSError as error:
        return _told(f"descriptor {QUESTION_FD}: {error.strerror}", EX_MISUSED)
    if found is None:
        return _told(f"descriptor {QUESTION_FD} has no user name and password within {QUESTION_OCTETS} octets", EX_MISUSED)
    user, password = found
    question = {"user": user, "password": password, "service": options.service, "client": client}
    try:
        answer = ask(options.socket, "check_password", question, timeout_seconds=WAIT_SECONDS)
    except ControlError as error:
        return _later(str(error))
    if answer.get("answer") in ("no", "locked"):
        return EX_NO
    if answer.get("answer") != "ok":
        return _later("the server cannot tell; its log says why")
    try:
        os.execvpe(options.reply[0], options.reply, {**os.environ, **environment_of(answer)})  # noqa: S606
    except OSError as error:
        return _later(f"{options.reply[0]}: {error.strerror}")


def _read() -> bytes:
    """Read descriptor 3 to its end, or to one octet too many.  Raises OSError."""
    octets = b""
    while len(octets) <= QUESTION_OCTETS and (piece := os.read(QUESTION_FD, QUESTION_OCTETS + 1 - len(octets))):
        octets += piece
    return octets


def question_in(octets: bytes) -> tuple[str, str] | None:
    """The user name and the password; None where the question is malformed."""
    parts = octets.split(b"\0")
    if len(octets) > QUESTION_OCTETS or len(parts) < 3:
        return None
    user, password = (part.decode("utf-8", "surrogateescape") for part in parts[:2])
    return user, password


def environment_of(answer: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables that Dovecot's checkpassword-reply turns into fields."""
    extra = {"userdb_uid": str(answer["uid"]), "userdb_gid": str(answer["gid"])}
    if answer["maildir"]:
        extra["userdb_mail"] = f"maildir:{answer['maildir']}"
    home = {"HOME": str(answer["home"])} if answer["home"] else {}
    return {"USER": str(answer["account"]), **home, "EXTRA": " ".join(extra), **extra}


def _later(words: str) -> int:
    return _told(words, EX_LATER)


def _told(words: str, code: int) -> int:
    print(f"mailserver checkpassword: {words}", file=sys.stderr)
    return code
