"""What postmaster and a user are written when an account's sending is stopped.  Pure.

What stands in it of others (addresses, replies of hosts) is one line each, without control characters, and cut.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from mailserver.filters.account_records import StoppedAccount
from mailserver.filters.account_signals import SIGNALS, SeenSignal

__all__ = ["note_to_postmaster", "note_to_user", "warning_to_postmaster"]

LINE_CHARACTERS = 160
ADDRESS = re.compile(r"[A-Za-z0-9._+\-]{1,64}@[a-z0-9.\-]{1,255}")  # others are left to the envelope
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def note_to_postmaster(stopped: StoppedAccount, *, hostname: str) -> bytes:
    """It is stopped: why, and what can be done."""
    account = _line(stopped.account)
    text = [
        f"The account {account} can send no mail any more. It receives as before.",
        "",
        *_reasons(stopped),
        *_logins(stopped.logins),
        "What it had in the queue for others is held. Nothing of it was thrown away.",
        "",
        "When nobody but its user has its password any more:",
        "",
        f"    mailserver user password {account}",
        f"    mailserver queue list --login {account}",
        f"    mailserver user unlock {account}",
        "",
        "`unlock` lets go what is held: drop first what is not the user's own (mailserver queue drop).",
    ]
    return _message("", f"The account {account} is stopped: it can send no mail", text, hostname=hostname)


def note_to_user(stopped: StoppedAccount, *, hostname: str) -> bytes:
    """To the account itself, whose mailbox works as before."""
    text = [
        f"Your account {_line(stopped.account)} can send no mail at the moment. You receive mail as before.",
        "",
        *_reasons(stopped),
        *_logins(stopped.logins),
        "If that was not you, others have your password, or one of your app passwords.",
        "Let it be changed, and look at your devices.",
        "Your mail program keeps what it could not send.",
        "",
        "Please ask your postmaster to unlock your account.",
    ]
    return _message(stopped.account, "Your account can send no mail at the moment", text, hostname=hostname)


def warning_to_postmaster(account: str, seen: Sequence[SeenSignal], logins: Sequence[str], *, hostname: str) -> bytes:
    """It would be stopped if the filter did so."""
    name = _line(account)
    text = [
        f"The account {name} looks as if it had been taken over. It was not stopped, since the filter is set to tell.",
        "",
        *_signals(seen),
        *_logins(logins),
        f"    mailserver user lock {name}",
    ]
    return _message("", f"The account {name} may have been taken over", text, hostname=hostname)


def _reasons(stopped: StoppedAccount) -> list[str]:
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(stopped.at))
    if stopped.by:
        why = f": {_line(stopped.why)}" if stopped.why else "."
        return [f"Stopped at {at} by {_line(stopped.by)}{why}", ""]
    return [f"Stopped at {at}, since it looks as if others used it:", "", *_signals(stopped.seen)]


def _signals(seen: Sequence[SeenSignal]) -> list[str]:
    lines = []
    for one in seen:
        lines.append(f"  {one.count} {SIGNALS.get(one.signal, one.signal)}")
        lines += [f"      {_line(text)}" for text in one.examples]
    return [*lines, ""]


def _logins(logins: Sequence[str]) -> list[str]:
    return ["Its latest log-ins:", "", *[f"      {_line(one)}" for one in logins], ""] if logins else []


def _message(to: str, subject: str, text: Sequence[str], *, hostname: str) -> bytes:
    title = subject if subject.isascii() else "An account can send no mail"
    header = (
        f'From: "Mail server" <MAILER-DAEMON@{hostname}>',
        *([f"To: <{to}>"] if ADDRESS.fullmatch(to) else []),
        f"Subject: {title}",
        "Auto-Submitted: auto-generated",  # RFC 3834 section 5
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    )
    return "".join([f"{line}\r\n" for line in (*header, "", *text)]).encode("utf-8", "replace")


def _line(text: str) -> str:
    """Text of others: one line of it, in which mail programs find no link."""
    cleaned = UNFIT.sub("?", text).replace("://", ": //")
    return cleaned if len(cleaned) <= LINE_CHARACTERS else cleaned[:LINE_CHARACTERS] + "..."
