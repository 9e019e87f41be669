#!/usr/bin/env python3
"""Measure logins that come all at once: how long the reactor stands still, and when the last one is answered.

    bench/logins.py                         300 logins of 300 accounts, each case in a process of its own
    bench/logins.py --logins 1000 --threads 4
    bench/logins.py --case right            one case alone

Each login is a SASL exchange of its own with an `Authenticator` and the file realm, as a listener has it, without the network.
Beside it a timer of one millisecond runs; `stall` is the longest that it was late: so long every other connection waited at most.
`first` is the answer to the first login, `all` to the last; `cpu` is processor time of the whole process for one login.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mailserver.authentication.standing import FREE, Standing

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


CASES = {
    "right": "PLAIN, the right password, Argon2id",
    "wrong": "PLAIN, a wrong password, Argon2id",
    "unknown": "PLAIN, users who do not exist",
    "again": "PLAIN, the right password once more: remembered",
    "app": "PLAIN, an app password",
    "scram": "SCRAM-SHA-256",
    "renewed": "PLAIN, hashes {SSHA} of an older server, each renewed in the file",
}
TICK_SECONDS = 0.001
PASSWORD = "correct horse battery staple"
HERE = "127.0.0.1"


async def a_secret() -> bytes:
    """For false SCRAM keys."""
    return b"a secret"


class NoLockout:
    """Nobody is locked out, and nobody waits."""

    async def standing(self, peer_address: str, account: str) -> Standing:
        """Free."""
        return FREE

    async def failed(self, peer_address: str, account: str, evidence: bytes) -> float:
        """No wait."""
        return 0.0

    async def succeeded(self, peer_address: str, account: str) -> None:
        """Nothing to forget."""


class Ticker:
    """A timer of one millisecond, and how late it was at worst."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._due = 0.0
        self.late_most = 0.0
        self._call: Any = None

    def start(self) -> None:
        """Begin."""
        self._due = time.perf_counter() + TICK_SECONDS
        self._call = self._reactor.callLater(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self.late_most = max(self.late_most, time.perf_counter() - self._due)
        self.start()

    def stop(self) -> None:
        """End."""
        self._call.cancel()


def write_accounts(path: str, case: str, count: int) -> dict[str, str]:
    """An accounts file, and what each account logs in with."""
    from passlib.hash import ldap_salted_sha1

    from mailserver.authentication.app_passwords import hash_app_password, new_app_password
    from mailserver.authentication.passwords import hash_password
    from mailserver.sasl.scram_keys import derive_scram_keys, encode_scram_keys

    # One hash and one set of keys for all: making them is not what is measured, and a comparison costs the same.
    hash = ldap_salted_sha1.hash(PASSWORD) if case == "renewed" else hash_password(PASSWORD)
    scram = encode_scram_keys(derive_scram_keys(PASSWORD, salt=b"s" * 16))
    passwords, lines = {}, []
    for number in range(count):
        name = f"user{number}@example.org"
        lines += [f'[account."{name}"]', f'password = "{hash}"'] + ([f'scram = "{scram}"'] if case != "renewed" else [])
        passwords[name] = "wrong" if case == "wrong" else PASSWORD
        if case == "app":
            passwords[name] = new_app_password()
            lines += [f'[account."{name}".app_password."phone"]', f'password = "{hash_app_password(passwords[name])}"']
    Path(path).write_text("\n".join(lines) + "\n")
    return {f"nobody{number}@example.org": "wrong" for number in range(count)} if case == "unknown" else passwords


def scram_client(name: str) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The first message of a client, and what gives the second one.  The keys are computed before the clock runs."""
    salted = SALTED
    bare = f"n={name.replace(',', '=2C')},r=abcdefgh"

    def final(challenge: bytes) -> bytes:
        without_proof = "c=biws," + challenge.decode().split(",", 1)[0]
        message = f"{bare},{challenge.decode()},{without_proof}".encode()
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    return f"n,,{bare}".encode(), final


SALTED = b""


async def login(authenticator: Any, case: str, name: str, password: str) -> Any:
    """One exchange to its end."""
    from mailserver.mail.envelope import Peer, TLSFacts
    from mailserver.sasl.steps import ChannelBindings

    peer = Peer(HERE, 4711, "submission", tls=TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
    if case != "scram":
        return await authenticator.begin("PLAIN", peer, ChannelBindings()).respond(f"\0{name}\0{password}".encode())
    login = authenticator.begin("SCRAM-SHA-256", peer, ChannelBindings())
    first, final = scram_client(name)
    challenge = await login.respond(first)
    await login.respond(final(challenge.data))
    return await login.respond(b"")


def measure(case: str, *, count: int, threads: int, directory: str) -> None:
    """Print one row."""
    global SALTED
    from twisted.internet import defer, task
    from twisted.internet import reactor as installed
    from twisted.internet.threads import deferToThread

    from mailserver.accounts.file import FileDirectory
    from mailserver.authentication.authenticator import Authenticator
    from mailserver.authentication.password_checks import CostlyThreads, PasswordChecks
    from mailserver.interfaces import LoggedIn
    from mailserver.sasl.scram_keys import ITERATIONS

    reactor: Any = installed
    path = os.path.join(directory, "accounts.toml")
    # In another process: what it imports is not to be there yet when the first login comes.
    found = subprocess.run(
        [sys.executable, __file__, "--write", path, "--case", case, "--logins", str(count)], check=True, capture_output=True
    )
    words = dict(line.split("\t") for line in found.stdout.decode().splitlines())
    SALTED = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"s" * 16, ITERATIONS)

    async def main(_: Any) -> None:
        costly = CostlyThreads(threads=threads, waiting=10 * count, call_in_reactor=reactor.callFromThread)
        costly.start()
        checks = PasswordChecks(run=costly.run, clock=reactor, remember_seconds=60)
        accounts = FileDirectory(path=path, clock=reactor, run_in_thread=deferToThread, check_password=checks.matches)
        await accounts.start()
        authenticator = Authenticator(
            accounts=accounts,
            checkers=(),
            lockout=NoLockout(),
            clock=reactor,
            login_domain="example.org",
            hostname="mail.example.org",
            secret=a_secret,
        )
        if case == "again":
            await all_at_once(lambda name: login(authenticator, case, name, words[name]), words)
        ticker, cpu = Ticker(reactor), processor_seconds()
        ticker.start()
        await task.deferLater(reactor, 0.05)
        ticker.late_most = 0.0
        answers, first, last = await all_at_once(lambda name: login(authenticator, case, name, words[name]), words)
        if case == "renewed":
            while accounts._renewing:
                await task.deferLater(reactor, 0.05)
        await task.deferLater(reactor, 0.05)
        ticker.stop()
        cpu = processor_seconds() - cpu
        costly.stop()
        let_in = sum(isinstance(answer, LoggedIn) for answer in answers)
        if let_in != (0 if case in ("wrong", "unknown") else count):
            raise SystemExit(f"{case}: {let_in} of {count} were let in")
        print(
            f"{CASES[case]:<70}{ticker.late_most * 1e3:>8.1f}{first * 1e3:>9.1f}{last:>8.2f}{cpu / count * 1e3:>9.2f}", flush=True
        )

    async def all_at_once(one: Callable[[str], Awaitable[Any]], names: Any) -> tuple[list[Any], float, float]:
        begin, ended = time.perf_counter(), []

        def note(answer: Any) -> Any:
            ended.append(time.perf_counter() - begin)
            return answer

        waiting = []
        for name in names:  # each in a turn of the reactor of its own, as what comes from sockets
            await task.deferLater(reactor, 0)
            waiting.append(defer.Deferred.fromCoroutine(one(name)).addCallback(note))  # type: ignore[arg-type]
        answers = await defer.gatherResults(waiting)
        return answers, ended[0], ended[-1]

    task.react(lambda chosen: defer.Deferred.fromCoroutine(main(chosen)))


def processor_seconds() -> float:
    """User and system time so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Each case in a process of its own."""
    from bench.setting import describe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--logins", type=int, default=300, help="how many at once (300)")
    parser.add_argument("--threads", type=int, default=2, help="authentication.threads (2)")
    parser.add_argument("--directory", default="/var/tmp", help="where the accounts file lies")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        for name, password in write_accounts(options.write, options.case, options.logins).items():
            print(f"{name}\t{password}")
        return
    if options.row:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            measure(options.case, count=options.logins, threads=options.threads, directory=directory)
        return
    print("\n".join(describe(Path(options.directory))))
    print(f"{options.logins} logins at once, {options.threads} threads\n")
    print(f"{'':<70}{'stall ms':>8}{'first ms':>9}{'all s':>8}{'cpu ms':>9}")
    shared = ["--logins", str(options.logins), "--threads", str(options.threads), "--directory", options.directory, "--row"]
    for case in [options.case] if options.case else CASES:
        subprocess.run([sys.executable, __file__, "--case", case, *shared], check=True)


if __name__ == "__main__":
    main()
