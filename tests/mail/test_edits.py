"""The edits that a modifier may ask for: checked when they are made, and what each makes of a header section."""

from __future__ import annotations

import tempfile
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.mail.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DropHeader,
    EditError,
    InsertHeader,
    PutAside,
    ReplaceBody,
    ReplaceRecipient,
    apply_edits,
    checked_edit,
    in_words,
)

ALICE, BOB = Address("alice", "example.org"), Address("bob", "example.org")
MESSAGE = b"A: 1\r\nB: 2\r\n folded\r\nA: 3\r\n\r\nbody\r\n"


class Checked(SynchronousTestCase):
    def test_each_is_checked_when_it_is_made(self) -> None:
        wrong: list[tuple[Any, ...]] = [
            (AddHeader, "A", None), (AddHeader, None, "x"), (AddHeader, "A", "a\r\nB: c"), (AddHeader, "A", b"x"),
            (InsertHeader, -1, "A", "x"), (InsertHeader, True, "A", "x"), (InsertHeader, "0", "A", "x"), (InsertHeader, 0, "A:", "x"),
            (ChangeHeader, "A", 1.0, "x"), (ChangeHeader, "A", 0, "a\nb"), (ChangeHeader, "A b", 0, None), (DropHeader, ""),
            (ReplaceBody, "text"), (ReplaceBody, None), (ReplaceBody, b"x", "/etc/motd"), (ReplaceBody, b"", None), (ReplaceBody, 5),
            (ChangeSender, "a@b"), (ReplaceRecipient, ALICE, None), (ReplaceRecipient, ALICE, [BOB]), (ReplaceRecipient, "a@b", ()),
            (ReplaceRecipient, ALICE, ("bob@example.org",)), (AddRecipient, "a@b"), (AddRecipient, ALICE, {}), (AddRecipient, None),
            (PutAside, None), (PutAside, b"x"), (PutAside, "a\r\nb"), (PutAside, "x" * 1001),
        ]  # fmt: skip
        for kind, *arguments in wrong:
            with self.assertRaises(EditError, msg=repr((kind, arguments))):
                kind(*arguments)

    def test_a_derived_class_that_checks_nothing_is_checked_when_it_is_read(self) -> None:
        class Unchecked(AddHeader):
            def __post_init__(self) -> None:
                pass

        with self.assertRaises(EditError):
            checked_edit(Unchecked("A", "a\r\nBcc: x"))
        self.assertEqual(checked_edit(Unchecked("A", "b")), AddHeader("A", "b"))

    def test_in_words_each_fits_on_a_line(self) -> None:
        for edit, words in (
            (AddHeader("A", "x\r\n y"), "AddHeader A: x y"),
            (InsertHeader(2, "A", "x"), "InsertHeader A at 2: x"),
            (AddRecipient(BOB), "AddRecipient bob@example.org"),
            (PutAside("odd"), "PutAside odd"),
            (ChangeHeader("A", -1, "x"), "ChangeHeader A -1: x"),
            (ChangeHeader("A", 0, None), "ChangeHeader A 0 removed"),
            (DropHeader("A"), "DropHeader A"),
            (ReplaceBody(b"secret"), "ReplaceBody"),
            (ChangeSender(None), "ChangeSender <>"),
            (ReplaceRecipient(ALICE, (BOB,)), "ReplaceRecipient alice@example.org by bob@example.org"),
            (ReplaceRecipient(ALICE, ()), "ReplaceRecipient alice@example.org by nobody"),
        ):
            self.assertEqual(in_words(edit), words)
        self.assertLessEqual(len(in_words(AddHeader("A", "\r\n ".join(["x" * 900] * 100)))), 200)


class HeaderSections(SynchronousTestCase):
    def both(self, data: bytes) -> list[Content]:
        """In memory, and in a file with the first field in front."""
        file = tempfile.NamedTemporaryFile(dir=self.mktemp_dir())
        self.addCleanup(file.close)
        file.write(data)
        file.flush()
        return [Content.of(data), Content.at(file.name, len(data))]

    def mktemp_dir(self) -> str:
        import os

        path = self.mktemp()
        os.makedirs(path)
        return path

    def assertEdited(self, expected: bytes, *edits: Any, data: bytes = MESSAGE) -> None:
        for content in self.both(data):
            self.assertEqual(b"".join(apply_edits(content, edits).chunks()), expected)

    def test_each_sees_what_those_before_it_have_made(self) -> None:
        self.assertEdited(
            b"C: new\r\nB: 2\r\n folded\r\n\r\nbody\r\n",
            AddHeader("A", "0"), ChangeHeader("A", 0, "new"), AddHeader("C", "old"), DropHeader("A"), ChangeHeader("c", 0, "x"),
            ChangeHeader("C", -1, None), AddHeader("C", "new"),
        )  # fmt: skip

    def test_a_field_is_inserted_before_the_one_at_the_place_or_becomes_the_last(self) -> None:
        self.assertEdited(b"A: 1\r\nX: y\r\nB: 2\r\n folded\r\nA: 3\r\n\r\nbody\r\n", InsertHeader(1, "X", "y"))
        self.assertEdited(b"X: y\r\n" + MESSAGE, InsertHeader(0, "X", "y"))
        self.assertEdited(b"A: 1\r\nB: 2\r\n folded\r\nA: 3\r\nX: y\r\n\r\nbody\r\n", InsertHeader(99, "X", "y"))

    def test_the_field_of_the_index_is_changed_or_removed(self) -> None:
        self.assertEdited(b"A: 1\r\nB: 2\r\n folded\r\nA: 9\r\n\r\nbody\r\n", ChangeHeader("A", 1, "9"))
        self.assertEdited(b"A: 1\r\nB: 2\r\n folded\r\n\r\nbody\r\n", ChangeHeader("A", -1, None))
        self.assertEdited(b"A: 1\r\nB: x\r\nA: 3\r\n\r\nbody\r\n", ChangeHeader("B", 0, "x"))

    def test_a_field_that_is_not_there_cannot_be_changed(self) -> None:
        for edit in (ChangeHeader("A", 2, "x"), ChangeHeader("A", -3, None), ChangeHeader("C", 0, "x")):
            for content in self.both(MESSAGE):
                with self.assertRaisesRegex(EditError, "there is no field"):
                    apply_edits(content, [edit])

    def test_a_message_of_fields_only_and_one_of_a_body_only_can_be_edited(self) -> None:
        self.assertEdited(b"A: 2\r\n", ChangeHeader("A", 0, "2"), data=b"A: 1\r\n")
        self.assertEdited(b"X: y\r\n\r\nbody\r\n", InsertHeader(3, "X", "y"), data=b"\r\nbody\r\n")

    @given(
        st.lists(
            st.one_of(
                st.builds(AddHeader, st.sampled_from("ABC"), st.just("n")),
                st.builds(InsertHeader, st.integers(0, 5), st.sampled_from("ABC"), st.just("n")),
                st.builds(DropHeader, st.sampled_from("ABC")),
                st.builds(ChangeHeader, st.sampled_from("ABC"), st.integers(-1, 1), st.sampled_from(["n", None])),
            ),
            max_size=5,
        )
    )
    def test_all_at_once_is_one_after_the_other_and_the_body_stays(self, edits: list[Any]) -> None:
        one = content = Content.of(MESSAGE)
        try:
            for edit in edits:
                one = apply_edits(one, [edit])
        except EditError:
            with self.assertRaises(EditError):
                apply_edits(content, edits)
            return
        whole = b"".join(apply_edits(content, edits).chunks())
        self.assertEqual(whole, b"".join(one.chunks()))
        self.assertTrue(whole.endswith(b"\r\nbody\r\n"))
