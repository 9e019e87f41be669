"""``[[route]]``: exceptions from `[relay]`, by the recipient's domain or the sender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from mailserver.config.next_hop import HopKeys, LoginKeys, check_certificate, check_login, next_host_name
from mailserver.config.options import Options
from mailserver.config.values import Duration, Time, domain_key, mail_address
from mailserver.mail.address import normal_name
from mailserver.mail.route_map import NULL_SENDER, Clash, RouteRule, clashes

__all__ = ["NextHop", "RouteDomain", "RouteKeys", "RouteTable", "next_hop_of", "next_hop_of_relay", "route_clashes"]

REASON_CHARACTERS = 200
RouteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._#@-]{1,60}$")]


def _domain(value: str) -> str:
    """``"example.org"``, or names below it: ``"*.example.org"``, ``".example.org"``."""
    return domain_key("*" + value if value.startswith(".") else value)


RouteDomain = Annotated[str, AfterValidator(_domain)]


def _sender(value: str) -> str:
    if value == NULL_SENDER:
        return value
    return normal_name(mail_address(value)) if "@" in value else _domain(value)


def _reason(value: str) -> str:
    if not (value.isascii() and value.isprintable()) or len(value) > REASON_CHARACTERS:
        raise ValueError(f"must be at most {REASON_CHARACTERS} printable ASCII characters: it stands in an SMTP reply")
    return value


class RouteKeys(Options):
    """For which mail a route is, and where that goes."""

    domain: tuple[RouteDomain, ...] = ()
    """Mail for these domains; `".example.org"` or `"*.example.org"` is every name below example.org. One may stand without
    brackets. Absent: any."""
    sender: tuple[Annotated[str, AfterValidator(_sender)], ...] = ()
    """Mail from these: an address, a domain, `".example.org"` for the names below it; `"<>"` is the null sender of reports. One
    may stand without brackets. Absent: any."""
    name: RouteName | None = None
    """What the route is called in `explain` and in the log. Absent: by its first domain or sender."""
    use: Literal["mx", "smarthost", "none"] | None = None
    """`mx` sends to the hosts of each domain, `smarthost` to `host`, `none` refuses. Absent: `smarthost` where there is a `host`;
    without one the way that `[relay]` has, and what the route does not say is as there."""
    host: Annotated[str, AfterValidator(next_host_name)] | None = None
    """The host that takes this mail: its name, or its address."""
    look_up_mx: bool = False
    """Take the mail exchangers of `host` instead of the host itself."""
    reason: Annotated[str, AfterValidator(_reason)] = ""
    """What a sender is told of a recipient whose route is `none`."""
    retry: Annotated[tuple[Annotated[Duration, Field(ge=1)], ...], Field(min_length=1)] | None = None
    """Waiting times between attempts; the last one repeats. Absent: those of `[queue]`, as for the next two."""
    warn: Time | None = None
    """The sender is told of a delay after this time."""
    expire: Time | None = None
    """The message is returned after this time."""


OWN_KEYS = frozenset(RouteKeys.model_fields)
REFUSING_KEYS = frozenset({"domain", "sender", "name", "use", "reason"})
# What a host that is not [relay]'s has in common with it: they are about this machine.
MACHINE_KEYS = frozenset({"ip", "prefer", "source_ipv4", "source_ipv6", "hosts_per_attempt", "addresses_per_attempt"})
LOGIN_KEYS = frozenset(LoginKeys.model_fields) - frozenset(HopKeys.model_fields) - {"implicit_tls"}
CERTIFICATE_KEYS = frozenset({"client_certificate", "client_key"})
HOST_KEYS = LOGIN_KEYS | {"implicit_tls", "look_up_mx", "host"}


class RouteTable(LoginKeys, RouteKeys):
    """An exception from `[relay]`. Of the routes that fit a recipient and the sender the most specific is taken: the domain
    before a name below which it is, the longest of these first, and then any; of several with the same domain the sender's
    address, the sender's domain, the names below which that is, and then any."""

    @field_validator("domain", "sender", mode="before")
    @classmethod
    def _one_alone(cls, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @field_validator("domain", "sender")
    @classmethod
    def _some(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and len(set(value)) < len(value):
            twice = next(one for n, one in enumerate(value) if one in value[:n])
            raise ValueError(f"{twice} is there twice")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        given = self.model_fields_set
        if not (self.domain or self.sender):
            raise ValueError("needs a domain or a sender: what holds for all mail stands in [relay]")
        if self.use == "none":
            useless = sorted(given - REFUSING_KEYS)
            if useless:
                raise ValueError(f'{useless[0]} has no effect with use = "none"')
        elif self.reason:
            raise ValueError('reason is for use = "none"')
        if self.use == "smarthost" and self.host is None:
            raise ValueError('use = "smarthost" needs a host')
        if self.use == "mx" and (useless := sorted(given & HOST_KEYS)):
            raise ValueError(f'{useless[0]} is for a host, and use = "mx" has none of its own')
        if self.warn is not None and self.expire is not None and self.warn > self.expire:
            raise ValueError("warn is later than expire, so that nobody would ever be warned")
        return self

    @property
    def rule(self) -> RouteRule:
        """For which mail it is."""
        return RouteRule(self.domain, self.sender)

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or (self.domain or self.sender)[0]


class NextHop(LoginKeys):
    """Where mail goes and how, with nothing left open.  `host` is None for the hosts of each domain."""

    host: str | None = None
    look_up_mx: bool = False

    @model_validator(mode="after")
    def _login_fits(self) -> Self:
        if self.host is None and (self.username or self.implicit_tls):
            raise ValueError('a login and implicit_tls are for a host, and [relay] use = "mx" has none of its own')
        check_login(self)
        check_certificate(self)
        return self


def next_hop_of_relay(use: str, options: Any) -> NextHop | None:
    """Where `[relay]` itself sends mail; None where nowhere, or where a plugin knows."""
    if use not in ("mx", "smarthost"):
        return None
    return _next_hop({key: getattr(options, key) for key in _hop_keys() if hasattr(options, key)})


def next_hop_of(route: RouteTable, relay: NextHop | None) -> NextHop:
    """Where a route sends mail that is not refused.  Raises ValueError for what does not fit together with `[relay]`."""
    given = {key: getattr(route, key) for key in route.model_fields_set & _hop_keys()}
    if route.host is not None or route.use is not None:
        machine = {} if relay is None else {key: getattr(relay, key) for key in MACHINE_KEYS}
        return _next_hop(machine | given)
    if relay is None:
        raise ValueError('needs a host, or use = "mx": [relay] has no way of its own')
    if useless := sorted(given.keys() & {"look_up_mx"}):
        raise ValueError(f"{useless[0]} needs a host")
    same = {key: getattr(relay, key) for key in _hop_keys()}
    if given.keys() & CERTIFICATE_KEYS:
        same = {key: value for key, value in same.items() if key not in CERTIFICATE_KEYS}
    if given.keys() & LOGIN_KEYS:  # one log-in, as a whole: never one user's name with another's password
        same = {key: value for key, value in same.items() if key not in LOGIN_KEYS}
    return _next_hop(same | given)


def route_clashes(routes: Sequence[RouteTable]) -> list[Clash]:
    """Routes of which nobody could say which one holds."""
    return clashes([route.rule for route in routes])


def _hop_keys() -> frozenset[str]:
    return frozenset(NextHop.model_fields)


def _next_hop(values: Mapping[str, Any]) -> NextHop:
    return NextHop.model_validate(values)
