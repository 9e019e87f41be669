"""``mailserver alias``: names that lead to other addresses.  Changes the configuration file, with its comments."""

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
    alias = commands.add_parser("alias", help=summary)
    actions = alias.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="all aliases, or those of a domain")
    listing.add_argument("domain", metavar="DOMAIN", nargs="?", default="", help="such as example.org")
    listing.set_defaults(run=list_aliases)
    adding = actions.add_parser("add", parents=[common], help="let a name lead to addresses, beside those it leads to already")
    adding.set_defaults(run=add_alias)
    removing = actions.add_parser("remove", parents=[common], help="let it lead to these no more; without any, remove the name")
    removing.set_defaults(run=remove_alias)
    for parser, count in ((adding, "+"), (removing, "*")):
        parser.add_argument("address", metavar="ALIAS", help="such as sales@example.org")
        parser.add_argument("target", metavar="ADDRESS", nargs=count, help="an address, or a name in the same domain")
        add_change_options(parser)


def list_aliases(options: argparse.Namespace) -> int:
    """Print them.  1 where there is no such domain."""
    from mailserver.config import load

    domains = load(options.config).domain
    if options.domain:
        name = normal_domain_of(options.domain)
        if name not in domains:
            raise Unable(f"there is no domain {name}")
        domains = {name: domains[name]}
    found = [
        (f"{local}@{domain}", [str(one) if one.domain else f"{one.local}@{domain}" for one in members])
        for domain, table in domains.items()
        for local, members in table.aliases.items()
    ]
    if options.json:
        as_json([{"alias": name, "leads_to": members} for name, members in found])
        return 0
    if found:
        table(("ALIAS", "LEADS TO"), [(name, ", ".join(members)) for name, members in found])
    say(f"{len(found)} alias{'' if len(found) == 1 else 'es'}.")
    return 0


def add_alias(options: argparse.Namespace) -> int:
    """1 where the domain is not there, or the alias leads to all of them already."""
    local, domain = _parts(options.address)

    def change(draft: Draft) -> None:
        place = _place(draft, domain)
        name, members = _alias(draft, place, local)
        new = [one for one in dict.fromkeys(options.target) if one not in members]
        if not new:
            raise Unable(f"{options.address} leads there already")
        draft.set((*place, "aliases"), name, [*members, *new])

    return change_configuration(options, change)


def remove_alias(options: argparse.Namespace) -> int:
    """1 where there is no such alias, or it does not lead there."""
    local, domain = _parts(options.address)

    def change(draft: Draft) -> None:
        place = _place(draft, domain)
        name, members = _alias(draft, place, local)
        if not members:
            raise Unable(f"there is no alias {options.address}")
        for one in options.target:
            if one not in members:
                raise Unable(f"{options.address} does not lead to {one}")
        kept = [one for one in members if one not in options.target]
        if kept and options.target:
            draft.set((*place, "aliases"), name, kept)
        else:
            draft.remove((*place, "aliases", name))

    return change_configuration(options, change)


def _parts(text: str) -> tuple[str, str]:
    """The local part and the domain.  Raises `Unable`."""
    from mailserver.mail.address import Address, AddressError

    try:
        address = Address.parse(text, utf8=True)
    except AddressError as error:
        raise Unable(f"{text!r} is not an address: {error}", 2) from error
    return address.local, normal_domain_of(text.rpartition("@")[2])


def _place(draft: Draft, domain: str) -> tuple[str, str]:
    written = domains_of(draft).get(domain)
    if written is None:
        raise Unable(f"there is no domain {domain}: `mailserver domain add {domain}`")
    return "domain", written


def _alias(draft: Draft, place: tuple[str, str], local: str) -> tuple[str, list[str]]:
    """How the alias is written, and where it leads; the name itself and nothing where there is none."""
    from mailserver.mail.address import normal_local

    for name, members in draft.document["domain"][place[1]].get("aliases", {}).items():
        if normal_local(name) == normal_local(local):
            return name, [members] if isinstance(members, str) else list(members)
    return local, []
