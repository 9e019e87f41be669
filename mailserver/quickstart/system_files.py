"""The files that the host has to have: the unit, and the account's line for systemd-sysusers.  Both are those of ``etc/``."""

from __future__ import annotations

import os
import shlex
from importlib.resources import files

from mailserver.config.choice import INSTALLED
from mailserver.quickstart.wishes import SYSTEM_DATA, HouseWishes

__all__ = [
    "UNIT_NAME", "UNIT_PLACES", "WEB_GROUP", "WEB_SOCKET", "WEB_UNIT_NAME", "account_line", "account_lines", "start_line",
    "unit_text", "web_unit_text",
]  # fmt: skip

UNIT_NAME = "mailserver.service"
WEB_UNIT_NAME = "mailserver-web.service"
WEB_SOCKET, WEB_GROUP = "/run/mailserver/web.sock", "mailserver-web-socket"
UNIT_PLACES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")  # systemd takes the first
OPT = "/opt/mailserver/bin/twistd"
OPT_PYTHON = "/opt/mailserver/bin/python"


def account_lines() -> list[str]:
    """What systemd-sysusers makes the account and the group from."""
    text = files("mailserver.quickstart").joinpath("sysusers.conf").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def account_line() -> str:
    """That of the account."""
    return next(line for line in account_lines() if line.startswith("u "))


def web_unit_text(twistd: str) -> str:
    """The unit of the web process."""
    text = files("mailserver.quickstart").joinpath(WEB_UNIT_NAME).read_text(encoding="utf-8")
    return text.replace(OPT_PYTHON, _word(os.path.join(os.path.dirname(twistd), "python")), 1)


def start_line(text: str) -> str:
    """What a unit starts, "" where it does not say."""
    return next((line for line in text.splitlines() if line.startswith("ExecStart=")), "")


def unit_text(wishes: HouseWishes, twistd: str) -> str:
    """The unit, with our program and our folders in the places of the usual ones."""
    text = files("mailserver.quickstart").joinpath(UNIT_NAME).read_text(encoding="utf-8")
    text = text.replace(OPT, _word(twistd), 1).replace(f"--config {INSTALLED}", f"--config {_word(wishes.config)}", 1)
    text = text.replace("# A hardened unit for an installation in /opt/mailserver with its configuration in /etc/mailserver.",
                        "# Written by `mailserver quickstart`.", 1)  # fmt: skip
    if wishes.local_programs:
        text = text.replace("StateDirectoryMode=0700", "StateDirectoryMode=0711", 1)
    if wishes.user and wishes.user != "mailserver":
        text = text.replace("User=mailserver\nGroup=mailserver", f"User={wishes.user}\nGroup={wishes.user}", 1)
    if (wishes.data, wishes.keys) != (SYSTEM_DATA, f"{SYSTEM_DATA}-keys"):
        text = text.replace("StateDirectory=mailserver mailserver-keys\n", "", 1)
        text = text.replace("WorkingDirectory=/var/lib/mailserver\n", f"WorkingDirectory={_path(wishes.data)}\n", 1)
        paths = f"ReadWritePaths={_word(wishes.data)} {_word(wishes.keys)}\n"
        text = text.replace("ProtectSystem=strict\n", f"ProtectSystem=strict\n{paths}", 1)
    return text


def _word(path: str) -> str:
    """As systemd reads words: percent signs are doubled, blanks stand in quotes."""
    return shlex.quote(_path(path)) if any(c.isspace() for c in path) else _path(path)


def _path(path: str) -> str:
    return os.path.normpath(path).replace("%", "%%")
