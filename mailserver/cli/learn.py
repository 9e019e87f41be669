"""``mailserver learn``: teaches the filter ``bayes``, or a scanner, which messages are spam, and which are none.

The files are read here, with the rights of who types the command.  What ``bayes`` learns of them, keyed hashes, is handed to the
server that runs; where none runs, it is written into the filter's file.  Scanners get the messages themselves, from the server.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable, as_json, moment, plain, say, table
from mailserver.config.filter_order import filter_names
from mailserver.control.client import CommandRefused, NoServer

if TYPE_CHECKING:
    from mailserver.config import Configuration
    from mailserver.filters.learnt import Learnt
    from mailserver.trust.tokens import ReducedMessage

__all__ = ["add_to", "unlearnt_moves"]

SECONDS = 125.0
AT_ONCE = 20
FOLDERS_DEEP = 20
UNREADABLE_TOLD = 20
SCANNERS = ("rspamd", "spamassassin")
SCANNER_OCTETS = 50 << 20
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    learn = commands.add_parser("learn", help=summary)
    actions = learn.add_subparsers(title="actions", metavar="ACTION", required=True)
    for kind, words in (("spam", "these messages are spam"), ("ham", "these messages are none")):
        teaching = actions.add_parser(kind, parents=[common], help=words)
        teaching.add_argument("files", metavar="FILE|DIR|-", nargs="+",
            help="a message; a folder of messages, such as a Maildir; - for one on standard input")  # fmt: skip
        teaching.add_argument("--forget", action="store_true",
            help="take back what was learnt of them, as whatever that was")  # fmt: skip
        teaching.set_defaults(run=teach, kind=kind)
    showing = actions.add_parser("show", parents=[common], help="how much the site and each user have learnt")
    showing.set_defaults(run=show)
    dropping = actions.add_parser("drop", parents=[common], help="forget all that a user has learnt")
    dropping.set_defaults(run=drop)
    for parser in actions.choices.values():
        needed = parser is dropping
        parser.add_argument("--user", metavar="ADDRESS", default="", required=needed,
            help="whose learning it is; site: the site's" if needed else "whose learning it is; absent: the site's")  # fmt: skip
        parser.add_argument("--filter", metavar="NAME", default="",
            help="the table's name: where there are several, or to teach rspamd or SpamAssassin")  # fmt: skip


def teach(options: argparse.Namespace) -> int:
    """Learn the messages.  Return 1 where one could not be read, or there was none."""
    from mailserver.filters.learnt_commands import in_words

    configuration, name = _filter(options)
    kind = "forget" if options.forget else options.kind
    if _use_of(configuration, name) != "bayes":
        return _teach_scanner(options, configuration, name, kind)
    key, came, faults = _key(configuration), Counter[str](), 0
    for messages in _batches(_messages(options.files), key, configuration.hostname):
        faults += sum([one is None for one in messages])
        found = [one for one in messages if one is not None]
        if found:
            given = {"kind": kind, "messages": in_words(found), "user": options.user}
            came.update(_run(configuration, name, "learn", given))
    if options.json:
        as_json({**came, "unreadable": faults})
    else:
        say(_in_words(came, kind))
    return 1 if faults or not came else 0


def _teach_scanner(options: argparse.Namespace, configuration: Configuration, name: str, kind: str) -> int:
    """Hand whole messages to a scanner's filter.  Return 1 where one could not be read or learnt, or there was none."""
    if options.user:
        raise Unable("--user: a scanner learns for the site", 2)
    came, faults = Counter[str](), 0
    for octets in _messages(options.files, whole_of):
        if octets is None:
            faults += 1
            continue
        given = {"kind": kind, "message": b64encode(octets).decode("ascii")}
        question = {"name": name, "command": "teach", "arguments": given}
        try:
            came.update(ask_server(configuration.data, "component.run", question, SECONDS)["answer"])
        except CommandRefused as error:
            print(f"mailserver: {plain(str(error))}", file=sys.stderr)
            faults += 1
    if options.json:
        as_json({**came, "unreadable": faults})
    else:
        say(_in_words(came, kind))
    return 1 if faults or not came else 0


def show(options: argparse.Namespace) -> int:
    """Print how much was learnt."""
    configuration, name = _filter(options)
    rows = _run(configuration, name, "show", {"user": options.user} if options.user else {})
    if options.json:
        as_json(rows)
    elif not rows:
        say("Nothing was learnt.")
    else:
        table(
            ("OWNER", " SPAM", " HAM", " TOKENS", "LAST LEARNT"),
            [(plain(one["owner"]), *[str(one[of]) for of in ("spam", "ham", "tokens")], moment(one["learnt"])) for one in rows],
        )
    return 0


def drop(options: argparse.Namespace) -> int:
    """Forget all of a user.  Return 1 where there is nothing."""
    configuration, name = _filter(options)
    answer = _run(configuration, name, "forget", {"user": options.user})
    as_json({"done": answer}) if options.json else say(plain(answer))
    return 0


def _in_words(came: Mapping[str, int], kind: str) -> str:
    if kind == "forget":
        return f"{came.get('forgotten', 0)} messages are forgotten; {came.get('unknown', 0)} were not known"
    words = f"{came.get('new', 0)} messages are learnt as {kind}"
    other = "ham" if kind == "spam" else "spam"
    if came.get("moved"):
        words += f", {came['moved']} more that had been learnt as {other}"
    return words + (f"; {came['known']} were known" if came.get("known") else "")


# --- The messages. ---


def _batches(
    messages: Iterable[bytes | None], key: bytes, hostname: str
) -> Iterator[list[ReducedMessage | None]]:
    from mailserver.trust.tokens import reduced

    batch: list[ReducedMessage | None] = []
    for octets in messages:
        batch.append(None if octets is None else reduced(octets, key, hostname)[0])
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def whole_of(descriptor: int) -> bytes:
    """A message as a scanner gets it, with CRLF.  Raises OSError for one that is too large."""
    octets = bytearray()
    while piece := os.read(descriptor, 1 << 20):
        octets += piece
        if len(octets) > SCANNER_OCTETS:
            raise OSError(f"more than {SCANNER_OCTETS:,} octets")
    return bytes(octets).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _messages(names: Iterable[str], read: Callable[[int], bytes] | None = None) -> Iterator[bytes | None]:
    """What `read` returns of each message, else its start; None for one that cannot be read; that is told."""
    from mailserver.trust.tokens import start_of

    read = read or start_of
    for name in names:
        if name == "-":
            yield read(_standard_input())
            continue
        for path in _files(name):
            try:
                descriptor = os.open(path, OPEN if path != name else OPEN & ~os.O_NOFOLLOW)
                try:
                    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                        raise OSError("it is no file")
                    octets = read(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                print(f"mailserver: {plain(path)}: {error.strerror or error}", file=sys.stderr)
                yield None
            else:
                yield octets


def _standard_input() -> int:
    return sys.stdin.fileno()


def _files(name: str, depth: int = FOLDERS_DEEP) -> Iterator[str]:
    """A file, or those of a folder and the folders in it; links in it are not followed, nor what is in tmp of a Maildir."""
    if not os.path.isdir(name):
        yield name
        return
    try:
        with os.scandir(name) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield name  # which says why it cannot be read
        return
    is_maildir = {"cur", "new", "tmp"} <= {one.name for one in found}
    for one in found:
        if one.is_dir(follow_symlinks=False):
            if depth and not (is_maildir and (one.name == "tmp" or one.name.startswith("."))):
                yield from _files(one.path, depth - 1)
        elif one.is_file(follow_symlinks=False) and not one.name.startswith((".", "dovecot", "maildirfolder", "courier")):
            yield one.path


def unlearnt_moves(configuration: Configuration) -> list[str]:
    """Filters that look for moved mail where the delivery does not put it."""
    if configuration.delivery.use != "maildir" or configuration.delivery.options is None:
        return []
    path = _option(configuration.delivery.options, "path", "")
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    tables = [(name, one.options) for name, one in zip(names, configuration.filter, strict=True) if one.use == "bayes"]
    warnings = []
    for name, options in tables:
        maildirs = _option(options, "maildirs", "")
        if maildirs.startswith("{home}"):
            warnings.append(f"filter {name}: maildirs: homes are their users' alone: what they move is not learnt")
        elif maildirs and maildirs != path:
            warnings.append(f"filter {name}: maildirs: mail is delivered to {plain(path)}: what users move there is not learnt")
    return warnings


def _option(options: Any, name: str, default: str) -> str:
    return str(options.get(name, default) if isinstance(options, Mapping) else getattr(options, name, default))


# --- Who learns. ---


def _filter(options: argparse.Namespace) -> tuple[Configuration, str]:
    from mailserver.config import load
    from mailserver.filters.learnt_commands import owner_of

    try:
        owner_of(options.user)
    except ValueError as error:
        raise Unable(f"--user: {plain(str(error))}", 2) from error
    configuration = load(options.config)
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    uses = dict(zip(names, [one.use for one in configuration.filter], strict=True))
    able = ("bayes", *SCANNERS) if getattr(options, "kind", "") else ("bayes",)
    names = [name for name in names if uses[name] == "bayes"]
    name = options.filter or (names[0] if names else "")
    if uses.get(name) not in able:
        words = f"no filter {plain(name)!r} with" if name else "no table  [[filter]]  with"
        raise Unable(f'the configuration has {words}  use = "{able[0]}"')
    return configuration, name


def _use_of(configuration: Configuration, name: str) -> str:
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    return configuration.filter[names.index(name)].use


def _key(configuration: Configuration) -> bytes:
    """The one that the server has, or will have."""
    from mailserver.filters.learnt import KEY_FILE
    from mailserver.processes.identity import as_owner_of
    from mailserver.trust.secret_key import secret_key

    folder = configuration.keys_path
    try:
        if not os.path.isdir(folder):
            _make_folder(folder, configuration.data)
        with as_owner_of(folder):
            return secret_key(folder, KEY_FILE)
    except OSError as error:
        raise Unable(f"{plain(error.filename or folder)}: {error.strerror or error}", EX_IOERR) from error


def _make_folder(folder: str, data: str) -> None:
    """For the server's user, as the one who has the data folder."""
    owner = os.stat(data)
    os.makedirs(folder, 0o700, exist_ok=True)
    if os.geteuid() == 0:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)


def _run(configuration: Configuration, name: str, command: str, given: Mapping[str, Any]) -> Any:
    question = {"name": name, "command": command, "arguments": dict(given)}
    try:
        return ask_server(configuration.data, "component.run", question, SECONDS)["answer"]
    except NoServer:
        return _in_files(configuration, name, lambda learnt: _carry_out(learnt, command, given))


def _carry_out(learnt: Learnt, command: str, given: Mapping[str, Any]) -> Awaitable[Any]:
    from mailserver.filters.learnt_commands import commands_of

    return next(one.run for one in commands_of(learnt) if one.name == command)(**given)


def _in_files(configuration: Configuration, name: str, act: Callable[[Learnt], Awaitable[Any]]) -> Any:
    """What `act` returns, of the filter's file.  Raises `Unable`."""
    from twisted.internet.task import Clock

    from mailserver.cli.without_server import finished, in_place
    from mailserver.config import check_options
    from mailserver.filters.bayes import BayesOptions
    from mailserver.filters.learnt import Learnt, file_of
    from mailserver.interfaces import CannotDo
    from mailserver.processes.identity import as_owner_of

    clock = Clock()
    clock.advance(time.time())
    names = filter_names([(one.use, one.name) for one in configuration.filter])
    options: Any = check_options(BayesOptions, configuration.filter[names.index(name)].options, configuration.directory)
    try:
        with as_owner_of(configuration.data):
            learnt = Learnt(
                path=file_of(configuration.data, name),
                keys_directory=configuration.keys_path,
                hostname=configuration.hostname,
                new_threads=in_place,
                room_for=lambda octets: True,
                clock=clock,
                vocabulary_most=options.vocabulary,
                minimum=options.minimum,
                own_weight=options.own_weight,
            )
            finished(learnt.look())
            try:
                if learnt.fault:
                    raise Unable(learnt.fault, EX_IOERR)
                return finished(act(learnt))
            finally:
                finished(learnt.close())
    except CannotDo as error:
        raise Unable(str(error)) from error
