"""Logins from a network that is locked out: who is known there gets in, and nobody sees who that is."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.authentication.authenticator import Authenticator
from mailserver.authentication.checkers import AccountName
from mailserver.authentication.lockout.counting import LockoutRules
from mailserver.authentication.lockout.lockout import Lockout
from mailserver.interfaces import Denial, Denied, ICertificateAccounts, IScramAccounts, ISecretAccounts, LoggedIn
from mailserver.mail.envelope import Peer, TLSFacts
from mailserver.sasl.scram_keys import client_and_server_key, derive_scram_keys
from mailserver.sasl.steps import Challenge, ChannelBindings, ScramKeys
from mailserver.testing.state import MemoryState
from tests.at_once import AtOnce

ALICE, BOB, PASSWORD = "alice@example.org", "bob@example.org", "right"
PEER = Peer("192.0.2.7", 4711, "submission", tls=TLSFacts("TLSv1.3", "X", client_certificate="ab" * 32))
KEYS = derive_scram_keys(PASSWORD, salt=b"s" * 16, iterations=4096)


async def secret_key() -> bytes:
    return b"secret"


@implementer(ICredentialsChecker, IScramAccounts, ISecretAccounts, ICertificateAccounts)
class Accounts:
    """Alice and Bob, with one password."""

    credentialInterfaces = (IUsernamePassword,)
    serves_secrets = True

    def __init__(self) -> None:
        self.certificate_of: str | None = None
        self.asked: list[str] = []
        self.answer: Callable[[Any], Deferred[Any]] = lambda answer: fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        name, password = credentials.username.decode(), credentials.password.decode()
        self.asked.append(name)
        return self.answer(AccountName(name) if name in (ALICE, BOB) and password == PASSWORD else UnauthorizedLogin())

    async def scram_keys(self, account: str) -> ScramKeys | None:
        return KEYS if account in (ALICE, BOB) else None

    async def secret(self, account: str) -> bytes | None:
        return PASSWORD.encode() if account in (ALICE, BOB) else None

    async def account_of_certificate(self, fingerprint: str, emails: Any) -> str | None:
        return self.certificate_of


class GuardedCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = 1_800_000_000.0
        self.accounts = Accounts()
        lockout = Lockout(clock=self.clock, spaces=MemoryState(self.clock).space, rules=LockoutRules())
        self.lockout = AtOnce(lockout)
        self.authenticator = Authenticator(
            accounts=self.accounts, checkers=(), lockout=lockout, clock=self.clock, login_domain="example.org",
            hostname="mx.example.org", secret=secret_key,
        )  # fmt: skip
        self.lockout.succeeded(PEER.address, ALICE)

    def lock(self) -> None:
        for n in range(30):
            self.lockout.failed(PEER.address, f"user{n}", b"wrong")

    def responses(self, mechanism: str, name: str, password: str, heard: list[bytes]) -> bytes | None:
        """The client's next line, after these challenges."""
        match mechanism, len(heard):
            case "PLAIN", 0:
                return f"\0{name}\0{password}".encode()
            case ("LOGIN" | "CRAM-MD5"), 0:
                return None
            case "LOGIN", number:
                return (name, password)[number - 1].encode()
            case "CRAM-MD5", 1:
                return f"{name} {hmac.digest(password.encode(), heard[0], 'md5').hex()}".encode()
            case "EXTERNAL", 0:
                return b""
            case "SCRAM-SHA-256", 0:
                return f"n,,n={name},r=abc".encode()
            case "SCRAM-SHA-256", 1:
                return self.scram_final(name, password, heard[0].decode())
            case "SCRAM-SHA-256", 2:
                return b""
        raise AssertionError((mechanism, heard))

    def scram_final(self, name: str, password: str, first: str) -> bytes:
        parts = dict(part.split("=", 1) for part in first.split(","))
        without = f"c=biws,r={parts['r']}"
        key, _ = client_and_server_key(password, salt=base64.b64decode(parts["s"]), iterations=int(parts["i"]))
        stored = hashlib.sha256(key).digest()
        signature = hmac.digest(stored, f"n={name},r=abc,{first},{without}".encode(), "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        return f"{without},p={proof}".encode()

    def login(self, mechanism: str, name: str, password: str) -> tuple[int, Any, float]:
        """How many challenges came, what came in the end, and how long after the last line."""
        login = self.authenticator.begin(mechanism, PEER, ChannelBindings())
        heard: list[bytes] = []
        while True:
            sent = self.clock.seconds()
            answers: list[Any] = []
            response = self.responses(mechanism, name, password, heard)
            Deferred.fromCoroutine(login.respond(response)).addBoth(answers.append)
            while not answers:
                self.clock.advance(0.25)
            if not isinstance(answers[0], Challenge):
                answer = answers[0]
                told = answer.denial if isinstance(answer, Denied) else answer
                return len(heard), told, self.clock.seconds() - sent
            heard.append(answers[0].data)


MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256")


class Guarded(GuardedCase):
    def test_a_right_password_gets_in_where_it_has_before(self) -> None:
        self.lock()
        for mechanism in MECHANISMS:
            _, answer, seconds = self.login(mechanism, "alice", PASSWORD)
            self.assertEqual((answer, seconds), (LoggedIn(ALICE, mechanism), 0))

    def test_every_failure_there_is_the_same_exchange_with_the_same_answer_after_the_same_time(self) -> None:
        self.lock()
        for mechanism in MECHANISMS:
            tries = [("alice", "wrong"), ("bob", PASSWORD), ("bob", "wrong"), ("nobody", "wrong"), (ALICE, "other")]
            seen = {self.login(mechanism, name, password) for name, password in tries}
            challenges = {"PLAIN": 0, "LOGIN": 2}.get(mechanism, 1)
            self.assertEqual(seen, {(challenges, Denial.SLOW_DOWN, 5.0)}, mechanism)

    def test_a_pair_that_is_locked_by_its_ten_failures_sounds_no_different_and_does_not_get_in(self) -> None:
        self.lock()
        seen = {self.login("PLAIN", "alice", f"wrong {n}")[1:] for n in range(12)}
        for mechanism in MECHANISMS:
            seen.add(self.login(mechanism, "alice", PASSWORD)[1:])
        self.assertEqual(seen, {(Denial.SLOW_DOWN, 5.0)})

    def test_passwords_of_pairs_that_cannot_get_in_are_not_compared(self) -> None:
        self.lock()
        for name in ("bob", "nobody", "alice"):
            self.login("PLAIN", name, "wrong")
        self.assertEqual(self.accounts.asked, [ALICE])

    def test_a_comparison_that_takes_long_or_fails_tells_nothing(self) -> None:
        self.lock()
        for late in (lambda _: self.after(7, "yes"), lambda _: self.after(1, OSError("down")), lambda _: fail(OSError("down"))):
            self.accounts.answer = late
            self.assertEqual(self.login("PLAIN", "alice", PASSWORD)[1:], (Denial.SLOW_DOWN, 5.0))
            self.clock.advance(10)

    def after(self, seconds: float, answer: Any) -> Deferred[Any]:
        later: Deferred[Any] = Deferred()
        self.clock.callLater(seconds, later.callback if answer == "yes" else later.errback, answer)
        return later

    def test_a_certificate_lets_in_those_who_are_known_there(self) -> None:
        self.lock()
        seen = []
        for account in (ALICE, BOB, None):
            self.accounts.certificate_of = account
            seen.append(self.login("EXTERNAL", "", "")[1:])
        self.assertEqual(seen, [(LoggedIn(ALICE, "EXTERNAL"), 0), (Denial.SLOW_DOWN, 5.0), (Denial.SLOW_DOWN, 5.0)])

    def test_a_lockout_that_begins_amid_an_exchange_holds_for_its_end(self) -> None:
        for name, is_in in (("bob", False), ("alice", True)):
            login = self.authenticator.begin("SCRAM-SHA-256", PEER, ChannelBindings())
            first = self.successResultOf(Deferred.fromCoroutine(login.respond(f"n,,n={name},r=abc".encode())))
            self.lock()
            answer = Deferred.fromCoroutine(login.respond(self.scram_final(name, PASSWORD, first.data.decode())))
            self.clock.advance(5)
            self.assertEqual(isinstance(self.successResultOf(answer), Challenge), is_in, name)


class Free(GuardedCase):
    def test_the_pause_counts_from_the_last_line_so_that_the_time_of_the_work_does_not_show(self) -> None:
        seen = []
        for name, seconds in (("alice", 0.5), ("nobody", 0.0)):
            self.accounts.answer = lambda answer, seconds=seconds: self.after(seconds, UnauthorizedLogin())  # type: ignore[misc]
            seen.append(self.login("PLAIN", name, "wrong"))
        self.assertEqual(seen, [(0, Denial.CREDENTIALS, 1.0)] * 2)

    def after(self, seconds: float, answer: Exception) -> Deferred[Any]:
        later: Deferred[Any] = Deferred()
        self.clock.callLater(seconds, later.errback, answer)
        return later
