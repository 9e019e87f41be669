"""A configuration of Postfix as one of ours, with an account of everything that it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mailserver.config.quantities import octets, seconds
from mailserver.config.values import alias_member, host_name
from mailserver.mail.address import AddressError
from mailserver.moving.house import House, Inline
from mailserver.moving.postfix_domains import DomainTables
from mailserver.moving.postfix_files import names_in
from mailserver.moving.postfix_filters import Filters
from mailserver.moving.postfix_known import SAME, SYSTEM_CA, verdict_on
from mailserver.moving.postfix_listeners import Listeners
from mailserver.moving.postfix_names import DomainNames
from mailserver.moving.postfix_networks import relaying_networks
from mailserver.moving.postfix_routes import Routes
from mailserver.moving.postfix_source import PostfixSource
from mailserver.moving.reckoning import Reckoning
from mailserver.routing.domains import Domains, LocalDomain, RoutingError

__all__ = ["ReadHouse", "read_postfix"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LOOPS_MOST = 1000


@dataclass(frozen=True, slots=True)
class ReadHouse:
    """What was read: the new house, and what became of each setting."""

    house: House
    reckoning: Reckoning


def read_postfix(directory: str, *, data: str, root: str = "") -> ReadHouse:
    """Read the configuration in `directory`.  `data` is the new server's folder.  Raises `NoPostfix`."""
    reckoning, house = Reckoning(), House()
    source = PostfixSource(directory, reckoning, root=root)
    _head(source, house, data)
    listeners, filters = Listeners(source, house), Filters(source, house)
    listeners.carry()
    names, routes = DomainNames(source), Routes(source, house)
    elsewhere = routes.sent_elsewhere([*names.local, *names.mailbox_domains])
    relay = house.table("relay")
    routes.carry([name for name in names.ours if name not in elsewhere], names.relay_domains, elsewhere)
    relay["networks"] = relaying_networks(source)
    domains = DomainTables(source, house, names, elsewhere)
    _without_loops(house, reckoning)
    _places(source, house, routes, domains)
    filters.carry()
    if listeners.submits and not (
        filters.checks_senders or listeners.checks_senders or source.is_set("smtpd_sender_login_maps")
    ):
        house.table("submission").update({"senders": "any", "header_from": False})
        reckoning.carried(
            "smtpd_sender_restrictions: senders",
            "no reject_sender_login_mismatch",
            '[submission] senders = "any": users send as whom they like, as with Postfix; "own" is safer',
        )
    _limits(source, house)
    _times(source, house)
    _connections(source, house)
    _rest(source)
    house.tables = _in_utf8(_in_order(house.tables), reckoning)
    return ReadHouse(house, reckoning)


def _head(source: PostfixSource, house: House, data: str) -> None:
    name = source["myhostname"]
    try:
        house.tables["hostname"] = host_name(name)
    except ValueError as error:
        house.tables["hostname"] = "mail.example.org"
        source.reckoning.left("myhostname", name, str(error), 'hostname = "…"')
    else:
        where = "hostname" if source.is_set("myhostname") else "hostname; main.cf has none: it is this host's own name"
        source.reckoning.carried("myhostname", name, where)
    house.tables["data"] = data
    if source.is_set("mydomain"):
        source.reckoning.carried("mydomain", source["mydomain"], "in what refers to it")


def _without_loops(house: House, reckoning: Reckoning) -> None:
    """Take out aliases that lead back to themselves: Postfix bounces their mail, and a configuration with one is refused here."""
    for _ in range(LOOPS_MOST):
        tables = house.table("domain")
        known = {
            name: LocalDomain(
                aliases={
                    alias: [alias_member(one) for one in members] for alias, members in table.get("aliases", {}).items()
                },
                subaddress=table.get("subaddress", ""),
                same_as=table.get("same_as"),
            )
            for name, table in tables.items()
        }
        try:
            Domains(known)
        except RoutingError as error:
            words_of = str(error)
            address = next((word for word in words_of.replace(":", " ").split() if "@" in word), "")
            local, _, domain = address.rpartition("@")
            if domain not in tables or local not in tables[domain].get("aliases", {}):
                return
            members = tables[domain]["aliases"].pop(local)
            reckoning.left(
                "virtual_alias_maps",
                f"{address} {', '.join(members)}",
                words_of,
                "mend it, and add it: mailserver alias add",
            )
        except AddressError:
            return
        else:
            return


def _places(source: PostfixSource, house: House, routes: Routes, domains: DomainTables) -> None:
    """[accounts], [delivery], [pickup]."""
    data = house.tables["data"]
    lmtp = routes.lmtp_socket(delivers_locally=bool(domains.names.local))
    if domains.uses_system_accounts:
        house.tables["accounts"] = {"use": "system"}
        source.reckoning.carried("mydestination: accounts", "users of the host", '[accounts] use = "system"')
    else:
        house.tables["accounts"] = {"use": "file", "path": f"{data}/accounts.toml"}
    if lmtp is not None:
        house.tables["delivery"] = lmtp
    elif "delivery" not in house.tables:
        box = source["home_mailbox"]
        path = "{data}/mail/{domain}/{user}"
        if domains.uses_system_accounts:
            path = "{home}/" + (box.rstrip("/") if box.endswith("/") else "Maildir")
            if not box.endswith("/"):
                name, value = ("home_mailbox", box) if box else ("mail_spool_directory", source["mail_spool_directory"])
                source.reckoning.left(
                    name, value, "mail goes into Maildirs, not into mbox files", "mailserver import mbox FILE USER"
                )
        house.tables["delivery"] = {"use": "maildir", "path": path}
    if source.is_set("home_mailbox") and not source.reckoning.knows("home_mailbox"):
        source.reckoning.carried("home_mailbox", source["home_mailbox"], "[delivery]")
    origin = domains.names.origin
    if source.is_set("myorigin") or origin in domains.names.ours:
        try:
            house.tables["pickup"] = {"domain": host_name(origin)}
        except ValueError as error:
            source.reckoning.left("myorigin", source["myorigin"], str(error), "[pickup] domain")
        else:
            source.reckoning.carried("myorigin", source.raw("myorigin"), "[pickup] domain, and members without a domain")


def _limits(source: PostfixSource, house: House) -> None:
    limits = house.table("limits")

    def carry(name: str, key: str, convert: Callable[[str], Any], least: int = 1) -> None:
        if not source.is_set(name):
            return
        try:
            value = convert(source[name])
        except ValueError as error:
            source.reckoning.left(name, source[name], str(error), f"limits.{key}")
            return
        if value < least:
            source.reckoning.left(
                name, source[name], f"here at least {least}" if value else "there is always a bound", f"limits.{key}"
            )
            return
        limits[key] = value
        source.reckoning.carried(name, source[name], f"limits.{key}")

    carry("message_size_limit", "message_bytes", octets)
    carry("smtpd_recipient_limit", "recipients", int, 100)
    carry("smtpd_client_connection_count_limit", "connections_per_network", int)
    carry("header_size_limit", "header_bytes", octets)
    carry("smtpd_hard_error_limit", "hard_errors", int)
    if not limits:
        del house.tables["limits"]


def _times(source: PostfixSource, house: House) -> None:
    queue = house.table("queue")
    if source.is_set("maximal_queue_lifetime") and (time := _seconds(source, "maximal_queue_lifetime")):
        queue["expire"] = time
        source.reckoning.carried("maximal_queue_lifetime", source["maximal_queue_lifetime"], "[queue] expire")
    if source.is_set("delay_warning_time"):
        time = _seconds(source, "delay_warning_time")
        if time:
            queue["warn"] = time
            source.reckoning.carried("delay_warning_time", source["delay_warning_time"], "[queue] warn")
        else:
            source.reckoning.left(
                "delay_warning_time", source["delay_warning_time"], "senders are told after 4h", "[queue] warn"
            )
    if queue.get("expire", 432000) < queue.get("warn", 14400):
        queue["warn"] = queue["expire"]
    if source.is_set("minimal_backoff_time") or source.is_set("maximal_backoff_time"):
        least, most = _seconds(source, "minimal_backoff_time") or 300, _seconds(source, "maximal_backoff_time") or 4000
        waits = [max(1, least)]
        while waits[-1] < most and len(waits) < 20:
            waits.append(min(most, waits[-1] * 2))
        queue["retry"] = waits
        for name in ("minimal_backoff_time", "maximal_backoff_time"):
            if source.is_set(name):
                source.reckoning.carried(name, source[name], "[queue] retry")
    if not queue:
        del house.tables["queue"]


def _connections(source: PostfixSource, house: House) -> None:
    relay = house.table("relay")
    for name in ("smtp_destination_concurrency_limit", "default_destination_concurrency_limit"):
        if source.is_set(name) and relay["use"] != "none":
            value = source[name]
            if value.isdigit() and int(value) > 0:
                relay.setdefault("connections_per_host", int(value))
                source.reckoning.carried(name, value, "[relay] connections_per_host")
    for name in ("inet_protocols", "smtp_address_preference"):
        value = source[name].lower()
        if source.is_set(name) and value in ("ipv4", "ipv6") and relay["use"] != "none":
            key = "ip" if name == "inet_protocols" else "prefer"
            relay[key] = value
            source.reckoning.carried(name, value, f"[relay] {key}")
        elif source.is_set(name) and value in ("all", "any", "ipv4, ipv6", "ipv6, ipv4"):
            source.reckoning.same(name, value, "both are used")


def _seconds(source: PostfixSource, name: str) -> int:
    text = source[name].strip().lower()
    unit = UNITS.get(text[-1:], 0)
    usual = {"delay_warning_time": 3600, "maximal_queue_lifetime": 86400}.get(name, 1)
    try:
        return int(seconds(int(text[:-1]) * unit if unit else int(text) * usual))
    except ValueError as error:
        source.reckoning.left(name, text, str(error), "[queue]")
        return 0


def _rest(source: PostfixSource) -> None:
    """Every parameter that nothing has spoken of yet."""
    texts = [value for name, value in source.written.items()] + [
        text for service in source.services for text in (*service.command, *service.options.values())
    ]
    used = {name for text in texts for name in names_in(text)}
    for name, value in source.written.items():
        if source.reckoning.knows(name):
            continue
        if not source.is_set(name):
            source.reckoning.same(name, value, "as Postfix has it by default")
        elif name in ("smtp_tls_CAfile", "smtp_tls_CApath") and value.startswith(SYSTEM_CA):
            source.reckoning.same(name, value, "the authorities of the system are believed")
        elif name in SAME:
            source.reckoning.same(name, value, SAME[name])
        elif name in used and name not in source.defaults:
            source.reckoning.same(name, value, "only other parameters refer to it")
        elif name in source.unknown:
            source.reckoning.left(name, value, "Postfix itself knows no such parameter", "look for a misspelt name")
        else:
            source.reckoning.left(name, value, *verdict_on(name))


def _in_order(tables: dict[str, Any]) -> dict[str, Any]:
    order = ("hostname", "data", "listen", "tls", "limits", "accounts", "domain", "delivery", "relay", "route", "submission",
             "queue", "pickup", "filter")  # fmt: skip
    return {name: tables[name] for name in order if tables.get(name) not in (None, {}, [])}


def _in_utf8(value: Any, reckoning: Reckoning) -> Any:
    """The same tables, where text is UTF-8: TOML knows no other.  What was none is told."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            clean = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            reckoning.left("main.cf", clean, "is not UTF-8", "write it into the new configuration by hand")
            return clean
        return value
    if isinstance(value, Inline):
        return value
    if isinstance(value, dict):
        return {_in_utf8(key, reckoning): _in_utf8(inner, reckoning) for key, inner in value.items()}
    return [_in_utf8(inner, reckoning) for inner in value] if isinstance(value, list) else value
