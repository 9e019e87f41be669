"""``mailserver dkim``: the keys with which the mail of our domains is signed."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from mailserver.cli.output import EX_IOERR, Unable, as_json, moment, say, table

if TYPE_CHECKING:
    from mailserver.config import Configuration
    from mailserver.trust.signing_keys import DomainKeys, SigningKey

__all__ = ["add_to", "make_keys_folder"]

PUBLISHED_SECONDS = 7 * 86400.0  # the record of a key is wanted so long behind the last message that may be on its way
WORDS = {"active": "signs", "next": "will sign next", "retired": "signs no more"}
STRING_CHARACTERS = 255  # of one string of a TXT record (RFC 1035 section 3.3.14)


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    dkim = commands.add_parser("dkim", help=summary)
    actions = dkim.add_subparsers(title="actions", metavar="ACTION", required=True)
    making = actions.add_parser("new", parents=[common], help="make the keys of a domain; its mail is signed from then on")
    making.set_defaults(run=make)
    listing = actions.add_parser("list", parents=[common], help="all keys, or those of a domain")
    listing.set_defaults(run=list_keys)
    records = actions.add_parser("dns", parents=[common], help="the records that the DNS has to show, as zone text")
    records.set_defaults(run=show_records)
    rotating = actions.add_parser("rotate", parents=[common], help="sign with the next keys, once the DNS shows them")
    rotating.set_defaults(run=rotate)
    for parser in (making, rotating):
        parser.add_argument("domain", metavar="DOMAIN", help="such as example.org")
    for parser in (listing, records):
        parser.add_argument("domain", metavar="DOMAIN", nargs="?", default="", help="such as example.org")


def make(options: argparse.Namespace) -> int:
    """Make the keys of a domain and print what the DNS has to show."""
    from mailserver.authentication.sealing import KeyPlace
    from mailserver.cli.configuration_change import normal_domain_of
    from mailserver.config import load
    from mailserver.processes.identity import as_owner_of
    from mailserver.trust.signing_keys import make_keys

    configuration = load(options.config)
    domain = normal_domain_of(options.domain)
    if domain not in configuration.domain:
        say(f"{domain} is none of the domains in the configuration: mail of its users is signed where they log in here")
    place = KeyPlace(configuration.keys_path, configuration.data)
    try:
        make_keys_folder(configuration)
        with as_owner_of(place.folder):
            found = make_keys(place.folder, domain, now=time.time())
    except FileExistsError:
        raise Unable(f"{domain} has keys already: see `mailserver dkim list {domain}`") from None
    except OSError as error:
        raise Unable(f"{error.filename or place.folder}: {error.strerror or error}", EX_IOERR) from error
    say(f"the mail of {domain} is signed from the next message on; the DNS has to show these records:", "")
    _print_records(found)
    if not _is_signing(configuration):
        say("", 'and the configuration needs a table  [[filter]]  with  use = "dkim_signing"')
    return 0


def rotate(options: argparse.Namespace) -> int:
    """Let the next keys of a domain sign.  Return 1 where the DNS does not show them."""
    from mailserver.cli.configuration_change import normal_domain_of
    from mailserver.cli.published import not_published
    from mailserver.config import load
    from mailserver.processes.identity import as_owner_of
    from mailserver.trust.signing_keys import rotate_keys

    configuration = load(options.config)
    domain = normal_domain_of(options.domain)
    keys = _found(options).get(domain)
    if keys is None:
        raise Unable(f"{domain} has no keys: `mailserver dkim new {domain}` makes some")
    missing = not_published(configuration, domain, {keys.name_of(one): one.key.record for one in keys.in_state("next")})
    if missing:
        say(*missing, "", "the keys of before sign on; the DNS has to show these records:", "")
        _print_records(keys)
        return 1
    retired_seconds = configuration.queue.expire + PUBLISHED_SECONDS
    try:
        with as_owner_of(configuration.keys_path):
            found = rotate_keys(configuration.keys_path, domain, now=time.time(), retired_seconds=retired_seconds)
    except OSError as error:
        raise Unable(f"{error.filename or configuration.keys_path}: {error.strerror or error}", EX_IOERR) from error
    say(f"the mail of {domain} is signed with the next keys from the next message on; the DNS has to show these records:", "")
    _print_records(found)
    return 0


def list_keys(options: argparse.Namespace) -> int:
    """Print the keys.  Return 1 where the domain has none."""
    found = _found(options)
    rows = [(domain, key) for domain, keys in found.items() for key in keys.keys]
    if options.json:
        as_json([{**_facts(found[domain], key), "domain": domain} for domain, key in rows])
    elif rows:
        table(
            ("DOMAIN", "SELECTOR", "KIND", "STATE", "SINCE"),
            [(domain, key.selector, key.kind, WORDS[key.state], moment(key.since)) for domain, key in rows],
        )
    else:
        say("there are no keys: `mailserver dkim new DOMAIN` makes some")
    return 0 if rows or not options.domain else 1


def show_records(options: argparse.Namespace) -> int:
    """Print the records.  Return 1 where the domain has no keys."""
    found = _found(options)
    if options.json:
        as_json([_facts(keys, key) for keys in found.values() for key in keys.keys])
    else:
        for keys in found.values():
            _print_records(keys)
    return 0 if found or not options.domain else 1


def _found(options: argparse.Namespace) -> dict[str, DomainKeys]:
    from mailserver.cli.configuration_change import normal_domain_of
    from mailserver.config import load
    from mailserver.trust.signing_keys import read_keys

    configuration = load(options.config)
    try:
        found = read_keys(configuration.keys_path)
    except OSError as error:
        raise Unable(f"{error.filename or ''} {error.strerror or error}".strip(), EX_IOERR) from error
    wanted = normal_domain_of(options.domain) if options.domain else ""
    return {domain: keys for domain, keys in found.items() if wanted in ("", domain)}


def _facts(keys: DomainKeys, key: SigningKey) -> dict[str, Any]:
    return {
        "selector": key.selector, "kind": key.kind, "state": key.state, "since": key.since, "name": keys.name_of(key),
        "record": key.key.record,
    }  # fmt: skip


def _print_records(keys: DomainKeys) -> None:
    for key in keys.keys:
        text = key.key.record
        strings = " ".join([f'"{text[n : n + STRING_CHARACTERS]}"' for n in range(0, len(text), STRING_CHARACTERS)])
        say(f"{keys.name_of(key)}. 3600 IN TXT {strings} ; {WORDS[key.state]}")


def make_keys_folder(configuration: Configuration) -> None:
    """The folder of keys, for the server's user alone.  Raises OSError."""
    from mailserver.mail.durable import make_directory

    folder = configuration.keys_path
    owner = os.stat(configuration.data) if os.path.isdir(configuration.data) else None
    if os.path.isdir(folder):
        return
    make_directory(folder)
    if owner is not None and os.geteuid() == 0:
        os.chown(folder, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _is_signing(configuration: Configuration) -> bool:
    return any(one.use == "dkim_signing" for one in configuration.filter)
