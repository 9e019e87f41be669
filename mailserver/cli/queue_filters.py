"""The filters of the queue's commands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mailserver.cli.output import Unable
from mailserver.config.quantities import seconds
from mailserver.queue.admin.states import STATES

if TYPE_CHECKING:
    from mailserver.queue.admin.selection import Selection

__all__ = ["add_filters", "is_everything", "selection_of"]


def add_filters(parser: argparse.ArgumentParser, *, id_is_argument: bool) -> None:
    """Declare the filters."""
    if id_is_argument:
        parser.add_argument("id", metavar="ID", nargs="*", default=[], help="an id, or the beginning of several")
    else:
        parser.add_argument(
            "--id", metavar="ID", action="append", default=[], help="an id, or the beginning of several"
        )
    parser.add_argument("--sender", metavar="PATTERN", default="", help="such as '*@example.net'; <> for reports")
    parser.add_argument("--login", metavar="PATTERN", default="", help="the account that has handed it in: 'alice@*'")
    parser.add_argument("--recipient", metavar="PATTERN", default="", help="such as 'alice@*'")
    parser.add_argument("--domain", metavar="PATTERN", default="", help="the domain of a recipient")
    parser.add_argument("--older", metavar="AGE", type=_age, default=None, help="has waited so long or longer: 2h, 3d")
    parser.add_argument("--younger", metavar="AGE", type=_age, default=None, help="has waited no longer than so")
    parser.add_argument(
        "--state", metavar="STATE", action="append", default=[], choices=STATES, help=f"one of {', '.join(STATES)}"
    )


def selection_of(options: argparse.Namespace) -> list[Selection]:
    """What was asked for, one for each id.  Raises `Unable`."""
    from mailserver.queue.admin.selection import Selection, SelectionError

    try:
        return [
            Selection(
                id=id,
                sender=options.sender,
                login=options.login,
                recipient=options.recipient,
                domain=options.domain,
                older_seconds=options.older,
                younger_seconds=options.younger,
                states=tuple(options.state),
            )
            for id in (dict.fromkeys(options.id) or [""])
        ]
    except SelectionError as error:
        raise Unable(str(error), 2) from error


def is_everything(options: argparse.Namespace) -> bool:
    """Whether no filter was given, so that no selection is needed."""
    o = options
    named = (*o.id, o.sender, o.login, o.recipient, o.domain, *o.state)
    return not any(named) and o.older is None and o.younger is None


def _age(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
