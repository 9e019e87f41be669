"""The scenarios of docs/performance.md; `bench/run --help`."""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import Probe, Usage, idle_octets, large_message, smtp_source, wait_until_there
from bench.servers import Aiosmtpd, Ours, Postfix, Server
from bench.setting import describe

MIB = 1024 * 1024
Peer = type[Ours] | type[Postfix] | type[Aiosmtpd]
IDLE_CONNECTIONS = 5000  # needs `ulimit -n` above it, for the server too


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load.  `messages` is the count for a run of ordinary length."""

    octets: int
    sessions: int
    messages: int
    reconnect: bool = False
    discard: bool = False
    probe: bool = True
    senders: int = 1


SCENARIOS = {
    "maildir": Scenario(octets=4096, sessions=20, messages=10_000),
    "maildir-64k": Scenario(octets=65_536, sessions=20, messages=3_000),
    "single": Scenario(octets=4096, sessions=1, messages=2_000, probe=False),
    "senders": Scenario(octets=4096, sessions=1, messages=10_000, senders=10, probe=False),
    "headline": Scenario(octets=1024, sessions=32, messages=10_000, reconnect=True),
    "sink": Scenario(octets=4096, sessions=20, messages=30_000, discard=True),
    "sink-connect": Scenario(octets=4096, sessions=20, messages=20_000, reconnect=True, discard=True),
}
OTHERS = ("idle", "large")


def run_scenario(server: Server, scenario: Scenario, scale: float) -> dict[str, float]:
    """One run on a started server: messages a second until the last one stands in new/, latency, processor time, memory."""
    smtp_source(server, messages=200, octets=scenario.octets, sessions=scenario.sessions, reconnect=scenario.reconnect)
    if not scenario.discard:
        wait_until_there(server.maildir, 200, scenario.octets)
    messages = max(100, int(scenario.messages * scale)) // scenario.senders * scenario.senders
    usage = Usage(server)
    probe = Probe(server.port, octets=scenario.octets, reconnect=scenario.reconnect)
    begin = time.monotonic()
    if scenario.probe:
        probe.start()
    accepting = smtp_source(
        server,
        messages=messages,
        octets=scenario.octets,
        sessions=scenario.sessions,
        reconnect=scenario.reconnect,
        senders=scenario.senders,
    )
    if scenario.probe:
        probe.finish()
    sent = messages + len(probe.seconds)
    if not scenario.discard:
        wait_until_there(server.maildir, 200 + sent, scenario.octets)
    seconds = time.monotonic() - begin
    latency = {"p50 ms": probe.percentile_ms(50), "p99 ms": probe.percentile_ms(99)}
    return {
        "msg/s": sent / seconds,
        "accept/s": sent / accepting,
        **(latency if scenario.probe else {"mean ms": accepting / messages * scenario.sessions * scenario.senders * 1000}),
        "cpu us/msg": usage.since_begin() / sent * 1e6,
        "peak MB": usage.memory_octets("VmHWM") / MIB,
    }


def run_other(server: Server, name: str) -> dict[str, float]:
    """`idle` and `large`, on a server that has worked a little and come to rest."""
    smtp_source(server, messages=200, octets=4096, sessions=20, reconnect=False)
    wait_until_there(server.maildir, 200, 4096)
    time.sleep(2)
    usage = Usage(server)
    base = usage.memory_octets() / MIB
    if name == "idle":
        return {"base MB": base, "KB/connection": idle_octets(server, usage, IDLE_CONNECTIONS) / 1024}
    rate, growth = large_message(server, usage, 100 * MIB)
    return {"base MB": base, "MB/s": rate / MIB, "growth MB": growth / MIB}


@contextmanager
def started(peer: Peer, folder: Path, discard: bool, settings: tuple[str, ...] = ()) -> Iterator[Server]:
    server: Server = Postfix(folder, settings=settings) if peer is Postfix else peer(folder, discard=discard)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def can(peer: Peer, name: str) -> bool:
    """Whether the peer is comparable there: Postfix always writes, aiosmtpd never does."""
    scenario = SCENARIOS.get(name)
    if peer is Ours or scenario is None:
        return peer is Ours
    return (peer is Aiosmtpd) == scenario.discard


def measure(
    names: list[str], peers: list[Peer], directory: Path, rounds: int, scale: float, settings: tuple[str, ...] = ()
) -> None:
    """Run each scenario for each peer, alternating; print the medians.  `settings` are lines for Postfix's main.cf."""
    kept: list[Path] = []
    try:
        for name in names:
            results: dict[str, list[dict[str, float]]] = {}
            scenario = SCENARIOS.get(name)
            discard = scenario is not None and scenario.discard
            able = [peer for peer in peers if can(peer, name)]
            for n in range(rounds):
                for peer in able if n % 2 == 0 else able[::-1]:
                    folder = directory / f"{name}-{peer.name}-{n}"
                    kept.append(folder)
                    with started(peer, folder, discard, settings) as server:
                        row = run_other(server, name) if scenario is None else run_scenario(server, scenario, scale)
                    results.setdefault(peer.name, []).append(row)
            for peer_name, rows in results.items():
                medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
                print(
                    f"{name:<12} {peer_name:<11} " + "  ".join(f"{k} {v:,.1f}" for k, v in medians.items()), flush=True
                )
    finally:
        # Only now: some file systems are slow for minutes after many files were deleted.
        for folder in kept:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench/run", description="Measure the server of this checkout on this machine."
    )
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join((*SCENARIOS, *OTHERS))}; default: all")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk (default /var/tmp)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each scenario; medians are printed (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of messages")
    parser.add_argument(
        "--postfix", action="store_true", help="alternate with a Postfix instance of the same promise (root)"
    )
    parser.add_argument("--aiosmtpd", action="store_true", help="alternate with aiosmtpd where nothing is written")
    parser.add_argument(
        "--postfix-setting", action="append", default=[], help="a line for its main.cf, such as in_flow_delay=0"
    )
    arguments = parser.parse_args()
    names = arguments.scenario or [*SCENARIOS, *OTHERS]
    unknown = [name for name in names if name not in SCENARIOS and name not in OTHERS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}")
    settings = tuple(arguments.postfix_setting)
    with tempfile.TemporaryDirectory(
        prefix="mailserver-bench-", dir=arguments.directory, ignore_cleanup_errors=True
    ) as folder:
        print("\n".join(describe(Path(folder))), flush=True)
        peers: list[Peer] = [Ours]
        if arguments.postfix:
            peers.append(Postfix)
        if arguments.aiosmtpd:
            peers.append(Aiosmtpd)
        measure(names, peers, Path(folder), arguments.rounds, arguments.scale, settings)


if __name__ == "__main__":
    main()
