#!/usr/bin/env python3
"""Measure what judging costs the reactor's thread, without sockets and without a name server: the filters of `bench.judging`.

    python -m bench.judged_path                  microseconds and Python calls for each message
    python -m bench.judged_path --calls          which functions are called, how often for each message
    python -m bench.judged_path --profile FILE   cProfile's statistics of the reactor's thread

The whole server, `discard`, 20 connections in memory, as in `bench.message_path`, and the mail of `bench.judging`: messages of
4 KB, each with words and a signature of its own.  What the name server would say is put into the resolver's cache when it is
asked for the first time.  `us` is processor time of the reactor's thread, the quickest round's; `all in` that of the whole
process, with the threads that look up what `bayes` does not remember; `calls` those of Python functions in the reactor's thread.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.judging import FILTERS, GREYLIST_SECONDS, LISTED, TAUGHT
from bench.judging_load import DOMAIN, PEERS, PEERS_DOMAIN, SENDER, SOURCES, signed_messages
from bench.servers import ACCOUNT
from tests.filters.mail_corpus import Corpus

MESSAGES = 200
CONFIGURATION = """
hostname = "mx.bench.test"
data     = "{directory}/data"
[[listen]]
service  = "mx"
endpoint = "tcp:0:interface=127.0.0.1"
tls      = "none"
[log]
path     = "{directory}/log"
[limits]
messages_per_connection = 100000000
[accounts]
use      = "file"
path     = "{directory}/accounts.toml"
[domain."bench.test"]
[delivery]
use      = "discard"
[dns]
servers  = ["127.0.0.1:9"]
{filters}
"""


class World:
    """What the DNS says, in the place of a name server."""

    def __init__(self, key_record: str) -> None:
        reverse = ".".join(reversed(SOURCES.split("."))) + ".in-addr.arpa"
        self._records = {
            (DOMAIN, "TXT"): f"v=spf1 ip4:{SOURCES}.0/24 -all",
            (f"_dmarc.{DOMAIN}", "TXT"): "v=DMARC1; p=reject",
            (f"s._domainkey.{DOMAIN}", "TXT"): key_record,
            ("2.0.0.127.bl.mailbench.net", "A"): "127.0.0.2",
        }
        for n in range(1, PEERS + 1):
            self._records[f"{n}.{reverse}", "PTR"] = f"peer{n}.{PEERS_DOMAIN}"
            self._records[f"peer{n}.{PEERS_DOMAIN}", "A"] = f"{SOURCES}.{n}"

    def answers_for(self, resolver: Any) -> None:
        """Whatever the resolver does not know it learns here, and keeps in its cache."""
        from twisted.internet.defer import succeed

        from mailserver.mail.dns_records import Answer

        def join(key: tuple[str, str], _wire_name: bytes, _number: int, now: float) -> Any:
            record = self._records.get(key)
            answer = Answer(() if record is None else (record,), 3600, name_exists=record is not None)
            resolver._cache.put(key, answer, now)
            return succeed(answer)

        resolver._join = join


class Dialogue:
    """One session from an address of its own."""

    def __init__(self, factory: Any, number: int) -> None:
        from twisted.internet.address import IPv4Address
        from twisted.internet.testing import StringTransport

        address = IPv4Address("TCP", f"{SOURCES}.{number}", 4711)
        self._transport = transport = StringTransport(peerAddress=address)
        transport.write = self._said  # type: ignore[method-assign]
        self._heard: Any = None
        self._replies: list[bytes] = []
        self._protocol = factory.buildProtocol(address)
        self._protocol.makeConnection(transport)
        self._number = number

    def _said(self, data: bytes) -> None:
        if self._heard is None:
            self._replies.append(data)
        else:
            heard, self._heard = self._heard, None
            heard.callback(data)

    async def _reply(self, octets: bytes) -> bytes:
        from twisted.internet.defer import Deferred

        if octets:
            self._replies.clear()
            self._protocol.dataReceived(octets)
        if not self._replies:
            self._heard = Deferred()
            self._replies.append(await self._heard)
        return self._replies.pop()

    async def open(self) -> None:
        """A connection that has said EHLO."""
        await self._reply(b"")
        await self._reply(f"EHLO peer{self._number}.{PEERS_DOMAIN}\r\n".encode())

    async def message(self, octets: bytes) -> bool:
        """Send a message.  False where it is deferred at RCPT; anything else but acceptance ends the program."""
        await self._reply(f"MAIL FROM:<{SENDER}>\r\n".encode())
        said = await self._reply(f"RCPT TO:<{ACCOUNT}>\r\n".encode())
        if said.startswith(b"4"):
            await self._reply(b"RSET\r\n")
            return False
        await self._reply(b"DATA\r\n")
        said = await self._reply(octets)
        if not said.startswith(b"250 2.0.0 OK, queued"):
            raise SystemExit(f"the message was not accepted: {said!r}")
        return True


def command(path: str, *words: str) -> None:
    """One of ours, before the server starts."""
    program = str(Path(sys.executable).with_name("mailserver"))
    subprocess.run([program, *words, "--config", path], stdout=subprocess.DEVNULL, check=True)


def prepare(directory: str, filters: Sequence[str]) -> str:
    """Write the configuration, fill the lists and teach `bayes`; the configuration's path."""
    os.mkdir(os.path.join(directory, "data"), 0o700)
    path = os.path.join(directory, "mailserver.toml")
    tables = "".join([f'[[filter]]\nuse = "{name}"\n{FILTERS[name]}' for name in filters])
    Path(path).write_text(CONFIGURATION.format(directory=directory, filters=tables))
    Path(directory, "accounts.toml").write_text(f'[account."{ACCOUNT}"]\n')
    if "bayes" in filters:
        corpus = Corpus(1)
        for kind in ("spam", "ham"):
            taught = Path(directory, kind)
            taught.mkdir()
            for n in range(TAUGHT):
                (taught / str(n)).write_bytes(corpus.message(kind))
            command(path, "learn", kind, str(taught))
    if "lists" in filters:
        for colour, entry, *more in LISTED:
            command(path, "list", "add", colour, entry, *more)
    return path


async def send(dialogues: Sequence[Dialogue], messages: Sequence[bytes]) -> None:
    """All of them, over all connections at once, as far as somebody has to wait."""
    from twisted.internet.defer import Deferred, gatherResults

    rest = iter(messages)

    async def each(dialogue: Dialogue) -> None:
        for octets in rest:
            if not await dialogue.message(octets):
                raise SystemExit("a message was deferred")

    await gatherResults([Deferred.fromCoroutine(each(one)) for one in dialogues])


class Calls:
    """Counts the calls of Python functions, by their names."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, frame: Any, event: str, argument: object) -> None:
        if event == "call":
            code = frame.f_code
            self.counts[f"{os.path.basename(code.co_filename)}:{code.co_qualname}"] += 1


def main() -> None:
    """Print one line, or the table of calls."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", action="store_true", help="which functions are called")
    parser.add_argument("--profile", help="where cProfile's statistics go")
    parser.add_argument("--messages", type=int, default=MESSAGES, help="different ones, in one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filters", default=",".join(FILTERS), help='which, divided by commas; "" for none')
    options = parser.parse_args()
    from twisted.internet import task
    from twisted.internet.defer import Deferred

    from mailserver.assembly.host import COLLECTOR_THRESHOLDS
    from mailserver.assembly.policy import Policy
    from mailserver.assembly.server import Server
    from mailserver.config import load
    from mailserver.plugins import catalogue as plugins
    from mailserver.receive.factory import ReceiveFactory

    messages, record = signed_messages((options.rounds + 2) * options.messages, 4096)
    wire = iter([one.replace(b"\r\n.", b"\r\n..") + b".\r\n" for one in messages])

    def some() -> list[bytes]:
        return [next(wire) for _ in range(options.messages)]

    async def run(reactor: Any, directory: str) -> None:
        path = prepare(directory, [name for name in options.filters.split(",") if name])
        catalogue = plugins.discover()
        configuration = load(path, catalogue.options_of)
        server = Server(configuration, catalogue=catalogue, reactor=reactor, owner=(-1, -1))
        World(record).answers_for(server.resolver)
        policy = Policy(configuration, server)
        await server.start()
        await policy.start()
        (profile,) = policy.profiles.values()
        factory = ReceiveFactory(profile, server.admission)
        dialogues = [Dialogue(factory, 1 + n) for n in range(PEERS)]
        for one in dialogues:
            await one.open()
        deferred = [not await one.message(b"Subject: the first try\r\n\r\n.\r\n") for one in dialogues]
        if any(deferred):
            await task.deferLater(reactor, GREYLIST_SECONDS, lambda: None)
        await send(dialogues, some())
        gc.collect()  # as the server does when it has started
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        took: list[int] = []
        all_in: list[int] = []
        profiler = cProfile.Profile() if options.profile else None
        for _ in range(options.rounds):
            batch = some()
            began, began_all = time.thread_time_ns(), time.process_time_ns()
            if profiler is not None:
                profiler.enable()
            await send(dialogues, batch)
            if profiler is not None:
                profiler.disable()
            took.append(time.thread_time_ns() - began)
            server.steps.flush()
            all_in.append(time.process_time_ns() - began_all)
        if profiler is not None:
            profiler.dump_stats(options.profile)
        calls, batch = Calls(), some()
        sys.setprofile(calls)
        try:
            await send(dialogues, batch)
        finally:
            sys.setprofile(None)
        counted = {name: number for name, number in calls.counts.items() if not name.startswith("judged_path.py:")}
        each = sum(counted.values()) / options.messages
        print(
            f"{min(took) / options.messages / 1000:7.1f} us  {each:7.1f} calls"
            f"  {min(all_in) / options.messages / 1000:7.1f} us all in, for each message",
            flush=True,
        )
        if options.calls:
            for name, number in sorted(counted.items(), key=lambda one: -one[1]):
                print(f"{number / options.messages:8.2f}  {name}")
        await policy.stop()
        await server.stop(5)

    with tempfile.TemporaryDirectory() as directory:
        task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, directory)))


if __name__ == "__main__":
    main()
