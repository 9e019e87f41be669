"""A token is kept: refreshed early, once for all who wait, over failures, crashes and other people's log-ins."""

from __future__ import annotations

import os
import stat
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.relay.token_answers import IssuedTokens, TokenFailed
from mailserver.relay.token_file import OtherTokens, TokenFile
from mailserver.relay.token_keeper import TokenKeeper
from mailserver.trust.secret_key import NoKey

WHOSE = ("https://issuer.example", "client", "user")
REFUSED = TokenFailed("the issuer refuses: invalid_grant", "invalid_grant", is_refused=True)


class FileCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.keys = os.path.join(os.path.abspath(self.mktemp()), "keys")
        self.file = TokenFile(self.keys, WHOSE)


class Files(FileCase):
    def test_it_is_sealed_and_closed_to_all_others(self) -> None:
        tokens = IssuedTokens("access-secret", 3600.0, 1.0, "refresh-secret")
        self.assertEqual(self.file.read(), ("", None))
        self.assertIsNone(self.file.changes())
        self.file.write(tokens)
        self.assertEqual(self.file.read()[1], tokens)
        self.assertEqual(stat.S_IMODE(os.stat(self.keys).st_mode), 0o700)
        for name in os.listdir(self.keys):
            with open(os.path.join(self.keys, name), "rb") as file:
                self.assertNotIn(b"secret", file.read())
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.keys, name)).st_mode), 0o400)

    def test_it_opens_for_the_same_log_in_and_the_same_key_only(self) -> None:
        self.file.write(IssuedTokens("t", 1.0, 1.0))
        self.assertRaises(OtherTokens, TokenFile(self.keys, ("https://issuer.example", "client", "another")).read)
        for octets in (b"garbage", b"{AES-GCM}AAAA", b"\xff" * 100):
            os.unlink(self.file.path)
            with open(self.file.path, "wb") as file:
                file.write(octets)
            self.assertRaises(OtherTokens, self.file.read)
        os.unlink(os.path.join(self.keys, "tokens.key"))
        self.assertRaises(OtherTokens, self.file.read)
        with open(os.path.join(self.keys, "tokens.key"), "w") as file:
            file.write("short")
        self.assertRaises(NoKey, self.file.read)

    def test_what_somebody_else_has_written_meanwhile_stays(self) -> None:
        first = self.file.write(IssuedTokens("first", 1.0, 1.0))
        self.file.write(IssuedTokens("of a person", 1.0, 1.0))
        self.assertIsNone(self.file.write(IssuedTokens("late", 1.0, 1.0), first))
        tokens = self.file.read()[1]
        self.assertEqual(tokens and tokens.access, "of a person")


class KeeperCase(FileCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.asked: list[tuple[IssuedTokens | None, Deferred[IssuedTokens]]] = []
        self.run: Any = maybeDeferred
        self.keeper = self.a_keeper()

    def a_keeper(self, needs_person: bool = True) -> TokenKeeper:
        return TokenKeeper(
            host="smtp.example", file=self.file, renewed=self.renewed, run_in_thread=lambda *all: self.run(*all), clock=self.clock,
            needs_person=needs_person,
        )

    def renewed(self, before: IssuedTokens | None) -> Deferred[IssuedTokens]:
        answer: Deferred[IssuedTokens] = Deferred()
        self.asked.append((before, answer))
        return answer

    def tokens(self, name: str, lifetime: float = 3600.0) -> IssuedTokens:
        return IssuedTokens(name, lifetime, self.clock.seconds(), f"refresh of {name}")

    def give(self, name: str) -> None:
        self.asked[-1][1].callback(self.tokens(name))

    def begin(self, name: str = "first") -> None:
        self.file.write(self.tokens(name))
        self.keeper.start()

    def later(self, seconds: float) -> None:
        self.clock.pump([30.0] * int(seconds / 30))

    def fails(self, keeper: TokenKeeper | None = None) -> str:
        try:
            token = (keeper or self.keeper).token()
        except TokenFailed as fault:
            return str(fault)
        assert isinstance(token, Deferred), token
        return self.failureResultOf(token, TokenFailed).getErrorMessage()

    def kept(self) -> str:
        tokens = self.file.read()[1]
        return "" if tokens is None else tokens.access


class Refreshes(KeeperCase):
    def test_a_good_one_is_used_at_once_and_the_issuer_is_not_asked(self) -> None:
        self.begin()
        self.assertEqual(self.keeper.token(), "first")
        self.later(2000)
        self.assertEqual(self.asked, [])

    def test_the_next_one_is_fetched_early_while_the_old_one_is_used_and_is_kept(self) -> None:
        self.begin()
        self.later(2730)
        [(before, _)] = self.asked
        self.assertEqual(before and before.refresh, "refresh of first")
        self.assertEqual(self.keeper.token(), "first")
        self.give("second")
        self.assertEqual((self.keeper.token(), self.kept()), ("second", "second"))

    def test_all_who_wait_cause_one_question(self) -> None:
        waiting: list[Any] = [self.keeper.token() for _ in range(20)]
        self.assertEqual(len(self.asked), 1)
        self.give("first")
        self.assertEqual({self.successResultOf(one) for one in waiting}, {"first"})

    def test_a_file_that_is_written_by_a_person_counts_at_once(self) -> None:
        self.keeper.start()
        self.asked[-1][1].errback(REFUSED)
        self.assertIn("invalid_grant", self.fails())
        self.file.write(self.tokens("of a person"))
        token: Any = self.keeper.token()
        self.assertEqual(token if isinstance(token, str) else self.successResultOf(token), "of a person")
        self.assertEqual((len(self.asked), self.keeper.doubt()), (1, ""))

    def test_a_person_who_logs_in_while_the_issuer_is_asked_goes_first(self) -> None:
        self.begin()
        self.later(2730)
        self.file.write(self.tokens("of a person"))
        self.give("late")
        self.assertEqual((self.keeper.token(), self.kept()), ("of a person", "of a person"))

    def test_a_crash_between_the_answer_and_the_file_leaves_the_old_one_whole(self) -> None:
        self.begin()
        self.later(2730)
        self.run = lambda *all: Deferred()  # the process ends before the thread has written
        self.give("second")
        self.assertEqual(self.keeper.token(), "first", "nobody hears of a token that is not written")
        self.run, again = maybeDeferred, self.a_keeper()
        again.start()
        self.assertEqual(again.token(), "first")
        before = self.asked[-1][0]
        self.assertEqual(before and before.refresh, "refresh of first")

    def test_one_that_cannot_be_kept_is_used_told_and_kept_later(self) -> None:
        self.begin()
        self.later(2730)

        def run(function: Any, *all: Any) -> Deferred[Any]:
            def full() -> None:
                raise OSError(28, "No space left on device")

            return maybeDeferred(full if function == self.file.write else function, *(() if function == self.file.write else all))

        self.run = run
        self.give("second")
        self.assertEqual((self.keeper.token(), self.kept()), ("second", "first"))
        self.assertIn("cannot be written", self.keeper.doubt())
        self.run = maybeDeferred
        self.later(60)
        self.assertEqual((self.kept(), self.keeper.doubt(), len(self.asked)), ("second", "", 1))

    def test_a_clock_that_is_set_back_makes_it_ask_again(self) -> None:
        self.file.write(IssuedTokens("from the future", 3600.0, self.clock.seconds() + 86_400, "r"))
        self.assertIsInstance(self.keeper.token(), Deferred)
        self.assertEqual(len(self.asked), 1)

    def test_a_stop_waits_for_what_the_issuer_is_giving(self) -> None:
        self.begin()
        self.later(2730)
        stopped = Deferred.fromCoroutine(self.keeper.stop())
        self.assertNoResult(stopped)
        self.give("second")
        self.successResultOf(stopped)
        self.assertEqual((self.kept(), self.clock.getDelayedCalls()), ("second", []))

    def test_a_stop_waits_no_longer_than_a_few_seconds(self) -> None:
        waiting: Any = self.keeper.token()
        stopped = Deferred.fromCoroutine(self.keeper.stop())
        self.clock.advance(5)
        self.successResultOf(stopped)
        self.failureResultOf(waiting, TokenFailed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIn("the server stops", self.fails())


class Failures(KeeperCase):
    def test_a_failure_costs_nothing_while_the_old_one_is_good(self) -> None:
        self.begin()
        self.later(2730)
        self.asked[-1][1].errback(TokenFailed("HTTP 503"))
        self.assertEqual((self.keeper.token(), self.keeper.doubt()), ("first", ""))
        self.later(30)
        self.give("second")
        self.assertEqual((self.keeper.token(), self.keeper.counts()["token_failures"]), ("second", 0))

    def test_the_issuer_is_asked_less_and_less_often(self) -> None:
        self.keeper.start()
        for _ in range(4 * 60 * 2):  # four hours
            if self.asked and not self.asked[-1][1].called:
                self.asked[-1][1].errback(TokenFailed("HTTP 503"))
            self.assertIn("HTTP 503", self.fails())
            self.clock.advance(30)
        self.assertLess(len(self.asked), 25)
        self.assertIn("HTTP 503", self.keeper.doubt())
        self.assertEqual(self.keeper.counts()["token_seconds_left"], 0)
        self.assertGreater(self.keeper.counts()["token_failures"], 15)

    def test_a_refusal_is_told_at_once_and_asked_again_after_a_quarter_of_an_hour(self) -> None:
        self.begin()
        self.later(2730)
        self.asked[-1][1].errback(REFUSED)
        self.assertEqual(self.keeper.doubt(), "The log-in at smtp.example still works, not for long: the issuer refuses: invalid_grant")
        self.later(870)
        self.assertIn("does not work, and mail for other hosts waits", self.keeper.doubt())
        for _ in range(100):
            self.fails()
        self.assertEqual(len(self.asked), 1)
        self.later(60)
        self.give("second")
        self.assertEqual((self.keeper.token(), self.keeper.doubt()), ("second", ""))

    def test_one_that_the_host_does_not_take_is_replaced_unless_it_is_new(self) -> None:
        self.begin()
        self.keeper.rejected("first", "535 no")
        self.assertEqual(self.keeper.token(), "first", "it is new: another one would not help")
        self.assertIn("does not let us in, and mail for other hosts waits: 535 no", self.keeper.doubt())
        self.keeper.accepted("first")
        self.assertEqual(self.keeper.doubt(), "")
        self.later(600)
        self.keeper.rejected("another", "535 no")
        self.assertEqual(self.keeper.token(), "first")
        self.keeper.rejected("first", "535 no")
        waiting: Any = self.keeper.token()
        self.give("second")
        self.assertEqual(self.successResultOf(waiting), "second")

    def test_a_file_of_another_log_in_is_told(self) -> None:
        TokenFile(self.keys, ("another", "", "")).write(self.tokens("x"))
        for _ in range(3):
            self.assertIn("is of another log-in", self.fails())
            self.later(900)
        self.assertEqual(self.asked, [])

    def test_a_client_that_asks_for_itself_needs_no_file(self) -> None:
        TokenFile(self.keys, ("another", "", "")).write(self.tokens("x"))
        keeper = self.a_keeper(needs_person=False)
        waiting: Any = keeper.token()
        self.give("first")
        self.assertEqual((self.successResultOf(waiting), self.kept()), ("first", "first"))

    def test_an_error_of_our_own_ends_nothing(self) -> None:
        self.keeper.start()
        self.asked[-1][1].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("ZeroDivisionError", self.fails())
        self.later(30)
        self.give("first")
        self.assertEqual(self.keeper.token(), "first")
