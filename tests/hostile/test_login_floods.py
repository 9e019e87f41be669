"""More logins at once than can be compared, and passwords that are remembered: what is bounded, and what is forgotten."""

from __future__ import annotations

import threading
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from mailserver.authentication import password_checks
from mailserver.authentication.authenticator import Authenticator
from mailserver.interfaces import Denial
from tests.hostile.test_login import BINDING, HASH, PASSWORD, Counting, peer, secret_key


class Floods(TestCase):
    """More logins than threads; real ones."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.call_in_reactor: Any = reactor.callFromThread  # type: ignore[attr-defined]
        self.threads = password_checks.CostlyThreads(threads=1, waiting=2, call_in_reactor=self.call_in_reactor)
        self.threads.start()
        self.addCleanup(self.threads.stop)
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)

    def wait(self, answer: str) -> str:
        self.go_on.wait(30)
        return answer

    async def test_whoever_would_be_one_too_many_hears_so_at_once_and_the_others_are_answered(self) -> None:
        waiting = [self.threads.run(self.wait, str(number)) for number in range(3)]
        for _ in range(3):
            self.failureResultOf(self.threads.run(self.wait, "too many"), password_checks.TooMany)
        self.go_on.set()
        self.assertEqual(await gatherResults(waiting), ["0", "1", "2"])
        self.assertEqual(await self.threads.run(self.wait, "and again"), "and again")

    async def test_whoever_hangs_up_makes_room_only_when_his_password_has_been_compared(self) -> None:
        waiting = [self.threads.run(self.wait, str(number)) for number in range(3)]
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        self.failureResultOf(self.threads.run(self.wait, "too many"), password_checks.TooMany)
        self.go_on.set()
        self.assertEqual(await gatherResults(waiting[1:]), ["1", "2"])
        again = [self.threads.run(self.wait, "again") for _ in range(3)]
        self.assertEqual(await gatherResults(again), ["again"] * 3)

    async def test_an_error_in_a_thread_makes_room_like_an_answer(self) -> None:
        for _ in range(5):
            with self.assertRaises(ValueError):
                await self.threads.run(int, "no number")
        self.assertEqual(await self.threads.run(int, "1"), 1)

    def test_after_the_stop_nobody_waits_for_ever(self) -> None:
        self.threads.stop()
        self.failureResultOf(self.threads.run(self.wait, "late"), password_checks.NotRunning)

    def test_where_too_many_wait_the_client_hears_to_try_later_and_nothing_is_held_against_it(self) -> None:
        clock, lockout = Clock(), Counting()
        checks = password_checks.PasswordChecks(run=self.threads.run, clock=clock, remember_seconds=60)

        @implementer(ICredentialsChecker)
        class Accounts:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
                return Deferred.fromCoroutine(checks.matches(credentials.password.decode(), None))

        authenticator = Authenticator(
            accounts=Accounts(),
            checkers=(),
            lockout=lockout,
            clock=clock,
            login_domain="example.org",
            hostname="mail.example.org",
            secret=secret_key,
        )
        for _ in range(3):
            self.threads.run(self.wait, "").addErrback(lambda _: None)
        login = authenticator.begin("PLAIN", peer(), BINDING)
        answer = self.successResultOf(Deferred.fromCoroutine(login.respond(b"\0alice\0secret")))
        self.flushLoggedErrors(password_checks.TooMany)
        self.assertEqual((answer.denial, lockout.failures), (Denial.UNAVAILABLE, []))


class Remembering(SynchronousTestCase):
    def setUp(self) -> None:
        self.compared = 0
        self.right = PASSWORD
        self.patch(password_checks, "verify_password", self.verify)
        self.clock = Clock()
        self.checks = password_checks.PasswordChecks(run=maybeDeferred, clock=self.clock, remember_seconds=60)

    def verify(self, password: str, hash: str) -> bool:
        self.compared += 1
        return password == self.right

    def matches(self, password: str, hash: str | None = HASH) -> bool:
        found: bool = self.successResultOf(Deferred.fromCoroutine(self.checks.matches(password, hash)))
        return found

    def test_what_was_right_is_remembered_for_this_hash_this_password_and_a_minute(self) -> None:
        self.assertTrue(self.matches(PASSWORD))
        self.assertTrue(self.matches(PASSWORD))
        self.assertEqual(self.compared, 1)
        self.right = "another"
        self.assertFalse(self.matches(PASSWORD, f"{HASH[:-3]}xxx"))
        self.assertFalse(self.matches(f"{PASSWORD} "))
        self.assertFalse(self.matches(PASSWORD, None))
        self.clock.advance(60)
        self.assertFalse(self.matches(PASSWORD))

    def test_what_was_wrong_is_never_remembered(self) -> None:
        for _ in range(3):
            self.assertFalse(self.matches("wrong"))
        self.assertEqual(self.compared, 3)

    def test_a_password_and_a_hash_cannot_be_cut_in_another_place(self) -> None:
        self.assertTrue(self.matches(PASSWORD, "$hash"))
        self.right = ""
        self.assertFalse(self.matches(f"x{PASSWORD}", "$has"))
        self.assertFalse(self.matches(PASSWORD[1:], f"$hash{PASSWORD[0]}"))

    def test_no_password_is_kept_in_memory(self) -> None:
        self.matches(PASSWORD)
        self.assertNotIn(PASSWORD, repr(vars(self.checks)))

    def test_so_many_are_remembered_and_no_more(self) -> None:
        self.patch(password_checks, "REMEMBERED_MOST", 3)
        for number in range(5):
            self.matches(PASSWORD, f"$hash{number}")
        self.compared = 0
        for number in (4, 3, 2, 1):
            self.matches(PASSWORD, f"$hash{number}")
        self.assertEqual(self.compared, 1)
