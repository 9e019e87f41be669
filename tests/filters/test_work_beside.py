"""A process that works beside the server: asked while much comes, and nothing hangs on it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.filters import opinions, work_beside
from mailserver.filters.learnt import open_learnt
from mailserver.filters.opinions import Opinion, opinions_on, read_told
from mailserver.filters.token_memory import SENT_OCTETS, SubjectMessage, Whose
from mailserver.filters.work_beside import (
    BUSY_MESSAGES,
    LONE_MOST,
    LONE_SECONDS,
    REST_SECONDS,
    SLOW_SECONDS,
    WAITING_MOST,
    WorkBeside,
)
from mailserver.mail.content import Content
from mailserver.mail.process_failure import ProcessFailed
from mailserver.plugins.threads import AllHang
from mailserver.processes.jobs import JobProcesses
from mailserver.state_store.learnt_file import Lesson
from mailserver.trust.tokens import reduced
from tests.any_octets import any_octets
from tests.filters.mail_corpus import Corpus
from tests.filters.test_bayes import ALICE, BOB, CAROL, BayesCase


def upper(answer: Any) -> str | None:
    if not isinstance(answer, str):
        raise ValueError(repr(answer))
    return answer.upper()


class Beside(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(work_beside, "processors", lambda: 2)
        self.clock = Clock()
        self.asked: list[tuple[list[str], Deferred[Any]]] = []
        self.beside = self.made()

    def made(self) -> WorkBeside[str, str]:
        return WorkBeside("work", self.send, upper, seconds=self.clock.seconds)

    def send(self, questions: Sequence[str], seconds: float) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.asked.append((list(questions), done))
        return done

    def questions(self) -> list[list[str]]:
        return [questions for questions, _ in self.asked]

    def ask(self, question: str) -> Deferred[str | None]:
        answer = self.beside.ask(question)
        assert answer is not None
        return answer

    def get_busy(self) -> None:
        """Many come, and the process has started."""
        for n in range(BUSY_MESSAGES):
            self.assertIsNone(self.beside.ask(str(n)))
        self.assertEqual(self.questions(), [[]])
        self.asked.pop()[1].callback([])

    def fail_with(self, answer: Any) -> None:
        """One who asks and one who waits do the work themselves, and so do all others for a minute."""
        first, second = self.ask("a"), self.ask("b")
        with capturedLogs() as told:
            self.asked.pop()[1].callback(answer)
            self.assertEqual(self.questions(), [])  # who waits is not made to wait for the next process, too
            self.assertEqual([self.successResultOf(one) for one in (first, second)], [None, None])
        self.assertEqual(self.beside.ask("c"), None)
        self.clock.advance(REST_SECONDS - 1)
        for n in range(BUSY_MESSAGES):
            self.assertIsNone(self.beside.ask(str(n)))
        self.assertEqual(self.questions(), [])
        self.clock.advance(1)
        self.said = [one for one in told if "which failed" in str(one["log_format"])]

    def test_nobody_is_asked_where_few_messages_come(self) -> None:
        for n in range(3 * BUSY_MESSAGES):
            self.assertIsNone(self.beside.ask(str(n)))
            self.clock.advance(0.04)
        self.assertEqual(self.asked, [])

    def test_nobody_is_asked_where_there_is_one_processor(self) -> None:
        self.patch(work_beside, "processors", lambda: 1)
        self.beside = self.made()
        for n in range(3 * BUSY_MESSAGES):
            self.assertIsNone(self.beside.ask(str(n)))
        self.assertEqual(self.asked, [])

    def test_while_the_process_starts_nobody_waits_for_it_and_then_it_is_asked_about_those_together_that_come_meanwhile(self) -> None:
        for n in range(3 * BUSY_MESSAGES):
            self.assertIsNone(self.beside.ask(str(n)))
        self.assertEqual(self.questions(), [[]])
        self.asked[0][1].callback([])
        answers = [self.ask(one) for one in "abc"]
        self.assertEqual(self.questions()[1:], [["a"]])
        self.asked[1][1].callback(["a"])
        self.assertEqual(self.questions()[2:], [["b", "c"]])
        self.asked[2][1].callback([None, "c"])
        self.assertEqual([self.successResultOf(one) for one in answers], ["A", None, "C"])
        self.assertEqual((self.beside.done, self.beside.failures), (3, 0))

    def test_a_process_that_had_nothing_to_do_has_ended_and_nobody_waits_for_the_next_one(self) -> None:
        self.get_busy()
        self.clock.advance(3600)
        self.get_busy()
        self.ask("a")

    def test_one_that_dies_is_late_or_answers_nonsense_is_not_asked_for_a_minute_which_is_told(self) -> None:
        self.get_busy()
        failures = [Failure(one) for one in (ProcessFailed("died", "it died"), ProcessFailed("late", "late"), OSError("fork"))]
        for answer in (*failures, ["a", "b"], [], [1], {}, None, "a"):
            self.fail_with(answer)
            self.assertTrue(self.said)
            with capturedLogs() as told:
                self.get_busy()
            self.assertEqual([str(one["log_format"]) for one in told], ["{who}: its process works again"])

    def test_the_end_of_the_component_is_no_failure_to_tell(self) -> None:
        self.get_busy()
        self.fail_with(Failure(AllHang("it ends")))
        self.assertEqual(self.said, [])

    def test_nobody_else_waits_for_one_that_is_slow(self) -> None:
        self.get_busy()
        first, second = self.ask("a"), self.ask("b")
        self.clock.advance(SLOW_SECONDS + 0.01)
        for n in range(2 * BUSY_MESSAGES):
            self.assertIsNone(self.beside.ask(str(n)))
        self.asked[0][1].callback(["a"])
        self.ask("c")
        self.assertEqual(self.successResultOf(first), "A")
        self.assertNoResult(second)

    def test_where_messages_come_one_after_the_other_nobody_is_asked_but_now_and_then(self) -> None:
        self.get_busy()
        for _ in range(LONE_MOST):
            answer = self.ask("a")
            self.asked.pop()[1].callback(["a"])
            self.assertEqual(self.successResultOf(answer), "A")
        self.assertIsNone(self.beside.ask("b"))
        self.clock.advance(LONE_SECONDS)
        for n in range(BUSY_MESSAGES - 1):
            self.assertIsNone(self.beside.ask(str(n)))
        for _ in range(3 * LONE_MOST):  # two at a time
            answers = [self.ask("a"), self.ask("b")]
            while self.asked:
                questions, done = self.asked.pop()
                done.callback(questions)
            self.assertEqual([self.successResultOf(one) for one in answers], ["A", "B"])

    def test_so_many_wait_and_no_more(self) -> None:
        self.get_busy()
        self.ask("a")
        for n in range(WAITING_MOST):
            self.ask(str(n))
        self.assertIsNone(self.beside.ask("b"))

    def test_who_gives_up_has_not_found_a_failure(self) -> None:
        self.get_busy()
        given_up = self.ask("a")
        given_up.addErrback(lambda _: None)
        waiting = self.ask("b")
        given_up.cancel()
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(self.questions(), [["a"]])  # the process goes on with it: it is not killed, and nobody asks another one
        self.assertIsNone(self.beside.ask("c"))
        self.asked.pop()[1].callback(["a"])
        self.assertEqual(self.beside.failures, 0)
        self.ask("d")
        self.assertEqual(self.questions(), [["d"]])

    def test_one_that_was_given_up_and_fails_has_failed(self) -> None:
        self.get_busy()
        given_up = self.ask("a")
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        self.asked.pop()[1].errback(ProcessFailed("late", "late"))
        self.assertEqual(self.beside.failures, 1)
        self.assertIsNone(self.beside.ask("b"))


class Answers(SynchronousTestCase):
    def test_an_answer_that_is_none_is_a_value_error(self) -> None:
        right = [0.5, 3, "word 0.900", "", 0, 5, 5]
        whose, told = read_told(right)
        assert whose is not None and told is not None
        self.assertEqual((told.probability, told.words, whose.own), (0.5, "word 0.900", ""))
        self.assertEqual(read_told([]), (None, None))
        wrong: list[Any] = [right[:-1], [float("nan"), *right[1:]], [1.5, *right[1:]], [0.5, 3, "a\x1b[", *right[3:]]]
        wrong += [[0.5, 3, "w" * 1001, *right[3:]], [0.5, 3, ["w"], *right[3:]], {}, "", 1, [[]], [None] * 7]
        wrong += [[*right[:3], "", 7, 5, 5], [*right[:3], ALICE, 0, 5, 5], [*right[:4], 0, 5, -5]]
        for one in wrong:
            self.assertRaises(ValueError, read_told, one)


class OfMessages(BayesCase):
    """The filter, and its function in the place of a process."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(work_beside, "processors", lambda: 2)
        self.patch(work_beside, "LONE_MOST", 1_000_000)

    def test_the_process_says_what_the_server_says_of_all_recipients_and_after_something_was_learnt(self) -> None:
        asked, here = self.made(minimum=20), self.made(minimum=20)
        self.both_taught(asked, 20)
        self.both_taught(asked, 20, BOB)
        self.patch(here._learnt, "beside", None)
        for round in range(3):
            for _ in range(12):
                message = self.corpus.message("spam") if round else self.corpus.message("ham")
                for user in (ALICE, BOB, CAROL):
                    self.assertEqual(self.found(asked, message, user), self.found(here, message, user))
            self.taught(asked, "ham", [self.corpus.message("ham")], BOB if round else "")
            self.answer(here.run_periodically())
        self.assertGreater(asked.counts()["judged_in_process"], 40)

    @given(octets=any_octets(max_size=200))
    def test_of_any_octets_the_process_says_what_the_server_says(self, octets: bytes) -> None:
        if not hasattr(self, "both"):
            self.both = self.made(minimum=20), self.made(minimum=20)
            self.both_taught(self.both[0], 20)
            self.answer(self.both[1].run_periodically())
            self.patch(self.both[1]._learnt, "beside", None)
        message = b"Subject: bonus\r\n\r\n" + octets
        asked, here = self.both
        for _ in range(2):
            self.assertEqual(self.found(asked, message), self.found(here, message))

    def test_three_recipients_are_asked_about_with_one_message(self) -> None:
        component = self.made(minimum=20)
        self.both_taught(component, 20)
        sent: list[Any] = []
        learnt = component._learnt
        subject = component._subject(self.envelope(), self.content(self.corpus.message("spam")))
        learnt._run_in_process = lambda function, *arguments, seconds: sent.append(arguments)
        learnt._ask_beside([(subject, (user,)) for user in (ALICE, BOB, CAROL)], 1.0)
        self.assertEqual((len(sent[0][0]), sent[0][1]), (1, [(0, (ALICE,)), (0, (BOB,)), (0, (CAROL,))]))

    def test_what_somebody_else_has_learnt_is_no_answer(self) -> None:
        component = self.made(minimum=20)
        self.both_taught(component, 20)
        message = self.corpus.message("spam")
        right = self.found(component, message)
        told = Whose(BOB, 7, 100, 100), Opinion(0.01, 1, "", BOB, 100, 100)
        component._learnt.beside.ask = lambda _question: succeed(told)
        self.assertEqual(self.found(component, message), right)

    def test_whose_learning_counts_is_not_remembered_where_something_was_learnt_meanwhile(self) -> None:
        learnt = self.made(minimum=20)._learnt
        for has_changed in (True, False):
            self.answer(learnt.look())
            waits: Deferred[Any] = Deferred()
            learnt.beside.ask = lambda _question, waits=waits: waits  # type: ignore[method-assign,union-attr,misc]
            asked = Deferred.fromCoroutine(learnt._opinion(SubjectMessage(self.content(b"\r\nx\r\n")), (ALICE,)))
            if has_changed:
                learnt._has_changed()
            waits.callback((None, None))
            self.assertIsNone(self.successResultOf(asked))
            if has_changed:
                self.assertRaises(KeyError, learnt._memory.whose, (ALICE,))
            else:
                self.assertIsNone(learnt._memory.whose((ALICE,)))

    def test_a_message_that_is_large_or_in_a_file_is_not_sent(self) -> None:
        line = b"\r\n" + b"x" * (SENT_OCTETS - 2)
        self.assertTrue(SubjectMessage(Content.of(line)).can_be_sent)
        for content in (Content.of(line + b"x"), Content.of(line, prefix=b"X: y\r\n"), Content.at("/none", 5)):
            subject, learnt = SubjectMessage(content), self.made(minimum=20)._learnt
            self.answer(learnt.look())
            asked: list[Any] = []
            learnt.beside.ask = asked.append  # type: ignore[method-assign,union-attr]
            Deferred.fromCoroutine(learnt._opinion(subject, (ALICE,))).addErrback(lambda _: None)
            self.assertEqual(asked, [])

    def test_the_file_is_opened_anew_where_the_server_has_opened_it_anew(self) -> None:
        component = self.made(minimum=20)
        self.both_taught(component, 20)
        first = opinions._reading(component._learnt._path, 1)
        self.assertIs(opinions._reading(component._learnt._path, 1), first)
        self.assertIsNot(opinions._reading(component._learnt._path, 2), first)


class RealProcess(TestCase):
    async def test_one_that_is_killed_or_stopped_costs_the_answer_of_nobody_and_the_next_one_answers(self) -> None:
        self.patch(work_beside, "processors", lambda: 2)
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        path, corpus = os.path.join(folder, "bayes.db"), Corpus(1)
        file, key = open_learnt(path, folder)
        self.addCleanup(file.close)
        for kind in ("spam", "ham"):
            messages = [reduced(corpus.message(kind), key)[0] for _ in range(20)]
            file.learn("", [Lesson(kind, one.digest, one.hashes) for one in messages], now=0.0, vocabulary_most=10_000)  # type: ignore[arg-type]
        jobs = JobProcesses("bayes", reactor=reactor, version=lambda: "", memory_octets=lambda: 512 << 20)
        self.addCleanup(jobs.stop)
        clock = Clock()

        def send(questions: Sequence[bytes], seconds: float) -> Deferred[Any]:
            asked = [(n, ("alice@example.org",)) for n in range(len(questions))]
            call = jobs.run(opinions_on, list(questions), asked, path, 1, 1, key, 5, 10.0, seconds=min(seconds, limit))
            started.append(call)
            return call

        beside: WorkBeside[bytes, Any] = WorkBeside("bayes", send, read_told, seconds=clock.seconds)
        started: list[Deferred[Any]] = []

        async def ready() -> None:
            started.clear()
            while not started:
                self.assertIsNone(beside.ask(b""))
            waits: Deferred[None] = Deferred()
            started[0].addBoth(lambda found: waits.callback(None) or found)
            await waits

        def opinion() -> Deferred[Any]:
            asked = beside.ask(corpus.message("spam"))
            assert asked is not None
            return asked

        limit = 30.0
        for is_killed, seconds in ((True, 30.0), (False, 0.1)):
            await ready()
            limit, process = seconds, jobs._idle[0].program
            os.kill(process.pid, signal.SIGSTOP)
            asked = opinion()
            if is_killed:
                process.kill()
            self.assertIsNone(await asked)
            limit = 30.0
            clock.advance(REST_SECONDS)
        await ready()
        whose, told = await opinion()
        self.assertGreater(told.probability, 0.9)
        self.assertEqual((whose.own, whose.spam, whose.ham, beside.failures), ("", 20, 20, 2))
