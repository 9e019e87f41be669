"""``mailserver manual``: the manual page, and completion for a shell, made of the one parser that there is."""

from __future__ import annotations

import argparse
from typing import Any

from mailserver.cli.output import Unable, say

__all__ = ["add_to"]

SHELLS = ("bash", "zsh", "tcsh")
INSTALL = "needs the package {}: pip install '.[manual]' in the checkout"


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    manual = commands.add_parser("manual", help=summary, description=summary.capitalize() + ".")
    manual.add_argument("what", metavar="WHAT", choices=("page", *SHELLS), help=f"page, or one of {', '.join(SHELLS)}")
    manual.set_defaults(run=print_manual, needs_configuration=False)


def print_manual(options: argparse.Namespace) -> int:
    """Print it."""
    from mailserver.cli.command import whole_parser

    say((_page if options.what == "page" else _completion)(whole_parser(), options.what))
    return 0


def _page(parser: argparse.ArgumentParser, _: str) -> str:
    try:
        from argparse_manpage.manpage import Manpage
    except ImportError as error:
        raise Unable(INSTALL.format("argparse-manpage")) from error
    from importlib.metadata import version

    about = {"manual_section": 8, "project_name": "mailserver", "version": version("mailserver"), "manual_title": "mailserver"}
    return str(Manpage(parser, about))


def _completion(parser: argparse.ArgumentParser, shell: str) -> str:
    try:
        import shtab
    except ImportError as error:
        raise Unable(INSTALL.format("shtab")) from error
    return str(shtab.complete(parser, shell))
