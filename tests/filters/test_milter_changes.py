"""What a milter wants to have changed, as edits: the same fields come out as in a message that is changed by hand."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.filters.milter_answers import (
    AddedField,
    ChangedField,
    InsertedField,
    LostRecipient,
    NewRecipient,
    NewSender,
    PutAway,
)
from mailserver.filters.milter_changes import changed, field_value, own_received
from mailserver.filters.milter_wire import MilterFault
from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.mail.edits import AddHeader, AddRecipient, ChangeSender, PutAside, ReplaceRecipient, apply_edits
from mailserver.mail.envelope import Recipient
from tests.any_octets import any_octets

NAMES = (b"A", b"b", b"Received", b"A-b")
ALICE, BOB = Recipient(Address("alice", "example.org")), Recipient(Address("bob", "example.org"))

changes = st.lists(
    st.one_of(
        st.builds(AddedField, st.sampled_from(NAMES), st.just(b"added")),
        st.builds(InsertedField, st.integers(0, 9), st.sampled_from(NAMES), st.just(b"in")),
        st.builds(ChangedField, st.integers(0, 4), st.sampled_from(NAMES), st.sampled_from((b"", b"new"))),
    ),
    max_size=12,
)


def by_hand(fields: list[tuple[bytes, bytes, bool]], change: Any) -> None:
    """The rules as Postfix and Sendmail have them.  The third member: it is our own Received."""
    match change:
        case AddedField(name, value):
            fields.append((name, value, False))
        case InsertedField(at, name, value):
            fields.insert(at, (name, value, False))
        case ChangedField(index, name, value):
            seen = [n for n, (one, _, own) in enumerate(fields) if one.lower() == name.lower() and not own]
            if max(index, 1) > len(seen):
                if value:
                    fields.append((name, value, False))
            elif value:
                fields[seen[max(index, 1) - 1]] = (name, value, False)
            else:
                del fields[seen[max(index, 1) - 1]]


class Fields(SynchronousTestCase):
    @given(st.lists(st.sampled_from(NAMES), max_size=6), st.integers(0, 6), changes)
    def test_all_changes_come_to_what_they_mean(self, names: list[bytes], own: int, made: list[Any]) -> None:
        fields = [(name, b"%d" % n, False) for n, name in enumerate(names)]
        own = min(own, len(fields))
        fields.insert(own, (b"Received", b"ours", True))
        content = Content.of(b"".join([b"%s: %s\r\n" % one[:2] for one in fields]) + b"\r\nx\r\n")
        found = changed(made, [one[0].decode().lower() for one in fields], own, [ALICE])
        self.assertEqual((found.left_out, found.discard), ([], None))
        edited = apply_edits(content, found.edits)  # type: ignore[arg-type]
        for change in made:
            by_hand(fields, change)
        self.assertEqual([one.raw for one in edited.headers], [b"%s: %s" % one[:2] for one in fields])

    @given(any_octets(max_size=300))
    def test_any_value_makes_a_field_and_nothing_else(self, octets: bytes) -> None:
        octets = octets.replace(b"\0", b"")
        value = field_value(octets, 3)
        headers = Content.of(AddHeader("X-A", value).octets + b"\r\n").headers
        self.assertEqual([one.name for one in headers], [b"x-a"])

    def test_a_long_line_is_folded_at_its_blanks_and_says_the_same(self) -> None:
        text = b"one two\tthree " * 400
        value = field_value(text, 10)
        self.assertLessEqual(max(map(len, value.split("\r\n"))), 990)
        self.assertEqual(value.replace("\r\n", "").encode().rstrip(), text.rstrip())

    def test_what_cannot_be_a_field_is_left_out_and_the_others_keep_their_places(self) -> None:
        found = changed([InsertedField(0, b"bad name", b"x"), AddedField(b"X", b"y" * 1200), AddedField(b"Good", b"z"), ChangedField(1, b"a", b"y" * 1200)], ["a"], None, [ALICE])
        self.assertEqual((len(found.edits), len(found.left_out)), (1, 3))

    def test_our_received_is_the_one_with_our_id(self) -> None:
        fields = [("received", b"Received: by x id 1"), ("received", b"Received: by mx\r\n\tid ABC;\r\n\tdate")]
        self.assertEqual(own_received(fields, "ABC"), 1)
        self.assertIsNone(own_received(fields, "ABD"))


class Envelopes(SynchronousTestCase):
    def test_recipients_come_and_go(self) -> None:
        found = changed([NewRecipient(b"<eve@example.org>"), NewRecipient(b"ALICE@x"), LostRecipient(b"<bob@EXAMPLE.org>"), LostRecipient(b"<no@example.org>"), NewRecipient(b"<alice@EXAMPLE.ORG>")], [], None, [ALICE, BOB])
        self.assertEqual(found.edits, [AddRecipient(Address("eve", "example.org")), AddRecipient(Address("ALICE", "x")), ReplaceRecipient(BOB.address, ())])
        self.assertIsNone(found.discard)

    def test_nobody_left_is_a_discard_and_somebody_new_is_none(self) -> None:
        self.assertIsNotNone(changed([LostRecipient(b"alice@example.org")], [], None, [ALICE]).discard)
        self.assertIsNone(changed([LostRecipient(b"alice@example.org"), NewRecipient(b"bob@example.org")], [], None, [ALICE]).discard)

    def test_senders_and_quarantine(self) -> None:
        found = changed([NewSender(b"<>"), NewSender(b"a@b.example", b"SIZE=1"), PutAway("")], [], None, [ALICE])
        self.assertEqual(found.edits, [ChangeSender(None), ChangeSender(Address("a", "b.example")), PutAside("a milter says so")])
        self.assertEqual(len(found.left_out), 1)

    @given(any_octets(max_size=60))
    def test_any_address_is_one_or_a_fault(self, octets: bytes) -> None:
        for change in (NewSender(octets), NewRecipient(octets), LostRecipient(octets)):
            try:
                changed([change], [], None, [ALICE])
            except MilterFault as fault:
                self.assertTrue(str(fault).isprintable())
