"""``mailserver queue cat``: a message that waits, as it is kept."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import data_directory
from mailserver.cli.output import EX_IOERR, Unable, plain
from mailserver.mail.faults import StorageFault
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    from mailserver.mail.content import Content

__all__ = ["add_cat"]

SUMMARY = "write a message as it is kept, with our trace fields, to standard output"
NO_MESSAGE = "the queue has no message {}; `mailserver explain` may know what became of it"


def add_cat(actions: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = actions.add_parser("cat", parents=[common], help=SUMMARY, description=SUMMARY.capitalize() + ".")
    parser.add_argument("id", metavar="ID", help="the message's id")
    parser.add_argument("--header", action="store_true", help="only its header section")
    parser.set_defaults(run=cat_message)


def cat_message(options: argparse.Namespace) -> int:
    """Print the message's octets unchanged; on a terminal without control characters.  Return 1 where it is not in the queue."""
    data = data_directory(options.config)
    try:
        with as_owner_of(data):
            for piece in _pieces(data, options.id, options.header):
                _write(piece)
    except FileNotFoundError as error:
        raise Unable(f"{plain(options.id)} has left the queue meanwhile") from error
    except BrokenPipeError:
        raise
    except (StorageFault, OSError) as error:
        raise Unable(str(error), EX_IOERR) from error
    return 0


def _pieces(data: str, id: str, only_header: bool) -> Iterator[bytes]:
    content = _content(data, id)
    if only_header:
        yield content.head
    else:
        yield from content.chunks()


def _content(data: str, id: str) -> Content:
    """The server may be running: its files are read as they are at this moment."""
    from mailserver.queue.entry import number_of
    from mailserver.queue.reader import Unreadable, closing_reader

    try:
        number = number_of(id.upper())
    except ValueError as error:
        raise Unable(NO_MESSAGE.format(plain(id))) from error
    with closing_reader(data) as reader:
        found = reader.read([number], 1)[0] if reader is not None else []
    if not found:
        raise Unable(NO_MESSAGE.format(plain(id)))
    if isinstance(found[0], Unreadable):
        raise Unable(f"{plain(id)} is damaged: {found[0].why}", EX_IOERR)
    if found[0].envelope.id != id.upper():
        raise Unable(NO_MESSAGE.format(plain(id)))
    content: Content = found[0].content
    return content


def _write(octets: bytes) -> None:
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        text = octets.decode("utf-8", "replace").replace("\r\n", "\n")
        sys.stdout.write("\n".join(plain(line.replace("\t", "    ")) for line in text.split("\n")))
    else:
        sys.stdout.buffer.write(octets)
