"""``mailserver import postfix``: a configuration of Postfix as one of ours, and what could not be carried over."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mailserver.accounts.table import Account, AccountsFile
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.moving.careful import new_file, opened_file
from mailserver.moving.house import House, toml_of
from mailserver.moving.postfix import read_postfix
from mailserver.moving.postfix_source import NoPostfix
from mailserver.moving.reckoning import Reckoning, Setting
from mailserver.processes.identity import as_owner_of

__all__ = ["add_to"]

DATA = "/var/lib/mailserver"
HEAD = """\
# Made of {directory} by mailserver {version}.
# Look through what is listed at the end, then: mailserver check --config FILE
"""


def add_to(actions: Any, common: argparse.ArgumentParser) -> None:
    """Declare the action."""
    parser = actions.add_parser("postfix", parents=[common], help="a configuration of Postfix as one of ours")
    parser.add_argument(
        "directory", metavar="DIRECTORY", nargs="?", default="", help="where main.cf is (default: /etc/postfix)"
    )
    parser.add_argument(
        "--output", metavar="FILE", default="", help="write it there, with secrets and accounts; never over a file"
    )
    parser.add_argument(
        "--data", metavar="DIRECTORY", default=DATA, help=f"the new server's data folder (default: {DATA})"
    )
    parser.add_argument(
        "--root", metavar="DIRECTORY", default="", help="the files of another host, copied there: its /etc, its /var"
    )
    parser.set_defaults(run=import_postfix, needs_configuration=False)


def import_postfix(options: argparse.Namespace) -> int:
    """Print or write the configuration, and tell what is left.  Return 1 where something is."""
    root = os.path.abspath(options.root) if options.root else ""
    directory = options.directory or f"{root}/etc/postfix"
    output = os.path.abspath(options.output) if options.output else ""
    _is_new(output)
    try:
        moved = read_postfix(directory, data=os.path.abspath(options.data), root=root)
    except NoPostfix as error:
        raise Unable(str(error), EX_IOERR) from error
    house, reckoning = moved.house, moved.reckoning
    left = reckoning.of("left")
    text = _text(directory, house, reckoning)
    if output:
        _write(output, text, house)
    if options.json:
        accounts = [asdict(one) for one in house.accounts.values()]
        entries: dict[str, list[dict[str, str]]] = {"carried": [], "same": [], "left": []}
        for entry in reckoning:
            entries[entry.kind].append({key: value for key, value in asdict(entry).items() if key != "kind"})
        as_json(
            {"configuration": text, "output": output, "accounts": accounts, "secrets": sorted(house.secrets), **entries}
        )
        return 1 if left else 0
    if not output:
        say(*text.splitlines())
        print(f"mailserver: {_sum(reckoning)}; what is left stands at the end", file=sys.stderr)
        return 1 if left else 0
    say(f"{plain(output)} is written, {_sum(reckoning)}.")
    say(*_left_lines(left))
    say(*_next_steps(output, house))
    return 1 if left else 0


def _is_new(output: str) -> None:
    if output and os.path.lexists(output):
        raise Unable(f"{output} exists already: name a new file, and move it there by hand")
    if output and not os.path.isdir(os.path.dirname(output)):
        raise Unable(f"{os.path.dirname(output)} is no folder", EX_IOERR)


def _text(directory: str, house: House, reckoning: Reckoning) -> str:
    from importlib.metadata import version

    text = HEAD.format(directory=plain(directory), version=version("mailserver")) + "\n" + toml_of(house.tables)
    listed = [
        ("What could not be carried over:", _left_lines(reckoning.of("left"))),
        ("Accounts, each without a password until `mailserver user password` or `mailserver import dovecot-passwd`:",
         [f"  {plain(one.address)}" for one in house.accounts.values()]),
        ("Files with secrets that --output writes beside this one:", [f"  {name}" for name in sorted(house.secrets)]),
    ]  # fmt: skip
    for title, lines in listed:
        if lines:
            text += "\n" + "\n".join(f"# {line}".rstrip() for line in (title, *lines)) + "\n"
    return text


def _left_lines(left: Sequence[Setting]) -> list[str]:
    lines = []
    for one in left:
        value = f" = {plain(one.value)}" if one.value else ""
        lines += [f"  {plain(one.name)}{value}", f"      why: {plain(one.why)}", f"      do:  {plain(one.todo)}"]
    return lines


def _sum(reckoning: Reckoning) -> str:
    carried, same, left = (len(reckoning.of(kind)) for kind in ("carried", "same", "left"))
    return f"{carried} settings carried over, {same} need nothing, {left} could not be carried over"


def _write(output: str, text: str, house: House) -> None:
    """The secrets first, each for the server's user alone; then the accounts; last the configuration.  Raises `Unable`."""
    data, folder = str(house.tables["data"]), os.path.dirname(output)
    try:
        owner = os.stat(data)
    except OSError as error:
        raise Unable(
            f"{data} is not there: make it for the server's user, with mode 0700, as at the installation", EX_IOERR
        ) from error
    try:
        for name, secret in house.secrets.items():
            _new_file(os.path.join(folder, name), secret + "\n", 0o600, (owner.st_uid, owner.st_gid))
        _add_accounts(house, data)
        _new_file(output, text, 0o644, None)
    except FileExistsError as error:
        raise Unable(f"{error.filename} exists already: nothing was written over it") from error
    except OSError as error:
        raise Unable(f"{error.filename or folder}: {error.strerror}", EX_IOERR) from error


def _new_file(path: str, text: str, mode: int, owner: tuple[int, int] | None) -> None:
    """A file that was not there, or is there with this very text from a run that was cut off."""
    content = text.encode("utf-8", "surrogateescape")
    try:
        new_file(path, content, mode, owner)
    except FileExistsError:
        with open(opened_file(path, follow=True), "rb") as file:
            if file.read(len(content) + 1) != content:
                raise


def _add_accounts(house: House, data: str) -> None:
    table = house.tables["accounts"]
    if table["use"] == "file":
        with as_owner_of(data):
            AccountsFile(table["path"], data).add_all(
                [Account(one.address, senders=tuple(one.senders)) for one in house.accounts.values()]
            )


def _next_steps(output: str, house: House) -> list[str]:
    lines = ["", "Next:", f"  mailserver check --config {plain(output)}      # Postfix stopped: it has the ports"]
    lines.append('  [pickup] users = "all", where users of this host shall send by `mailserver sendmail` (docs/operating.md)')
    if house.accounts:
        lines.append(
            f"  mailserver import dovecot-passwd FILE --config {plain(output)}      # passwords, where Dovecot has them in a file"
        )
    for one in house.accounts.values():
        if one.mail:
            kind = "maildir" if one.mail.endswith("/") or os.path.isdir(one.mail) else "mbox"
            words = shlex.join([kind, one.mail, one.address, "--config", output])
            lines.append(f"  mailserver import {plain(words)}")
    return lines
