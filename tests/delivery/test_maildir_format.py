"""Trace fields and line ends of a message in a Maildir."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.maildir_format import Body, delivery_fields, local_form
from mailserver.mail.address import Address

ALICE = Address("alice", "example.org")
SALES = Address("sales", "example.org")


class Fields(SynchronousTestCase):
    def test_rfc_5321_4_4_the_return_path_is_the_reverse_path(self) -> None:
        fields = delivery_fields(Address("c d", "example.net"), ALICE, ALICE)
        self.assertEqual(fields, b'Return-Path: <"c d"@example.net>\nDelivered-To: alice@example.org\n')

    def test_the_null_reverse_path_is_written_as_such(self) -> None:
        self.assertTrue(delivery_fields(None, ALICE, ALICE).startswith(b"Return-Path: <>\n"))

    def test_an_alias_shows_what_the_recipient_was(self) -> None:
        self.assertTrue(delivery_fields(None, ALICE, SALES).endswith(b"X-Original-To: sales@example.org\n"))

    def test_international_addresses_are_utf_8(self) -> None:
        fields = delivery_fields(Address("jürgen", "exämple.org"), ALICE, ALICE)
        self.assertIn("<jürgen@exämple.org>".encode(), fields)

    def test_addresses_are_quoted_as_on_the_wire_whoever_reads_them_may_be_strict(self) -> None:
        fields = delivery_fields(Address.parse("a..b@x"), Address("a b", "x"), Address("a b", "x"))
        self.assertEqual(fields, b'Return-Path: <"a..b"@x>\nDelivered-To: "a b"@x\n')

    def test_no_address_can_add_a_field(self) -> None:
        fields = delivery_fields(Address("a\r\nX-Evil: 1", "b\n.org"), ALICE, ALICE)
        self.assertEqual(fields.count(b"\n"), 2)
        self.assertNotIn(b"\r", fields)

    def test_a_binary_message_gets_fields_with_crlf(self) -> None:
        self.assertEqual(delivery_fields(None, ALICE, ALICE, binary=True).count(b"\r\n"), 2)


class LineEnds(SynchronousTestCase):
    @given(st.text(alphabet="a\r\n", max_size=40), st.lists(st.integers(0, 40)))
    def test_any_split_gives_the_same_octets(self, text: str, cuts: list[int]) -> None:
        data = text.encode()
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
        self.assertEqual(b"".join(local_form(pieces)), data.replace(b"\r\n", b"\n"))


class Bodies(SynchronousTestCase):
    def written(self, body: Body, fields: bytes = b"F: 1\n") -> bytes:
        path = self.mktemp()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            body.write(fd, fields)
        finally:
            os.close(fd)
        with open(path, "rb") as file:
            return file.read()

    def test_a_content_in_memory_is_converted_once_for_all_copies(self) -> None:
        asked = []

        def pieces() -> list[bytes]:
            asked.append(1)
            return [b"a\r\n", b"b\r\n"]

        body = Body(pieces, binary=False, in_memory=True)
        self.assertEqual(self.written(body), b"F: 1\na\nb\n")
        self.assertEqual(self.written(body, b""), b"a\nb\n")
        self.assertEqual(asked, [1])

    def test_a_large_content_is_read_anew_for_each_copy(self) -> None:
        asked = []

        def pieces() -> Iterator[bytes]:
            asked.append(1)
            yield from (b"a\r", b"\nb")

        body = Body(pieces, binary=False, in_memory=False)
        self.assertEqual(self.written(body), b"F: 1\na\nb")
        self.assertEqual(self.written(body), b"F: 1\na\nb")
        self.assertEqual(asked, [1, 1])

    def test_rfc_3030_the_line_ends_of_a_binary_message_are_data(self) -> None:
        body = Body(lambda: [b"a\r\n\0"], binary=True, in_memory=True)
        self.assertEqual(self.written(body, b"F: 1\r\n"), b"F: 1\r\na\r\n\0")

    def test_a_write_that_takes_a_part_goes_on_with_the_rest(self) -> None:
        real_writev, real_write = os.writev, os.write
        self.patch(os, "writev", lambda fd, pieces: real_write(fd, b"".join(pieces)[:3]))
        self.patch(os, "write", lambda fd, data: real_writev(fd, [bytes(data)[:2]]))
        body = Body(lambda: [b"abcdefg"], binary=False, in_memory=True)
        self.assertEqual(self.written(body), b"F: 1\nabcdefg")
