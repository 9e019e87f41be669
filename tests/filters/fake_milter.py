"""A milter that writes down what it is told and answers what the test wants.

`script` has by the command's letter what follows: octets (frames), a list of them (for one command after another, the last one
for all further ones), or a function of the connection and the data that returns octets, None (no answer), or writes itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.protocol import Factory, Protocol

from tests.filters.scanner import turn

reactor: Any = the_reactor
NAMES = {
    b"O": "negotiate", b"D": "macros", b"C": "connect", b"H": "helo", b"M": "mail", b"R": "rcpt", b"T": "data", b"L": "header",
    b"N": "eoh", b"B": "body", b"E": "eom", b"A": "abort", b"Q": "quit", b"K": "quit_nc", b"U": "unknown",
}  # fmt: skip
SILENT = frozenset({b"D", b"A", b"Q", b"K"})
Answer = bytes | list[bytes] | Callable[["FakeMilter", bytes], bytes | None]


def said(letter: bytes, data: bytes = b"") -> bytes:
    return struct.pack("!I", 1 + len(data)) + letter + data


CONTINUE, ACCEPT, REJECT, TEMPFAIL, DISCARD, SKIP, PROGRESS = map(said, (b"c", b"a", b"r", b"t", b"d", b"s", b"p"))


def negotiates(version: int = 6, actions: int = 0x1FF, steps: int = 0, macros: bytes = b"") -> bytes:
    return said(b"O", struct.pack("!III", version, actions, steps) + macros)


def reply(text: str) -> bytes:
    return said(b"y", text.encode() + b"\0")


class FakeMilter(Protocol):
    factory: Any

    def connectionMade(self) -> None:
        self._octets = b""
        self._asked: dict[bytes, int] = {}
        self.factory.open.append(self)
        self.factory.made += 1

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        while len(self._octets) >= 4:
            (length,) = struct.unpack("!I", self._octets[:4])
            if len(self._octets) < 4 + length:
                return
            letter, rest = self._octets[4:5], self._octets[5 : 4 + length]
            self._octets = self._octets[4 + length :]
            self.factory.heard.append((NAMES[letter], rest))
            self._answer(letter, rest)

    def _answer(self, letter: bytes, data: bytes) -> None:
        script: Mapping[bytes, Answer] = self.factory.script
        answer = script.get(letter, b"" if letter in SILENT else negotiates() if letter == b"O" else CONTINUE)
        place = self._asked.get(letter, 0)
        self._asked[letter] = place + 1
        if isinstance(answer, list):
            answer = answer[min(place, len(answer) - 1)]
        octets = answer(self, data) if callable(answer) else answer
        if octets:
            self.say(octets)

    def say(self, octets: bytes) -> None:
        transport: Any = self.transport
        transport.write(octets)

    def cut(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


def cutting(milter: FakeMilter, data: bytes) -> None:
    milter.cut()


def silent(milter: FakeMilter, data: bytes) -> None:
    """No answer."""


def started(case: Any, script: Mapping[bytes, Answer] | None = None) -> Any:
    """It listens on loopback (`endpoint`, `port`) until the test ends."""
    factory: Any = Factory.forProtocol(FakeMilter)
    factory.open, factory.made, factory.heard, factory.script = [], 0, [], dict(script or {})
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    factory.port = listening.getHost().port
    factory.endpoint = f"tcp:127.0.0.1:{factory.port}"

    async def closed() -> None:
        while factory.open:
            await turn()

    case.addCleanup(closed)
    case.addCleanup(listening.stopListening)
    return factory


def commands(factory: Any, *, macros: bool = False) -> list[str]:
    """What it was told, in words: ``rcpt <bob@example.org>``; without macros unless they are asked for."""
    return [words(name, data) for name, data in factory.heard if macros or name != "macros"]


def words(name: str, data: bytes) -> str:
    if name in ("negotiate", "eom", "eoh", "abort", "quit", "quit_nc", "data"):
        return name
    if name == "body":
        return f"body {len(data)}"
    if name == "macros":
        texts = data[1:].decode("utf-8", "replace").split("\0")[:-1]
        return f"macros {NAMES[data[:1]]} " + " ".join(f"{key}={value}" for key, value in zip(texts[::2], texts[1::2], strict=True))
    if name == "connect":
        host, _, rest = data.partition(b"\0")
        family, port, address = rest[:1].decode(), struct.unpack("!H", rest[1:3])[0] if len(rest) > 2 else 0, rest[3:-1].decode()
        return f"connect {host.decode()} {family} {port} {address}"
    return f"{name} " + " ".join(part.decode("utf-8", "replace") for part in data.rstrip(b"\0").split(b"\0"))
