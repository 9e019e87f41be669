#!/usr/bin/env python3
"""Judging under load, beside Postfix with OpenDKIM, OpenDMARC and policyd-spf: the same signed mail, the same DNS.  Needs root.

    python -m bench.judging                      both, by turns, three rounds
    python -m bench.judging --large              how long the reactor is held by a signed message of 10 MB
    python -m bench.judging --each               what each of our filters costs: the server with that one alone

unbound answers on 127.0.0.53 for all of them, from its own zones; the script runs itself in a mount namespace in which
/etc/resolv.conf names it.  Each message is signed (rsa-2048) and of 4 KB; SPF, DKIM and DMARC pass.  Ours has `lists`, `dnsbl`,
`spf`, `dkim`, `dmarc`, `authentication_results`, `greylist`, `bayes` and `scores`; Postfix has reject_rbl_client and the three
programs, none of which has lists of people, a greylist or Bayes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bench.load import SENDER, Usage, wait_until_there
from bench.servers import ACCOUNT, ROOT, Ours, Postfix, Server, descendants
from bench.setting import describe
from tests.dns.unbound import Unbound

DNS = "127.0.0.53"
DOMAIN = SENDER.partition("@")[2]
NAMESPACE = "MAILSERVER_BENCH_NAMESPACE"
MESSAGES, OCTETS, SESSIONS, ROUNDS = 4000, 4096, 20, 3

FILTERS = {
    "lists": "",
    "dnsbl": '[[filter.list]]\nzone = "bl.test"\nscore = 4\n',
    "spf": "networks = []\n",
    "dkim": "",
    "dmarc": "networks = []\n",
    "authentication_results": "",
    "greylist": "",
    "bayes": 'on_error = "skip"\n',
    "scores": "tag = 4\njunk = 6\n",
}
OURS_MORE = f"""
[dns]
servers = ["{DNS}:53"]
"""
POSTFIX_SETTINGS = (
    "mynetworks = 192.0.2.0/24",
    "smtpd_recipient_restrictions = reject_unauth_destination, reject_rbl_client bl.test, "
    "check_policy_service unix:private/policy-spf",
    "smtpd_milters = unix:{folder}/opendkim.sock, unix:{folder}/opendmarc.sock",
    "milter_default_action = tempfail",
    "policy-spf_time_limit = 3600",
)


class OursJudging(Ours):
    """With filters."""

    name = "mailserver"

    def __init__(self, folder: Path, filters: tuple[str, ...] = tuple(FILTERS)) -> None:
        super().__init__(folder)
        self._relay = OURS_MORE + "".join([f'[[filter]]\nuse = "{name}"\n{FILTERS[name]}' for name in filters])


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
        hosts.write_text("192.0.2.1\n")
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


def message(octets: int) -> tuple[bytes, str]:
    """A signed message, and the record of its key."""
    import dkim  # type: ignore[import-untyped]

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    line = b"The quick brown fox jumps over the lazy dog, and thinks nothing of it at all.\r\n"
    header = (
        f"From: Bench <{SENDER}>\r\nTo: <{ACCOUNT}>\r\nDate: Mon, 30 Nov 2026 12:00:00 +0000\r\n"
        f"Message-ID: <1@{DOMAIN}>\r\nSubject: judged\r\n\r\n"
    ).encode()
    plain = header + line * max(1, (octets - len(header)) // len(line))
    signature = dkim.sign(plain, b"s", DOMAIN.encode(), pem, canonicalize=(b"relaxed", b"relaxed"))
    return signature + plain, f"v=DKIM1; k=rsa; p={b64encode(public).decode()}"


@contextmanager
def dns(record: str) -> Iterator[None]:
    texts = [record[at : at + 200] for at in range(0, len(record), 200)]
    zones = {
        DOMAIN: [
            f'{DOMAIN}. 3600 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"', f'_dmarc.{DOMAIN}. 3600 IN TXT "v=DMARC1; p=reject"',
            f"s._domainkey.{DOMAIN}. 3600 IN TXT " + " ".join([f'"{one}"' for one in texts]),
        ],
        "bl.test": ["bl.test. 3600 IN SOA bl.test. root.bl.test. 1 60 60 60 60"],
        "127.in-addr.arpa": ["1.0.0.127.in-addr.arpa. 3600 IN PTR localhost."],
        "localhost": ["localhost. 3600 IN A 127.0.0.1"],
    }  # fmt: skip
    server = Unbound(zones, host=DNS, port=53)
    server.start()
    try:
        yield
    finally:
        server.stop()


def send(server: Server, file: Path, count: int) -> float:
    """Send the file so many times; seconds until the last 250."""
    program = shutil.which("smtp-source", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise SystemExit("smtp-source is missing: it comes with Debian's package postfix")
    options = ["-s", str(SESSIONS), "-m", str(count), "-F", str(file), "-f", SENDER, "-t", ACCOUNT, "-d"]
    command = [program, *options, f"127.0.0.1:{server.port}"]
    begin = time.monotonic()
    subprocess.run(command, check=True, timeout=900)
    return time.monotonic() - begin


def results_of(server: Server) -> str:
    """What the server says of the first message: proof that it has judged."""
    text = next((server.maildir / "new").iterdir()).read_text(errors="replace").partition("\n\n")[0]
    words = ("spf=pass", "dkim=pass", "dmarc=pass", "Received-SPF: Pass")
    return " ".join([word for word in words if word.lower() in text.lower()])


def run(server: Server, file: Path, count: int) -> dict[str, float]:
    send(server, file, 200)
    wait_until_there(server.maildir, 200, OCTETS)
    usage, begin = Usage(server), time.monotonic()
    send(server, file, count)
    wait_until_there(server.maildir, 200 + count, OCTETS)
    return {"msg/s": count / (time.monotonic() - begin), "cpu us/msg": usage.since_begin() / count * 1e6}


def compare(folder: Path, file: Path, count: int, rounds: int) -> None:
    rows: dict[str, list[dict[str, float]]] = {}
    for n in range(rounds):
        servers: list[Server] = [OursJudging(folder / f"ours-{n}"), PostfixJudging(folder / f"postfix-{n}")]
        for server in servers if n % 2 == 0 else servers[::-1]:
            server.start()
            try:
                rows.setdefault(server.name, []).append(run(server, file, count))
                if not n:
                    print(f"{server.name:<11} says {results_of(server)}", flush=True)
            finally:
                server.stop()
    for name, each in rows.items():
        medians = {key: statistics.median([row[key] for row in each]) for key in each[0]}
        print(f"{name:<11} " + "  ".join([f"{key} {value:,.0f}" for key, value in medians.items()]), flush=True)
    ratios = [ours["msg/s"] / theirs["msg/s"] for ours, theirs in zip(rows["mailserver"], rows["postfix"], strict=True)]
    print("ratio of messages a second: " + ", ".join([f"{one:.2f}" for one in ratios]), flush=True)


def each(folder: Path, file: Path, count: int) -> None:
    number = 0

    def microseconds(filters: tuple[str, ...]) -> float:
        nonlocal number
        number += 1
        server = OursJudging(folder / f"each-{number}", filters)
        server.start()
        try:
            return run(server, file, count)["cpu us/msg"]
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

    octets, record = message(10 * 1024 * 1024)
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

            asking = threading.Thread(target=ask)
            asking.start()
            sender = Client(server.port)
            sender.command(b"EHLO bench.test")
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
        os.execvpe("unshare", ["unshare", "--mount", *command], {**os.environ, NAMESPACE: "1", "PYTHONPATH": str(ROOT)})
    with tempfile.TemporaryDirectory(prefix="mailserver-bench-", dir=given.directory, ignore_cleanup_errors=True) as path:
        folder = Path(path)
        folder.chmod(0o755)
        (folder / "resolv.conf").write_text(f"nameserver {DNS}\n")
        subprocess.run(["mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf"], check=True)
        print("\n".join(describe(folder)), flush=True)
        if given.large:
            large(folder)
            return
        octets, record = message(OCTETS)
        (folder / "message").write_bytes(octets.replace(b"\r\n", b"\n"))
        with dns(record):
            if given.each:
                each(folder, folder / "message", given.messages)
            else:
                compare(folder, folder / "message", given.messages, given.rounds)


if __name__ == "__main__":
    main()
