"""What `mailserver plugins` says of the components of the running server."""

from __future__ import annotations

import io
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.running_components import show_running, troubles_of

WELL: dict[str, Any] = {
    "circuits": {"content": {"circuit": "closed", "failures": 0, "words": ""}},
    "threads": {"hanging": 0},
    "blocks": {"count": 0, "longest_seconds": 0.0},
}


class Troubles(SynchronousTestCase):
    def test_one_that_does_well_has_none(self) -> None:
        self.assertEqual(troubles_of(WELL), [])
        well = {"observer": {"lost": 0, "failures": 0}, "periodic": {"runs": 3, "failures": 0, "last_error": "before"}}
        self.assertEqual(troubles_of(WELL | well), [])
        self.assertEqual(troubles_of(WELL | {"observer": None, "periodic": None}), [])

    def test_each_kind_is_told_in_words(self) -> None:
        found = troubles_of(
            {
                "circuits": {
                    "peer": {"circuit": "closed", "failures": 2, "words": ""},
                    "content": {"circuit": "open", "failures": 9, "words": "asked again in 30 s"},
                },
                "threads": {"hanging": 1},
                "calls_hanging": 2,
                "observer": {"lost": 4, "failures": 5},
                "periodic": {"runs": 7, "failures": 6, "last_error": "OSError: no"},
                "blocks": {"count": 8, "longest_seconds": 1.5},
            }
        )
        self.assertEqual(
            found,
            [
                "peer: 2 failures", "circuit content: asked again in 30 s (9 failures)", "1 thread(s) hang",
                "2 call(s) run on after their deadline",
                "4 steps were lost to it", "failed at 5 steps", "6 of 7 periodic runs failed, the last time: OSError: no",
                "held the reactor 8 time(s), for up to 1.5 s",
            ],
        )  # fmt: skip
        periodic = {"runs": 2, "failures": 1, "last_error": ""}
        self.assertEqual(troubles_of(WELL | {"periodic": periodic}), ["1 of 2 periodic runs failed"])

    def test_code_on_the_disk_that_does_not_run_is_told(self) -> None:
        one = WELL | {"kind": "filter", "name": "some", "metrics": {}}
        self.patch(sys, "stdout", said := io.StringIO())
        show_running({"components": [one], "newer_code": {"filter some": ["/site/some.py"]}})
        self.assertIn("The code of filter some on the disk is not what runs: restart the server (/site/some.py)", said.getvalue())
