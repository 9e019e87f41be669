"""What TLS costs: mail that is accepted and thrown away over STARTTLS, by our server and by aiosmtpd, with one certificate.

    .venv/bin/python -m bench.tls_sink --help
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.load import Usage
from bench.servers import Aiosmtpd, Ours
from bench.setting import describe
from bench.tls_load import Way, send
from mailserver.tls import Pair, self_signed_pair

OCTETS, SESSIONS, WARM_UP = 4096, 20, 200
Peer = type[Ours] | type[Aiosmtpd]
PEERS: tuple[Peer, ...] = (Ours, Aiosmtpd)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`messages` is the count for a run of ordinary length."""

    way: Way
    messages: int
    meaning: str


SCENARIOS = {
    "plain": Scenario(Way(encrypted=False), 20_000, "in the clear, many messages a connection"),
    "tls": Scenario(Way(), 20_000, "encrypted, many messages a connection"),
    "plain-each": Scenario(Way(encrypted=False, reconnect=True), 8_000, "in the clear, a connection for each message"),
    "tls-full": Scenario(Way(reconnect=True), 4_000, "a connection and a full handshake for each message"),
    "tls-resumed": Scenario(Way(reconnect=True, resume=True), 4_000, "the same, with resumed sessions"),
}


def run(peer: Peer, scenario: Scenario, folder: Path, pair: Pair, scale: float) -> dict[str, float]:
    """One run with a fresh server."""
    server = peer(folder, discard=True, pair=pair if scenario.way.encrypted else None)
    try:
        server.start()
        send(server.port, scenario.way, messages=WARM_UP, octets=OCTETS, sessions=SESSIONS)
        usage = Usage(server)
        messages = max(WARM_UP, int(scenario.messages * scale))
        sent = send(server.port, scenario.way, messages=messages, octets=OCTETS, sessions=SESSIONS)
        return {
            "msg/s": sent.messages / sent.seconds,
            "cpu us/msg": usage.since_begin() / sent.messages * 1e6,
            "load's cpu us/msg": sent.processor_seconds / sent.messages * 1e6,
        }
    finally:
        server.stop()


def measure(names: list[str], directory: Path, pair: Pair, rounds: int, scale: float) -> None:
    """Each scenario, peers alternating; prints medians and how many times the peer's figure ours is."""
    for name in names:
        results: dict[str, list[dict[str, float]]] = {}
        for n in range(rounds):
            for peer in PEERS if n % 2 == 0 else PEERS[::-1]:
                row = run(peer, SCENARIOS[name], directory / f"{name}-{peer.name}-{n}", pair, scale)
                results.setdefault(peer.name, []).append(row)
        medians = {
            peer: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for peer, rows in results.items()
        }
        for peer_name, figures in medians.items():
            print(f"{name:<12} {peer_name:<11} " + "  ".join(f"{key} {v:,.0f}" for key, v in figures.items()), flush=True)
        ours, theirs = (medians[peer.name] for peer in PEERS)
        print(f"{name:<12} {'ratio':<11} " + "  ".join(f"{key} {ours[key] / theirs[key]:.2f}" for key in list(ours)[:2]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.tls_sink", description=__doc__.partition("\n")[0] if __doc__ else None)
    meanings = "; ".join(f"{name}: {scenario.meaning}" for name, scenario in SCENARIOS.items())
    parser.add_argument("scenario", nargs="*", help=f"{meanings}; default: all")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk (default /var/tmp)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each scenario; medians are printed (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of messages")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.scenario if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="mailserver-bench-", dir=arguments.directory) as folder:
        pair = self_signed_pair(folder, "mx.bench.test", ["127.0.0.1"])
        print("\n".join(describe(Path(folder))), flush=True)
        measure(arguments.scenario or list(SCENARIOS), Path(folder), pair, arguments.rounds, arguments.scale)


if __name__ == "__main__":
    main()
