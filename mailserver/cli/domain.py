"""``mailserver domain``: which domains' mail is delivered here.  Changes the configuration file, with its comments."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from mailserver.accounts.file import FileDirectoryOptions
from mailserver.accounts.table import AccountsFile, account_key, key_of
from mailserver.cli.accounts import changing, opened
from mailserver.cli.configuration_change import add_change_options, change_configuration, domains_of, normal_domain_of
from mailserver.cli.following import forget, tell_what_stays
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say, table
from mailserver.cli.purge import confirmed, maildir_of, purge
from mailserver.cli.references import Renaming
from mailserver.cli.renaming import Rename, add_rename_options, carry_out, carry_out_the_end, was_cut_off_at_its_end
from mailserver.config import Configuration, load
from mailserver.config.draft import Draft
from mailserver.plugins.catalogue import discover

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
    removing.add_argument("--purge", action="store_true", help="its accounts and their Maildirs as well, for good; asks")
    removing.add_argument("--yes", action="store_true", help="do not ask")
    removing.set_defaults(run=remove_domain)
    disabling = actions.add_parser("disable", parents=[common], help="refuse its mail, but for postmaster and abuse")
    disabling.set_defaults(run=disable_domain)
    enabling = actions.add_parser("enable", parents=[common], help="take its mail again")
    enabling.set_defaults(run=enable_domain)
    renaming = actions.add_parser("rename", parents=[common], help="another name, with its accounts and all that names it")
    renaming.set_defaults(run=rename_domain)
    for parser in (removing, disabling, enabling, renaming):
        parser.add_argument("domain", metavar="DOMAIN", help="as it is listed")
    renaming.add_argument("new", metavar="NEW", help="such as example.com")
    renaming.add_argument("--alias", action="store_true", help="keep the old name as a second one (same_as)")
    add_rename_options(renaming)
    for parser in (adding, removing, disabling, enabling, renaming):
        add_change_options(parser)


def list_domains(options: argparse.Namespace) -> int:
    """Print the domains."""
    found = load(options.config).domain
    if options.json:
        as_json([
            {
                "domain": name,
                "disabled": one.disabled,
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
        (
            *(name, "disabled" if one.disabled else "", one.same_as or ""),
            *(_text(one.postmaster), _text(one.catch_all), *_counts(len(one.aliases), len(one.pattern))),
        )
        for name, one in found.items()
    ]
    if rows:
        table(("DOMAIN", "STATE", "SAME AS", "POSTMASTER", "CATCH-ALL", " ALIASES", " PATTERNS"), rows)
    say(f"{len(rows)} domain{'' if len(rows) == 1 else 's'}.")
    return 0


def add_domain(options: argparse.Namespace) -> int:
    """Add a domain.  Return 1 where it exists already."""
    name = normal_domain_of(options.domain)

    def change(draft: Draft) -> None:
        if name in domains_of(draft):
            raise Unable(f"{name} is there already")
        keys = {"same_as": options.same_as, "postmaster": options.postmaster, "catch_all": options.catch_all}
        draft.add_table(("domain", name), {key: value for key, value in keys.items() if value})

    return change_configuration(options, change)


def remove_domain(options: argparse.Namespace) -> int:
    """Remove a domain.  Return 1 where it does not exist."""
    name = normal_domain_of(options.domain)

    def change(draft: Draft) -> None:
        draft.remove_table(("domain", _written(draft, name)))

    if not options.purge:
        code = change_configuration(options, change)
        if not options.dry_run:
            tell_what_stays(load(options.config, discover().options_of), f"@{name}")
        return code
    configuration, accounts = opened(options.config)
    mail = {one: maildir_of(configuration, one) for one in _accounts_in(accounts, name)}
    if options.dry_run:
        code = change_configuration(options, change)
        if not options.json:
            say(*[f"{plain(one)}: would be removed, with {plain(path)}" for one, path in mail.items()])
        return code
    if not options.yes:
        confirmed(f"{name} with {len(mail)} accounts", ", ".join(mail.values()) or "no Maildir")
    if not name.startswith("*"):
        forget(configuration, f"@{name}")
    change_configuration(options, change)
    left = []
    for one, path in mail.items():
        try:
            changing(accounts, lambda one=one: accounts.remove(one))  # type: ignore[misc]
            purged = purge(path, configuration.data)
        except Unable as error:
            left.append(f"{plain(one)}: {error}")
            continue
        if not options.json:
            say(f"{plain(one)}: {'removed, with its mail' if purged else 'removed; it had no mail'}")
    if left:  # the others are gone all the same
        raise Unable("; ".join(left), EX_IOERR)
    return 0


def disable_domain(options: argparse.Namespace) -> int:
    """Disable a domain.  Return 1 where it does not exist, or is disabled already."""
    return _set_disabled(options, True)


def enable_domain(options: argparse.Namespace) -> int:
    """Enable a domain.  Return 1 where it does not exist, or is not disabled."""
    return _set_disabled(options, False)


def _set_disabled(options: argparse.Namespace, disabled: bool) -> int:
    name = normal_domain_of(options.domain)

    def change(draft: Draft) -> None:
        written = _written(draft, name)
        if bool(draft.document["domain"][written].get("disabled", False)) is disabled:
            raise Unable(f"{name} is {'disabled' if disabled else 'enabled'} already")
        if disabled:
            draft.set(("domain", written), "disabled", True)
        else:
            draft.remove(("domain", written, "disabled"))

    return change_configuration(options, change)


def rename_domain(options: argparse.Namespace) -> int:
    """Rename a domain.  Return 1 where it does not exist, or the new name is taken."""
    configuration = load(options.config, discover().options_of)
    old, new = normal_domain_of(options.domain), normal_domain_of(options.new)
    if old == new or "*" in old + new:
        raise Unable(f"{old} cannot be called {new}: these are no two domains")
    file = isinstance(configuration.accounts.options, FileDirectoryOptions)
    accounts = opened(options.config)[1] if file else None
    if accounts is None and not options.mail_stays:
        use = configuration.accounts.use
        raise Unable(
            f'[accounts] use = "{use}": the accounts have to be renamed where they stand, and their mail moved by hand; '
            "then --mail-stays changes the configuration"
        )
    names = [] if accounts is None else _accounts_in(accounts, old)
    renamed = {one: f"{one.rpartition('@')[0]}@{new}" for one in names}
    is_rest = _is_rest(configuration, accounts, renamed, old, new)
    whole = {old: new}
    if not names and _is_renamed(configuration, old, new) and was_cut_off_at_its_end(configuration, {f"@{old}": f"@{new}"}):
        carry_out_the_end(options, Rename(configuration, accounts, {}, lambda draft: None, frozenset(), domains=whole))
        return 0

    def change(draft: Draft) -> None:
        if is_rest:
            return
        written = _written(draft, old)
        second = domains_of(draft).get(new)
        if second is not None:
            if normal_domain_of(draft.document["domain"][second].get("same_as", new)) != old:
                raise Unable(f"{new} is there already")
            draft.remove_table(("domain", second))  # its second name becomes its first
        Renaming(draft, {}, (old, new)).follow()
        draft.rename(("domain", written), new)
        if options.alias:
            draft.add_table(("domain", old), {"same_as": new})

    words = frozenset() if options.alias else frozenset({old})
    carry_out(options, Rename(configuration, accounts, renamed, change, words, is_rest, whole))
    return 0


def _is_renamed(configuration: Configuration, old: str, new: str) -> bool:
    domains = configuration.domain
    return new in domains and (old not in domains or domains[old].same_as == new)


def _is_rest(
    configuration: Configuration, accounts: AccountsFile | None, renamed: Mapping[str, str], old: str, new: str
) -> bool:
    """An earlier try was cut off: the configuration has the new name, and each account stands under both."""
    if accounts is None or not renamed or not _is_renamed(configuration, old, new):
        return False
    found = changing(accounts, accounts.read)
    return all(key_of(one) in found for one in renamed.values())


def _accounts_in(accounts: AccountsFile, domain: str) -> list[str]:
    found = changing(accounts, accounts.list)
    return [one.address for one in found if account_key(one.address).rpartition("@")[2] == domain]


def _written(draft: Draft, name: str) -> str:
    written = domains_of(draft).get(name)
    if written is None:
        raise Unable(f"there is no domain {name}")
    return written


def _counts(*numbers: int) -> list[str]:
    return [str(number or "") for number in numbers]


def _text(address: Any) -> str:
    return "" if address is None else str(address)
