"""Where Postfix sends mail for others: relayhost, transport_maps, sender-dependent relays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mailserver.config.values import domain_key, mail_address
from mailserver.moving.house import House
from mailserver.moving.postfix_files import Service, words
from mailserver.moving.postfix_hops import BY_HAND, LEVELS, Hops, RelayHop
from mailserver.moving.postfix_source import Line, PostfixSource

__all__ = ["Routes"]

LOCAL = frozenset({"local", "virtual"})


class Routes:
    """Reads them out of `source` into `house`."""

    def __init__(self, source: PostfixSource, house: House) -> None:
        self._source, self._house, self._reckoning = source, house, source.reckoning
        self._transports = {line.key: line for line in source.maps("transport_maps")}
        self._services = {
            one.name: one for one in source.services if one.type in ("unix", "inet") and one.program in ("smtp", "lmtp")
        }
        self._hops = Hops(source, house)
        self._written: dict[tuple[str, str], dict[str, Any]] = {}
        self._relay_host = RelayHop()
        self._lmtp: dict[str, str] = {}

    # --- domains that are ours, and are sent to another host all the same ---

    def sent_elsewhere(self, domains: Sequence[str]) -> list[str]:
        """Those of our domains that transport_maps sends to other hosts."""
        return [name for name in domains if (line := self._transport_for(name)) and self._is_smtp(line.value)]

    def _transport_for(self, domain: str) -> Line | None:
        if domain in self._transports:
            return self._transports[domain]
        parent = domain
        while "." in parent:
            parent = parent.partition(".")[2]
            if f".{parent}" in self._transports:
                return self._transports[f".{parent}"]
        return self._transports.get("*")

    def _is_smtp(self, value: str) -> bool:
        transport, colon, hop = value.partition(":")
        return bool(colon) and (
            (transport in self._services and self._services[transport].program == "smtp")
            or (not transport and bool(hop))
        )

    # --- all of it ---

    def carry(self, ours: Sequence[str], relay_domains: Sequence[str], elsewhere: Sequence[str]) -> None:
        """Write [relay] and the routes.  `ours` are delivered here, `elsewhere` are ours and go to other hosts."""
        relay = self._relay()
        seconds = [*relay_domains, *elsewhere]
        if "relay_domains" in words(self._source["parent_domain_matches_subdomains"]):
            seconds = [one for name in relay_domains for one in (name, f".{name}") if not name.startswith(".")] + list(
                elsewhere
            )
            seconds += [name for name in relay_domains if name.startswith(".")]
        if seconds:
            relay["domains"] = list(dict.fromkeys(seconds))
        self._by_relay_transport(relay_domains)
        for line in self._transports.values():
            self._transport(line, ours)
        self._by_sender()
        self._by_policy(relay)
        self._hops.tell_unused()
        for route in self._written.values():
            self._house.add("route", route)
        for name, where in (
            ("transport_maps", "[[route]]"), ("sender_dependent_relayhost_maps", "[[route]] with sender"),
            ("relayhost", "[relay]"),
            ("smtp_sasl_password_maps", "username and password_file"), ("smtp_sasl_auth_enable", "username and password_file"),
            ("smtp_sender_dependent_authentication", "[[route]] with sender"), ("smtp_tls_policy_maps", "tls of routes"),
            ("smtp_tls_security_level", "tls of [relay] and of the routes"), ("smtp_tls_wrappermode", "implicit_tls"),
            ("default_transport", "[relay]"), ("relay_transport", "[[route]]"),
        ):  # fmt: skip
            if self._source.is_set(name) and not self._reckoning.knows(name):
                self._reckoning.carried(name, self._source.raw(name), where)
        if self._source.is_set("parent_domain_matches_subdomains"):
            value = self._source.raw("parent_domain_matches_subdomains")
            self._reckoning.carried("parent_domain_matches_subdomains", value, "names below a domain stand beside it")

    def lmtp_socket(self, *, delivers_locally: bool) -> dict[str, Any] | None:
        """``[delivery]`` for mailboxes that Postfix hands to an LMTP server, None where it does not."""
        source = self._source
        for name in ("virtual_transport", "mailbox_transport", "local_transport"):
            transport, _, hop = source[name].partition(":")
            if (name == "mailbox_transport" and not transport) or transport in LOCAL:
                continue
            delivery = self._lmtp_delivery(transport, hop)
            if delivery is None and name == "local_transport" and not delivers_locally:
                self._reckoning.same(name, source[name], "mydestination is empty: nothing is delivered here")
                continue
            if delivery is None:
                self._reckoning.left(
                    name,
                    source[name],
                    "a transport that has no equal",
                    '[delivery] use = "lmtp" or "pipe" (docs/delivery.md)',
                )
                continue
            self._reckoning.carried(name, source[name], "[delivery]")
            return delivery
        return None

    def _lmtp_delivery(self, transport: str, hop: str) -> dict[str, Any] | None:
        service = self._services.get(transport)
        if service is None or service.program != "lmtp":
            return None
        if hop.startswith("unix:"):
            path = hop.removeprefix("unix:")
            whole = path if path.startswith("/") else f"{self._source['queue_directory']}/{path}"
            return {"use": "lmtp", "socket": whole}
        try:
            to = RelayHop.parse(hop.removeprefix("inet:"))
        except ValueError:
            return None
        return {"use": "lmtp", "host": to.host, "port": to.port if ":" in hop.removeprefix("inet:") else 24}

    # --- [relay] ---

    def _relay(self) -> dict[str, Any]:
        source, relay = self._source, self._house.table("relay")
        relay["use"] = "mx"
        transport, _, hop = source["default_transport"].partition(":")
        first = (words(source["relayhost"]) or [""])[0]
        for other in words(source["relayhost"])[1:]:
            self._reckoning.left(
                "relayhost: further",
                other,
                "one host takes all mail",
                "a name with several addresses, or its MX records (look_up_mx)",
            )
        if transport in ("error", "retry", "discard") or transport not in self._services:
            self._reckoning.left(
                "default_transport",
                source["default_transport"],
                "mail for others has no other way here",
                '[relay] use = "none" refuses it',
            )
            relay["use"] = "none"
            return relay
        to = self._destination("relayhost", hop or first)
        if to is None:
            return relay
        self._relay_host = to
        relay.update(self._hops.keys(self._services[transport], to, ""))
        if to.host:
            relay["use"] = "smarthost"
        return relay

    def _destination(self, name: str, text: str) -> RelayHop | None:
        try:
            return RelayHop.parse(text)
        except ValueError as error:
            self._reckoning.left(name, text, str(error), BY_HAND)
            return None

    # --- by recipient ---

    def _by_relay_transport(self, relay_domains: Sequence[str]) -> None:
        """relay_transport with a next hop of its own holds for all relay_domains."""
        transport, _, hop = self._source["relay_transport"].partition(":")
        if not relay_domains:
            return
        if transport not in self._services or self._services[transport].program != "smtp":
            self._reckoning.left(
                "relay_transport", self._source["relay_transport"], "a transport that has no equal", BY_HAND
            )
            return
        if hop and (to := self._destination("relay_transport", hop)) is not None:
            for name in relay_domains:
                self._write(name, "", self._hops.keys(self._services[transport], to, ""))

    def _transport(self, line: Line, ours: Sequence[str]) -> None:
        name = f"transport_maps: {line.where}"
        transport, colon, hop = line.value.partition(":")
        value = f"{line.key} {line.value}"
        if not colon:
            self._reckoning.left(name, value, "no transport", BY_HAND)
        elif not transport and not hop:
            self._reckoning.same(name, value, "as if it did not stand there")
        elif "@" in line.key:
            self._reckoning.left(
                name,
                value,
                "routes are by domain, not by address",
                "an alias that leads to another domain, or a router (docs/plugins/router.md)",
            )
        elif transport in LOCAL:
            self._reckoning.same(name, value, "what is delivered here is delivered by [delivery]")
        elif transport == "error":
            self._refused(name, line, hop, ours)
        elif line.key == "*":
            self._everything(name, value, transport, hop)
        elif not self._is_smtp(line.value) and (
            self._services.get(transport) is None or self._services[transport].program != "smtp"
        ):
            delivery = self._lmtp_delivery(transport, hop)
            if (
                delivery is not None
                and line.key in ours
                and self._lmtp.setdefault(repr(delivery), line.key) == line.key
                and len(self._lmtp) == 1
            ):
                self._house.tables["delivery"] = delivery
                self._reckoning.carried(name, value, "[delivery], for all domains that are delivered here")
            else:
                self._reckoning.left(
                    name, value, "a transport that has no equal", "[delivery] (one for all domains), or a filter"
                )
        else:
            to = self._destination(name, hop)
            if to is not None:
                service = (
                    self._services.get(transport)
                    or self._services.get("smtp")
                    or Service("smtp", "unix", (), ("smtp",))
                )
                self._write(line.key, "", self._hops.keys(service, to, ""))
                if self._subdomains_too and not line.key.startswith("."):
                    self._write(f".{line.key}", "", self._hops.keys(service, to, ""))

    @property
    def _subdomains_too(self) -> bool:
        return "transport_maps" in words(self._source["parent_domain_matches_subdomains"])

    def _everything(self, name: str, value: str, transport: str, hop: str) -> None:
        service = self._services.get(transport or "smtp")
        to = self._destination(name, hop)
        if service is None or service.program != "smtp" or to is None:
            self._reckoning.left(name, value, "a transport that has no equal", BY_HAND)
            return
        relay = self._house.table("relay")
        kept = {key: relay[key] for key in ("networks", "domains") if key in relay}
        relay.clear()
        relay.update({"use": "smarthost" if to.host else "mx"} | self._hops.keys(service, to, "") | kept)
        self._relay_host = to
        self._reckoning.carried(name, value, "[relay]")

    def _refused(self, name: str, line: Line, reason: str, ours: Sequence[str]) -> None:
        words_of = re.sub(r"^[45]\.\d+\.\d+\s*", "", reason).strip()
        if line.key in ours:
            self._house.table("domain").setdefault(line.key, {})["disabled"] = True
            self._reckoning.carried(name, f"{line.key} {line.value}", "disabled = true of the domain")
        elif line.key == "*":
            self._reckoning.left(name, f"{line.key} {line.value}", "all mail would be refused", '[relay] use = "none"')
        else:
            clean = "".join(c for c in words_of if c.isascii() and c.isprintable())[:200]
            self._write(line.key, "", {"use": "none"} | ({"reason": clean} if clean else {}))

    # --- by sender ---

    def _by_sender(self) -> None:
        null = self._source["empty_address_relayhost_maps_lookup_key"]
        senders: dict[str, None] = {}
        for line in self._source.maps("sender_dependent_relayhost_maps"):
            name, sender = f"sender_dependent_relayhost_maps: {line.where}", line.key
            if line.value.upper() == "DUNNO" or not line.value:
                rule = sender.removeprefix("@")
                if sender != null and self._is_rule(name, rule):  # as all others, whatever stands for his domain
                    self._write("", rule, self._hops.keys(self._service("smtp"), self._relay_host, sender))
                    senders[sender] = None
                continue
            to = self._destination(name, line.value)
            rule = "<>" if sender == null else sender.removeprefix("@")
            if to is None or not self._is_rule(name, rule):
                continue
            senders[sender] = None
            self._write("", rule, self._hops.keys(self._service("smtp"), to, sender))
        for line in self._source.maps("sender_dependent_default_transport_maps"):
            self._sender_transport(line)
        if self._source.is_yes("smtp_sender_dependent_authentication"):
            for key in [one for one in self._hops.passwords if "@" in one and one not in senders]:
                to = self._relay_host
                if to.host and self._is_rule("smtp_sasl_password_maps", key.removeprefix("@")):
                    self._write("", key.removeprefix("@"), self._hops.keys(self._service("smtp"), to, key))

    def _sender_transport(self, line: Line) -> None:
        name = f"sender_dependent_default_transport_maps: {line.where}"
        transport, _, hop = line.value.partition(":")
        service = self._services.get(transport)
        to = self._destination(name, hop) if hop else self._relay_host
        rule = "<>" if line.key == "<>" else line.key.removeprefix("@")
        if service is None or service.program != "smtp" or to is None or not self._is_rule(name, rule):
            self._reckoning.left(name, f"{line.key} {line.value}", "a transport that has no equal", BY_HAND)
            return
        if ("", rule) in self._written:  # sender_dependent_relayhost_maps says the host, this one the transport
            self._reckoning.left(
                name,
                f"{line.key} {line.value}",
                "the same sender has a relayhost of its own, which is carried over",
                BY_HAND,
            )
            return
        self._write("", rule, self._hops.keys(service, to, line.key))
        self._reckoning.carried(name, f"{line.key} {line.value}", "[[route]] with sender")

    def _service(self, name: str) -> Service:
        return self._services.get(name) or Service(name, "unix", (), ("smtp",))

    def _is_rule(self, name: str, rule: str) -> bool:
        try:
            if rule != "<>":
                mail_address(rule) if "@" in rule else domain_key(rule)
        except ValueError as error:
            self._reckoning.left(name, rule, str(error), BY_HAND)
            return False
        return True

    # --- TLS by destination ---

    def _by_policy(self, relay: Mapping[str, Any]) -> None:
        hops = {str(one) for one in (self._relay_host.key.lower(),)}
        for key in self._hops.policies:
            name = f"smtp_tls_policy_maps: {key}"
            if key in hops or self._reckoning.knows(name):
                continue
            if key.startswith("[") or ":" in key:
                self._reckoning.same(
                    name,
                    self._hops.policies[key],
                    "a host to which no route leads, or the level of a route that has it",
                )
            elif relay["use"] != "mx":
                self._reckoning.same(
                    name, self._hops.policies[key], "all mail goes by the relayhost, so that it had no effect"
                )
            elif (key, "") in self._written:
                self._reckoning.same(name, self._hops.policies[key], "the route of this domain has its own next hop")
            else:
                tls = LEVELS.get(self._hops.level(key))
                if tls is None:
                    self._reckoning.left(
                        name, self._hops.policies[key], "no level that is known here", "see tls in docs/relay.md"
                    )
                else:
                    self._write(key, "", {"tls": tls})

    def _write(self, domain: str, sender: str, keys: Mapping[str, Any]) -> None:
        try:
            if domain:
                domain_key("*" + domain if domain.startswith(".") else domain)
        except ValueError as error:
            self._reckoning.left("transport_maps", domain, str(error), BY_HAND)
            return
        rule = {name: value for name, value in (("domain", domain), ("sender", sender)) if value}
        self._written[domain, sender] = rule | dict(keys)
