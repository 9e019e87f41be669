#!/usr/bin/env python3
"""Judging under load, beside Postfix with OpenDKIM, OpenDMARC and policyd-spf: the same signed mail, the same DNS.  Needs root.

    python -m bench.judging                      both, by turns, three rounds
    python -m bench.judging --large              how long the reactor is held by a signed message of 10 MB
    python -m bench.judging --each               what each of our filters costs: the server with that one alone

unbound answers for all of them, from its own zones.  The script runs itself in a mount namespace in which
/etc/resolv.conf names it, and in a network namespace whose loopback has addresses of the Internet: about peers without one
neither lists in the DNS nor a greylist are asked.

Each message is of 4 KB, with words and a signature (rsa-2048) of its own; SPF, DKIM and DMARC pass.  Ours has `lists` with
entries of each kind, `dnsbl`, `spf`, `dkim`, `dmarc`, `authentication_results`, `greylist` for everybody, `bayes`, taught before
with `mailserver learn`, and `scores`; Postfix has reject_rbl_client and the three programs, none of which has lists of people, a
greylist or Bayes.  What each server says of the messages, and our filters of their own work, is counted.  Of ours it tells what
the reactor's thread spends on a message, how busy it was and how often it waited (for events, or for the interpreter's lock), and
the same of all other threads: where it is busy nearly all the time, it is what bounds the server.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.judging_load import DOMAIN, PEERS, PEERS_DOMAIN, SENDER, SOURCES, send, signed_messages
from bench.load import Threads, Usage, wait_until_there
from bench.servers import ACCOUNT, ROOT, Ours, Postfix, Server, descendants
from bench.setting import describe
from tests.dns.unbound import Unbound
from tests.filters.mail_corpus import Corpus

DNS = f"{SOURCES}.53"  # OpenDKIM asks no name server on the loopback
NAMESPACE = "MAILSERVER_BENCH_NAMESPACE"
MESSAGES, OCTETS, ROUNDS = 2000, 4096, 3
WARMING = 200
TAUGHT = 300  # messages of each kind
GREYLIST_SECONDS = 1.5

FOLDED = re.compile(r"\r?\n[ \t]+")
RESULT = re.compile(r"\b(?:spf|dkim|dmarc)=\w+|(?<=Received-)SPF: \w+")
FILTER_SAID = re.compile(r'"filter": ?"(\w+)"')

FILTERS = {
    "lists": "",
    "dnsbl": '[[filter.list]]\nzone = "bl.mailbench.net"\nscore = 4\n',
    "spf": "networks = []\n",
    "dkim": "",
    "dmarc": "networks = []\n",
    "authentication_results": "",
    "greylist": 'everybody = true\nwait = "1s"\n',
    "bayes": 'on_error = "skip"\n',
    "scores": "tag = 4\njunk = 6\n",
}
OURS_MORE = f"""
[dns]
servers = ["{DNS}:53"]
"""
POSTFIX_SETTINGS = (
    "mynetworks = 192.0.2.0/24",
    "smtpd_recipient_restrictions = reject_unauth_destination, reject_rbl_client bl.mailbench.net, "
    "check_policy_service unix:private/policy-spf",
    "smtpd_milters = unix:{folder}/opendkim.sock, unix:{folder}/opendmarc.sock",
    "milter_default_action = tempfail",
    "policy-spf_time_limit = 3600",
)


# Of each kind and each scope; none speaks of this mail.
LISTED = (
    ("black", "192.0.2.1"),
    ("white", "friend@example.org"),
    ("black", "spam.example.net"),
    ("grey", "helo:dialup.example.net"),
    ("grey", "ptr:.dynamic.example.net"),
    ("white", "dkim:news.example.org"),
    ("black", "198.51.100.0/24", "--hard"),
    ("black", "ads.example.org", "--domain", "bench.test"),
    ("white", "bob@example.org", "--user", ACCOUNT),
)


class OursJudging(Ours):
    """With filters; `bayes` is taught and `lists` has entries before it starts."""

    name = "mailserver"

    def __init__(self, folder: Path, filters: tuple[str, ...] = tuple(FILTERS)) -> None:
        super().__init__(folder)
        self._filters = filters
        self._relay = OURS_MORE + "".join([f'[[filter]]\nuse = "{name}"\n{FILTERS[name]}' for name in filters])

    def prepare(self) -> None:
        (self._folder / "data").mkdir(0o700)  # which the first start would make
        if "bayes" in self._filters:
            corpus = Corpus(1)
            for kind in ("spam", "ham"):
                taught = self._folder / kind
                taught.mkdir()
                for n in range(TAUGHT):
                    (taught / str(n)).write_bytes(corpus.message(kind))
                self.command("learn", kind, str(taught))
        if "lists" in self._filters:
            for colour, entry, *more in LISTED:
                self.command("list", "add", colour, entry, *more)

    def command(self, *words: str) -> str:
        """Type a command of ours; its output."""
        program = str(Path(sys.executable).with_name("mailserver"))
        done = subprocess.run([program, *words, "--config", str(self.config)], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"{words[:2]} failed")
        return done.stdout

    def work(self) -> str:
        """For how many messages each filter said something, by what `explain` keeps; asked when the server has stopped."""
        connection = sqlite3.connect(self._folder / "data" / "explain.db")
        counts: Counter[str] = Counter()
        for (steps,) in connection.execute("SELECT steps FROM road"):
            counts.update(set(FILTER_SAID.findall(steps)))
        connection.close()
        return ", ".join([f"{name} {count}" for name, count in sorted(counts.items())])


class PostfixJudging(Postfix):
    """With a policy service and two milters, each a program of its own."""

    name = "postfix"

    def __init__(self, folder: Path) -> None:
        policy = shutil.which("policyd-spf") or "/usr/bin/policyd-spf"
        service = f"policy-spf unix - n n - 0 spawn user=nobody argv={policy} {folder}/policyd-spf.conf\n"
        super().__init__(folder, settings=tuple([one.format(folder=folder) for one in POSTFIX_SETTINGS]), services=service)
        self._milters: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._folder.mkdir(parents=True)
        hosts = self._folder / "hosts"
        hosts.write_text("192.0.2.1\n")  # nobody's: none of these programs spares the peers here
        (self._folder / "opendkim.conf").write_text(
            f"Mode v\nSocket local:{self._folder}/opendkim.sock\nUMask 000\nNameservers {DNS}\nInternalHosts {hosts}\n"
            f"ExternalIgnoreList {hosts}\nPidFile {self._folder}/opendkim.pid\nBackground no\nSyslog no\nAutoRestart no\n"
        )
        (self._folder / "opendmarc.conf").write_text(
            f"Socket local:{self._folder}/opendmarc.sock\nUMask 000\nIgnoreHosts {hosts}\nPidFile {self._folder}/opendmarc.pid\n"
            "Background no\nSyslog no\nAutoRestart no\nRejectFailures no\nSPFIgnoreResults no\n"
        )
        (self._folder / "policyd-spf.conf").write_text("debugLevel = 0\nskip_addresses = 192.0.2.1\nHeader_Type = SPF\n")
        for program in ("opendkim", "opendmarc"):
            option = "-c" if program == "opendmarc" else "-x"
            command = [f"/usr/sbin/{program}", "-f", option, str(self._folder / f"{program}.conf")]
            self._milters.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for program in ("opendkim", "opendmarc"):
            for _ in range(100):
                if (self._folder / f"{program}.sock").exists():
                    break
                time.sleep(0.05)
            else:
                raise RuntimeError(f"{program} did not come up")
        super().start()

    def pids(self) -> list[int]:
        return [*super().pids(), *[pid for one in self._milters for pid in descendants(one.pid)]]

    def stop(self) -> None:
        super().stop()
        for one in self._milters:
            one.terminate()
            one.wait(30)


@contextmanager
def dns(record: str) -> Iterator[None]:
    texts = [record[at : at + 200] for at in range(0, len(record), 200)]
    reverse = ".".join(reversed(SOURCES.split("."))) + ".in-addr.arpa"
    zones = {
        DOMAIN: [
            f'{DOMAIN}. 3600 IN TXT "v=spf1 ip4:{SOURCES}.0/24 -all"', f'_dmarc.{DOMAIN}. 3600 IN TXT "v=DMARC1; p=reject"',
            f"s._domainkey.{DOMAIN}. 3600 IN TXT " + " ".join([f'"{one}"' for one in texts]),
        ],
        "bl.mailbench.net": [
            "bl.mailbench.net. 3600 IN SOA bl.mailbench.net. root.bl.mailbench.net. 1 60 60 60 60",
            "2.0.0.127.bl.mailbench.net. 3600 IN A 127.0.0.2",
        ],
        reverse: [f"{n}.{reverse}. 3600 IN PTR peer{n}.{PEERS_DOMAIN}." for n in range(1, PEERS + 1)],
        PEERS_DOMAIN: [
            f"{PEERS_DOMAIN}. 3600 IN SOA {PEERS_DOMAIN}. root.{PEERS_DOMAIN}. 1 60 60 60 60",
            *[f"peer{n}.{PEERS_DOMAIN}. 3600 IN A {SOURCES}.{n}" for n in range(1, PEERS + 1)],
        ],
        "127.in-addr.arpa": ["1.0.0.127.in-addr.arpa. 3600 IN PTR localhost."],
        "localhost": ["localhost. 3600 IN A 127.0.0.1"],
    }  # fmt: skip
    server = Unbound(zones, host=DNS, port=53, more=[f"access-control: {SOURCES}.0/24 allow"])
    server.start()
    try:
        yield
    finally:
        server.stop()


def results_of(server: Server) -> str:
    """In how many of the delivered messages the server says what it has found: proof that it has judged them all."""
    counts: Counter[str] = Counter()
    for entry in (server.maildir / "new").iterdir():
        head = FOLDED.sub(" ", entry.read_text(errors="replace").partition("\n\n")[0])
        counts.update({found.lower().replace(": ", "=") for found in RESULT.findall(head)})
        counts["messages"] += 1
    return ", ".join([f"{name} {count}" for name, count in sorted(counts.items())])


def run(server: Server, messages: Sequence[bytes]) -> dict[str, float]:
    _, deferred = send(server.port, messages[:PEERS])
    if deferred:
        time.sleep(GREYLIST_SECONDS)
    before = PEERS - deferred + WARMING
    warm(server, messages[:WARMING], before)
    usage, threads, begin = Usage(server), Threads(server), time.monotonic()
    _, deferred = send(server.port, messages)
    wait_until_there(server.maildir, before + len(messages), OCTETS)
    seconds, by_thread = time.monotonic() - begin, threads.since_begin(len(messages)) if isinstance(server, Ours) else {}
    if deferred:
        raise RuntimeError(f"{deferred} were deferred")
    return {"msg/s": len(messages) / seconds, "cpu us/msg": usage.since_begin() / len(messages) * 1e6, **by_thread}


def warm(server: Server, messages: Sequence[bytes], count: int) -> None:
    send(server.port, messages)
    wait_until_there(server.maildir, count, OCTETS)


def compare(folder: Path, messages: Sequence[bytes], rounds: int) -> None:
    rows: dict[str, list[dict[str, float]]] = {}
    for n in range(rounds):
        servers: list[Server] = [OursJudging(folder / f"ours-{n}"), PostfixJudging(folder / f"postfix-{n}")]
        for server in servers if n % 2 == 0 else servers[::-1]:
            server.start()
            try:
                rows.setdefault(server.name, []).append(run(server, messages))
                if not n:
                    print(f"{server.name:<11} writes {results_of(server)}", flush=True)
            finally:
                server.stop()
            if not n and isinstance(server, OursJudging):
                print(f"{'':<11} says  {server.work()}\n{server.command('learn', 'show')}", flush=True)
    for name, each in rows.items():
        medians = {key: statistics.median([row[key] for row in each]) for key in each[0]}
        print(f"{name:<11} " + "  ".join([f"{key} {value:,.0f}" for key, value in medians.items()]), flush=True)
    ratios = [ours["msg/s"] / theirs["msg/s"] for ours, theirs in zip(rows["mailserver"], rows["postfix"], strict=True)]
    print("ratio of messages a second: " + ", ".join([f"{one:.2f}" for one in ratios]), flush=True)


def each(folder: Path, messages: Sequence[bytes]) -> None:
    number = 0

    def microseconds(filters: tuple[str, ...]) -> float:
        nonlocal number
        number += 1
        server = OursJudging(folder / f"each-{number}", filters)
        server.start()
        try:
            return run(server, messages)["cpu us/msg"]
        finally:
            server.stop()

    none = microseconds(())
    print(f"{'no filter':<24} {none:8,.0f} us of processor time a message", flush=True)
    before = {"dmarc": ("spf", "dkim"), "authentication_results": ("spf", "dkim", "dmarc")}
    for name in FILTERS:
        base = none if name not in before else microseconds(before[name])
        alone = microseconds((*before.get(name, ()), name))
        print(f"{name:<24} {alone - base:8,.0f} us more", flush=True)


def large(folder: Path) -> None:
    """Small messages beside one of 10 MB: the longest wait of a NOOP is what the reactor was held for."""
    import threading

    from bench.load import Client

    (octets,), record = signed_messages(1, 10 * 1024 * 1024)
    with dns(record):
        server = OursJudging(folder / "large")
        server.start()
        try:
            client, waits, over = Client(server.port), list[float](), threading.Event()
            client.command(b"EHLO bench.test")

            def ask() -> None:
                while not over.is_set():
                    begin = time.monotonic()
                    client.command(b"NOOP")  # few: many are answered slowly
                    waits.append(time.monotonic() - begin)
                    time.sleep(0.005)

            send(server.port, [b"Subject: the first try\r\n\r\n"], sessions=1)
            time.sleep(GREYLIST_SECONDS)
            sender = Client(server.port, source=f"{SOURCES}.1", sender=SENDER)
            sender.command(f"EHLO peer1.{PEERS_DOMAIN}".encode())
            asking = threading.Thread(target=ask)
            asking.start()
            begin = time.monotonic()
            sender.message(octets)
            took = time.monotonic() - begin
            over.set()
            asking.join(60)
            waits.sort()
            print(f"10 MB judged in {took:.2f} s; a NOOP beside it waited {waits[len(waits) // 2] * 1000:.1f} ms (median), "
                f"{waits[-1] * 1000:.0f} ms at most")  # fmt: skip
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk (default /var/tmp)")
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args()
    if NAMESPACE not in os.environ:
        command = [sys.executable, "-m", "bench.judging", *sys.argv[1:]]
        os.execvpe("unshare", ["unshare", "--mount", "--net", *command], {**os.environ, NAMESPACE: "1", "PYTHONPATH": str(ROOT)})
    with tempfile.TemporaryDirectory(prefix="mailserver-bench-", dir=given.directory, ignore_cleanup_errors=True) as path:
        folder = Path(path)
        folder.chmod(0o755)
        (folder / "resolv.conf").write_text(f"nameserver {DNS}\n")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "route", "add", "local", f"{SOURCES}.0/24", "dev", "lo"], check=True)
        subprocess.run(["mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf"], check=True)
        print("\n".join(describe(folder)), flush=True)
        if given.large:
            large(folder)
            return
        messages, record = signed_messages(given.messages, OCTETS)
        with dns(record):
            if given.each:
                each(folder, messages)
            else:
                compare(folder, messages, given.rounds)


if __name__ == "__main__":
    main()
