"""``mailserver import``: configuration, accounts and mail of another mail system; and what ``export`` has written."""

from __future__ import annotations

import argparse
from typing import Any

from mailserver.cli import import_house, import_mail, import_passwd, import_postfix

__all__ = ["add_to"]


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    importing = commands.add_parser("import", help=summary, description=summary.capitalize() + ".")
    actions = importing.add_subparsers(title="what", metavar="WHAT", required=True)
    import_postfix.add_to(actions, common)
    import_passwd.add_to(actions, common)
    import_mail.add_to(actions, common)
    import_house.add_to(actions, common)
