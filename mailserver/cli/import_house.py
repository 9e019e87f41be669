"""``mailserver import house``: what ``export`` has written, on a machine that has none of it yet."""

from __future__ import annotations

import argparse
import errno
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from mailserver.accounts.file import FileDirectoryOptions
from mailserver.accounts.table import Account, AccountsFile
from mailserver.authentication.sealing import KeyPlace, make_folder
from mailserver.cli.accounts import changing
from mailserver.cli.exporting import named_files
from mailserver.cli.import_mail import mail_place
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.cli.records import put_records
from mailserver.config import Configuration, ConfigurationError, load
from mailserver.delivery.names import encoded_part
from mailserver.mail.address import AddressError
from mailserver.moving.careful import new_file, opened_file
from mailserver.moving.export_form import FORMAT, MANIFEST, account_of_line
from mailserver.moving.mail_item import CannotRead, MailFault
from mailserver.moving.maildir_source import MaildirSource
from mailserver.moving.maildir_target import MaildirTarget
from mailserver.plugins.catalogue import discover
from mailserver.processes.identity import as_owner_of

__all__ = ["add_to"]

JSON_OCTETS_MOST = 1 << 20
PIECE = 1 << 20
SHOWN_MOST = 100


def add_to(actions: Any, common: argparse.ArgumentParser) -> None:
    """Declare the action."""
    parser = actions.add_parser(
        "house", parents=[common], help="what `mailserver export` has written, on an empty machine"
    )
    parser.add_argument("source", metavar="DIRECTORY|FILE.tar", help="what `mailserver export` has written")
    parser.add_argument(
        "--output", metavar="FILE", required=True, help="where its configuration goes; never over another one"
    )
    parser.add_argument(
        "--any-path", action="store_true", help="files with secrets also outside of FILE's folder, where they were before"
    )
    parser.set_defaults(run=import_house, needs_configuration=False)


def import_house(options: argparse.Namespace) -> int:
    """Put it up: configuration, secrets, accounts, records, mail.  Return 1 where something could not be read.

    Each step leaves what is there already and is the same; where something else is there it stops.
    """
    output = os.path.abspath(options.output)
    with _opened(os.path.abspath(options.source)) as source:
        manifest, accounts = _manifest(source), _account_lines(source)
        _same_or_new(output, _read(source, "mailserver.toml"), 0o644, None)
        configuration = load(output, discover().options_of)
        owner = _owner(configuration.data)
        for path, name in _files(manifest, configuration, any_path=options.any_path):
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            _same_or_new(path, _read(source, name), 0o600, owner)
        counts = {"accounts": _accounts(accounts, configuration), "records": _records(source, output)}
        counts["keys"] = _keys(source, configuration, owner)
        faults: list[MailFault] = []
        counts["messages"] = _mail(source, configuration, faults)
    if options.json:
        told = [{"where": one.where, "why": one.why} for one in faults]
        as_json({"configuration": output, **counts, "left": manifest.get("left", []), "faults": told})
        return 1 if faults else 0
    say(f"{plain(output)} is there; new were " + ", ".join(f"{count} {what}" for what, count in counts.items()) + ".")
    say(*[f"not in the export: {plain(str(one))}" for one in manifest.get("left", ())])
    say(*[f"{plain(one.where)}: {plain(one.why)}" for one in faults[:SHOWN_MOST]])
    return 1 if faults else 0


@contextmanager
def _opened(source: str) -> Iterator[str]:
    """The folder; what is in a tar file is unpacked beside it, without links and without names that lead out."""
    if os.path.isdir(source):
        yield source
        return
    try:
        with tempfile.TemporaryDirectory(prefix="house-", dir=os.path.dirname(source)) as folder:
            with open(opened_file(source, follow=True), "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                _unpack(tar, folder)
            yield folder
    except tarfile.TarError as error:
        raise Unable(f"{source}: {error}", EX_IOERR) from error
    except OSError as error:
        raise Unable(f"{error.filename or source}: {error.strerror}", EX_IOERR) from error


def _unpack(tar: tarfile.TarFile, folder: str) -> None:
    """Files and folders, each once, below `folder`.  Raises `Unable` for anything else: an export has nothing else."""
    for member in tar:
        parts = member.name.split("/")
        if member.name.startswith("/") or ".." in parts or "\0" in member.name or not (member.isreg() or member.isdir()):
            raise Unable(f"{plain(member.name)} in the file is a link, a device, or leads out: no export has such", EX_IOERR)
        path = os.path.join(folder, *[part for part in parts if part not in ("", ".")])
        if member.isdir():
            os.makedirs(path, 0o700, exist_ok=True)
            continue
        content = tar.extractfile(member)
        if content is None or member.issparse():
            raise Unable(f"{plain(member.name)} in the file has holes: no export has such", EX_IOERR)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise Unable(f"{plain(member.name)} is in the file twice", EX_IOERR) from None
        with open(descriptor, "wb") as file:
            while piece := content.read(PIECE):
                file.write(piece)
            file.flush()
            os.utime(descriptor, ns=(int(max(0.0, member.mtime) * 1e9),) * 2)


def _manifest(source: str) -> dict[str, Any]:
    try:
        found = json.loads(_read(source, MANIFEST)[:JSON_OCTETS_MOST])
        if found["format"] != FORMAT:
            raise Unable(f"{plain(source)} has the format {found['format']!r}; this release knows {FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise Unable(f"{plain(source)} is no export: {MANIFEST} is damaged") from error
    return dict(found)


def _files(manifest: dict[str, Any], configuration: Configuration, *, any_path: bool) -> list[tuple[str, str]]:
    """Where each file with a secret goes, and its name in the export.

    The export says it, and root writes: so it has to be one that the configuration names, and below the configuration's folder
    unless the administrator lets it be anywhere.  Raises `Unable`.
    """
    folder, named, found = configuration.directory, set(named_files(configuration)), []
    try:
        files = [(str(one["path"]), str(one["name"])) for one in manifest.get("files", ())]
    except (KeyError, TypeError) as error:
        raise Unable(f"{MANIFEST} is damaged: files") from error
    for said, name in files:
        path = os.path.join(folder, said)
        if path != os.path.normpath(path) or not {path, said} & named or not name.startswith("files/"):
            raise Unable(f"{plain(said)} in {MANIFEST} is no file that the configuration names: nothing is written there")
        found.append((path, name))
    outside = [path for path, _ in found if not path.startswith(folder.rstrip("/") + "/")]
    if outside and not any_path:
        words = f"{plain(outside[0])} is outside of the configuration's folder {plain(folder)}"
        raise Unable(f"{words}: with --any-path it is written there, where you trust who made the export")
    return found


def _read(source: str, name: str) -> bytes:
    path = os.path.join(source, name)
    try:
        with open(_below(source, name, os.O_RDONLY), "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise Unable(f"{plain(source)} is no whole export: {plain(name)} is missing") from error
    except OSError as error:
        raise Unable(f"{plain(path)}: {error.strerror}", EX_IOERR) from error


def _below(source: str, name: str, flags: int) -> int:
    """What has this name in the export, opened.  No link is followed: the folder may be another user's, and root reads."""
    at = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    *folders, last = name.split("/")
    if ".." in folders or last == "..":
        raise OSError(errno.EINVAL, "the name leads out of the export", name)
    for part in folders:
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)
        at = below
    try:
        if flags & os.O_DIRECTORY:
            return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        return opened_file(last, at)
    finally:
        os.close(at)


def _same_or_new(path: str, content: bytes, mode: int, owner: tuple[int, int] | None) -> bool:
    """Write a file that is not there.  One that is the same stays; raises `Unable` for another one."""
    try:
        new_file(path, content, mode, owner)
    except FileExistsError:
        if not _holds(path, content):
            words = f"{plain(path)} is there already, and is another one: nothing was written over it"
            raise Unable(words) from None
        return False
    except OSError as error:
        raise Unable(f"{plain(path)}: {error.strerror}", EX_IOERR) from error
    return True


def _holds(path: str, content: bytes) -> bool:
    try:
        with open(opened_file(path, follow=True), "rb") as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def _owner(data: str) -> tuple[int, int]:
    try:
        found = os.stat(data)
    except OSError as error:
        words = f"{data} is not there: make it for the server's user, with mode 0700, as at the installation"
        raise Unable(f"{words}; the same command goes on then", EX_IOERR) from error
    return found.st_uid, found.st_gid


def _account_lines(source: str) -> list[Account]:
    try:
        return [account_of_line(json.loads(line)) for line in _read(source, "accounts.jsonl").splitlines()]
    except (ValueError, KeyError, TypeError, ConfigurationError) as error:
        raise Unable(f"accounts.jsonl is damaged: {type(error).__name__}: {plain(str(error))}") from error


def _accounts(accounts: Sequence[Account], configuration: Configuration) -> int:
    options = configuration.accounts.options
    if not isinstance(options, FileDirectoryOptions):
        return 0
    file = AccountsFile(options.path, configuration.data)
    added = changing(file, lambda: file.add_all(accounts))
    there = {one.address: one for one in changing(file, file.list)}
    others = [one.address for one in accounts if there.get(one.address) != one]
    if others:
        raise Unable(f"{plain(others[0])} is an account here already, and not the same: it stays as it is")
    return len(added)


def _records(source: str, config: str) -> int:
    lines = _read(source, "records.jsonl").decode("utf-8").split("\n")
    return put_records(config, lines) if any(lines) else 0


def _keys(source: str, configuration: Configuration, owner: tuple[int, int]) -> int:
    folder, count = os.path.join(source, "keys"), 0
    if not os.path.isdir(folder):
        return 0
    if os.geteuid() == 0:
        make_folder(KeyPlace(configuration.keys_path, configuration.data), *owner)
    else:
        os.makedirs(configuration.keys_path, 0o700, exist_ok=True)
    for above, _, names in os.walk(folder):
        for name in sorted(names):
            inner = os.path.relpath(os.path.join(above, name), folder)
            content = _read(source, f"keys/{inner}")
            with as_owner_of(configuration.data):
                path = os.path.join(configuration.keys_path, inner)
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
                count += _same_or_new(path, content, 0o600, None)
    return count


def _mail(source: str, configuration: Configuration, faults: list[MailFault]) -> int:
    options = configuration.accounts.options
    if not os.path.isdir(os.path.join(source, "mail")) or not isinstance(options, FileDirectoryOptions):
        return 0
    file, count = AccountsFile(options.path, configuration.data), 0
    for account in changing(file, file.list):
        try:
            for is_new in _mail_of(account.address, source, configuration, faults):
                count += is_new
        except (Unable, AddressError) as error:
            faults.append(MailFault(account.address, f"its mail cannot be put there: {error}"))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # of all of them, and the same command goes on
                raise Unable(f"{error.strerror}; the same command, given again, goes on", EX_IOERR) from error
            faults.append(MailFault(account.address, f"its mail cannot be put there, not all of it: {error.strerror}"))
    return count


def _mail_of(address: str, source: str, configuration: Configuration, faults: list[MailFault]) -> Iterator[bool]:
    """One account's mail, True for each message that is new.  Raises OSError, `Unable` and AddressError."""
    path, mailbox, acting = mail_place(configuration, address)
    name = f"mail/{encoded_part(mailbox.domain)}/{encoded_part(mailbox.user)}"
    try:
        opened = _below(source, name, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        faults.append(MailFault(f"{source}/{name}", f"cannot be read: {error.strerror}"))
        return
    with (
        closing(MaildirSource(f"{source}/{name}", faults.append, descriptor=opened)) as old,
        closing(MaildirTarget(path, mailbox, configuration.hostname, acting, faults.append)) as new,
    ):
        for item in old:
            try:
                yield new.put(item)
            except CannotRead as error:
                faults.append(MailFault(item.where, str(error)))
        new.finish()
        if listed := old.subscriptions():
            new.subscribe(listed)
