"""What holds until a moment, by a clock that is set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.until import still_holds


class StillHolds(SynchronousTestCase):
    def test_until_the_moment_and_not_beyond(self) -> None:
        self.assertEqual([still_holds(100.0, now, 10.0) for now in (90.0, 99.0, 100.0, 101.0)], [True, True, False, False])

    @given(now=st.floats(0, 4e9), by=st.floats(61, 4e9), most=st.floats(0.1, 60))
    def test_after_the_clock_was_set_back_it_holds_no_longer_than_it_would_have(self, now: float, by: float, most: float) -> None:
        self.assertFalse(still_holds(now + by + most, now, most))
