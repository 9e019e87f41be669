"""``mailserver dns DOMAIN``: what the DNS has to show for a domain of ours, what its servers show, and what has to be done."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from time import sleep
from typing import TYPE_CHECKING, Any

from mailserver.cli.output import EX_IOERR, Unable, age, as_json, plain, say

if TYPE_CHECKING:
    from mailserver.config import Configuration
    from mailserver.doctor.asking import SeenLive
    from mailserver.doctor.findings import CheckedRecord
    from mailserver.doctor.house_facts import DomainFacts
    from mailserver.doctor.seen import Seen
    from mailserver.doctor.zone_text import ZoneRecord

__all__ = ["add_to", "zone_lines"]

AUTHORITY_PORT = 53
POLICY_PORT = 443
MAIL_PORT = 25
ANSWER_SECONDS = 3.0  # of one server, twice
LOOK_SECONDS = 60.0
WATCH_SECONDS = 30.0
WATCH_FOR_SECONDS = 3600.0
SECONDS_LEAST, SECONDS_MOST = 1.0, 7 * 86_400.0
MARKS = {"ok": "✓", "not-wanted": "-", "unknown": "?", "to-do": "✗", "advice": "·"}
PLAIN_MARKS = {"ok": "ok", "not-wanted": "-", "unknown": "?", "to-do": "!!", "advice": "*"}


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    parser = commands.add_parser("dns", parents=[common], help=summary)
    parser.add_argument("domain", metavar="DOMAIN", help="such as example.org")
    parser.add_argument("--zone", action="store_true", help="only print the records that are wanted, as zone text")
    parser.add_argument(
        "--parked", action="store_true", help="the domain neither sends nor takes mail, and shall say so"
    )
    parser.add_argument(
        "--address", action="append", default=[], metavar="IP", type=_address,
        help="an address of ours as the Internet sees it; once for each (default: those of this host)",
    )  # fmt: skip
    parser.add_argument(
        "--watch", nargs="?", type=_seconds, const=WATCH_SECONDS, metavar="SECONDS",
        help=f"ask again and again, until all is right (default: every {WATCH_SECONDS:g} s)",
    )  # fmt: skip
    parser.add_argument(
        "--for", dest="watch_for", type=_seconds, default=WATCH_FOR_SECONDS, metavar="SECONDS",
        help=f"how long to watch (default: {WATCH_FOR_SECONDS:g} s)",
    )  # fmt: skip
    parser.add_argument(
        "--try", dest="tries", action="store_true",
        help="look, then try: a message to ourselves, TLS, an open relay (nothing is sent to others), lists of our addresses",
    )  # fmt: skip
    parser.add_argument("--push", action="store_true", help="change the zone by dynamic updates (RFC 2136), then look")
    parser.add_argument("--key", metavar="FILE", help="with --push: the key for TSIG, as tsig-keygen writes it")
    parser.add_argument(
        "--server", metavar="IP[:PORT]", type=_server, help="with --push: the primary server (default: whom SOA names)"
    )
    parser.set_defaults(run=examine, insist=_insist)


def _insist(options: argparse.Namespace) -> None:
    if options.push != (options.key is not None) or (options.server is not None and not options.push):
        raise Unable("--push and --key FILE go together, and --server with them", 2)
    if options.zone and (options.push or options.watch is not None):
        raise Unable("--zone looks at nothing: it goes neither with --push nor with --watch", 2)
    if options.tries and (options.zone or options.parked or options.watch is not None):
        raise Unable("--try goes neither with --zone nor with --parked nor with --watch", 2)


def _server(text: str) -> Any:
    from mailserver.mail.dns_records import ServerAddress

    try:
        return ServerAddress.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _address(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address") from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not SECONDS_LEAST <= value <= SECONDS_MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between {SECONDS_LEAST:g} and {SECONDS_MOST:g}")
    return value


def examine(options: argparse.Namespace) -> int:
    """Print what was found.  Return 1 where there is something to be done."""
    from mailserver.cli.configuration_change import normal_domain_of
    from mailserver.config import load
    from mailserver.doctor.configured import facts_of
    from mailserver.plugins.catalogue import discover

    configuration = load(options.config, discover().options_of)
    domain = normal_domain_of(options.domain)
    if domain.startswith("*."):
        raise Unable(f"{domain} stands for many domains: name one of them", 2)
    try:
        facts = facts_of(configuration, domain, options.address)
    except OSError as error:
        raise Unable(f"{error.filename or ''} {error.strerror or error}".strip(), EX_IOERR) from error
    if not options.parked and not facts.receives and not facts.keys:
        raise Unable(f"{domain} is none of the domains in the configuration (--parked is for those without any mail)")
    if options.zone:
        return _print_zone(options, configuration, facts)
    look = _looker(options, configuration, facts)
    if options.push:
        _push(options, facts, _seen(configuration), look())
    if options.watch is None:
        return _show(options, facts, look())
    return _watch(options, facts, look)


def _seen(configuration: Configuration, seconds: float | None = None) -> SeenLive:
    from mailserver.doctor.asking import SeenLive
    from mailserver.doctor.configured import recursive_servers

    try:
        servers = recursive_servers(configuration)
    except OSError as error:
        raise Unable(f"{error.filename}: {error.strerror}", EX_IOERR) from error
    return SeenLive(servers, port=AUTHORITY_PORT, timeout_seconds=seconds or ANSWER_SECONDS, total_seconds=LOOK_SECONDS)


def _looker(
    options: argparse.Namespace, configuration: Configuration, facts: DomainFacts
) -> Callable[[], Sequence[CheckedRecord]]:
    from mailserver.doctor.examination import examined, examined_parked, questions_of
    from mailserver.doctor.policy_fetching import fetched

    def look() -> Sequence[CheckedRecord]:
        seen = _seen(configuration)
        if options.parked:
            return examined_parked(facts.domain, seen)
        seen.ask_ahead(questions_of(facts))
        found = examined(facts, seen, now=time.time(), fetch=functools.partial(fetched, port=POLICY_PORT))
        return (*found, *_tried(configuration, facts, seen)) if options.tries else found

    return look


def _tried(configuration: Configuration, facts: DomainFacts, seen: SeenLive) -> Sequence[CheckedRecord]:
    from mailserver.cli.asking import ask_server
    from mailserver.control.client import ControlError
    from mailserver.doctor.trial_facts import trial_facts_of
    from mailserver.doctor.trying import SECONDS, Trials
    from mailserver.processes.identity import as_owner_of

    def ask(command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any] | None:
        try:
            return ask_server(configuration.data, command, {**arguments})
        except (ControlError, OSError):
            return None

    seen.last(SECONDS)
    trial = trial_facts_of(configuration, facts.domain, facts.addresses)
    trials = Trials(facts, trial, seen, ask=ask, reading=lambda: as_owner_of(configuration.data), port=MAIL_PORT)
    return (*trials.of_domain(), *trials.of_host())


# --- changes ---


def _push(options: argparse.Namespace, facts: DomainFacts, seen: Seen, found: Sequence[CheckedRecord]) -> None:
    """Let the primary server take what its zone needs.  Raises `Unable`."""
    from mailserver.doctor.pushing import PushFailed, changes_of, primary_of, push, read_zone_key

    try:
        with open(options.key, encoding="utf-8") as file:
            key = read_zone_key(file.read())
    except OSError as error:
        raise Unable(f"{options.key}: {error.strerror}", EX_IOERR) from error
    except ValueError as error:
        raise Unable(f"{options.key}: {error}") from error
    zone = seen.zone(facts.domain).name
    changes = changes_of(found, seen, zone)
    if not zone or not changes:
        return
    try:
        server = options.server or primary_of(seen, zone, AUTHORITY_PORT)
        if server is None:
            raise Unable(f"the primary server of {zone} could not be found: name it by --server")
        push(zone, changes, key, server)
    except PushFailed as error:
        raise Unable(plain(str(error))) from error
    if not options.json:
        say(*[f"taken out  {plain(one.line)}" for change in changes for one in change.remove])
        say(*[f"put in     {plain(one.line)}" for change in changes for one in change.add], "")


# --- what is wanted ---


def zone_lines(configuration: Configuration, facts: DomainFacts, answer_seconds: float) -> list[str]:
    """The records that are wanted, as ``--zone`` prints them; a name server has so long for an answer."""
    return _record_lines(*_wanted_parts(configuration, facts, answer_seconds))


def _print_zone(options: argparse.Namespace, configuration: Configuration, facts: DomainFacts) -> int:
    from mailserver.doctor.wanted import parked

    if options.parked:
        return _print_records(options, parked(facts.domain), (), ())
    return _print_records(options, *_wanted_parts(configuration, facts))


def _wanted_parts(
    configuration: Configuration, facts: DomainFacts, answer_seconds: float | None = None
) -> tuple[Sequence[ZoneRecord], Sequence[ZoneRecord], Sequence[ZoneRecord]]:
    """Those of the domain's zone, those of others, and those that are of use in a signed zone alone."""
    from mailserver.doctor.seen import DNSSECState
    from mailserver.doctor.wanted import ptr_record, tlsa_records, wanted

    signed = _seen(configuration, answer_seconds).zone(facts.hostname).dnssec is DNSSECState.SECURE
    records = wanted(facts, signed=signed)
    below = f".{facts.domain}"
    ours = [one for one in records if one.name == facts.domain or one.name.endswith(below)]
    others = [one for one in records if one not in ours] + [ptr_record(facts, one) for one in facts.addresses]
    return ours, others, () if signed else tlsa_records(facts)


def _print_records(
    options: argparse.Namespace, ours: Sequence[ZoneRecord], others: Sequence[ZoneRecord], signed: Sequence[ZoneRecord]
) -> int:
    if options.json:
        as_json([
            {"name": one.name, "type": one.type, "data": one.data, "ttl": one.ttl_seconds, "line": one.line, "for": place}
            for place, records in (("zone", ours), ("other zones", others), ("a signed zone", signed)) for one in records
        ])  # fmt: skip
        return 0
    say(*_record_lines(ours, others, signed))
    return 0


def _record_lines(ours: Sequence[ZoneRecord], others: Sequence[ZoneRecord], signed: Sequence[ZoneRecord]) -> list[str]:
    lines = [one.line for one in ours]
    if others:
        lines += ["; in other zones: that of the host's name, and those of whoever lends the addresses"]
        lines += [f"; {one.line}" for one in others]
    if signed:
        lines += ["; once the zone of the host is signed (DNSSEC)", *[f"; {one.line}" for one in signed]]
    return lines


# --- what was found ---


def _show(options: argparse.Namespace, facts: DomainFacts, found: Sequence[CheckedRecord]) -> int:
    from mailserver.cli.last_look import clean_day_lines, clean_days_of

    to_do = sum(one.is_to_be_done for one in found)
    clean_days = {} if options.parked else clean_days_of(options.config, facts.domain)
    if options.json:
        as_json({
            "domain": facts.domain, "hostname": facts.hostname, "addresses": list(facts.addresses),
            "addresses_are_sure": facts.addresses_are_sure, "right": not to_do, "records": [one.plain for one in found],
            "clean_days": clean_days,
        })  # fmt: skip
        return 1 if to_do else 0
    if not options.parked:
        _introduce(facts)
    for one in found:
        say(*_lines(one))
    say("", _summary(found))
    if not options.parked:
        say(*clean_day_lines(clean_days))
    return 1 if to_do else 0


def _introduce(facts: DomainFacts) -> None:
    addresses = ", ".join(facts.addresses) or "an address that nobody knows here"
    doubt = "" if facts.addresses_are_sure else " (as this host knows it: --address says otherwise)"
    say(f"{facts.domain}: the host is {facts.hostname}, {addresses}{doubt}", "")


def _lines(one: CheckedRecord) -> list[str]:
    fault = f"  [{one.fault}]" if one.fault else ""
    lines = [f"{_mark(one)} {one.group:<10} {plain(one.name)} {one.type}: {plain(one.why)}{fault}"]
    lines += [f"      take out  {plain(record.line)}" for record in one.remove]
    lines += [f"      put in    {plain(record.line)}" for record in one.add]
    lines += [f"      {plain(one.to_do)}"] if one.to_do else []
    return lines


def _mark(one: CheckedRecord) -> str:
    marks = MARKS
    try:
        "".join(MARKS.values()).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        marks = PLAIN_MARKS
    kind = one.verdict.value
    return marks.get(kind) or marks["advice" if one.is_advice else "to-do"]


def _summary(found: Sequence[CheckedRecord]) -> str:
    to_do, advice = sum(one.is_to_be_done for one in found), sum(one.is_advice for one in found)
    more = f" {advice} could be better." if advice else ""
    return f"{to_do} to be done.{more}" if to_do else f"All is right.{more}"


def _watch(options: argparse.Namespace, facts: DomainFacts, look: Callable[[], Sequence[CheckedRecord]]) -> int:
    """Show all of it once, then what has changed.  A look that takes longer than its turn is the last one of that turn."""
    end = time.monotonic() + options.watch_for
    found = look()
    code = _show(options, facts, found)
    while code and time.monotonic() + options.watch < end:
        sys.stdout.flush()
        sleep(options.watch)
        before, found = {_key(one): one for one in found}, look()
        now = {_key(one) for one in found if one.is_to_be_done}
        if options.json:
            code = _show(options, facts, found)
            continue
        changed = [one for one in found if _key(one) not in before]
        say(*[line for one in changed for line in _lines(one)])
        gone = [one for key, one in before.items() if one.is_to_be_done and key not in now]
        if changed or gone:
            say(f"{time.strftime('%H:%M:%S')}  {_summary(found)}")
        code = 1 if now else 0
    if code and not options.json:
        say(f"Not all is right after {age(options.watch_for)}.")
    return code


def _key(one: CheckedRecord) -> tuple[str, ...]:
    return one.group, one.name, one.type, one.verdict.value, one.fault
