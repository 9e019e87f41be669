"""What `mailserver domain` and `mailserver alias` share: a change of the configuration file, told, and taken up by the server."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from os import EX_NOPERM
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.config.glance import glance
from mailserver.control.client import CommandRefused, ControlError, NoServer

if TYPE_CHECKING:
    from mailserver.config import Configuration
    from mailserver.config.draft import Draft

__all__ = ["add_change_options", "change_configuration", "change_lines", "domains_of", "normal_domain_of", "reload_server"]

RELOAD_SECONDS = 300.0  # a component that starts slowly is waited for


def add_change_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that every change has."""
    parser.add_argument("--reload", action="store_true", help="let the running server take it up at once")
    parser.add_argument("--dry-run", action="store_true", help="only show which lines would change")


def change_configuration(options: argparse.Namespace, change: Callable[[Draft], None]) -> int:
    """Change the file and print the lines that differ.  Raises as `change_lines`."""
    lines = change_lines(options, change, dry_run=options.dry_run)
    if options.json:
        as_json({"file": options.config, "changed": lines, "dry_run": options.dry_run})
    else:
        say(*map(plain, lines))
    if options.reload and not options.dry_run:
        reload_server(options)
    elif not options.json and not options.dry_run:
        say("The running server takes it up at its next reload (--reload, or `systemctl reload mailserver`).")
    return 0


def change_lines(options: argparse.Namespace, change: Callable[[Draft], None], *, dry_run: bool = False) -> list[str]:
    """Change the file; return the lines that differ.

    Raises `Unable`, and `ConfigurationError` where the file has faults, or would have them.
    """
    from mailserver.config.editing import MayNotWrite, change_file
    from mailserver.plugins.catalogue import discover

    try:
        return change_file(options.config, change, discover().options_of, judge=_routes, dry_run=dry_run)
    except MayNotWrite as error:
        raise Unable(str(error), EX_NOPERM) from error
    except OSError as error:
        raise Unable(f"{options.config}: {error.strerror or error}", EX_IOERR) from error


def _routes(configuration: Configuration) -> str:
    """The faults that only the start would find in the domains: aliases that form a loop."""
    from mailserver.assembly.routing import make_router
    from mailserver.plugins.life import StartError

    nobody: Any = None  # is asked before mail comes
    try:
        make_router(configuration, nobody)
    except StartError as error:
        return str(error)
    return ""


def reload_server(options: argparse.Namespace) -> None:
    """Let the running server reload the file.  Raises `Unable`."""
    try:
        answer = ask_server(glance(options.config).data, "reload", {}, timeout_seconds=RELOAD_SECONDS)
    except NoServer:
        if not options.json:
            say("No server runs: the next start takes it up.")
    except CommandRefused as error:
        raise Unable(f"the file has changed, but the server goes on with what it had: {error}") from error
    except ControlError as error:
        raise Unable(f"the file has changed; {error}", 69) from error
    else:
        if answer.get("newer_code") and not options.json:
            say(f"The code of {', '.join(answer['newer_code'])} on the disk is not what runs: that needs a restart.")


def normal_domain_of(text: str) -> str:
    """A domain in normal form.  Raises `Unable`."""
    from mailserver.config.values import domain_key

    try:
        return domain_key(text)
    except ValueError as error:
        raise Unable(str(error), 2) from error


def domains_of(draft: Draft) -> dict[str, str]:
    """The domains: by their normal form, how they are written in the file."""
    return {normal_domain_of(name): name for name in draft.document.get("domain", {})}
