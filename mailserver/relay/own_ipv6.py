"""Whether our own IPv6 address has a reverse name that leads back to it: without one, large providers refuse mail over IPv6.

Asked at the start and each hour; while the DNS does not say, each five minutes.  What is not known changes nothing.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock, IResolver
from mailserver.mail.dns_records import LookupFailed
from mailserver.mail.reverse_names import confirmed_names

__all__ = ["FAR_IPV4", "OwnIPv6", "ReverseName", "found_out", "kernels_address"]

AGAIN_SECONDS, UNKNOWN_AGAIN_SECONDS = 3600.0, 300.0
FAR_IPV4, FAR_IPV6 = "192.33.4.12", "2001:500:2::c"  # a root name server's: nothing is sent there


class ReverseName(enum.Enum):
    """What the DNS says."""

    CONFIRMED = "confirmed"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LookedUpName:
    """Of one address; `why` in words."""

    address: str
    state: ReverseName
    why: str


def kernels_address(connect_to: str = FAR_IPV6) -> str:
    """The address that the kernel would take for connections to this one, "" where there is none.  Sends nothing."""
    family = socket.AF_INET6 if ":" in connect_to else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((connect_to, 25))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


async def found_out(address: str, resolver: IResolver) -> LookedUpName:
    """Ask the DNS about an address."""
    ip = ipaddress.ip_address(address)
    if not ip.is_global:
        return LookedUpName(address, ReverseName.UNKNOWN, "is no address of the Internet")
    try:
        names = await confirmed_names(ip, resolver.query)
    except LookupFailed as error:
        return LookedUpName(address, ReverseName.UNKNOWN, f"the DNS does not say: {error}")
    if names:
        return LookedUpName(address, ReverseName.CONFIRMED, f"is {names[0]}")
    return LookedUpName(address, ReverseName.MISSING, "has no reverse name that leads back to it")


class OwnIPv6:
    """`sources()` are our addresses that connections by domain are made from, "" for the kernel's choice; `changed()` is called
    when anything is found to be otherwise."""

    log = Logger()

    def __init__(
        self,
        *,
        resolver: IResolver,
        clock: Clock,
        sources: Callable[[], Iterable[str]],
        changed: Callable[[], None],
        kernels: Callable[[], str] = kernels_address,
    ) -> None:
        self._resolver = resolver
        self._clock = clock
        self._sources = sources
        self._changed = changed
        self._kernels = kernels
        self._found: dict[str, LookedUpName] = {}
        self._timer: Any = None
        self._looking: Deferred[None] | None = None
        self._is_running = False

    def start(self) -> None:
        """Find out, and go on doing so."""
        self._is_running = True
        self.look()

    def stop(self) -> None:
        """End it."""
        self._is_running = False
        self._cancel_timer()
        if self._looking is not None:
            self._looking.cancel()

    def is_missing(self, source: str) -> bool:
        """Whether connections from this address ("" for the kernel's choice) come from one without a confirmed name."""
        found = self._found.get(source)
        return found is not None and found.state is ReverseName.MISSING

    @property
    def facts(self) -> Mapping[str, str]:
        """What is known of each address, in words."""
        return {one.address: f"{one.state.value}: {one.why}" for one in self._found.values()}

    def look(self) -> None:
        """Ask now, where nobody does."""
        if self._looking is not None or not self._is_running:
            return
        self._cancel_timer()
        looking = Deferred.fromCoroutine(self._look())
        self._looking = None if looking.called else looking
        looking.addErrback(self._stumbled).addBoth(lambda _: self._again())

    async def _look(self) -> None:
        found: dict[str, LookedUpName] = {}
        for source in set(self._sources()):
            address = source or self._kernels()
            if address:
                found[source] = await found_out(address, self._resolver)
        before, self._found = self._found, found
        for source, one in found.items():
            if before.get(source) != one and one.state is ReverseName.MISSING:
                self.log.warn(
                    "our IPv6 address {address} {why}: mail exchangers with IPv4 addresses are connected to over IPv4",
                    address=one.address, why=one.why,
                )  # fmt: skip
            elif before.get(source) != one and one.state is ReverseName.CONFIRMED:
                self.log.info("our IPv6 address {address} {why}", address=one.address, why=one.why)
        if before != found:
            self._changed()

    def _stumbled(self, failure: Failure) -> None:
        if self._is_running:  # else it was given up
            self.log.failure("our IPv6 address could not be looked up", failure)

    def _again(self) -> None:
        self._looking = None
        if self._is_running:
            is_known = all(one.state is not ReverseName.UNKNOWN for one in self._found.values())
            self._timer = self._clock.callLater(AGAIN_SECONDS if is_known else UNKNOWN_AGAIN_SECONDS, self.look)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
