from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import apsw
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.observe import LogObserver, RoadStore, Steps, read_road
from mailserver.observe import steps as steps_module
from mailserver.observe.steps import PORTION

MESSAGE = "1K0WZ000000000M1"


class Lines:
    """Takes the log's octets; fails while `is_broken`."""

    def __init__(self) -> None:
        self.octets = b""
        self.is_broken = False

    def write(self, octets: bytes) -> None:
        if self.is_broken:
            raise OSError(28, "No space left on device")
        self.octets += octets

    @property
    def all(self) -> list[str]:
        return self.octets.decode().splitlines()


class StepsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines = Lines()
        self.now = 1795436523.0
        self.path = self.mktemp()

    def steps(self, **options: Any) -> Steps:
        roads = RoadStore(self.path)
        self.addCleanup(roads.close)
        return Steps(**{"write": self.lines.write, "roads": roads, "seconds": lambda: self.now, **options})


class NoteTests(StepsTestCase):
    def test_a_step_is_logged_stored_and_counted(self) -> None:
        steps = self.steps()
        steps.note(MESSAGE, "accepted", sender="a@b", size=4096)
        self.now += 1
        steps.note(MESSAGE, "settled")
        steps.flush()
        self.assertEqual(
            self.lines.all,
            [
                f"2026-11-23T12:22:03.000Z {MESSAGE} accepted sender=<a@b> size=4096",
                f"2026-11-23T12:22:04.000Z {MESSAGE} settled",
            ],
        )
        self.assertEqual([step.fields for step in read_road(self.path, MESSAGE)], [{"sender": "a@b", "size": 4096}, {}])
        self.assertEqual(steps.counts, {"accepted": 1, "settled": 1})

    def test_a_step_that_is_only_counted_is_not_written(self) -> None:
        steps = self.steps(only_counted=frozenset({"settled"}))
        steps.note(MESSAGE, "accepted")
        steps.note(MESSAGE, "settled")
        steps.flush()
        self.assertEqual(len(self.lines.all), 1)
        self.assertEqual([step.step for step in read_road(self.path, MESSAGE)], ["accepted"])
        self.assertEqual(steps.counts, {"accepted": 1, "settled": 1})

    def test_the_order_is_kept_over_many_portions(self) -> None:
        steps = self.steps(form="json")
        for n in range(1000):
            steps.note(f"ID{n % 7:014}", "step", number=n)
        steps.flush()
        self.assertEqual([json.loads(line)["number"] for line in self.lines.all], list(range(1000)))
        self.assertEqual(
            [step.fields["number"] for step in read_road(self.path, f"ID{3:014}")], list(range(3, 1000, 7))
        )

    def test_a_peer_cannot_forge_a_line_or_command_a_terminal(self) -> None:
        name = f"x\r\n2026-11-23T12:22:03.000Z {MESSAGE} accepted\x1b]0;owned\x07"
        for form in ("text", "json"):
            self.lines.octets = b""
            steps = self.steps(form=form)
            steps.note(MESSAGE, "hello", name=name)
            steps.flush()
            self.assertEqual(len(self.lines.all), 1)
            self.assertTrue(self.lines.all[0].isprintable())
        self.assertEqual(read_road(self.path, MESSAGE)[0].fields["name"], name)

    def test_what_comes_too_fast_is_dropped_counted_and_said(self) -> None:
        steps = self.steps(waiting_max=3)
        for n in range(5):
            steps.note(MESSAGE, "step", number=n)
        steps.flush()
        self.assertEqual(steps.dropped, 2)
        self.assertEqual(steps.counts["step"], 5)
        self.assertIn("2 steps came too fast to be written", self.lines.all[-1])
        steps.note(MESSAGE, "step")
        steps.flush()
        self.assertTrue(self.lines.all[-1].endswith("step"))

    def test_the_writer_pauses_between_portions_unless_half_of_what_may_wait_does(self) -> None:
        steps, slept = self.steps(waiting_max=6 * PORTION), []
        for n in range(6 * PORTION):
            steps.note(MESSAGE, "step", number=n)
        self.patch(steps_module.time, "sleep", lambda seconds: slept.append((seconds, len(steps._waiting) // PORTION)))
        steps.flush(0.5)
        self.assertEqual(slept, [(0.5, 2), (0.5, 1), (0.5, 0)])

    def test_a_quiet_log_still_keeps_the_roads(self) -> None:
        steps = self.steps(log_steps=False)
        steps.note(MESSAGE, "accepted")
        steps.flush()
        self.assertEqual(self.lines.all, [])
        self.assertEqual(len(read_road(self.path, MESSAGE)), 1)

    def test_filters_that_passed_stand_on_the_roads_alone_unless_all_is_to_be_logged(self) -> None:
        steps = self.steps(log_passes=False)
        passed = {"filter": "denylist", "stage": "peer", "verdict": "Pass", "why": "", "ms": 0.1, "error": ""}
        for fields in (passed, {**passed, "error": "TimeoutError"}, {**passed, "verdict": "Signal"}):
            steps.note(MESSAGE, "filter", **fields)
        steps.flush()
        self.assertEqual(["error=TimeoutError" in line or "verdict=Signal" in line for line in self.lines.all], [True, True])
        self.assertEqual(len(read_road(self.path, MESSAGE)), 3)
        everything = self.steps()
        everything.note(MESSAGE, "filter", **passed)
        everything.flush()
        self.assertIn("verdict=Pass", self.lines.all[-1])

    def test_addresses_are_redacted_in_log_and_roads(self) -> None:
        steps = self.steps(addresses="domain")
        steps.note(MESSAGE, "accepted", sender="secret@example.org", why="for secret@example.org")
        steps.note_event(self.now, "warn", "n", "secret@example.org", "Traceback: secret@example.org")
        steps.flush()
        self.assertNotIn(b"secret", self.lines.octets)
        self.assertEqual(
            read_road(self.path, MESSAGE)[0].fields, {"sender": "*@example.org", "why": "for *@example.org"}
        )

    def test_a_field_that_is_no_text_costs_no_step(self) -> None:
        class Odd:
            def __str__(self) -> str:
                raise RuntimeError("no text")

        steps = self.steps()
        steps.note(MESSAGE, "step", a=Odd(), b=b"\xff", c=float("nan"), d=[Odd()])
        steps.note(MESSAGE, "step", a={"x": object()})
        steps.flush()
        self.assertEqual(len(self.lines.all), 2)
        self.assertEqual(len(read_road(self.path, MESSAGE)), 2)


class FailureTests(StepsTestCase):
    def test_a_full_disk_costs_lines_and_is_said_once_afterwards(self) -> None:
        steps = self.steps(roads=None)
        steps._output._say_once = lambda error: None  # type: ignore[union-attr,method-assign]
        self.lines.is_broken = True
        for _ in range(3):
            steps.note(MESSAGE, "lost")
            steps.flush()
        self.lines.is_broken = False
        steps.note(MESSAGE, "kept")
        steps.flush()
        steps.note(MESSAGE, "kept")
        steps.flush()
        self.assertEqual(
            [" lost:" in line or line.endswith("kept") for line in self.lines.all], [False, True, True, True]
        )
        self.assertIn("3 log lines were lost: [Errno 28]", self.lines.all[1])

    def test_a_road_store_that_fails_is_said_once_and_once_again_when_it_works(self) -> None:
        store = RoadStore(self.path)
        self.addCleanup(store.close)
        works = store.add

        def fails(batch: str, rows: int, now: float) -> None:
            raise apsw.FullError("database or disk is full")

        steps = self.steps(roads=store)
        self.patch(store, "add", fails)
        for _ in range(3):
            steps.note(MESSAGE, "accepted")
            steps.flush()
        self.patch(store, "add", works)
        steps.note(MESSAGE, "settled")
        steps.flush()
        said = [line for line in self.lines.all if " warn " in line]
        self.assertEqual(len(said), 2)
        self.assertIn("disk is full", said[0])
        self.assertIn("stored again; 3 could not be", said[1])
        self.assertEqual([step.step for step in read_road(self.path, MESSAGE)], ["settled"])

    def test_a_damaged_store_is_said(self) -> None:
        with open(self.path, "wb") as file:
            file.write(b"no database" * 1000)
        steps = self.steps()
        steps.note(MESSAGE, "accepted")
        steps.flush()
        self.assertIn("was damaged; it is kept as", self.lines.all[-1])


class Taking:
    """An observer as `Steps` knows it."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any]] = []

    def take(self, steps: Sequence[Mapping[str, Any]]) -> None:
        self.seen.extend(steps)


class ObserverTests(StepsTestCase):
    def test_observers_are_told_each_step_as_it_was_noted(self) -> None:
        one = Taking()
        steps = self.steps(observers=[one], addresses="none")
        steps.note(MESSAGE, "accepted", sender="a@b")
        self.assertEqual(one.seen, [])
        steps.note_event(self.now, "info", "n", "no step")
        steps.flush()
        self.assertEqual(
            [dict(step) for step in one.seen], [{"time": self.now, "id": MESSAGE, "step": "accepted", "sender": "a@b"}]
        )

    def test_observers_can_be_exchanged(self) -> None:
        first, second = Taking(), Taking()
        steps = self.steps(observers=[first])
        steps.observe_with([second])
        steps.note(MESSAGE, "step")
        steps.flush()
        self.assertEqual((len(first.seen), len(second.seen)), (0, 1))

    def test_an_observer_cannot_change_what_the_next_one_or_the_log_sees(self) -> None:
        one = Taking()
        steps = self.steps(observers=[one])
        steps.note(MESSAGE, "step", recipients=["a@b"])
        steps.flush()
        with self.assertRaises(TypeError):
            one.seen[0]["id"] = "x"  # type: ignore[index]
        self.assertEqual(one.seen[0]["recipients"], ("a@b",))


class ThreadTests(TestCase):
    def test_the_thread_writes_by_itself_and_stop_writes_the_rest(self) -> None:
        written: Deferred[None] = Deferred()
        lines: list[bytes] = []

        def write(octets: bytes) -> None:
            from twisted.internet import reactor

            lines.append(octets)
            if len(lines) == 1:
                reactor.callFromThread(written.callback, None)  # type: ignore[attr-defined]

        path = self.mktemp()
        steps = Steps(write=write, roads=RoadStore(path), interval_seconds=0.01)
        steps.start()
        self.addCleanup(steps.stop)
        steps.note(MESSAGE, "accepted")

        def then(_: None) -> None:
            steps.note(MESSAGE, "settled")
            steps.stop()
            steps.stop()
            self.assertEqual([line.split()[2] for line in b"".join(lines).splitlines()], [b"accepted", b"settled"])
            self.assertEqual([step.step for step in read_road(path, MESSAGE)], ["accepted", "settled"])

        return written.addCallback(then)  # type: ignore[return-value]

    def test_a_fault_of_ours_does_not_end_the_thread(self) -> None:
        written: Deferred[None] = Deferred()
        lines: list[bytes] = []

        def write(octets: bytes) -> None:
            from twisted.internet import reactor

            if b" fault " in octets:
                raise RuntimeError("fault")
            lines.append(octets)
            if b" after" in octets:
                reactor.callFromThread(written.callback, None)  # type: ignore[attr-defined]
            else:
                steps.note(MESSAGE, "after")

        steps = Steps(write=write, interval_seconds=0.01)
        steps.note(MESSAGE, "fault", x=1)
        steps.start()
        self.addCleanup(steps.stop)

        def then(_: None) -> None:
            self.assertIn(b"steps were lost: RuntimeError: fault", lines[0])

        return written.addCallback(then)  # type: ignore[return-value]


class LogObserverTests(StepsTestCase):
    def logger(self, **options: Any) -> Logger:
        level = options.pop("level", "info")
        self.log = self.steps(roads=None, **options)
        return Logger(namespace="space", observer=LogPublisher(LogObserver(self.log, level=level)))

    def test_an_event_is_a_line_of_the_same_stream(self) -> None:
        self.logger().info("hello {name}", name="world")
        stamp, rest = self.lines.all[0].split(" ", 1)
        self.assertEqual(rest, "- info [space] hello world")
        self.assertEqual(len(stamp), len("2026-11-23T12:22:03.456Z"))

    def test_events_below_the_level_are_left_out(self) -> None:
        for level, expected in (("debug", 5), ("info", 4), ("warn", 3), ("error", 2)):
            self.lines.octets = b""
            logger = self.logger(level=level)
            for one in LogLevel.iterconstants():
                logger.emit(one, "text")
            self.assertEqual(len(self.lines.all), expected, level)

    def test_a_failure_has_its_traceback_indented_or_as_one_field(self) -> None:
        def fail() -> Failure:
            try:
                raise RuntimeError("a\n2026-11-23T12:22:03.000Z forged")
            except RuntimeError:
                return Failure()

        self.logger().failure("it broke", failure=fail())
        first, *more = self.lines.all
        self.assertTrue(first.endswith("- critical [space] it broke"))
        self.assertTrue(any("RuntimeError" in line for line in more))
        self.assertTrue(all(line.startswith("    ") for line in more))

        self.lines.octets = b""
        self.logger(form="json").failure("it broke", failure=fail())
        event = json.loads(self.lines.octets)
        self.assertEqual((event["level"], event["text"]), ("critical", "it broke"))
        self.assertIn("RuntimeError", event["traceback"])

    def test_an_event_waits_for_the_writer_thread_where_one_runs(self) -> None:
        logger = self.logger(interval_seconds=3600.0)
        self.log.start()
        logger.info("later")
        self.assertEqual(self.lines.all, [])
        self.log.stop()
        self.assertEqual(len(self.lines.all), 1)
        logger.info("after the end")
        self.assertEqual(len(self.lines.all), 2)
