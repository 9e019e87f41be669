"""Mail for another host: over the pool of connections, while the host is dead, and when it is back.

python -m bench.relay pool     messages a second through the server to smtp-sink, and how many found an open connection
python -m bench.relay dead     messages a second accepted for a host that refuses every connection, by tenths
python -m bench.relay retry    `mailserver queue retry --all` for what waits for a host that is back (ours only)

`--postfix` alternates with Postfix (root) in `pool` and `dead`.  smtp-sink counts the messages: a run that lost or doubled one
is an error, not a figure.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import Usage, smtp_source
from bench.servers import Ours, Postfix, free_port
from bench.setting import describe

ELSEWHERE = "user@elsewhere.test"
OCTETS, SESSIONS = 4096, 20
MESSAGES = {"pool": 10_000, "dead": 20_000, "retry": 100_000}
WAIT_SECONDS = 300
MIB = 1024 * 1024
COUNTERS = re.compile(rb"sess=(\d+) quit=\d+ mesg=(\d+)")


class Sink:
    """Postfix's smtp-sink: takes everything, counts sessions and messages."""

    def __init__(self, folder: Path, port: int) -> None:
        self._output = folder / f"sink-{port}"
        program = shutil.which("smtp-sink", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise SystemExit("smtp-sink is missing: it comes with Debian's package postfix")
        with open(self._output, "wb") as output:
            user = ["-u", "nobody"] if os.geteuid() == 0 else []
            command = [program, *user, "-c", f"127.0.0.1:{port}", "1000"]
            self._process = subprocess.Popen(command, stdout=output)
        for _ in range(100):
            if self._process.poll() is not None:
                raise RuntimeError("smtp-sink did not start")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        time.sleep(0.2)
        self._sessions_before = self._counters()[0]

    def _counters(self) -> tuple[int, int]:
        with open(self._output, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            found = COUNTERS.findall(file.read())
        return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)

    def messages(self) -> int:
        """How many it has taken."""
        return self._counters()[1]

    def connections(self) -> int:
        """How many have ended: all of them once the server has stopped."""
        time.sleep(1)
        return self._counters()[0] - self._sessions_before

    def wait(self, messages: int) -> None:
        """Return when it has so many, and a moment later no more."""
        end = time.monotonic() + WAIT_SECONDS
        while self.messages() < messages and time.monotonic() < end:
            time.sleep(0.02)

    def check(self, messages: int) -> None:
        """Raises RuntimeError where one is missing or doubled."""
        time.sleep(1)
        if (there := self.messages()) != messages:
            raise RuntimeError(f"{messages} were accepted, {there} arrived")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)


@contextmanager
def started(peer: type[Ours] | type[Postfix], folder: Path, port: int, settings: tuple[str, ...]) -> Iterator[Ours | Postfix]:
    server: Ours | Postfix
    if peer is Postfix:
        server = Postfix(folder, relay_port=port, settings=settings)
    else:
        server = Ours(folder, relay_port=port)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def send(server: Ours | Postfix, messages: int) -> float:
    """Returns seconds until the last 250."""
    return smtp_source(
        server, messages=messages, octets=OCTETS, sessions=SESSIONS, reconnect=False, recipient=ELSEWHERE
    )


@dataclass(frozen=True, slots=True)
class Run:
    """One peer in its own folder; `port` is the smarthost's."""

    peer: type[Ours] | type[Postfix]
    folder: Path
    port: int
    messages: int
    settings: tuple[str, ...]


def pool(run: Run) -> dict[str, float]:
    """To a host that takes everything."""
    sink = Sink(run.folder.parent, run.port)
    try:
        with started(run.peer, run.folder, run.port, run.settings) as server:
            send(server, 200)
            sink.wait(200)
            usage, begin = Usage(server), time.monotonic()
            send(server, run.messages)
            sink.wait(200 + run.messages)
            seconds, processor = time.monotonic() - begin, usage.since_begin()
            peak = usage.memory_octets("VmHWM") / MIB
            sink.check(200 + run.messages)
        opened = sink.connections()
    finally:
        sink.stop()
    return {
        "msg/s": run.messages / seconds,
        "cpu us/msg": processor / run.messages * 1e6,
        "connections": opened,
        "hit rate %": 100 * (1 - opened / (200 + run.messages)),
        "peak MB": peak,
    }


def dead(run: Run) -> dict[str, float]:
    """To a host where nobody listens: each tenth has its own time."""
    with started(run.peer, run.folder, run.port, run.settings) as server:
        usage = Usage(server)
        tenth = run.messages // 10
        rates = [tenth / send(server, tenth) for _ in range(10)]
        return {
            "first tenth/s": rates[0],
            "last tenth/s": rates[-1],
            "cpu us/msg": usage.since_begin() / (10 * tenth) * 1e6,
            "RSS MB": usage.memory_octets() / MIB,
        }


def retry(run: Run) -> dict[str, float]:
    """All waits for a dead host, which then is back; one command."""
    with started(Ours, run.folder, run.port, ()) as server:
        assert isinstance(server, Ours)
        usage = Usage(server)
        send(server, run.messages)
        before = usage.memory_octets() / MIB
        sink = Sink(run.folder.parent, run.port)
        try:
            command = [str(Path(sys.executable).with_name("mailserver")), "queue", "retry", "--all"]
            begin = time.monotonic()
            subprocess.run([*command, "--config", str(server.config)], check=True, stdout=subprocess.DEVNULL)
            command_seconds = time.monotonic() - begin
            sink.wait(run.messages)
            seconds = time.monotonic() - begin
            peak = usage.memory_octets("VmHWM") / MIB
            sink.check(run.messages)
        finally:
            sink.stop()
    return {"command s": command_seconds, "all there s": seconds, "before MB": before, "peak MB": peak}


WAYS: dict[str, Callable[[Run], dict[str, float]]] = {"pool": pool, "dead": dead, "retry": retry}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=tuple(WAYS))
    parser.add_argument("--messages", type=int, help="default: 10,000; 20,000; 100,000")
    parser.add_argument("--rounds", type=int, default=3, help="medians, with the smallest and the largest (default 3)")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk (default /var/tmp)")
    parser.add_argument("--postfix", action="store_true")
    parser.add_argument(
        "--postfix-setting", action="append", default=[], help="a line for its main.cf, such as in_flow_delay=0"
    )
    arguments = parser.parse_args()
    way = arguments.way
    peers: list[type[Ours] | type[Postfix]] = [Ours, Postfix] if arguments.postfix and way != "retry" else [Ours]
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(
        prefix="mailserver-bench-", dir=arguments.directory, ignore_cleanup_errors=True
    ) as directory:
        print("\n".join(describe(Path(directory))), flush=True)
        for n in range(arguments.rounds):
            for peer in peers if n % 2 == 0 else peers[::-1]:
                folder = Path(directory) / f"{peer.name}-{n}"
                messages = arguments.messages or MESSAGES[way]
                run = Run(peer, folder, free_port(), messages, tuple(arguments.postfix_setting))
                results.setdefault(peer.name, []).append(WAYS[way](run))
    for name, rows in results.items():
        columns = {key: sorted(row[key] for row in rows) for key in rows[0]}
        found = [f"{key} {statistics.median(all):,.1f} ({all[0]:,.1f} to {all[-1]:,.1f})" for key, all in columns.items()]
        print(f"{way:<6} {name:<11} " + "  ".join(found), flush=True)


if __name__ == "__main__":
    main()
