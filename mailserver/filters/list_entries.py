"""An entry of the lists: what it names, whose it is, and how it stands in the records.  Pure."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network
from typing import Any

from mailserver.api import Address, AddressError, Network, normal_domain
from mailserver.mail.address import normal_names, parse_domain

__all__ = ["COLOURS", "SITE", "Entry", "read_entry", "read_scope", "read_subject", "scopes_of"]

COLOURS = ("white", "black", "grey")
KINDS = ("address", "domain", "network", "helo", "ptr", "dkim")
SITE = ""
SHARED = frozenset({"address", "domain", "helo"})  # anybody can say that he is one of these
COMMENT_CHARACTERS = 500
WHO_CHARACTERS = 100
WIDEST = {4: 8, 6: 16}  # an allow entry for more of the Internet is a mistake
MAPPED_BITS = 96
GAP = "\t"  # no address and no domain has one
UNFIT = re.compile(r"[^\S ]|[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """`scope` is `SITE`, ``@example.org`` for a domain of ours, or a user's address.  `kind` is one of `KINDS`, and `value` in
    the form in which it is looked up: a domain that begins with a dot stands for all names below it.

    `until` and `added` are seconds since the epoch; `until` None is "for good".  `hard`: before all others; of the site alone.
    `needs_evidence`: an allow entry helps only where it is shown that the message is from there.
    """

    scope: str
    kind: str
    value: str
    colour: str
    needs_evidence: bool = True
    hard: bool = False
    until: float | None = None
    comment: str = ""
    added_by: str = ""
    added: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError, with words for whoever adds it."""
        if self.colour not in COLOURS:
            raise ValueError(f"the colour is one of {', '.join(COLOURS)}")
        if self.hard and self.scope != SITE:
            raise ValueError("only an entry of the site can be hard")
        if not _is_time(self.added) or not (self.until is None or _is_time(self.until)):
            raise ValueError("a time is a number of seconds")
        for name, text, most in (("comment", self.comment, COMMENT_CHARACTERS), ("name", self.added_by, WHO_CHARACTERS)):
            if len(text) > most or UNFIT.search(text):
                raise ValueError(f"the {name} is one line of {most} characters at most")
        if self.colour == "white":
            _check_width(self.kind, self.value)

    @property
    def name(self) -> str:
        """``address:bob@example.net``."""
        return f"{self.kind}:{self.value}"

    @property
    def key(self) -> str:
        """Under which it is kept."""
        return GAP.join((self.scope, self.kind, self.value))

    @property
    def scope_name(self) -> str:
        """``site``, ``domain`` or ``user``."""
        return "site" if self.scope == SITE else "domain" if self.scope.startswith("@") else "user"

    @property
    def words(self) -> str:
        """For the log and for `explain`."""
        of = self.scope_name if self.scope == SITE else f"{self.scope_name} {self.scope}"
        return f"{'hard ' if self.hard else ''}{self.colour} {self.name} ({of})"

    @property
    def is_proved_by_claim(self) -> bool:
        """An allow entry that helps whoever says that he is the one."""
        return self.colour == "white" and not self.needs_evidence and self.kind in SHARED

    def has_ended(self, now: float) -> bool:
        """It does not count any more."""
        return self.until is not None and now >= self.until

    def octets(self) -> bytes:
        """The record's value."""
        kept: dict[str, Any] = {"colour": self.colour, "added": self.added}
        kept |= {} if self.needs_evidence else {"evidence": "none"}
        kept |= {"hard": True} if self.hard else {}
        kept |= {} if self.until is None else {"until": self.until}
        kept |= {"comment": self.comment} if self.comment else {}
        kept |= {"by": self.added_by} if self.added_by else {}
        return json.dumps(kept).encode()


def read_entry(key: str, value: bytes) -> Entry:
    """A record, whoever has written it.  Raises ValueError."""
    scope, kind, name = key.split(GAP)
    if read_scope(scope) != scope or read_subject(f"{kind}:{name}") != (kind, name):
        raise ValueError(f"{key!r} is not what an entry is kept under")
    try:
        kept = json.loads(value)
        entry = Entry(
            scope, kind, name, str(kept["colour"]),
            needs_evidence=kept.get("evidence") != "none", hard=kept.get("hard") is True, until=kept.get("until"),
            comment=str(kept.get("comment", "")), added_by=str(kept.get("by", "")), added=kept.get("added", 0.0),
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it has no value of an entry: {type(error).__name__}") from error
    return entry


def read_scope(text: str) -> str:
    """`SITE`, ``@domain`` or a user's address, as they are kept.  Raises ValueError."""
    if text in (SITE, "site"):
        return SITE
    if text.startswith("@"):
        return "@" + normal_domain(parse_domain(text[1:], utf8=True))
    return _address(text)


def read_subject(text: str) -> tuple[str, str]:
    """Kind and value of ``kind:value``, or of a value alone: an address, a network, else a domain.  Raises ValueError."""
    kind, colon, value = text.partition(":")
    if not colon or kind not in KINDS:
        kind, value = "", text
    if kind == "address" or (not kind and "@" in value.lstrip("@")):
        return "address", _address(value)
    if kind == "network":
        return kind, _network(value)
    if not kind:
        try:
            return "network", _network(value)
        except ValueError:
            if "/" in value or ":" in value:
                raise
    return kind or "domain", _domain(value.removeprefix("@") if kind in ("", "domain") else value)


def scopes_of(address: Address, separator: str) -> list[str]:
    """Whose entries hold for a recipient, the nearest first."""
    try:
        local, domain = normal_names(address)
    except AddressError:
        return [SITE]
    if not domain:  # <postmaster>
        return [SITE]
    base = local.partition(separator)[0] if separator else ""
    users = [local, *([base] if base and base != local else [])]
    return [*[f"{one}@{domain}" for one in users], f"@{domain}", SITE]


def _address(text: str) -> str:
    local, domain = normal_names(Address.parse(text, utf8=True))
    if not local or not domain:
        raise AddressError("an address has a local part and a domain")
    return f"{local}@{domain}"


def _domain(text: str) -> str:
    dot = "." if text.startswith(".") else ""
    name = parse_domain(text.removeprefix(".").removesuffix("."), utf8=True)
    if name.startswith("["):
        raise AddressError("a domain is no address literal")
    return dot + normal_domain(name)


def _network(text: str) -> str:
    network: Network = ip_network(text)
    mapped = isinstance(network, IPv6Network) and network.network_address.ipv4_mapped
    if mapped and network.prefixlen >= MAPPED_BITS:
        network = ip_network((mapped, network.prefixlen - MAPPED_BITS))
    return str(network)


def _check_width(kind: str, value: str) -> None:
    if kind == "network":
        network = ip_network(value)
        if network.prefixlen < WIDEST[network.version]:
            raise ValueError(f"an allow entry is for a /{WIDEST[network.version]} at most")
    elif "." not in value.rpartition("@")[2].removeprefix("."):
        raise ValueError("an allow entry is not for a whole top-level domain")


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1e11
