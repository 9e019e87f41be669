"""What the start leaves of the host's memory."""

from __future__ import annotations

import ctypes
import gc
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.host import settle_memory


class Memory(SynchronousTestCase):
    def settle(self, library: Any) -> None:
        with (
            mock.patch.multiple(gc, collect=mock.DEFAULT, freeze=mock.DEFAULT, set_threshold=mock.DEFAULT),
            mock.patch.object(ctypes, "CDLL", return_value=library),
        ):
            settle_memory()

    def test_what_the_start_has_needed_goes_back_where_the_library_can_do_that(self) -> None:
        given_back: list[int] = []
        self.settle(SimpleNamespace(malloc_trim=given_back.append))
        self.assertEqual(given_back, [0])
        self.settle(SimpleNamespace())
