"""What filters note on a connection."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.filter_notes import NOTES_MOST, FilterNotes


class Notes(SynchronousTestCase):
    def test_each_filter_has_its_own_and_a_key_has_its_last_value(self) -> None:
        notes = FilterNotes()
        self.assertEqual((len(notes), list(notes), notes.get("one")), (0, [], None))
        notes.keep("one", {"a": 1})
        notes.keep("two", {"a": 2})
        notes.keep("one", {"a": 3, "b": 4})
        self.assertEqual({name: dict(of) for name, of in notes.items()}, {"one": {"a": 3, "b": 4}, "two": {"a": 2}})

    def test_readers_cannot_write(self) -> None:
        notes: Any = FilterNotes()
        notes.keep("one", {"a": 1})
        with self.assertRaises(TypeError):
            notes["one"]["a"] = 2
        with self.assertRaises(TypeError):
            notes["two"] = {}

    def test_too_many_are_refused_and_what_was_there_stays(self) -> None:
        notes = FilterNotes()
        notes.keep("one", {"a": 1})
        with self.assertRaises(ValueError):
            notes.keep("one", {str(n): n for n in range(NOTES_MOST)})
        self.assertEqual(dict(notes["one"]), {"a": 1})
