"""A process that has imported what the tests need of others, and forks a child for each run of tests.

    python -bb -W error -m tests.proofs.brood       orders in, what became of them out: lines of JSON

A child has none of our modules yet, so one of them can be another: a mutant.  What a child has started ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = ("mailserver", "tests")
PR_SET_CHILD_SUBREAPER = 36
SECONDS_LEAST, TIMES_MOST = 10.0, 8.0  # what one test may take, by what it took
SECONDS_RECORD, SECONDS_IMPORT = 240.0, 60.0


class Brood:
    """The other end: orders are given, one at a time."""

    def __init__(self, warm: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-bb", *(f"-W{one}" for one in sys.warnoptions), "-m", "tests.proofs.brood"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._order({"warm": warm})

    def record(self, name: str) -> dict[str, Any]:
        """What each test of a module executes: ``{id: {"seconds": …, "lines": {file: [line, …]}}}``."""
        return self._order({"record": name})["tests"]

    def killer(self, module: str, number: int, tests: list[tuple[str, float]]) -> str | None:
        """The first of the tests, in their order, that fails with that mutant; None where all pass."""
        return self._order({"module": module, "number": number, "tests": tests})["killer"]  # KeyError: our own fault, and no test's

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def forget_ours() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in OURS:
            del sys.modules[name]


def same_examples() -> None:
    """Each mutant is met by the same examples of hypothesis, and none of them is kept."""
    from hypothesis import settings

    import tests

    settings.register_profile(tests.__name__, settings(), derandomize=True, database=None)
    settings.load_profile(tests.__name__)


def others(names: list[str]) -> dict[str, Any]:
    """What the import of test modules imports besides; for a child, which ends with it."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    return {"others": [name for name in sys.modules if is_for_all(name)]}


def is_for_all(name: str) -> bool:
    """A reactor has descriptors, which children must not share."""
    return name.partition(".")[0] not in OURS and "reactor" not in name and not name.startswith("twisted.plugins")


def run_tests(names: list[str], before: Callable[[str], None], after: Callable[[str, bool], bool]) -> None:
    """Trial's run; ``after`` is told a test's id and whether it has passed, and says whether to go on."""
    from twisted.trial import itrial, reporter, runner, unittest
    from zope.interface import implementer

    class Telling(reporter.Reporter):
        def __init__(self, *_: object) -> None:
            super().__init__(io.StringIO(), realtime=True)
            self.seen = 0

        def startTest(self, test: Any) -> None:
            super().startTest(test)
            before(test.id())

        def stopTest(self, test: Any) -> None:
            super().stopTest(test)
            bad = len(self.failures) + len(self.errors)
            passed, self.seen = bad == self.seen, bad
            if not after(test.id(), passed):
                self.shouldStop = True

        def done(self) -> None:
            pass

    @implementer(itrial.ITestCase)
    class All:
        failureException = AssertionError

        def run(self, result: Telling) -> None:
            loader = runner.TestLoader()
            for name in names:
                unittest.decorate(loader.loadByName(name, recurse=True), itrial.ITestCase).run(result)
                if result.shouldStop:
                    return

        __call__ = run

        def id(self) -> str:
            return "tests.proofs.brood"

        shortDescription = id

    runner.TrialRunner(Telling, workingDirectory=f"{tempfile.gettempdir()}/trial").run(All())


def killer(module: str, number: int, tests: list[tuple[str, float]], tell: Callable[[dict[str, Any]], None]) -> None:
    """Each test is told before it starts, so that the one with which a mutant comes to no end is known."""
    from tests.proofs.mutants import put_in_place

    forget_ours()
    same_examples()
    folder = Path(tempfile.gettempdir()) / "mutant"
    folder.mkdir()
    put_in_place(module, number, folder)

    def before(name: str) -> None:
        tell({"killer": name})
        taken = max((most for one, most in tests if name == one or name.startswith(f"{one}.")), default=1.0)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_LEAST + TIMES_MOST * taken)  # its end is the child's

    def after(name: str, passed: bool) -> bool:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not passed:
            os._exit(0)  # a reactor need not come to an end
        return True

    signal.alarm(int(SECONDS_IMPORT))
    tell({"killer": "an import"})
    run_tests([name for name, _ in tests], before, after)
    tell({"killer": None})


def record(name: str, tell: Callable[[dict[str, Any]], None]) -> None:
    import coverage

    same_examples()
    signal.alarm(int(SECONDS_RECORD))
    watch = coverage.Coverage(data_file=None, config_file=False, include=[f"{ROOT}/mailserver/*"], messages=False)
    watch.start()
    taken: dict[str, float] = {}

    def before(test: str) -> None:
        watch.switch_context(test)
        taken[test] = -time.monotonic()

    def after(test: str, passed: bool) -> bool:
        watch.switch_context("")
        taken[test] += time.monotonic()
        if not passed:
            del taken[test]
        return True

    run_tests([name], before, after)
    watch.stop()
    found: dict[str, Any] = {test: {"seconds": round(seconds, 4), "lines": {}} for test, seconds in taken.items()}
    data = watch.get_data()
    for path in data.measured_files():
        short = str(Path(path).relative_to(ROOT / "mailserver"))
        for line, tests in data.contexts_by_lineno(path).items():
            for test in tests:
                if test in found:
                    found[test]["lines"].setdefault(short, []).append(line)
    tell({"tests": found})


def in_child(work: Callable[[Callable[[dict[str, Any]], None]], object], otherwise: dict[str, Any]) -> dict[str, Any]:
    """The last that the work has told, when its process has ended."""
    folder = tempfile.mkdtemp(prefix="b", dir="/tmp")
    os.chmod(folder, 0o755)  # for those that run as somebody else
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()  # a mutant may kill its whole process group
        os.close(read)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            work(lambda what: os.write(write, json.dumps(what).encode() + b"\n") and None)
        finally:
            os._exit(0)
    os.close(write)
    lines = told_until_its_end(child, read).splitlines()
    os.waitpid(child, 0)
    end_all_below()
    shutil.rmtree(folder, ignore_errors=True)
    return json.loads(lines[-1]) if lines else otherwise


def told_until_its_end(child: int, read: int) -> bytes:
    """Not until the other end is closed: what a test forks has it too, and may have been stopped."""
    told, ended = bytearray(), os.pidfd_open(child)
    with open(read, "rb", 0) as file, open(ended, "rb", 0):
        while True:
            ready, _, _ = select.select([read, ended], [], [])
            if read not in ready:
                return bytes(told)
            piece = file.read(1 << 16)
            if not piece:
                return bytes(told)
            told += piece


def end_all_below() -> None:
    """Whatever the child has left is ours now."""
    while below := Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        for one in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(one), signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(one), 0)


def obey(order: dict[str, Any]) -> dict[str, Any]:
    match order:
        case {"warm": names}:
            for name in in_child(lambda tell: tell(others(names)), {"others": []})["others"]:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
            return {}
        case {"record": name}:
            return in_child(lambda tell: record(name, tell), {"tests": {}})
        case {"module": module, "number": number, "tests": tests}:
            return in_child(lambda tell: killer(module, number, tests, tell), {})
    raise ValueError(order)


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP):  # who is started with `&` or nohup ignores them, and so would all that the tests start
        signal.signal(number, signal.SIG_DFL)
    out = os.dup(1)
    os.set_inheritable(out, False)
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        os.write(out, json.dumps(obey(json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    main()
