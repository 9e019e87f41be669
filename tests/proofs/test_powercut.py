"""A short piece of the proof of power cuts; `make proof P=powercut` is the long one."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.proofs import __main__ as proofs
from tests.proofs import powercut
from tests.proofs.__main__ import State
from tests.proofs.clients import Sent
from tests.proofs.letters import Found, letter, look
from tests.proofs.powercut import missing
from tests.requires import require_tool

CUTS = 4


class Short(SynchronousTestCase):
    def test_the_power_goes_and_what_was_acknowledged_is_delivered_whole(self) -> None:
        require_tool("strace")
        result = powercut.prove("short", 1, CUTS)
        self.assertEqual(result.wrong, [])
        self.assertEqual((result.cuts, result.lost, result.torn), (CUTS, 0, 0))
        self.assertGreater(result.acknowledged, 10)


class Looking(SynchronousTestCase):
    """The proof sees what it has to see."""

    def look(self, **files: bytes) -> Found:
        box = Path(self.mktemp()).resolve()
        (box / "new").mkdir(parents=True)
        for name, data in files.items():
            (box / "new" / name).write_bytes(data)
        return look({"alice": box})

    def test_a_whole_letter_is_found_with_either_line_ends_and_more_fields(self) -> None:
        data = b"Received: x\r\n" + letter("7", 3000) + b"\r\n"
        found = self.look(a=data, b=data.replace(b"\r\n", b"\n"))
        self.assertEqual((found.letters["7", "alice"], found.torn), (2, []))

    def test_a_letter_that_is_not_whole_is_torn(self) -> None:
        data = letter("7", 3000)
        found = self.look(a=data[:-40], b=b"", c=data.replace(b"7...", b"\0\0\0\0", 1), d=data[:20])
        self.assertEqual((len(found.torn), found.letters.total()), (4, 0))

    def test_what_is_due_and_not_there_is_missing(self) -> None:
        found = self.look(a=letter("7", 300))
        due = [Sent("7", ("alice", "bob")), Sent("8", ("alice",)), Sent("9", (), report=True), Sent("10", (), waits="bob")]
        self.assertEqual(missing(due, found), ["7 for bob", "8 for alice", "10 for bob", "the report of 9"])
        self.assertEqual(missing(due, found, owes_reports=True)[-1], "the report of 10")


class Findings(SynchronousTestCase):
    def test_the_end_of_what_is_printed_has_a_line_for_each_however_long_their_logs_are(self) -> None:
        def found(state: State, *_: object) -> None:
            state.add({"cuts": 2}, [f"mail, seed 7, cut {cut} at 99: not idle: X\n{'log ' * 9000}" for cut in (1, 2)])

        self.patch(proofs, "PROOFS", {"powercut": found})
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            self.assertEqual(proofs.main(["powercut", "--state", self.mktemp()]), 1)
        self.assertEqual(
            said.getvalue().splitlines()[-3:-1], [f"FOUND: mail, seed 7, cut {cut} at 99: not idle: X" for cut in (1, 2)]
        )
