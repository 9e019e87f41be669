"""A component's processes for heavy work: real ones, which are killed, stopped and flooded."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.mail.content import Content
from mailserver.mail.process_failure import ProcessFailed
from mailserver.plugins.threads import AllHang, QueueFull
from mailserver.processes import frames
from mailserver.processes.job_format import RESULT_OCTETS, call_job, job_of, result_of
from mailserver.processes.job_process import ALARM_SECONDS, OTHER_VERSION
from mailserver.processes.jobs import CALLS_WAITING, ENDING_MOST, JobProcesses
from mailserver.processes.spawning import spawn
from tests.any_octets import any_octets
from tests.processes.heavy_work import (
    an_object,
    as_it_is,
    child_that_waits,
    die,
    for_ever,
    fork_and_raise,
    fork_and_return,
    kinds_of,
    length,
    much,
    octets_of,
    process_number,
    raise_this,
    surroundings,
    write_everywhere,
)  # fmt: skip
from tests.rfc_index import ROOT

MEMORY = 512 << 20
SERVER = """
import time
from mailserver.processes import frames
from mailserver.processes.job_format import job_of
from mailserver.processes.spawning import spawn
from tests.processes.heavy_work import for_ever, process_number
program, end = spawn("mailserver.processes.job_process", (str(512 << 20), ""))
for function in (process_number, for_ever):
    frames.send(end, job_of(function, (), 600))
print(frames.receive(end) and program.pid, flush=True)
time.sleep(600)
"""


def has_ended(number: int) -> bool:
    """Also a zombie has, which waits for its parent to look."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class JobCase(TestCase):
    def setUp(self) -> None:
        self.memory = MEMORY
        self.version = ""
        self.jobs = self.make()

    def make(self) -> JobProcesses:
        jobs = JobProcesses("heavy", reactor=reactor, version=lambda: self.version, memory_octets=lambda: self.memory)
        self.addCleanup(jobs.stop)
        return jobs

    async def failed(self, call: Deferred[Any], how: str) -> ProcessFailed:
        error = await self.assertFailure(call, ProcessFailed)
        self.assertEqual(error.how, how, str(error))
        return error  # type: ignore[no-any-return]

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.01, turn.callback, None)  # type: ignore[attr-defined]
            await turn


class Answers(JobCase):
    async def test_a_function_answers_from_another_process_which_stays(self) -> None:
        first = await self.jobs.run(process_number)
        self.assertNotEqual(first, os.getpid())
        self.assertEqual(await self.jobs.run(process_number), first)

    async def test_two_calls_run_at_a_time_each_in_its_process_and_the_third_waits(self) -> None:
        calls = [self.jobs.run(process_number) for _ in range(3)]
        self.assertEqual((self.jobs.counts.running, self.jobs.counts.waiting), (2, 1))
        self.assertEqual(len({await call for call in calls}), 2)

    async def test_no_process_is_begun_before_the_first_call(self) -> None:
        begun: list[object] = []
        self.patch(subprocess, "Popen", lambda *arguments, **named: begun.append(arguments))
        await self.make().stop()
        self.assertEqual(begun, [])

    async def test_plain_values_come_back_as_they_are(self) -> None:
        for value in (None, True, -1, 2**70, 0.5, "ä\udc80", b"\0\xff", (1, [2, {"three": {4}}]), frozenset({5})):
            self.assertEqual(await self.jobs.run(as_it_is, value), value)

    async def test_what_a_function_raises_is_told_with_its_kind_and_place_and_the_process_stays(self) -> None:
        number = await self.jobs.run(process_number)
        for kind in ("ValueError", "SystemExit", "KeyboardInterrupt", "RecursionError", "Unprintable"):
            failure = await self.failed(self.jobs.run(raise_this, kind), "raised")
            self.assertEqual(failure.kind, kind)
            self.assertIn("heavy_work.py:", str(failure))
        self.assertEqual(await self.jobs.run(process_number), number)

    async def test_a_result_that_is_no_plain_value_or_too_large_is_the_functions_failure(self) -> None:
        self.assertIn("plain values", str(await self.failed(self.jobs.run(an_object), "raised")))
        self.assertIn(str(RESULT_OCTETS), str(await self.failed(self.jobs.run(much, RESULT_OCTETS), "raised")))

    async def test_what_is_printed_is_no_part_of_the_answer(self) -> None:
        self.assertEqual(await self.jobs.run(write_everywhere), "written")
        self.assertEqual(await self.jobs.run(length, b"four"), 4)

    async def test_twenty_megabytes_go_over(self) -> None:
        self.assertEqual(await self.jobs.run(length, bytes(20_000_000)), 20_000_000)

    async def test_a_message_goes_over_with_its_octets_or_the_path_of_its_file(self) -> None:
        path = os.path.abspath(self.mktemp())
        with open(path, "wb") as file:
            file.write(b"Subject: b\r\n\r\nbody\r\n")
        in_a_file = Content.at(path, 20, prefix=b"A: a\r\n")
        in_a_file.head  # what was worked out stays here
        self.assertEqual(await self.jobs.run(octets_of, in_a_file), b"A: a\r\nSubject: b\r\n\r\nbody\r\n")
        self.assertEqual(await self.jobs.run(octets_of, Content.of(b"x", prefix=b"y")), b"yx")
        os.unlink(path)
        self.assertEqual((await self.failed(self.jobs.run(octets_of, in_a_file), "raised")).kind, "FileNotFoundError")

    async def test_what_is_beyond_the_bounds_of_a_message_is_known_here_as_well(self) -> None:
        part = b"--b\r\n\r\n\r\n"
        content = Content.of(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 1100 + b"--b--\r\n")
        await self.jobs.run(kinds_of, content)
        self.assertNotEqual(content.parts_beyond_bounds, "")

    async def test_the_process_has_nothing_of_the_servers(self) -> None:
        with open(self.mktemp(), "wb") as file:
            os.set_inheritable(file.fileno(), True)
            descriptors, umask, no_new_privileges, folder, session = await self.jobs.run(surroundings)
        self.assertEqual([one for one in descriptors if "socket" not in one and "null" not in one and "/proc" not in one], [])
        self.assertEqual((umask, no_new_privileges, folder), (0o077, 1, "/"))
        self.assertNotEqual(session, os.getsid(0))


class Refusals(JobCase):
    async def test_what_another_process_could_not_import_is_refused_at_once(self) -> None:
        def inner() -> None: ...

        for function in (inner, lambda: None, self.make, print_nothing, "length", None):
            await self.assertFailure(self.jobs.run(function), TypeError)  # type: ignore[arg-type]

    async def test_arguments_that_cannot_be_sent_are_refused_and_the_next_call_works(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for argument in (lambda: None, self.jobs, deep):
            await self.assertFailure(self.jobs.run(as_it_is, argument), TypeError)
        while deep:  # else its end is a recursion, too
            deep = deep[0]
        self.assertEqual(await self.jobs.run(length, b""), 0)

    async def test_a_time_that_is_none_is_refused(self) -> None:
        for seconds in (0.0, -1.0, float("nan"), float("inf"), 3601.0):
            await self.assertFailure(self.jobs.run(process_number, seconds=seconds), ValueError)

    async def test_more_calls_than_may_wait_are_refused_and_of_those_given_up_none_begins(self) -> None:
        running = [self.jobs.run(for_ever) for _ in range(2)]
        waiting = [self.jobs.run(for_ever) for _ in range(CALLS_WAITING)]
        await self.assertFailure(self.jobs.run(process_number), QueueFull)
        begun: list[object] = []
        self.patch(self.jobs, "_one", lambda: begun.append(1))
        for call in (*running, *waiting):
            call.cancel()
            await self.assertFailure(call, CancelledError)
        await self.until(lambda: self.jobs.hanging == 0)
        self.assertEqual(begun, [])

    async def test_a_program_of_another_version_calls_nothing(self) -> None:
        self.version = "f" * 64
        self.assertEqual(str(await self.failed(self.jobs.run(process_number), "died")), OTHER_VERSION)


class Ends(JobCase):
    async def test_a_call_that_is_late_is_killed_with_its_process_and_the_next_one_works(self) -> None:
        number = await self.jobs.run(process_number)
        error = await self.failed(self.jobs.run(for_ever, seconds=0.2), "late")
        self.assertIn("0.2 seconds", str(error))
        await self.until(lambda: has_ended(number))
        self.assertNotEqual(await self.jobs.run(process_number), number)

    async def test_a_call_that_is_cancelled_is_killed_with_its_process(self) -> None:
        number = await self.jobs.run(process_number)
        call = self.jobs.run(for_ever)
        call.cancel()
        await self.assertFailure(call, CancelledError)
        await self.until(lambda: has_ended(number))
        self.assertEqual(await self.jobs.run(length, b"1"), 1)

    async def test_a_process_that_dies_in_a_call_fails_that_call_alone(self) -> None:
        for number in (signal.SIGKILL, signal.SIGSEGV):
            others = self.jobs.run(length, b"12")
            await self.failed(self.jobs.run(die, int(number)), "died")
            self.assertEqual(await others, 2)
            self.assertEqual(await self.jobs.run(length, b"123"), 3)

    async def test_a_process_that_was_killed_between_two_calls_fails_none(self) -> None:
        number = await self.jobs.run(process_number)
        os.kill(number, signal.SIGKILL)
        await self.until(lambda: has_ended(number))
        self.assertNotEqual(await self.jobs.run(process_number), number)

    async def test_a_process_that_was_stopped_is_killed_at_the_deadline(self) -> None:
        number = await self.jobs.run(process_number)
        os.kill(number, signal.SIGSTOP)
        await self.failed(self.jobs.run(length, b"", seconds=0.3), "late")
        await self.until(lambda: has_ended(number))
        self.assertEqual(await self.jobs.run(length, b"1"), 1)

    async def test_memory_beyond_the_bound_fails_that_call_and_the_next_process_has_it_all(self) -> None:
        self.memory = 256 << 20
        number = await self.jobs.run(process_number)
        self.assertEqual((await self.failed(self.jobs.run(much, 300 << 20), "raised")).kind, "MemoryError")
        self.assertNotEqual(await self.jobs.run(process_number), number)

    async def test_what_a_killed_process_has_started_ends_with_it(self) -> None:
        child = await self.jobs.run(child_that_waits)
        await self.failed(self.jobs.run(for_ever, seconds=0.2), "late")
        await self.until(lambda: has_ended(child))

    async def test_a_function_that_forks_answers_once_and_its_child_answers_nobody(self) -> None:
        for function in (fork_and_return, fork_and_raise):
            self.assertEqual(await self.jobs.run(function), "the parent's")
            for number in range(3):
                await deferToThread(time.sleep, 0.05)
                self.assertEqual(await self.jobs.run(as_it_is, number), number)

    async def test_what_a_process_that_died_between_two_calls_has_started_ends_too(self) -> None:
        child = await self.jobs.run(child_that_waits)
        number = await self.jobs.run(process_number)
        os.kill(number, signal.SIGKILL)
        await self.until(lambda: has_ended(number))
        self.assertNotEqual(await self.jobs.run(process_number), number)
        await self.until(lambda: has_ended(child))

    async def test_at_the_end_a_call_that_another_ones_end_has_called_off_holds_up_nobody(self) -> None:
        first, second, third = (self.jobs.run(for_ever) for _ in range(3))
        first.addErrback(lambda _: second.cancel())
        await self.jobs.stop()
        await first
        await self.assertFailure(second, CancelledError)
        await self.assertFailure(third, AllHang)

    async def test_an_idle_process_is_ended(self) -> None:
        self.patch(sys.modules[JobProcesses.__module__], "IDLE_SECONDS", 0.05)
        number = await self.jobs.run(process_number)
        await self.until(lambda: has_ended(number))
        self.assertEqual(await self.jobs.run(length, b"1"), 1)

    async def test_a_call_ends_with_a_server_that_was_killed(self) -> None:
        server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, cwd=ROOT)
        with server:
            number = int(await deferToThread(server.stdout.readline))  # type: ignore[union-attr]
            self.assertFalse(has_ended(number))
            server.kill()
        await self.until(lambda: has_ended(number))

    async def test_while_the_kernel_lets_go_of_none_of_those_that_were_killed_no_more_are_begun(self) -> None:
        ended: list[int] = []
        stuck = SimpleNamespace(poll=lambda: ended[0] if ended else None)
        for number in range(ENDING_MOST):
            self.assertTrue(await self.jobs.run(process_number), number)
            self.jobs._ending.append(stuck)  # type: ignore[arg-type]
        await self.assertFailure(self.jobs.run(process_number), AllHang)
        self.jobs._look_soon()
        ended.append(-9)
        await self.until(lambda: self.jobs.hanging == 0)
        self.assertTrue(await self.jobs.run(process_number))

    async def test_where_the_server_does_not_come_to_it_the_kernel_ends_what_is_late(self) -> None:
        program, end = spawn("mailserver.processes.job_process", (str(MEMORY), ""))
        with end, program:
            frames.send(end, job_of(for_ever, (), 0.1 - ALARM_SECONDS))
            end.shutdown(socket.SHUT_WR)
            self.assertEqual(await deferToThread(program.wait), -signal.SIGALRM)

    async def test_at_the_end_every_process_is_killed_and_every_call_has_failed(self) -> None:
        number = await self.jobs.run(process_number)
        calls = [self.jobs.run(for_ever) for _ in range(3)]
        ended = self.jobs.stop()
        for call in calls:
            await self.assertFailure(call, AllHang)
        await ended
        self.assertTrue(has_ended(number))
        self.assertEqual(self.jobs.hanging, 0)
        await self.assertFailure(self.jobs.run(process_number), AllHang)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | any_octets(max_size=20),
    lambda some: st.lists(some) | st.tuples(some, some) | st.dictionaries(st.text() | st.integers(), some)
    | st.frozensets(st.text()) | st.sets(st.integers() | st.tuples(st.integers())),
    max_leaves=20,
)  # fmt: skip


class AnswerOctets(SynchronousTestCase):
    def test_an_answer_that_is_none_is_a_failure(self) -> None:
        whole = call_job(job_of(as_it_is, ([b"some", {"value": 1}],), 1.0))
        self.assertEqual(result_of(whole), ([b"some", {"value": 1}], [""]))
        wrong = ("null", "[]", '"returned"', '["raised"]', '["x",1,[]]', '["returned",{"tuple":1},[]]', '["returned",{"set":[[]]},[]]',
                 '["returned",{"os.system":"false"},[]]', '["returned",{},[]]', '["returned",{"bytes":1},[]]', "[" * 100_000)  # fmt: skip
        for answer in (b"", whole[:-1], whole[1:], b"\xff", *[one.encode() for one in wrong]):
            self.assertEqual(self.assertRaises(ProcessFailed, result_of, answer).how, "died")

    @given(any_octets(max_size=200))
    def test_any_octets_are_an_answer_or_a_failure(self, octets: bytes) -> None:
        with contextlib.suppress(ProcessFailed):
            result_of(octets)

    @given(plain)
    def test_any_plain_value_comes_back_as_it_is(self, value: Any) -> None:
        found, _ = result_of(call_job(job_of(as_it_is, (value,), 1.0)))
        self.assertEqual((found, repr(found) if not has_sets(value) else ""), (value, repr(value) if not has_sets(value) else ""))


def has_sets(value: Any) -> bool:
    """Whose order says nothing."""
    return "set" in repr(value) or "{" in repr(value)


print_nothing = lambda: None  # noqa: E731  # its name is another
