"""JSON as text: the same as the standard library's."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.json_text import json_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


class Text(SynchronousTestCase):
    @settings(max_examples=100, deadline=None)
    @given(VALUES)
    def test_it_is_what_the_standard_library_writes(self, value: Any) -> None:
        self.assertEqual(json_text()(value), json.dumps(value, separators=(",", ":")))

    def test_a_lone_surrogate_is_escaped_and_what_json_does_not_know_is_a_type_error(self) -> None:
        self.assertEqual(json_text()("\udc80"), '"\\udc80"')
        self.assertRaises(TypeError, json_text(), [b"octets"])

    def test_what_json_does_not_know_is_made_something_else_and_no_number_is_a_value_error(self) -> None:
        careful = json_text(allow_nan=False, default=repr)
        self.assertEqual(careful([b"octets", 1.5]), '["b\'octets\'",1.5]')
        for number in (float("nan"), float("inf")):
            self.assertRaises(ValueError, careful, [number])
