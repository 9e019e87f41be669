"""How Postfix connects to a next hop: host and port, TLS, our own address, the log-in."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any

from mailserver.config.next_hop import next_host_name
from mailserver.moving.house import House
from mailserver.moving.postfix_files import Service
from mailserver.moving.postfix_source import PostfixSource

__all__ = ["BY_HAND", "LEVELS", "Hops", "RelayHop"]

BY_HAND = "write a [[route]] for it by hand (docs/relay.md)"
LEVELS = {
    "": "opportunistic", "none": "none", "may": "opportunistic", "dane": "opportunistic", "encrypt": "required",
    "dane-only": "verified", "fingerprint": "required", "verify": "verified", "secure": "verified",
}  # fmt: skip
PORTS = {"smtp": 25, "submission": 587, "smtps": 465, "submissions": 465, "lmtp": 24}
CLIENT_OPTIONS = {"smtp_bind_address": "source_ipv4", "smtp_bind_address6": "source_ipv6"}
NOTHING = frozenset({"syslog_name", "smtp_fallback_relay", "smtp_connect_timeout", "smtp_helo_timeout"})


@dataclass(frozen=True, slots=True)
class RelayHop:
    """A next hop: `host` is "" for each domain's own hosts; `key` is how it stands there, as tables name it."""

    host: str = ""
    port: int = 25
    look_up_mx: bool = False
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> RelayHop:
        """``[host]:port``, ``host``, ``[2001:db8::1]``.  Raises ValueError."""
        if not text:
            return cls()
        match = re.fullmatch(r"\[(?:ipv6:)?([^\]]+)\](?::(.+))?", text, re.IGNORECASE)
        host, port, direct = (match[1], match[2], True) if match else (*text.partition(":")[::2], False)
        number = int(port) if port and port.isdigit() else PORTS.get(port or "smtp", 0)
        if not number:
            number = _service_port(port or "")
        next_host_name(host)
        is_address = _is_address(host)
        return cls(host, number, look_up_mx=not direct and not is_address, key=text)

    def keys(self) -> dict[str, Any]:
        """As a ``[[route]]`` has it."""
        if not self.host:
            return {"use": "mx"} | ({"port": self.port} if self.port != 25 else {})
        found: dict[str, Any] = {"host": self.host}
        if self.port != 25:
            found["port"] = self.port
        return found | ({"look_up_mx": True} if self.look_up_mx else {})


class Hops:
    """`policies` are the lines of smtp_tls_policy_maps, `passwords` those of smtp_sasl_password_maps, where log-ins are on."""

    def __init__(self, source: PostfixSource, house: House) -> None:
        self._source, self._house, self._reckoning = source, house, source.reckoning
        self.policies = {line.key: line.value for line in source.maps("smtp_tls_policy_maps")}
        self.passwords = (
            {line.key: line for line in source.maps("smtp_sasl_password_maps")}
            if source.is_yes("smtp_sasl_auth_enable")
            else {}
        )
        self._used: set[str] = set()

    def keys(self, service: Service, to: RelayHop, sender: str) -> dict[str, Any]:
        """How to connect there: host, TLS, our address, the log-in."""
        keys = to.keys()
        level = self._source.value_for(service, "smtp_tls_security_level").lower()
        if to.key.lower() in self.policies:
            level = self.level(to.key.lower())
        keys["tls"] = LEVELS.get(level, "required")
        if level not in LEVELS:
            self._reckoning.left(
                "smtp_tls_security_level", level, "no level that is known here", "see tls in docs/relay.md"
            )
        if level == "":
            self._reckoning.carried(
                "smtp_tls_security_level",
                "",
                'tls = "opportunistic": encrypted where it is offered; Postfix as it stood never did',
            )
        for option, key in CLIENT_OPTIONS.items():
            value = self._source.value_for(service, option).strip("[]")
            if value:
                keys[key] = value.removeprefix("IPv6:")
                if self._source.is_set(option):
                    self._reckoning.carried(option, value, key)
        for option, value in service.options.items():
            if option not in CLIENT_OPTIONS and option not in NOTHING and not option.startswith("smtp_tls"):
                self._reckoning.left(f"master.cf {service.key}: {option}", value, "not for one way alone", BY_HAND)
        implicit = self._source.value_for(service, "smtp_tls_wrappermode").lower() == "yes"
        if implicit and to.host:
            keys["implicit_tls"] = True
        login = self._login(to, sender)
        keys.update(login)
        if (login or implicit) and keys["tls"] not in ("required", "verified"):
            keys["tls"] = "required"
            self._reckoning.carried(
                "smtp_sasl_password_maps: TLS",
                to.key,
                'tls = "required": a password never goes over a connection in the clear',
            )
        return keys

    def level(self, key: str) -> str:
        """The level that smtp_tls_policy_maps has for this key."""
        level, *attributes = self.policies[key].split() or [""]
        for one in attributes:
            self._reckoning.left(
                f"smtp_tls_policy_maps: {key}", one, "attributes of a level have no equal", "see tls in docs/relay.md"
            )
        return level.lower()

    def _login(self, to: RelayHop, sender: str) -> dict[str, Any]:
        if not to.host:
            return {}
        by_sender = self._source.is_yes("smtp_sender_dependent_authentication") and sender
        bare = sender.removeprefix("@") if sender.startswith("@") else sender
        for key in (*([bare, f"@{bare.rpartition('@')[2]}"] if by_sender else []), to.key.lower(), to.host.lower()):
            line = self.passwords.get(key)
            if line is None:
                continue
            self._used.add(key)
            user, colon, password = line.value.partition(":")
            if not colon or not user:
                self._reckoning.left(f"smtp_sasl_password_maps: {line.where}", key, "no user and password", BY_HAND)
                return {}
            name = f"{user}-at-{to.host}" if by_sender and "@" in key else to.host
            return {"username": user, "password_file": self._house.secret(name, password)}
        return {}

    def tell_unused(self) -> None:
        """Passwords of hosts to which nothing leads."""
        for key, line in self.passwords.items():
            if key not in self._used:
                why = "nothing leads to this host, so that nobody would use it"
                self._reckoning.left(
                    f"smtp_sasl_password_maps: {line.where}",
                    key,
                    why,
                    "write a [[route]] with username and password_file",
                )


def _service_port(name: str) -> int:
    try:
        return socket.getservbyname(name, "tcp")
    except OSError:
        raise ValueError(f"{name!r} is no port") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
