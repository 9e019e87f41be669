from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Local, Mailbox
from mailserver.mail.content import Content
from mailserver.mail.envelope_codec import decode_envelope
from mailserver.mail.ids import IdSource
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.queue.entry import (
    KEY_OCTETS,
    UnreadableEntry,
    decode_reply,
    destination_name,
    encode_reply,
    number_of,
    pack,
    unpack,
    unpack_front,
)
from tests.any_octets import any_octets
from tests.queue.doubles import envelope, local, remote


class Number(SynchronousTestCase):
    def test_numbers_sort_as_the_ids_do_and_fit_sqlite(self):
        source = IdSource(lambda: 1_800_000_000.0)
        ids = [source.next() for _ in range(1000)]
        numbers = [number_of(id) for id in ids]
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertLess(max(numbers), 1 << 60)
        self.assertLess(number_of("Z" * 16), 1 << 63)

    def test_what_is_no_id_has_no_number(self):
        for text in ("", "0" * 15, "0" * 17, "-" + "0" * 15, "I" * 16, "é" * 16, " " * 16, "000000_000000000"):
            with self.assertRaises(ValueError, msg=text):
                number_of(text)


class Packed(SynchronousTestCase):
    @settings(max_examples=50)
    @given(any_octets(max_size=200), any_octets(max_size=200), st.booleans())
    def test_what_was_packed_comes_back(self, data, prefix, binary):
        sent = envelope(local(0), remote(1))
        packed = pack(7, sent, Content.of(data, prefix=prefix, binary=binary), (local(0), remote(1)))
        self.assertEqual(packed[:KEY_OCTETS], b"0000000000000000007" b"000002" b"0")
        row = unpack(7, packed[KEY_OCTETS:])
        self.assertEqual((row.id, row.prefix, row.data, row.binary), (sent.id, prefix, data, binary))
        self.assertEqual(decode_envelope(row.envelope), (sent, (local(0), remote(1))))

    def test_a_content_in_a_file_is_only_named(self):
        packed = pack(7, envelope(local()), Content.at("/spool/x", 5_000_000_000, prefix=b"P"), (local(),))
        self.assertEqual(packed[KEY_OCTETS - 1 : KEY_OCTETS], b"1")
        row = unpack(7, packed[KEY_OCTETS:])
        self.assertEqual((row.data, row.stored_size, row.prefix), (None, 5_000_000_000, b"P"))

    def test_octets_of_a_file_that_an_edit_replaced_stay_replaced(self):
        packed = pack(7, envelope(local()), Content.at("/spool/x", 1000, prefix=b"P", skip=300), (local(),))
        self.assertEqual(unpack(7, packed[KEY_OCTETS:]).skip, 300)
        self.assertEqual(unpack_front(7, packed[KEY_OCTETS:])[2], 701)

    def test_a_torn_row_is_an_error_and_not_a_message(self):
        packed = pack(7, envelope(local()), Content.of(b"some content"), (local(),))[KEY_OCTETS:]
        for end in range(len(packed)):
            with self.assertRaises(UnreadableEntry):
                unpack(7, packed[:end])
        with self.assertRaises(UnreadableEntry):
            unpack(7, packed + b"x")

    def test_a_layout_of_a_later_release_is_an_error(self):
        packed = pack(7, envelope(local()), Content.of(b""), (local(),))[KEY_OCTETS:]
        with self.assertRaisesRegex(UnreadableEntry, "layout 2"):
            unpack(7, b"\x02" + packed[1:])


class Words(SynchronousTestCase):
    def test_a_reply_comes_back_as_it_was(self):
        reply = Reply.of(451, "4.2.1", "busy", "very")
        self.assertEqual(decode_reply(encode_reply(reply)), reply)
        self.assertIsNone(decode_reply(encode_reply(None)))

    def test_a_destination_is_named_by_its_mailbox_and_folder_or_its_address(self):
        recipient = local().recipient
        folder = Destination(0, recipient, Local(recipient.address, Mailbox("alice", "example.org", ("lists", "python"))))
        system = Destination(0, recipient, Local(recipient.address, Mailbox("root", "", system=True)))
        self.assertEqual(destination_name(folder), "alice@example.org/lists/python")
        self.assertEqual(destination_name(system), "root")
        self.assertEqual(destination_name(remote()), "carol@elsewhere.example")
