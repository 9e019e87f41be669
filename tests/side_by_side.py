"""The suite in several processes side by side, each as strict as a single run.

    python -bb -X faulthandler -W error -m tests.side_by_side [--jobs N] [--record] NAME…

The names are those of trial.  A package is divided into its modules; those that took longest come first, and whichever process is idle
takes the next.  The processes are started with the interpreter's own options.  The exit status is 0 where every module had tests and
none failed.  A module in which no test ends for `QUIET_SECONDS` is given up: its process says where it stands and is killed.

Durations stand in tests/durations.tsv; ``--record`` writes them anew.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DURATIONS = ROOT / "tests" / "durations.tsv"
QUIET_SECONDS = float(os.environ.get("TEST_QUIET_SECONDS", "240"))
END_SECONDS = 60.0  # for the reactor's shutdown after the last module
GRACE_SECONDS = 10.0  # for a stack trace
OUTPUT_SHOWN = 20_000  # octets of what a module printed
COUNTS = ("skips", "expectedFailures", "failures", "errors", "unexpectedSuccesses", "successes")  # in trial's order
RULE = "=" * 79


def modules(names: Iterable[str]) -> list[str]:
    """What the names stand for: packages divided into test modules, each once; a class or a method stays what it is."""
    found: dict[str, None] = {}
    for name in names:
        folder = ROOT / name.replace(".", "/")
        if folder.is_dir():
            paths = sorted(folder.rglob("test_*.py"))
            found.update((".".join(path.relative_to(ROOT).with_suffix("").parts), None) for path in paths)
            if not paths:
                found[name] = None  # it will be told that it has no tests
        else:
            found[name] = None
    return list(found)


def durations() -> dict[str, float]:
    """Seconds by module, as recorded."""
    lines = DURATIONS.read_text().splitlines() if DURATIONS.exists() else []
    return {name: float(seconds) for seconds, name in (line.split("\t") for line in lines)}


def longest_first(names: list[str]) -> list[str]:
    """Those that nobody has timed are put by the length of their text."""
    known = durations()

    def guess(name: str) -> float:
        path = ROOT / (name.replace(".", "/") + ".py")
        return known.get(name, path.stat().st_size / 50_000 if path.exists() else 0.0)

    return sorted(names, key=guess, reverse=True)


def compile_sources() -> None:
    """Lay down the bytecode of all, once: where PYTHONDONTWRITEBYTECODE is set each process that a test starts would compile it again."""
    for folder in ("mailserver", "twisted", "tests", "bench"):
        compileall.compile_dir(ROOT / folder, quiet=2)


class Worker:
    """A process of `tests.worker` and what it is at."""

    def __init__(self, number: int, output: Path) -> None:
        ours, theirs = socket.socketpair()
        self.number = number
        self.output = output
        self.connection = ours
        self.module = ""
        self.test = ""
        self.began = self.heard = self.test_began = time.monotonic()
        self.done = False  # it has told its last
        self._buffer = b""
        self._shown = 0
        with theirs, output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *interpreter_options(), "-m", "tests.worker", str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def give(self, name: str) -> None:
        self.module, self.test = name, ""
        self.began = self.heard = time.monotonic()
        with contextlib.suppress(OSError):  # dead: seen when the connection is read
            self.connection.sendall(f"{name}\n".encode())

    def no_more(self) -> None:
        self.module = self.test = ""
        self.began = self.heard = time.monotonic()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def events(self) -> list[dict[str, Any]] | None:
        """What it has told; None at the end."""
        try:
            piece = self.connection.recv(1 << 20)
        except OSError:
            piece = b""
        if not piece:
            return None
        self.heard = time.monotonic()
        *lines, self._buffer = (self._buffer + piece).split(b"\n")
        return [json.loads(line) for line in lines]

    def printed(self) -> str:
        """What it has printed since this was asked the last time."""
        with self.output.open("rb") as file:
            file.seek(self._shown)
            data = file.read()
        self._shown += len(data)
        return data[-OUTPUT_SHOWN:].decode(errors="replace")

    def abort(self) -> None:
        """Let it say where it stands (faulthandler), then end it and what it has started."""
        self.process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_SECONDS)
        self.end()

    def end(self) -> None:
        """Whatever is left of it and of its group."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()


def interpreter_options() -> list[str]:
    """-bb, -W and -X of this process; what the Makefile has given once holds for all."""
    options = ["-" + "b" * sys.flags.bytes_warning] if sys.flags.bytes_warning else []
    for warning in sys.warnoptions:
        options += ["-W", warning]
    for key, value in sys._xoptions.items():
        options += ["-X", key if value is True else f"{key}={value}"]
    return options


class Run:
    """The queue of modules, the workers, and the sums."""

    def __init__(self, names: list[str], jobs: int, folder: Path) -> None:
        self.waiting = longest_first(names)
        self.jobs = max(1, min(jobs, len(names)))
        self.folder = folder
        self.sums: Counter[str] = Counter()
        self.failed: list[str] = []
        self.seconds: dict[str, float] = {}  # by module
        self.tests: dict[str, float] = {}  # seconds by test
        self.workers: dict[int, Worker] = {}
        self.started = 0
        self.selector = selectors.DefaultSelector()

    def go(self) -> None:
        try:
            for _ in range(self.jobs):
                self.start_worker()
            while self.workers:
                for key, _ in self.selector.select(1.0):
                    self.listen(key.data)
                for worker in list(self.workers.values()):
                    if time.monotonic() - worker.heard > (QUIET_SECONDS if worker.module else END_SECONDS):
                        self.hung(worker)
        finally:
            for worker in self.workers.values():
                worker.end()

    def start_worker(self) -> None:
        self.started += 1
        worker = Worker(self.started, self.folder / str(self.started))
        self.workers[self.started] = worker
        self.selector.register(worker.connection, selectors.EVENT_READ, worker)
        self.next_module(worker)

    def next_module(self, worker: Worker) -> None:
        if self.waiting:
            worker.give(self.waiting.pop(0))
        else:
            worker.no_more()

    def listen(self, worker: Worker) -> None:
        events = worker.events()
        if events is None:
            self.gone(worker)
            return
        for event in events:
            self.time_test(worker)
            if "test" in event:
                worker.test = event["test"]
            elif event["ended"]:
                self.ended(worker, event)
                self.next_module(worker)
            else:
                worker.done = True
                self.add(worker, event, "after the last test")

    def time_test(self, worker: Worker) -> None:
        now = time.monotonic()
        if worker.test:
            self.tests[worker.test] = now - worker.test_began
        worker.test, worker.test_began = "", now

    def ended(self, worker: Worker, event: dict[str, Any]) -> None:
        seconds = self.seconds[worker.module] = time.monotonic() - worker.began
        tests = event["counts"]["tests"]
        print(
            f"{worker.module:<50} {tests:>4} tests {seconds:7.1f} s{'   FAILED' if event['failed'] else ''}", flush=True
        )
        if sum(event["counts"][kind] for kind in COUNTS) == 0:
            self.broken(worker.module, "has no tests")
        self.add(worker, event, worker.module)

    def add(self, worker: Worker, event: dict[str, Any], name: str) -> None:
        self.sums.update(event["counts"])
        self.failed += event["failed"]
        text = event["text"]
        if printed := worker.printed().strip():
            print(f"{name} printed:\n{printed}", flush=True)
        if event["failed"]:
            print(f"{RULE}\n{chr(10).join(event['failed'])}\n\n{text}", flush=True)
        elif text:
            print(text, flush=True)

    def broken(self, name: str, why: str) -> None:
        """A module of which trial itself cannot tell."""
        self.sums["errors"] += 1
        self.failed.append(f"{name} {why}")
        print(f"{RULE}\n{name} {why}\n", flush=True)

    def gone(self, worker: Worker) -> None:
        """Its connection has ended: at the end of its work, or before."""
        try:
            status = worker.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        self.drop(worker)
        if not worker.done or status != 0:
            what = worker.module or "the end of a worker"
            at = f" in {worker.test}" if worker.test else ""
            self.broken(what, f"ended the process that ran it (status {status}){at}\n{worker.printed()}")
        self.replace()

    def hung(self, worker: Worker) -> None:
        worker.abort()
        self.drop(worker)
        seconds = QUIET_SECONDS if worker.module else END_SECONDS
        self.broken(
            worker.module or "the end of a worker",
            f"hung: {worker.test or 'its import'} has not ended for {seconds:g} s\n{worker.printed()}",
        )
        self.replace()

    def drop(self, worker: Worker) -> None:
        self.selector.unregister(worker.connection)
        del self.workers[worker.number]
        worker.end()

    def replace(self) -> None:
        if self.waiting and len(self.workers) < self.jobs:
            self.start_worker()

    def report(self, seconds: float) -> None:
        """As trial closes."""
        if self.failed:
            print(RULE)
            for name in self.failed:
                print(f"failed: {name.splitlines()[0]}")
        if self.sums["tests"] > 50 or seconds > 60:
            print("\nThe slowest tests:")
            for name, took in sorted(self.tests.items(), key=lambda item: -item[1])[:15]:
                print(f"{took:7.1f} s  {name.removeprefix('tests.')}")
        print("-" * 79)
        print(f"Ran {self.sums['tests']} tests in {seconds:.3f}s, {self.jobs} side by side\n")
        counts = ", ".join(f"{kind}={self.sums[kind]}" for kind in COUNTS if self.sums[kind])
        print(f"{'FAILED' if self.failed else 'PASSED'} ({counts})", flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.side_by_side")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="write tests/durations.tsv")
    parser.add_argument("names", nargs="+")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    compile_sources()
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
        run = Run(modules(options.names), options.jobs, Path(folder))
        run.go()
    if options.record:
        known = {name: seconds for name, seconds in {**durations(), **run.seconds}.items() if seconds >= 1}
        ordered = sorted(known.items(), key=lambda item: (-item[1], item[0]))
        DURATIONS.write_text("".join(f"{seconds:.0f}\t{name}\n" for name, seconds in ordered))
    run.report(time.monotonic() - began)
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
