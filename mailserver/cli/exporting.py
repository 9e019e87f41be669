"""``mailserver export``: the house in a form that other programs can read, and that ``import house`` puts up elsewhere."""

from __future__ import annotations

import argparse
import base64
import json
import os
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any

import apsw

from mailserver.accounts.file import FileDirectoryOptions
from mailserver.accounts.table import Account, AccountsFile
from mailserver.cli.accounts import changing
from mailserver.cli.backup import make_folder
from mailserver.cli.import_mail import mail_place
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.config import Configuration, Options, load
from mailserver.config.options import keys_of
from mailserver.config.ownership import why_not_of
from mailserver.delivery.names import encoded_part, folder_name
from mailserver.mail.address import AddressError
from mailserver.mail.faults import StorageFault
from mailserver.moving.careful import opened_file
from mailserver.moving.export_form import FORMAT, MANIFEST, ExportSink, FolderSink, TarSink, json_lines, line_of_account
from mailserver.moving.mail_item import CannotRead, MailFault, MailItem
from mailserver.moving.maildir_source import KEYWORDS, MaildirSource, keyword_lines
from mailserver.processes.identity import as_owner_of
from mailserver.state_store.records_file import RECORDS, open_records

__all__ = ["add_to", "named_files"]

SECRET_KEYS = frozenset(
    "password_file oauth_secret_file token_file former_secrets certificate key client_certificate client_key "
    "client_authorities client_revocations".split()
)
LOOKS = 3  # at a Maildir in which mail programs rename files meanwhile
PIECE = 1 << 20
SHOWN_MOST = 100


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    export = commands.add_parser("export", parents=[common], help=summary, description=summary.capitalize() + ".")
    export.add_argument("target", metavar="DIRECTORY|FILE.tar", help="a folder that is new or empty, or a new file")
    export.add_argument("--mail", action="store_true", help="the Maildirs of the accounts, too")
    export.add_argument(
        "--keys", action="store_true", help="the keys, and the files with secrets that the configuration names"
    )
    export.set_defaults(run=export_house)


def export_house(options: argparse.Namespace) -> int:
    """Write the house.  Return 1 where something of it could not be read."""
    from mailserver.plugins.catalogue import discover

    configuration = load(options.config, discover().options_of)
    target, faults = os.path.abspath(options.target), list[MailFault]()
    left: list[str] = []
    try:
        text, accounts = b"".join(_content(options.config)), _accounts(configuration, left)
        secrets = list(_secrets(configuration, faults)) if options.keys else []
        sink = _sink(target, configuration.data)
        with as_owner_of(configuration.data):
            counts = _write(options, configuration, text, accounts, secrets, sink, faults, left)
            sink.close()
    except CannotRead as error:
        raise Unable(f"{error}; {plain(target)} is no whole export", EX_IOERR) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Unable(f"{where}{error.strerror}; {plain(target)} is no whole export", EX_IOERR) from error
    if options.json:
        told = [{"where": one.where, "why": one.why} for one in faults]
        as_json({"target": target, **counts, "left": left, "faults": told})
        return 1 if faults else 0
    say(f"{plain(target)}: " + ", ".join(f"{count} {what}" for what, count in counts.items()) + ".")
    say(*[f"not there: {plain(one)}" for one in left])
    say(*[f"{plain(one.where)}: {plain(one.why)}" for one in faults[:SHOWN_MOST]])
    return 1 if faults else 0


def _sink(target: str, data: str) -> ExportSink:
    """A folder or a file that the owner of `data` may write.  Raises `Unable` and OSError."""
    if target.endswith(".tar"):
        if os.path.lexists(target):
            raise Unable(f"{target} exists already")
        return TarSink(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    if os.path.isdir(target) and os.listdir(target):
        raise Unable(f"{target} is not empty")
    make_folder(target, data)
    return FolderSink(os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))


def _write(
    options: argparse.Namespace,
    configuration: Configuration,
    text: bytes,
    accounts: list[Account],
    secrets: list[tuple[str, bytes]],
    sink: ExportSink,
    faults: list[MailFault],
    left: list[str],
) -> dict[str, int]:
    sink.add("mailserver.toml", [text])
    sink.add("accounts.jsonl", json_lines(map(line_of_account, accounts)))
    sink.add("domains.jsonl", json_lines(_domains(configuration)))
    records = list(_records(configuration.data))
    sink.add("records.jsonl", json_lines(records))
    counts = {"accounts": len(accounts), "domains": len(configuration.domain), "records": len(records)}
    files: list[dict[str, str]] = []
    if options.keys:
        said = set(_strings(tomllib.loads(text.decode())))  # a path that is whole there is no other one in another folder
        for number, (path, content) in enumerate(secrets):
            name, near = (
                f"files/{number}-{encoded_part(os.path.basename(path))}",
                os.path.relpath(path, configuration.directory),
            )
            sink.add(name, [content])
            files.append({"name": name, "path": path if near.startswith("..") or path in said else near})
        counts["secrets"] = len(files) + _keys(configuration.keys_path, sink, faults)
    else:
        left.append("keys, and files with secrets (--keys)")
    if options.mail:
        counts["messages"] = sum(_mail(configuration, one.address, sink, faults, left) for one in accounts)
    else:
        left.append("mail (--mail)")
    left.append(
        "what waits in the queue (mailserver backup), what was learnt, facts that expire, and roads of messages"
    )
    manifest = {
        "format": FORMAT,
        "made_at": int(time.time()),
        "hostname": configuration.hostname,
        "files": files,
        "counts": counts,
        "left": left,
    }
    sink.add(MANIFEST, [json.dumps(manifest, ensure_ascii=False, indent=2).encode() + b"\n"])
    return counts


def _accounts(configuration: Configuration, left: list[str]) -> list[Account]:
    accounts = configuration.accounts.options
    if not isinstance(accounts, FileDirectoryOptions):
        left.append(f'accounts: they are not in a file ([accounts] use = "{configuration.accounts.use}")')
        return []
    file = AccountsFile(accounts.path, configuration.data)
    return list(changing(file, file.list))


def _domains(configuration: Configuration) -> Iterator[dict[str, Any]]:
    for name, table in configuration.domain.items():
        found = {
            "domain": name,
            "same_as": table.same_as,
            "disabled": table.disabled,
            "subaddress": table.subaddress,
            "catch_all": table.catch_all and str(table.catch_all),
            "postmaster": table.postmaster and str(table.postmaster),
            "aliases": {
                alias: [f"{one.local}@{one.domain or name.removeprefix('*.')}" for one in members]
                for alias, members in table.aliases.items()
            },
            "disabled_aliases": list(table.disabled_aliases),
        }
        yield {key: value for key, value in found.items() if value}


def _records(data: str) -> Iterator[dict[str, Any]]:
    path = os.path.join(data, RECORDS)
    if not os.path.exists(path):
        return
    try:
        with closing(open_records(path)) as connection:
            for space, key, value in connection.execute("SELECT space, key, value FROM record ORDER BY space, key"):
                yield {"space": space, "key": key, "value": base64.b64encode(value).decode("ascii")}
    except (apsw.Error, StorageFault) as error:
        raise CannotRead(f"{path}: {error}") from error


# --- secrets ---


def _secrets(configuration: Configuration, faults: list[MailFault]) -> Iterator[tuple[str, bytes]]:
    """The files that the configuration names, each with its content.

    What is root's alone is read by root; what others could have put there, with the rights of the server's user.
    """
    for path in dict.fromkeys(named_files(configuration)):
        try:
            is_roots = not why_not_of(path)
            with nullcontext() if is_roots else as_owner_of(configuration.data):
                content = b"".join(_content(path))
        except OSError as error:
            faults.append(MailFault(path, f"cannot be read as the server's user: {error.strerror}"))
        else:
            yield path, content


def named_files(value: Any) -> Iterator[str]:
    """The paths of files with secrets that a configuration, or a table of it, names."""
    if isinstance(value, Options):
        for key in keys_of(type(value)):
            inner = getattr(value, key)
            if key in SECRET_KEYS and isinstance(inner, str) and inner.startswith("/"):
                yield inner
            else:
                yield from named_files(inner)
        yield from named_files(getattr(value, "options", None))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from named_files(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from named_files(inner)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)


def _keys(keys: str, sink: ExportSink, faults: list[MailFault]) -> int:
    count = 0
    for folder, _, names in os.walk(keys):
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            try:
                sink.add(f"keys/{os.path.relpath(path, keys)}", _content(path))
            except OSError as error:
                faults.append(MailFault(path, f"cannot be read: {error.strerror}"))
                continue
            count += 1
    return count


def _content(path: str) -> Iterator[bytes]:
    with open(opened_file(path, follow=True), "rb") as file:
        while piece := file.read(PIECE):
            yield piece


# --- mail ---


def _mail(
    configuration: Configuration, address: str, sink: ExportSink, faults: list[MailFault], left: list[str]
) -> int:
    """One account's Maildir.  Mail programs may rename files meanwhile: it is looked at again for those that were missed."""
    try:
        path, mailbox, _ = mail_place(configuration, address)
    except (Unable, AddressError) as error:
        left.append(f"mail of {address}: {error}")
        return 0
    if not os.path.isdir(path) or os.path.islink(path):
        return 0
    root = f"mail/{encoded_part(mailbox.domain)}/{encoded_part(mailbox.user)}"
    done: set[str] = set()
    letters: dict[tuple[str, ...], dict[str, str]] = {}
    names: set[str] = set()
    subscriptions: list[str] = []
    for _ in range(LOOKS):
        missed: list[MailFault] = []
        try:
            source = MaildirSource(path, missed.append)
        except OSError as error:  # this one's matter: the others' mail is exported
            missed.append(MailFault(path, f"cannot be read: {error.strerror}"))
            break
        with closing(source):
            for item in source:
                if item.key in done:
                    continue
                folder = os.path.join(root, folder_name(item.folder)).rstrip("/")
                above = f"{folder}/{'new' if item.is_new else 'cur'}"
                name = _free(above, _name(item, letters.setdefault(item.folder, {})), names)
                try:
                    sink.add(f"{above}/{name}", item.octets(), seconds=item.seconds)
                except CannotRead as error:
                    missed.append(MailFault(item.where, str(error)))
                    continue
                names.add(f"{above}/{name}")
                done.add(item.key)
            subscriptions = source.subscriptions()
        if not missed:
            break
    faults += missed
    for parts, words in letters.items():
        if words:
            lines = keyword_lines(words).encode("utf-8", "replace")
            sink.add(os.path.join(root, folder_name(parts), KEYWORDS), [lines])
    if subscriptions:
        sink.add(f"{root}/subscriptions", ["".join(f"{one}\n" for one in subscriptions).encode()])
    return len(done)


def _free(folder: str, name: str, names: set[str]) -> str:
    """Another name where two files differ only in flags that are not kept."""
    base, colon, flags = name.partition(":")
    number = 1
    while f"{folder}/{name}" in names:
        number += 1
        name = f"{base}.{number}{colon}{flags}"
    return name


def _name(item: MailItem, letters: dict[str, str]) -> str:
    base = os.path.basename(item.where).partition(":")[0]
    for word in item.keywords:
        if word not in letters and len(letters) < 26:
            letters[word] = chr(97 + len(letters))
    flags = item.flags + "".join(sorted(letters[word] for word in item.keywords if word in letters))
    return base if item.is_new and not flags else f"{base}:2,{flags}"
