"""The name servers: which there are, which is asked next, which rests.

Decisions only; the caller hands the time in, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mailserver.mail.dns_records import ServerAddress

__all__ = ["NameServer", "ServerList", "SystemSettings", "read_resolv_conf"]

SERVERS_MOST = 8
TIMEOUT_SECONDS, TIMEOUT_SECONDS_MOST = 5.0, 30.0  # resolv.conf(5)
ATTEMPTS, ATTEMPTS_MOST = 2, 3  # resolv.conf(5), which allows 5; RFC 9520 section 3.1
SILENCES = 2  # time-outs in a row after which a server gets a rest
REST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class NameServer:
    """A recursive name server.  `trusted`: its AD bit and its SERVFAIL are believed."""

    address: ServerAddress
    trusted: bool = False

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class SystemSettings:
    """What /etc/resolv.conf says."""

    servers: tuple[NameServer, ...] = (NameServer(ServerAddress("127.0.0.1"), trusted=True),)
    timeout_seconds: float = TIMEOUT_SECONDS
    attempts: int = ATTEMPTS
    rotate: bool = False


def read_resolv_conf(text: str) -> SystemSettings:
    """The name servers and options of a resolv.conf(5).  `search` is ignored: names in mail are always complete.

    A server on loopback is trusted.  With the option `trust-ad` every server is.  Malformed lines are skipped, as in the C
    library.  Where no server is named it is 127.0.0.1.
    """
    addresses: list[ServerAddress] = []
    options: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(addresses) < SERVERS_MOST:
            try:
                addresses.append(ServerAddress.parse(words[1]))
            except ValueError:
                continue
        elif words[0] == "options":
            options.update((name, value) for name, _, value in (word.partition(":") for word in words[1:]))
    trust = "trust-ad" in options
    default = SystemSettings()
    return SystemSettings(
        servers=tuple([NameServer(one, trusted=trust or one.is_loopback) for one in addresses]) or default.servers,
        timeout_seconds=float(_number(options.get("timeout"), int(TIMEOUT_SECONDS), int(TIMEOUT_SECONDS_MOST))),
        attempts=_number(options.get("attempts"), ATTEMPTS, ATTEMPTS_MOST),
        rotate="rotate" in options,
    )


def _number(text: str | None, default: int, most: int) -> int:
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 9):
        return default
    return min(max(int(text), 1), most)


@dataclass(slots=True)
class _Silence:
    """A server that was silent: how often in a row, and until when it rests."""

    times: int = 0
    rests_until: float | None = None


class ServerList:
    """The order in which servers are asked.

    The first is asked first, unless `rotate`.  A server that was silent twice in a row rests: it is asked last.  Every half
    minute one question tries it first.  So a server that is back is found, and a dead one costs only one question its time-out.
    """

    __slots__ = ("_next", "_rotate", "_silent", "servers")

    def __init__(self, servers: Iterable[NameServer], *, rotate: bool = False) -> None:
        self.servers: Sequence[NameServer] = tuple(servers)[:SERVERS_MOST]
        self._silent: dict[NameServer, _Silence] = {}  # servers that were silent lately: mostly empty
        self._rotate = rotate
        self._next = 0

    def order(self, now: float) -> list[NameServer]:
        """The servers for one question, each once."""
        servers = list(self.servers)
        if self._rotate:
            self._next = (self._next + 1) % len(servers)
            servers = servers[self._next :] + servers[: self._next]
        if not self._silent or len(servers) == 1:
            return servers
        resting = [server for server in servers if self._rests(server)]
        living = [server for server in servers if server not in resting]
        for server in resting:
            silence = self._silent[server]
            if silence.rests_until is not None and silence.rests_until <= now:
                silence.rests_until = now + REST_SECONDS
                return [server, *living, *(other for other in resting if other != server)]
        return living + resting

    def _rests(self, server: NameServer) -> bool:
        silence = self._silent.get(server)
        return silence is not None and silence.rests_until is not None

    def heard(self, server: NameServer) -> bool:
        """The server has answered something.  Return whether it was resting."""
        if not self._silent:
            return False
        silence = self._silent.pop(server, None)
        return silence is not None and silence.rests_until is not None

    def silent(self, server: NameServer, now: float) -> bool:
        """The server has not answered in time, or does not listen.  Return whether it rests from now on."""
        if server not in self.servers:  # the list has been replaced meanwhile
            return False
        silence = self._silent.setdefault(server, _Silence())
        silence.times += 1
        if silence.times < SILENCES or silence.rests_until is not None:
            return False
        silence.rests_until = now + REST_SECONDS
        return True

    def resting(self) -> list[NameServer]:
        """The servers that rest, because they do not answer."""
        return [server for server in self.servers if self._rests(server)]
