"""``mailserver tls-override``: what is said of a domain's TLS for a time, whatever DANE, MTA-STS and the configuration want."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server
from mailserver.cli.filter_records import in_records
from mailserver.cli.output import Unable, as_json, moment, plain, say, table
from mailserver.cli.queue_orders import who
from mailserver.control.client import NoServer

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["add_to"]

SECONDS = 35.0
WORDS = {
    "trust": "only the certificate with this fingerprint is believed, and it is",
    "require": "TLS, or the mail waits",
    "allow": "TLS where it works, else in the clear",
}


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    overriding = commands.add_parser("tls-override", help=summary)
    actions = overriding.add_subparsers(title="actions", metavar="ACTION", required=True)
    adding = actions.add_parser("add", parents=[common], help="say it, in the place of what was said of the domain before")
    adding.add_argument("domain", metavar="DOMAIN", help="the domain of the recipients; a smarthost's name, where there is one")
    what = adding.add_mutually_exclusive_group(required=True)
    what.add_argument("--trust", metavar="SHA256", default="", help=f"{WORDS['trust']}: `openssl x509 -fingerprint -sha256`")
    what.add_argument("--require", action="store_true", help=WORDS["require"])
    what.add_argument("--allow", action="store_true", help=WORDS["allow"])
    adding.add_argument("--for", dest="lasts", metavar="TIME", required=True, help="how long it holds: 12h, 7d; at most 366d")
    adding.add_argument("--why", metavar="TEXT", default="", help="a comment for those who come after you")
    adding.set_defaults(run=add)
    listing = actions.add_parser("list", parents=[common], help="what is said, of which domain, until when and by whom")
    listing.set_defaults(run=listed)
    removing = actions.add_parser("remove", parents=[common], help="end it now")
    removing.add_argument("domain", metavar="DOMAIN", help="the domain")
    removing.set_defaults(run=remove)


def add(options: argparse.Namespace) -> int:
    """Add one, and say what it does."""
    from mailserver.config.quantities import seconds

    try:
        lasts = seconds(options.lasts)
    except ValueError as error:
        raise Unable(f"--for: {plain(str(error))}", 2) from error
    kind = "trust" if options.trust else "require" if options.require else "allow"
    given = {
        "domain": options.domain, "kind": kind, "fingerprint": options.trust, "seconds": lasts, "why": options.why, "by": who(),
    }  # fmt: skip
    kept = _run(options, "add", given)
    if options.json:
        as_json(kept)
    else:
        say(f"{plain(kept['domain'])}: {WORDS[kept['kind']]}, until {moment(kept['until'])}.")
    return 0


def remove(options: argparse.Namespace) -> int:
    """End one."""
    kept = _run(options, "remove", {"domain": options.domain, "by": who()})
    if options.json:
        as_json(kept)
    else:
        say(f"{plain(kept['domain'])}: nothing is said of its TLS any more.")
    return 0


def listed(options: argparse.Namespace) -> int:
    """Print them."""
    rows = _run(options, "list", {})["overrides"]
    now = time.time()
    if options.json:
        as_json([row | {"is_over": row["until"] <= now} for row in rows])
    elif not rows:
        say("There are none.")
    else:
        headers = ("DOMAIN", "KIND", "UNTIL", "BY", "WHY", "FINGERPRINT")
        table(headers, [(
            plain(row["domain"]), row["kind"], moment(row["until"]) + (" (over)" if row["until"] <= now else ""),
            plain(row["by"]), plain(row["why"]), row["fingerprint"],
        ) for row in rows])  # fmt: skip
    return 0


def _run(options: argparse.Namespace, verb: str, given: Mapping[str, Any]) -> Any:
    """By the running server, else in the records themselves."""
    from mailserver.config import load

    configuration = load(options.config)
    try:
        return ask_server(configuration.data, f"tls-override.{verb}", dict(given), SECONDS)
    except NoServer:
        return _in_file(configuration, verb, given)


def _in_file(configuration: Configuration, verb: str, given: Mapping[str, Any]) -> Any:
    from mailserver.control.tls import add_override, listed_overrides, remove_override
    from mailserver.relay.tls_overrides import SPACE, TLSOverrides

    async def act(records: Any, clock: Any) -> dict[str, Any]:
        overrides = TLSOverrides(records, clock)
        if verb == "list":
            return await listed_overrides(overrides)
        return await (add_override if verb == "add" else remove_override)(overrides, given)

    return in_records(configuration, SPACE, act)
