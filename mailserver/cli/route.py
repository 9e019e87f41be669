"""``mailserver route ADDRESS``: where a message would go, and why."""

from __future__ import annotations

import argparse
import ipaddress
import sys
from typing import Any

from mailserver.cli.accounts import reading
from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable, age, as_json, plain, say
from mailserver.cli.route_tls import tls_lines
from mailserver.cli.without_server import NotNow, finished, offline_services
from mailserver.config import Configuration, load
from mailserver.control.client import CommandRefused, ControlError, NoServer
from mailserver.interfaces import CannotTell
from mailserver.mail.address import AddressError
from mailserver.mail.answers import Local, Remote

__all__ = ["add_to", "stopped_routes"]

OURS = ("mx", "smarthost", "none")
HOW = {
    "same domain": "has the names of the domain of",
    "account": "is an account",
    "alias": "is an alias for",
    "subaddress": "has a tag after the name of",
    "pattern": "fits a pattern for",
    "role": "is a role of",
    "catch-all": "is nobody's, and the catch-all is",
    "elsewhere": "is another host's",
    "own name": "is at this host's own name, for",
    "reader": "is read by the server itself",
    "return path": "is the return path of",
    "disabled": "is disabled",
    "nobody": "is nobody's",
    "router": "is known to the router, for",
}


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    route = commands.add_parser("route", parents=[common], help=summary, description=summary.capitalize() + ".")
    route.add_argument("address", metavar="ADDRESS", help="a recipient, such as alice@example.org")
    route.add_argument(
        "--from",
        dest="peer",
        metavar="NETWORK",
        type=_network,
        default=None,
        help="the sending host's IP address or network: it may have the right to relay",
    )
    route.add_argument(
        "--tls", action="store_true", help="what TLS its hosts must have and why, and what was seen (asked of the running server)"
    )
    route.add_argument("--require-tls", action="store_true", help="with --tls: as for a message with REQUIRETLS")
    route.add_argument(
        "--sender",
        metavar="ADDRESS",
        default="",
        help="who sends it, for routes that depend on that; <> is the null sender of reports",
    )
    route.set_defaults(run=show_route)


def show_route(options: argparse.Namespace) -> int:
    """Print the route.  Return 1 where such mail would be refused."""
    configuration = load(options.config)
    answer = _tried(options, configuration) if options.names_config else _asked(options, configuration)
    if options.tls or options.require_tls:
        for end in answer["ends"]:
            if end["kind"] == "remote":
                question = {"address": end["address"], "sender": options.sender, "require_tls": options.require_tls}
                end["tls"] = ask_server(configuration.data, "route.tls", question, timeout_seconds=60)
    if options.json:
        as_json(answer)
    else:
        _tell(answer, configuration)
    return 0 if answer["accepted"] else 1


def stopped_routes(config: str, address: str) -> tuple[Local | Remote, ...]:
    """Where mail for the address goes, found out without a server.  Raises `Unable` or `CommandRefused`."""
    from mailserver.control.route import parsed_address, usable_routes

    configuration, router = _router(config)
    parsed = parsed_address(address)
    return usable_routes(parsed, finished(router.route(parsed)), configuration.relays)


def _asked(options: argparse.Namespace, configuration: Configuration) -> dict[str, Any]:
    """By the configuration that the running server has; by the file where none runs."""
    try:
        return _ask(configuration, options.address, options.peer, options.sender)
    except NoServer:
        return _stopped(options)


def _tried(options: argparse.Namespace, configuration: Configuration) -> dict[str, Any]:
    """By the file that was named: it may be one that no server has read yet.  A running server only looks hosts up."""
    try:
        answer = _stopped(options)
    except NotNow:
        print(
            "mailserver: these accounts can only be looked at by the running server: it answers by the configuration it has",
            file=sys.stderr,
        )
        return _asked(options, configuration)
    for end in answer["ends"]:
        if end["kind"] == "remote":
            try:
                others = _ask(configuration, end["address"], None, options.sender)["ends"]
            except (ControlError, CommandRefused):
                break
            answer["server"] = True
            [found] = others if [one.get("address") for one in others] == [end["address"]] else [{}]
            end |= {key: found[key] for key in ("hosts", "fault") if key in found}
    return answer


def _ask(configuration: Configuration, address: str, peer: str | None, sender: str) -> dict[str, Any]:
    question = {"address": address, "from": peer or "", "sender": sender}
    return ask_server(configuration.data, "route", question, timeout_seconds=60)


def _stopped(options: argparse.Namespace) -> dict[str, Any]:
    from mailserver.control.route import RelayRights, itinerary, parsed_address, parsed_sender, refused_by_way
    from mailserver.mail.networks import Networks
    from mailserver.mail.route_map import one_of
    from mailserver.relay.route_facts import way_of

    configuration, router = _router(options.config)
    address = parsed_address(options.address)
    try:
        routes, hops = finished(router.explain(address))
    except (AddressError, CannotTell) as error:
        raise CommandRefused(f"{options.address}: {error}") from error
    relays, relay = configuration.relays, configuration.relay
    rights = RelayRights(Networks(relay.networks), one_of(relay.domains))
    answer = itinerary(address, routes, hops, options.peer or "", rights, relays) | {"server": False}
    sender, way = parsed_sender(options.sender), way_of(configuration)
    for end, route in zip(answer["ends"], routes, strict=True):
        if isinstance(route, Remote) and configuration.relay.use in OURS:
            end["way"] = dict(way(sender, route.address))
    return refused_by_way(answer)


def _router(config: str) -> tuple[Configuration, Any]:
    """The router as the start would make it."""
    from mailserver.cli.without_server import offline_router
    from mailserver.plugins.catalogue import PluginError, build_component, discover
    from mailserver.plugins.life import StartError

    catalogue = discover()
    configuration = load(config, catalogue.options_of)
    services = offline_services(configuration)
    table = configuration.accounts
    try:
        directory = build_component(catalogue.factory("accounts", table.use), table.options, services)
        router, parts = offline_router(configuration, catalogue, services, directory)
        for part in parts:
            with reading(configuration):
                finished(part.start())
    except (PluginError, StartError) as error:
        raise Unable(str(error)) from error
    except OSError as error:
        raise Unable(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), EX_IOERR) from error
    return configuration, router


def _tell(answer: dict[str, Any], configuration: Configuration) -> None:
    say(f"{plain(answer['address'])}")
    for hop in answer["hops"]:
        further = ", ".join(plain(one) for one in hop["leads_to"])
        say(f"  {plain(hop['address'])} {HOW.get(hop['how'], hop['how'])} {further}".rstrip())
    for end in answer["ends"]:
        for line in _end_lines(end, configuration, bool(answer.get("server", True))):
            say(f"  {line}")
    peer = f"from {answer['from']}" if answer["from"] else "from a peer without rights"
    say(f"at RCPT {peer}: {plain(answer['reply'])}")
    if answer.get("partly"):
        say("   (some addresses of that network may send there, others may not)")


def _end_lines(end: dict[str, Any], configuration: Configuration, running: bool) -> list[str]:
    if end["kind"] == "refused":
        return [f"→ refused: {plain(end['why'])}"]
    if end["kind"] == "local":
        folder = (
            f", folder {plain(end['folder'])}" + (" if there is one" if end["if_there"] else "")
            if end["folder"]
            else ""
        )
        if end.get("reader"):
            return [f"→ the filter {plain(end['reader'])}"]
        kind = "system user" if end["system_user"] else "mailbox"
        return [f"→ {kind} {plain(end['mailbox'])}{folder}, by {configuration.delivery.use}"]
    lines = _way_lines(end, configuration)
    if "fault" in end:
        lines.append(f"   {plain(end['fault'])}")
    if "tls" in end:
        return lines + [f"   {line}" for line in tls_lines(end["tls"])]
    for host in end.get("hosts", ()):
        addresses = " ".join(host["addresses"])
        lines.append(f"   {host['rank'] + 1}. {plain(host['name'])} port {host['port']}: {addresses}")
    if not running and end.get("way", {}).get("use") == "mx":
        lines.append("   (its hosts are looked up by the running server)")
    return lines


def _way_lines(end: dict[str, Any], configuration: Configuration) -> list[str]:
    """By which route, with what."""
    way, address = end.get("way"), plain(end["address"])
    if way is None:
        return [f"→ {address}, by the relay {configuration.relay.use}"]
    name = f"the route {plain(way['route'])}" if way["route"] else "[relay]"
    if way["use"] == "none":
        return [f"→ {address}: {name} sends it nowhere"]
    to = f"{plain(way['host'])}" if way["host"] else "the domain's hosts"
    facts = [f"port {way['port']}", f"TLS {way['tls']}" + (" from the first octet on" if way["implicit_tls"] else "")]
    if way["username"]:
        facts.append(f"logged in as {plain(way['username'])} ({way['login']})")
    if way["client_certificate"]:
        facts.append(f"showing {plain(way['client_certificate'])}")
    sources = [way[key] for key in ("source_ipv4", "source_ipv6") if way[key]]
    if sources:
        facts.append(f"from {' or '.join(map(plain, sources))}")
    if way["prefer"] != "any" or way["ip"] != "any":
        facts.append(f"{way['ip']} alone" if way["ip"] != "any" else f"{way['prefer']} first")
    lines = [f"→ {address}, by {name} to {to}: {', '.join(facts)}"]
    queue = configuration.queue
    if any(key in way for key in ("retry", "warn", "expire")):
        retry = ", ".join(map(age, way.get("retry", queue.retry)))
        warn, expire = age(way.get("warn", queue.warn)), age(way.get("expire", queue.expire))
        lines.append(f"   tried again after {retry}; the sender is told after {warn}, and gets it back after {expire}")
    return lines


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an IP address nor a network") from error
