"""Mail for another host over STARTTLS, beside Postfix: connections that are kept or not, sessions that are resumed or not.

    python -m bench.relay_tls                     all ways, ours and Postfix's by turns (root)
    python -m bench.relay_tls clear kept          some of them
    python -m bench.relay_tls --ours              without Postfix

Both demand TLS of the host and look at no certificate.  The host (`bench/tls_host.py`) has processes of its own, takes
everything, and counts: a run that lost or doubled a message is an error, not a figure.  Postfix keeps sessions in a btree, with
its `tlsmgr`; over TLS it keeps connections where `smtp_tls_connection_reuse` is on, with its `tlsproxy`.
"""

from __future__ import annotations

import argparse
import ssl
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.load import Usage
from bench.relay import MIB, send
from bench.servers import Ours, Postfix
from bench.setting import describe
from bench.tls_host import CONNECTIONS, COUNTERS, HANDSHAKES, MESSAGES, RESUMED, TLSHost, host_context

WARM_UP = 200
TLS_SERVICES = "tlsmgr unix - - n 1000? 1 tlsmgr\ntlsproxy unix - - n - 0 tlsproxy\n"
ENCRYPTS = ("smtp_tls_security_level = encrypt",)
CACHE = ("smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache",)
KEEPS = ("smtp_tls_connection_reuse = yes",)
FORGETS = ("smtp_connection_cache_on_demand = no",)
REQUIRED, EACH = 'tls = "required"', "messages_per_connection = 1"


@dataclass(frozen=True, slots=True)
class Way:
    """`ours` are lines of our `[relay]`, `postfix` of its main.cf."""

    meaning: str
    messages: int
    ours: tuple[str, ...]
    postfix: tuple[str, ...]
    encrypted: bool = True


WAYS = {
    "clear": Way("in the clear, connections are kept", 4000, ('tls = "none"',), (), encrypted=False),
    "kept": Way("connections are kept, sessions are resumed", 3000, (REQUIRED,), (*ENCRYPTS, *CACHE, *KEEPS)),
    "kept-full": Way(
        "connections are kept, no session is resumed", 3000, (REQUIRED, "tls_resumption = false"), (*ENCRYPTS, *KEEPS)
    ),
    "each": Way("a connection for each message, sessions are resumed", 1500, (REQUIRED, EACH), (*ENCRYPTS, *CACHE, *FORGETS)),
    "each-full": Way(
        "a connection and a full handshake for each", 1500, (REQUIRED, EACH, "tls_resumption = false"), (*ENCRYPTS, *FORGETS)
    ),
    "comes": Way("as both come, with TLS demanded, and a session cache for Postfix", 3000, (REQUIRED,), (*ENCRYPTS, *CACHE)),
}
PEERS: tuple[type[Ours] | type[Postfix], ...] = (Ours, Postfix)


def run(
    peer: type[Ours] | type[Postfix], way: Way, folder: Path, context: ssl.SSLContext, scale: float
) -> dict[str, float]:
    """One run with a fresh server and a fresh host."""
    host = TLSHost(context if way.encrypted else None)
    if peer is Postfix:
        server: Ours | Postfix = Postfix(
            folder, relay_port=host.port, settings=way.postfix, services=TLS_SERVICES if way.encrypted else ""
        )
    else:
        server = Ours(folder, relay_port=host.port, relay_settings=way.ours)
    messages = max(WARM_UP, int(way.messages * scale))
    try:
        server.start()
    except BaseException:
        host.stop()
        raise
    try:
        send(server, WARM_UP)
        host.wait(WARM_UP)
        usage, begin, host_before = Usage(server), time.monotonic(), host.processor_seconds()
        send(server, messages)
        host.wait(WARM_UP + messages)
        seconds, processor = time.monotonic() - begin, usage.since_begin()
        peak, busy = usage.memory_octets("VmHWM") / MIB, host.processor_seconds() - host_before
        time.sleep(1)
        counted = [host.count(which) for which in range(COUNTERS)]
        if (there := counted[MESSAGES]) != WARM_UP + messages:
            raise RuntimeError(f"{WARM_UP + messages} were accepted, {there} arrived")
    finally:
        server.stop()
        host.stop()
    if way.encrypted and counted[HANDSHAKES] != counted[CONNECTIONS]:
        raise RuntimeError(f"{counted[CONNECTIONS]} connections, {counted[HANDSHAKES]} handshakes")
    return {
        "msg/s": messages / seconds,
        "cpu us/msg": processor / messages * 1e6,
        "connections": counted[CONNECTIONS],
        "hit rate %": 100 * (1 - counted[CONNECTIONS] / counted[MESSAGES]),
        "resumed %": 100 * counted[RESUMED] / max(1, counted[HANDSHAKES]),
        "peak MB": peak,
        "host's cpu us/msg": busy / messages * 1e6,
    }


def measure(
    names: list[str], directory: Path, peers: tuple[type[Ours] | type[Postfix], ...], rounds: int, scale: float
) -> None:
    """Each way, peers by turns.  The ratios are those of each round; more than 1 is better for ours."""
    context = host_context(directory)
    for name in names:
        results: dict[str, list[dict[str, float]]] = {}
        for n in range(rounds):
            for peer in peers if n % 2 == 0 else peers[::-1]:
                row = run(peer, WAYS[name], directory / f"{name}-{peer.name}-{n}", context, scale)
                results.setdefault(peer.name, []).append(row)
        for peer_name, rows in results.items():
            columns = [(key, [row[key] for row in rows]) for key in rows[0]]
            print(f"{name:<10} {peer_name:<11} " + "  ".join(f"{key} {spread(all)}" for key, all in columns), flush=True)
        if len(peers) > 1:
            pairs = list(zip(*[results[peer.name] for peer in peers], strict=True))
            rates = spread([ours["msg/s"] / theirs["msg/s"] for ours, theirs in pairs], 2)
            costs = spread([theirs["cpu us/msg"] / ours["cpu us/msg"] for ours, theirs in pairs], 2)
            print(f"{name:<10} {'ratio':<11} msg/s {rates}  cpu {costs}", flush=True)


def spread(numbers: list[float], digits: int = 1) -> str:
    """The median, with the smallest and the largest."""
    return f"{statistics.median(numbers):,.{digits}f} ({min(numbers):,.{digits}f} to {max(numbers):,.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    meanings = "; ".join(f"{name}: {way.meaning}" for name, way in WAYS.items())
    parser.add_argument("way", nargs="*", help=f"{meanings}; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="medians, with the smallest and the largest (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of messages")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk (default /var/tmp)")
    parser.add_argument("--ours", action="store_true", help="without Postfix")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.way if name not in WAYS]:
        parser.error(f"no way {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(
        prefix="mailserver-bench-", dir=arguments.directory, ignore_cleanup_errors=True
    ) as directory:
        print("\n".join(describe(Path(directory))), flush=True)
        peers = PEERS[:1] if arguments.ours else PEERS
        measure(arguments.way or list(WAYS), Path(directory), peers, arguments.rounds, arguments.scale)


if __name__ == "__main__":
    main()
