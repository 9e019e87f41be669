"""Questions to a thread: who comes while others are asked waits for them, and is asked with those who wait too."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.filters.asked_together import AskedTogether


class Together(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[tuple[list[str], Deferred[Sequence[str | Exception]]]] = []
        self.together: AskedTogether[str, str] = AskedTogether(self.answer, most=3)

    def answer(self, questions: Sequence[str]) -> Deferred[Sequence[str | Exception]]:
        done: Deferred[Sequence[str | Exception]] = Deferred()
        self.asked.append((list(questions), done))
        return done

    def questions(self) -> list[list[str]]:
        return [questions for questions, _ in self.asked]

    def tell(self, n: int = -1) -> None:
        questions, done = self.asked[n]
        done.callback([f"{one}!" for one in questions])

    def test_who_is_alone_is_asked_at_once_and_who_comes_meanwhile_together(self) -> None:
        first = self.together.ask("a")
        rest = [self.together.ask(one) for one in "bcde"]
        self.assertEqual(self.questions(), [["a"]])
        self.tell()
        self.assertEqual(self.successResultOf(first), "a!")
        self.assertEqual(self.questions(), [["a"], ["b", "c", "d"]])
        self.tell()
        self.assertEqual([self.successResultOf(one) for one in rest[:3]], ["b!", "c!", "d!"])
        self.assertEqual(self.questions()[2:], [["e"]])
        self.tell()
        self.assertEqual(self.successResultOf(rest[3]), "e!")
        self.together.ask("f")
        self.assertEqual(self.questions()[3:], [["f"]])

    def test_an_exception_among_the_answers_is_that_of_one_and_a_failure_that_of_all(self) -> None:
        first = self.together.ask("a")
        b, c, d = [self.together.ask(one) for one in "bcd"]
        self.asked[0][1].errback(OSError("all"))
        self.failureResultOf(first, OSError)
        self.asked[1][1].callback(["b!", ValueError("c"), "d!"])
        self.assertEqual((self.successResultOf(b), self.successResultOf(d)), ("b!", "d!"))
        self.failureResultOf(c, ValueError)

    def test_the_work_is_given_up_when_nobody_waits_for_it_any_more(self) -> None:
        self.together.ask("a").addErrback(lambda _: None)
        b, c, d, e = [self.together.ask(one) for one in "bcde"]
        self.tell()
        b.cancel()
        self.failureResultOf(b, CancelledError)
        e.cancel()
        self.failureResultOf(e, CancelledError)
        c.cancel()
        self.failureResultOf(c, CancelledError)
        f = self.together.ask("f")
        self.assertEqual(self.questions(), [["a"], ["b", "c", "d"]])
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertTrue(self.asked[1][1].called)  # with a CancelledError
        self.assertEqual(self.questions()[2:], [["f"]])
        self.tell()
        self.assertEqual(self.successResultOf(f), "f!")

    def test_who_has_given_up_alone_takes_no_answer_from_the_others(self) -> None:
        self.together.ask("a").addErrback(lambda _: None)
        b, c = [self.together.ask(one) for one in "bc"]
        self.tell()
        b.cancel()
        self.failureResultOf(b, CancelledError)
        self.tell()
        self.assertEqual(self.successResultOf(c), "c!")

    def test_where_the_work_fails_at_once_all_who_wait_hear_it(self) -> None:
        first = self.together.ask("a")
        rest = [self.together.ask(one) for one in "bcdefg"]

        def fails(_: object) -> Deferred[Sequence[str | Exception]]:
            done: Deferred[Sequence[str | Exception]] = Deferred()
            done.errback(OSError("it hangs"))
            return done

        self.together._answer = fails
        self.tell()
        self.assertEqual(self.successResultOf(first), "a!")
        for one in rest:
            self.failureResultOf(one, OSError)
