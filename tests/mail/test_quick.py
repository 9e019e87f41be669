"""Frozen values that are made quickly are the values that `dataclass` would have made."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Recipient
from mailserver.mail.parcel import Destination, Parcel
from mailserver.mail.quick import quick
from mailserver.mail.reply import Reply
from mailserver.receive.copies import Copies
from mailserver.smtp.events import Chunk, EndOfData, Mail, Rcpt

QUICK = (
    Address, Chunk, Content, Copies, Destination, EndOfData, Envelope, Local, Mail, MailParameters, Parcel, Rcpt, Recipient,
    Remote,
)  # fmt: skip
ADDRESS = Address("alice", "example.org")


@dataclass(frozen=True, slots=True)
class Plain:
    name: str
    size: int = 3
    again: bool = field(default=False, compare=False, repr=False)
    made: str = field(default="x", init=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("no name")


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    name: str
    size: int = 3
    again: bool = field(default=False, compare=False, repr=False)
    made: str = field(default="x", init=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("no name")


@quick
@dataclass(frozen=True, slots=True)
class Derived(Quick):
    more: int = 1


def values(one: Any) -> list[object]:
    return [getattr(one, each.name) for each in fields(one)]


class QuickValues(SynchronousTestCase):
    """Beside a class that is the same but for `quick`."""

    def test_the_same_arguments_give_the_same_fields(self) -> None:
        for arguments, named in ((("a",), {}), (("a", 4), {}), (("a",), {"again": True}), ((), {"size": 1, "name": "b"})):
            self.assertEqual(values(Quick(*arguments, **named)), values(Plain(*arguments, **named)))

    def test_wrong_arguments_are_a_type_error(self) -> None:
        for arguments, named in (((), {}), (("a", 1, True, "y"), {}), (("a",), {"made": "y"}), (("a",), {"other": 1})):
            for kind in (Quick, Plain):
                with self.assertRaises(TypeError):
                    kind(*arguments, **named)

    def test_no_field_can_be_assigned_or_deleted(self) -> None:
        one: Any = Quick("a")
        with self.assertRaises(FrozenInstanceError):
            one.name = "b"
        with self.assertRaises(FrozenInstanceError):
            del one.name
        self.assertEqual(one.name, "a")

    def test_what_the_class_checks_is_checked(self) -> None:
        with self.assertRaises(ValueError):
            Quick("")
        with self.assertRaises(ValueError):
            replace(Quick("a"), name="")
        with self.assertRaises(ValueError):
            Reply(250, "2.0.0", ("two\r\nlines",))

    def test_they_are_compared_shown_copied_and_replaced_as_ever(self) -> None:
        self.assertEqual(Quick("a", again=True), Quick("a"))
        self.assertEqual(hash(Quick("a")), hash(Quick("a")))
        self.assertEqual(repr(Quick("a")).partition("(")[2], repr(Plain("a")).partition("(")[2])
        self.assertEqual(replace(Quick("a"), size=5), Quick("a", 5))
        self.assertEqual(copy.copy(Quick("a", 5)), Quick("a", 5))
        self.assertEqual(pickle.loads(pickle.dumps(ADDRESS)), ADDRESS)
        self.assertEqual(inspect.signature(Quick), inspect.signature(Plain))

    def test_a_derived_class_has_the_fields_of_both(self) -> None:
        self.assertEqual(values(Derived("a", 2, more=7)), ["a", 2, False, "x", 7])

    def test_a_class_that_it_cannot_make_is_refused(self) -> None:
        @dataclass(frozen=True, slots=True)
        class Made:
            names: list[str] = field(default_factory=list)

        with self.assertRaises(TypeError):
            quick(Made)

    def test_fields_that_only_keywords_set_stay_such(self) -> None:
        @quick
        @dataclass(frozen=True, slots=True)
        class Named:
            name: str
            size: int = field(default=3, kw_only=True)
            more: int = 4

        self.assertEqual(values(Named("a", 5, size=1)), ["a", 1, 5])
        self.assertEqual(values(Named("a")), ["a", 3, 4])
        with self.assertRaises(TypeError):
            Named("a", 5, 1)  # type: ignore[call-arg, misc]

    def test_the_values_of_a_message_are_quick(self) -> None:
        for kind in QUICK:
            made: Any = kind.__init__
            self.assertEqual(made.__code__.co_filename, "<quick>", kind)


class RememberingContent(SynchronousTestCase):
    """`Content` has slots, and remembers its header section all the same."""

    def test_what_was_worked_out_is_kept_and_is_no_part_of_the_value(self) -> None:
        content = Content.of(b"A: b\r\n\r\nc\r\n")
        self.assertIs(content.head, content.head)
        self.assertEqual(content, Content.of(b"A: b\r\n\r\nc\r\n"))
        self.assertEqual(content.lower_head, b"a: b\r\n\r\n")
