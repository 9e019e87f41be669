"""``mailserver alias``: names that lead to other addresses.  Changes the configuration file, with its comments."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mailserver.cli.configuration_change import add_change_options, change_configuration, domains_of, normal_domain_of
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
    renaming = actions.add_parser("rename", parents=[common], help="another name, also where other aliases name it")
    renaming.set_defaults(run=rename_alias)
    disabling = actions.add_parser("disable", parents=[common], help="refuse its mail, and keep where it leads")
    disabling.set_defaults(run=disable_alias)
    enabling = actions.add_parser("enable", parents=[common], help="take its mail again")
    enabling.set_defaults(run=enable_alias)
    for parser in (adding, removing, renaming, disabling, enabling):
        parser.add_argument("address", metavar="ALIAS", help="such as sales@example.org")
        add_change_options(parser)
    for parser, count in ((adding, "+"), (removing, "*")):
        parser.add_argument("target", metavar="ADDRESS", nargs=count, help="an address, or a name in the same domain")
    renaming.add_argument("new", metavar="NEW", help="such as verkauf@example.org")


def list_aliases(options: argparse.Namespace) -> int:
    """Print the aliases.  Return 1 where the domain does not exist."""
    from mailserver.config import load
    from mailserver.mail.address import normal_local

    domains = load(options.config).domain
    if options.domain:
        name = normal_domain_of(options.domain)
        if name not in domains:
            raise Unable(f"there is no domain {name}")
        domains = {name: domains[name]}
    disabled = {(domain, normal_local(local)) for domain, table in domains.items() for local in table.disabled_aliases}
    found = [
        (
            f"{local}@{domain}",
            (domain, normal_local(local)) in disabled,
            [str(one) if one.domain else f"{one.local}@{domain}" for one in members],
        )
        for domain, table in domains.items()
        for local, members in table.aliases.items()
    ]
    if options.json:
        as_json([{"alias": name, "disabled": is_disabled, "leads_to": members} for name, is_disabled, members in found])
        return 0
    if found:
        rows = [(name, "disabled" if is_disabled else "", ", ".join(members)) for name, is_disabled, members in found]
        table(("ALIAS", "STATE", "LEADS TO"), rows)
    say(f"{len(found)} alias{'' if len(found) == 1 else 'es'}.")
    return 0


def add_alias(options: argparse.Namespace) -> int:
    """Add an alias, or members to it.  Return 1 where the domain is missing, or the alias has all of the members already."""
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
    """Remove an alias, or members from it.  Return 1 where the alias does not exist, or does not have these members."""
    from mailserver.cli.references import set_disabled

    local, domain = _parts(options.address)

    def change(draft: Draft) -> None:
        place = _place(draft, domain)
        name, members = _existing(draft, place, local, options.address)
        for one in options.target:
            if one not in members:
                raise Unable(f"{options.address} does not lead to {one}")
        kept = [one for one in members if one not in options.target]
        if kept and options.target:
            draft.set((*place, "aliases"), name, kept)
        else:
            set_disabled(draft, place, name, False)
            draft.remove((*place, "aliases", name))

    return change_configuration(options, change)


def rename_alias(options: argparse.Namespace) -> int:
    """Rename an alias.  Return 1 where it does not exist, or the new name is taken."""
    from mailserver.cli.references import Renaming, set_disabled
    from mailserver.mail.address import normal_local

    local, domain = _parts(options.address)
    new_local, new_domain = (normal_local(options.new), domain) if "@" not in options.new else _parts(options.new)
    _is_no_account(options.config, f"{new_local}@{new_domain}")

    def change(draft: Draft) -> None:
        place, new_place = _place(draft, domain), _place(draft, new_domain)
        _existing(draft, place, local, options.address)
        if _alias(draft, new_place, new_local)[1]:
            raise Unable(f"{options.new} is there already")
        Renaming(draft, {f"{normal_local(local)}@{domain}": f"{new_local}@{new_domain}"}).follow()
        if place == new_place:
            return
        name, members = _alias(draft, place, local)
        was_disabled = set_disabled(draft, place, name, False)
        draft.remove((*place, "aliases", name))
        draft.set((*new_place, "aliases"), new_local, [one if "@" in one else f"{one}@{domain}" for one in members])
        if was_disabled:
            set_disabled(draft, new_place, new_local, True)

    return change_configuration(options, change)


def disable_alias(options: argparse.Namespace) -> int:
    """Disable an alias.  Return 1 where it does not exist, or is disabled already."""
    return _able(options, True)


def enable_alias(options: argparse.Namespace) -> int:
    """Enable an alias.  Return 1 where it does not exist, or is not disabled."""
    return _able(options, False)


def _able(options: argparse.Namespace, disabled: bool) -> int:
    from mailserver.cli.references import set_disabled

    local, domain = _parts(options.address)

    def change(draft: Draft) -> None:
        place = _place(draft, domain)
        name, _ = _existing(draft, place, local, options.address)
        if set_disabled(draft, place, name, disabled) is disabled:
            raise Unable(f"{options.address} is {'disabled' if disabled else 'enabled'} already")

    return change_configuration(options, change)


def _is_no_account(config: str, address: str) -> None:
    """Check that no account has this name: it would take the alias's mail.  Raises `Unable`."""
    from mailserver.accounts.file import FileDirectoryOptions
    from mailserver.accounts.table import AccountsFile, key_of
    from mailserver.cli.accounts import changing
    from mailserver.config import load
    from mailserver.plugins.catalogue import discover

    configuration = load(config, discover().options_of)
    if not isinstance(configuration.accounts.options, FileDirectoryOptions):
        return  # `mailserver check` asks other directories
    accounts = AccountsFile(configuration.accounts.options.path, configuration.data)
    if any(key_of(one.address) == key_of(address) for one in changing(accounts, accounts.list)):
        raise Unable(f"{address} is an account, which would get the alias's mail")


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


def _existing(draft: Draft, place: tuple[str, str], local: str, address: str) -> tuple[str, list[str]]:
    """How the alias is written, and its members.  Raises `Unable`, which names the `address`, where it does not exist."""
    name, members = _alias(draft, place, local)
    if not members:
        raise Unable(f"there is no alias {address}")
    return name, members


def _alias(draft: Draft, place: tuple[str, str], local: str) -> tuple[str, list[str]]:
    """How the alias is written, and its members; `local` itself and an empty list where it does not exist."""
    from mailserver.mail.address import normal_local

    for name, members in draft.document["domain"][place[1]].get("aliases", {}).items():
        if normal_local(name) == normal_local(local):
            return name, [members] if isinstance(members, str) else list(members)
    return local, []
