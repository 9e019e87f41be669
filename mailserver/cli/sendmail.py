"""``mailserver sendmail``: what programs of the host call to send mail, with the command line that all of them know.

The message goes into the pickup folder (`mailserver.pickup.file_format`), synced, so that it needs no running server; one
that runs is told at once where this user may, and else looks within a second.  Under the names ``mailq`` and
``newaliases`` it does what those do.

Exit codes are those of sysexits.h: 0 handed over; 64 wrong command line, 65 the message or an address is wrong, 69 too large,
74 the disk, 75 not now, 77 this user may not, 78 the configuration has faults.
"""

from __future__ import annotations

import contextlib
import getopt
import os
import pwd
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import EX_CONFIG, EX_DATAERR, EX_IOERR, EX_NOPERM, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE
from typing import BinaryIO

from mailserver.cli.sendmail_message import TooLarge, TypedMessage, TypedMessageError, lines_of, qualified
from mailserver.config import Configuration, ConfigurationError, load
from mailserver.config.choice import INSTALLED, chosen_path
from mailserver.delivery.durability import find_syncfs
from mailserver.mail.address import Address
from mailserver.mail.durable import sync_directory
from mailserver.mail.envelope import MailParameters, Recipient, RecipientParameters
from mailserver.pickup.file_format import PickupEnvelope, PickupFault, pickup_name
from mailserver.processes.streams import fill_streams

__all__ = ["main", "write_file"]

OPTIONS = "A:B:C:F:GIL:N:O:R:UV:X:b:ce:f:h:imno:p:r:tvx"
USAGE = """\
usage: mailserver sendmail [options] ADDRESS…   (the message comes on standard input)

  -t            recipients from To, Cc and Bcc of the header, too; Bcc never travels
  -i, -oi       a line with a dot alone does not end the message
  -f ADDRESS    the sender; "" for none.  Without it the user at this host's domain
  -F NAME       the sender's name, for a From that is missing
  -N WHEN       ask for reports: never, or some of success,failure,delay;  -R full|hdrs  -V ID
  -C FILE       the configuration file, also --config FILE
  -bp, -bi      what mailq and newaliases do"""
NOTIFY = frozenset({"never", "success", "failure", "delay"})
RETURNS = {"full": "FULL", "hdrs": "HDRS"}
NOT_OFFERED = {
    "bs": "no SMTP on standard input here: connect to the server's port",
    "bd": "the server is started with `twistd mailserver`",
    "bv": "`mailserver route ADDRESS` says where mail would go",
}
FILE_MODE = 0o640  # the folder's group is the server's


class Unsent(Exception):
    """The message is not handed over.  `code` is the exit code."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.code = code


@dataclass(slots=True)
class Wishes:
    """What the command line says."""

    mode: str = "bm"
    sender: str | None = None
    name: str = ""
    recipients: list[str] = field(default_factory=list)
    from_header: bool = False
    dot_ends: bool = True
    notify: frozenset[str] | None = None
    ret: str | None = None
    envid: str | None = None
    config: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    fill_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    called = os.path.basename(sys.argv[0]) if arguments is None else ""
    try:
        wishes = parse(words)
        if called == "newaliases" or wishes.mode == "bi":
            return 0  # the aliases are in the configuration, and a reload is the administrator's
        if called == "mailq" or wishes.mode == "bp":
            from mailserver.cli.command import run_command

            return run_command(["queue", "list", "--config", wishes.config or INSTALLED])
        if wishes.mode == "help":
            print(USAGE)
            raise SystemExit(0)  # as the other commands do
        if wishes.mode == "q":
            return 0  # the server needs nobody to tell it when
        if wishes.mode in NOT_OFFERED:
            raise Unsent(NOT_OFFERED[wishes.mode], EX_USAGE)
        hand_over(wishes, sys.stdin.buffer)
    except Unsent as error:
        return _failed(str(error), error.code)
    except TypedMessageError as error:
        return _failed(str(error), EX_DATAERR)
    except TooLarge as error:
        return _failed(str(error), EX_UNAVAILABLE)
    except ConfigurationError as error:
        return _failed(str(error), EX_CONFIG)
    except OSError as error:
        return _failed(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), EX_IOERR)
    except KeyboardInterrupt:
        return 130
    return 0


def _failed(words: str, code: int) -> int:
    print(f"sendmail: {words}", file=sys.stderr)
    return code


def parse(words: list[str]) -> Wishes:
    """Read the command line.  Options of sendmail without a meaning here are accepted.  Raises `Unsent`."""
    wishes = Wishes()
    end = words.index("--") if "--" in words else len(words)
    for word in words[:end]:
        if word.startswith(("-q", "-d")):  # their values are a part of the word, where there are any
            wishes.mode = "q" if word.startswith("-q") else wishes.mode
            words.remove(word)
    try:
        options, wishes.recipients = getopt.gnu_getopt(words, OPTIONS, ["config=", "help"])
    except getopt.GetoptError as error:
        raise Unsent(str(error), EX_USAGE) from None
    for option, value in options:
        _take(wishes, option, value)
    return wishes


def ignores_dots(option: str, value: str) -> bool:
    """Whether the option is ``-i``, ``-oi`` or ``-O IgnoreDots=true``."""
    long = value.replace(" ", "").lower().removeprefix("ignoredots")
    return (
        option == "-i"
        or (option == "-o" and value.startswith("i"))
        or (option == "-O" and long != value.lower() and long in ("", "=true", "=t", "=yes", "=y"))
    )


def _take(wishes: Wishes, option: str, value: str) -> None:
    if ignores_dots(option, value):
        wishes.dot_ends = False
    match option:
        case "-b":
            wishes.mode = f"b{value}"
        case "-f" | "-r":
            wishes.sender = value.strip().removeprefix("<").removesuffix(">")
        case "-F":
            wishes.name = "".join([character if character.isprintable() else " " for character in value]).strip()
        case "-t":
            wishes.from_header = True
        case "-N":
            wanted = frozenset(value.lower().split(","))
            if wanted - NOTIFY or ("never" in wanted and len(wanted) > 1):
                raise Unsent("-N wants never, or some of success,failure,delay", EX_USAGE)
            wishes.notify = frozenset(word.upper() for word in wanted)
        case "-R":
            wishes.ret = RETURNS.get(value.lower())
            if wishes.ret is None:
                raise Unsent("-R wants full or hdrs", EX_USAGE)
        case "-V":
            wishes.envid = value
        case "-C" | "--config":
            wishes.config = value
        case "--help":
            wishes.mode = "help"


def hand_over(wishes: Wishes, stream: BinaryIO) -> None:
    """Read the message and put it into the pickup folder."""
    if not wishes.recipients and not wishes.from_header:
        raise Unsent("who shall get it? Give recipients, or -t to take them from the header", EX_USAGE)
    # Programs of the host call this with whatever environment they have: it chooses nothing.
    configuration = load(chosen_path(wishes.config or None, say=lambda words: print(f"sendmail: {words}", file=sys.stderr)))
    domain = domain_of(configuration)
    user, full_name = whoami()
    sender = qualified(wishes.sender or user, domain)
    octets_most = configuration.limits.message_bytes
    typed = TypedMessage.read(lines_of(stream, dot_ends=wishes.dot_ends, line_octets_most=octets_most))
    recipients = [qualified(text, domain) for text in wishes.recipients]
    if wishes.from_header:
        recipients += typed.recipients(domain)
    if not recipients:
        raise Unsent("there is no recipient in the header", EX_USAGE)
    now = time.time()
    name = pickup_name(int(now * 1_000_000), secrets.token_bytes(16))
    message_id = f"<{name.removesuffix('.mail')}@{configuration.hostname}>"
    fields = typed.completed(sender=sender, name=wishes.name or full_name, message_id=message_id, now=now)
    envelope = envelope_of(wishes, None if wishes.sender == "" else sender, recipients)
    path = os.path.join(configuration.pickup_path, name)
    write_file(path, envelope, fields, typed, octets_most)
    _ring(os.path.join(configuration.data, "control.sock"))


def _ring(path: str) -> None:
    """Tell the server, where this user may and somebody is in; else it finds the file within a second."""
    if os.access(path, os.W_OK):
        from mailserver.control.client import CommandRefused, ControlError, ask

        with contextlib.suppress(ControlError, OSError):
            try:
                ask(path, "pickup.look", timeout_seconds=2)
            except CommandRefused:  # a server that has not been restarted since the upgrade
                ask(path, "drop.look", timeout_seconds=2)


def envelope_of(wishes: Wishes, sender: Address | None, addresses: Sequence[Address]) -> PickupEnvelope:
    """The envelope, which is the first line of the file."""
    everybody = addresses if sender is None else (*addresses, sender)
    parameters = MailParameters(
        body="8BITMIME", smtputf8=not all(one.is_ascii for one in everybody), ret=wishes.ret, envid=wishes.envid
    )
    recipients = tuple([Recipient(one, RecipientParameters(wishes.notify)) for one in dict.fromkeys(addresses)])
    envelope = PickupEnvelope(sender, recipients, parameters)
    try:
        PickupEnvelope.decode(envelope.encode())
    except PickupFault as error:
        raise Unsent(f"the server would not take it: {error}", EX_DATAERR) from None
    return envelope


def write_file(path: str, envelope: PickupEnvelope, fields: Sequence[bytes], typed: TypedMessage, octets_most: int) -> None:
    """The file under a name with a dot, synced; then its own name, synced."""
    folder, name = os.path.split(path)
    unfinished = os.path.join(folder, f".{name}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    except FileNotFoundError:
        raise Unsent(f"{folder} is not there: the server makes it at its first start", EX_TEMPFAIL) from None
    except PermissionError:
        raise Unsent(f"this user may not write to {folder} ([pickup] users)", EX_NOPERM) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write_message(file, envelope, fields, typed, octets_most)
            os.fchmod(file.fileno(), FILE_MODE)  # whatever the umask says
            file.flush()
            os.fsync(file.fileno())
            os.rename(unfinished, path)
            # From here on the server may have it: whatever fails now, a program that sent it again would send it twice.
            try:
                _sync_name(folder, file.fileno())
            except OSError as error:
                print(f"sendmail: handed over, but a power cut could still undo it: {error.strerror}", file=sys.stderr)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise


def _write_message(
    file: BinaryIO, envelope: PickupEnvelope, fields: Sequence[bytes], typed: TypedMessage, octets_most: int
) -> None:
    line = envelope.encode()
    file.write(line)
    size, is_ascii = 0, True

    def put(text: bytes) -> None:
        nonlocal size, is_ascii
        size += len(text) + 2
        if size > octets_most:
            raise Unsent(f"the message is larger than {octets_most} octets", EX_UNAVAILABLE)
        is_ascii = is_ascii and text.isascii()
        file.write(text)
        file.write(b"\r\n")

    for text in fields:
        put(text)
    put(b"")
    for text in typed.body:
        put(text)
    if is_ascii:  # known only now: the first line is written again, as long as it was
        plain = line.replace(b'"body": "8BITMIME"', b'"body": "7BIT"', 1)
        file.seek(0)
        file.write(plain[:-1].ljust(len(line) - 1) + b"\n")


def _sync_name(folder: str, descriptor: int) -> None:
    """Make the new name durable.  A folder that this user may not read cannot be synced by itself: then its file system is."""
    try:
        sync_directory(folder)
    except PermissionError:
        syncfs = find_syncfs()
        if syncfs is None:
            os.sync()
        else:
            syncfs(descriptor)


def domain_of(configuration: Configuration) -> str:
    """What completes an address that has no domain."""
    return configuration.pickup.domain or configuration.home_domain


def whoami() -> tuple[str, str]:
    """The user's name and the person's."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return f"uid-{os.getuid()}", ""
    return entry.pw_name, entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize())


if __name__ == "__main__":
    sys.exit(main())
