"""``mailserver domain``: which domains' mail is delivered here.  Changes the configuration file, with its comments."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mailserver.cli.changing import add_change_options, change_configuration, domains_of, normal_domain_of
from mailserver.cli.output import Unable, as_json, say, table

if TYPE_CHECKING:
    from mailserver.config.draft import Draft

__all__ = ["add_to"]


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    domain = commands.add_parser("domain", help=summary)
    actions = domain.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="all domains of the configuration")
    listing.set_defaults(run=list_domains)
    adding = actions.add_parser("add", parents=[common], help="deliver the mail of a domain here")
    adding.add_argument("domain", metavar="DOMAIN", help="such as example.org, or '*.example.org' for all below it")
    adding.add_argument("--postmaster", metavar="ADDRESS", default="", help="who gets mail for postmaster and abuse")
    adding.add_argument("--same-as", metavar="DOMAIN", default="", help="a second name for that one: all its names hold here")
    adding.add_argument("--catch-all", metavar="ADDRESS", default="", help="who gets mail for names that do not exist")
    adding.set_defaults(run=add_domain)
    removing = actions.add_parser("remove", parents=[common], help="no longer; its mail and its accounts stay where they are")
    removing.add_argument("domain", metavar="DOMAIN", help="as it is listed")
    removing.set_defaults(run=remove_domain)
    for parser in (adding, removing):
        add_change_options(parser)


def list_domains(options: argparse.Namespace) -> int:
    """Print them."""
    from mailserver.config import load

    found = load(options.config).domain
    if options.json:
        as_json([
            {
                "domain": name,
                "same_as": one.same_as or "",
                "postmaster": _text(one.postmaster),
                "catch_all": _text(one.catch_all),
                "aliases": len(one.aliases),
                "patterns": len(one.pattern),
            }
            for name, one in found.items()
        ])  # fmt: skip
        return 0
    rows = [
        (name, one.same_as or "", _text(one.postmaster), _text(one.catch_all), *_counts(len(one.aliases), len(one.pattern)))
        for name, one in found.items()
    ]
    if rows:
        table(("DOMAIN", "SAME AS", "POSTMASTER", "CATCH-ALL", " ALIASES", " PATTERNS"), rows)
    say(f"{len(rows)} domain{'' if len(rows) == 1 else 's'}.")
    return 0


def add_domain(options: argparse.Namespace) -> int:
    """1 where it is there already."""
    name = normal_domain_of(options.domain)

    def change(draft: Draft) -> None:
        if name in domains_of(draft):
            raise Unable(f"{name} is there already")
        keys = {"same_as": options.same_as, "postmaster": options.postmaster, "catch_all": options.catch_all}
        draft.add_table(("domain", name), {key: value for key, value in keys.items() if value})

    return change_configuration(options, change)


def remove_domain(options: argparse.Namespace) -> int:
    """1 where it is not there."""
    name = normal_domain_of(options.domain)

    def change(draft: Draft) -> None:
        written = domains_of(draft).get(name)
        if written is None:
            raise Unable(f"there is no domain {name}")
        draft.remove_table(("domain", written))

    return change_configuration(options, change)


def _counts(*numbers: int) -> list[str]:
    return [str(number or "") for number in numbers]


def _text(address: Any) -> str:
    return "" if address is None else str(address)
