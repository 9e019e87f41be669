"""One process of `tests.side_by_side`: it runs what it is told and tells what became of it.

    python -bb -X faulthandler -W error -m tests.worker DESCRIPTOR

The descriptor is a stream socket.  In come names, one a line, as trial takes them; out go lines of JSON: ``{"test": id}`` before each
test, ``{"ended": name, …}`` after each name, and once more with the name "" for what comes to light at the end.  It is one run of
trial from the first name to the last: one reactor, one log, one of the folders that trial finds free (_trial_temp, _trial_temp-1, …).
"""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from typing import Any, TextIO

from twisted.trial import itrial, reporter, runner, unittest
from zope.interface import implementer


class Telling(reporter.Reporter):
    """Trial's counts; the texts of what failed are collected instead of printed."""

    tell: Any = None  # set before the first test

    def __init__(self, *_: object) -> None:
        super().__init__(io.StringIO(), realtime=True)
        self.failed: list[str] = []
        self._told = self.counts()

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.tell(test=test.id())

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)
        self.failed.append(test.id())

    def addFailure(self, test: Any, fail: Any) -> None:
        super().addFailure(test, fail)
        self.failed.append(test.id())

    def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
        super().addUnexpectedSuccess(test, todo)
        self.failed.append(f"{test.id()} (unexpected success)")

    def counts(self) -> dict[str, int]:
        return {
            "tests": self.testsRun,
            "successes": self.successes,
            "failures": len(self.failures),
            "errors": len(self.errors),
            "skips": len(self.skips),
            "expectedFailures": len(self.expectedFailures),
            "unexpectedSuccesses": len(self.unexpectedSuccesses),
        }

    def since(self) -> dict[str, Any]:
        """What has happened since this was asked the last time."""
        counts, text, failed = self.counts(), self._stream.original.getvalue(), self.failed
        new = {key: value - self._told[key] for key, value in counts.items()}
        self._told, self._stream.original, self.failed = counts, io.StringIO(), []
        return {"counts": new, "failed": failed, "text": text}

    def done(self) -> None:
        """The sums are the parent's to print."""


@implementer(itrial.ITestCase)
class Queue:
    """To trial it is a single test; its run lasts as long as names come in."""

    failureException = AssertionError

    def __init__(self, names: TextIO, tell: Any) -> None:
        self._names = names
        self._tell = tell
        self._loader = runner.TestLoader()
        self._loader.suiteFactory = runner.DestructiveTestSuite  # what has run is freed

    def run(self, result: Telling) -> None:
        result.tell = self._tell
        folder = os.getcwd()
        for line in self._names:
            os.chdir(folder)  # a test may have gone elsewhere, as programs do that it has run in this process
            name = line.rstrip("\n")
            unittest.decorate(self._loader.loadByName(name, recurse=True), itrial.ITestCase).run(result)
            self._tell(ended=name, **result.since())

    __call__ = run

    def id(self) -> str:
        return "tests.worker"

    def shortDescription(self) -> str:
        return "tests.worker"


def main(descriptor: str) -> None:
    with socket.socket(fileno=int(descriptor)) as connection:
        connection.set_inheritable(False)  # what the tests start does not hold it open

        def tell(**what: Any) -> None:
            connection.sendall(json.dumps(what).encode() + b"\n")

        with connection.makefile(encoding="utf-8") as names:
            result = runner.TrialRunner(Telling).run(Queue(names, tell))
            tell(ended="", **result.since())


if __name__ == "__main__":
    main(*sys.argv[1:])
