"""What becomes of content that a host does not take as it is."""

import email
import errno
import gc
import os
import tempfile
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred

from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Recipient
from mailserver.mail.envelope import Peer as Client
from mailserver.mail.trace import received
from mailserver.relay.conversion_forms import EightBit, form_of
from tests.relay.network import CLOSE, MESSAGE, OFFERS, Peer, RelayCase

SEVEN_BIT = ("PIPELINING", "SIZE 10000000")
HEAD = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
TEXT = HEAD + "Grüße an alle, die das lesen\r\n".encode()
DKIM = b"DKIM-Signature: v=1; d=far.example; b=abc\r\n" + TEXT
SIGNED = b"MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n--b\r\n\r\nsig\r\n--b--\r\n"
PICTURE = b"MIME-Version: 1.0\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n"
BINARY = PICTURE + b"\0\n\r\xff"


class FormsCase(RelayCase):
    def ship(self, data, offers=SEVEN_BIT, eight_bit=EightBit.CONVERT, content=None, script=None, **more):
        """Deliver; return the outcome, MAIL and the content as they arrived."""
        self.setUp()
        self.relay = self.make(eight_bit=eight_bit)
        peer, _ = self.peers(Peer(script, offers))
        outcome = self.deliver(data=data, content=content, **more)
        mail = [line for line in peer.commands if line.startswith("MAIL")]
        return outcome, mail[-1] if mail else "", peer.messages[0][2] if peer.messages else None


class EightBitTests(FormsCase):
    """RFC 6152"""

    def test_ascii_content_goes_without_body_whatever_was_said_of_it(self):
        for eight_bit in EightBit:
            for body in ("7BIT", "8BITMIME"):
                outcome, mail, arrived = self.ship(MESSAGE, eight_bit=eight_bit, body=body)
                self.assertIsInstance(outcome, Delivered)
                self.assertEqual((mail, arrived), (f"MAIL FROM:<sender@example.net> SIZE={len(MESSAGE)}", MESSAGE))
                self.assertTrue(outcome.note.endswith(" ms"), outcome.note)

    def test_8_bit_content_is_converted_by_part(self):
        for body in ("7BIT", "8BITMIME"):  # what was said of it does not make it other than it is
            outcome, mail, arrived = self.ship(TEXT, body=body)
            self.assertIsInstance(outcome, Delivered)
            self.assertTrue(arrived.isascii())
            self.assertEqual(mail, f"MAIL FROM:<sender@example.net> SIZE={len(arrived)}")
            decoded = email.message_from_bytes(arrived)
            self.assertEqual(decoded.get_payload(decode=True).decode(), "Grüße an alle, die das lesen\r\n")
            self.assertIn("converted for this host", outcome.note)

    def test_a_host_that_takes_it_gets_it_as_it_came(self):
        _, mail, arrived = self.ship(TEXT, OFFERS, body="8BITMIME")
        self.assertEqual((mail.split(" SIZE")[1].split()[1:], arrived), (["BODY=8BITMIME"], TEXT))

    def test_what_others_have_signed_goes_raw(self):
        for data in (DKIM, SIGNED, SIGNED.replace(b"signed", b"encrypted"), b"ARC-Seal: i=1\r\n" + TEXT):
            outcome, mail, arrived = self.ship(data, body="8BITMIME")
            self.assertIsInstance(outcome, Delivered)
            self.assertEqual(arrived, data)
            self.assertNotIn("BODY", mail)
            self.assertIn("8-bit content sent raw", outcome.note)

    def test_a_fault_with_one_message_defers_it_and_harms_no_other(self):
        peer, _ = self.peers(Peer(offers=SEVEN_BIT))

        def fails_for_one(content, *more, **named):
            if content.data == TEXT:
                raise RuntimeError("a fault of ours")
            return form_of(content, *more, **named)

        with mock.patch("mailserver.relay.conversions.form_of", fails_for_one):
            broken, sound = self.begin(data=TEXT), self.begin(data=MESSAGE)
            self.turn()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual((type(broken[0][0]), type(sound[0][0])), (Delayed, Delivered))
        self.assertEqual([one[2] for one in peer.messages], [MESSAGE])

    def test_what_is_no_sound_mime_goes_raw(self):
        for data in (TEXT.replace(b"8bit", b"base64"), b"no field\r\n\r\n\xfc\r\n"):
            self.assertEqual(self.ship(data, body="8BITMIME")[2], data)

    def test_a_header_outside_ascii_goes_as_it_came(self):
        data = b"Subject: \xfc\r\n\r\ntext\r\n"
        _, mail, arrived = self.ship(data, body="8BITMIME")
        self.assertEqual((arrived, "BODY" in mail), (data, False))

    def test_raw_sends_it_and_refuse_returns_it(self):
        outcome, mail, arrived = self.ship(TEXT, eight_bit=EightBit.RAW, body="8BITMIME")
        self.assertEqual((type(outcome), arrived, "BODY" in mail), (Delivered, TEXT, False))
        outcome, mail, arrived = self.ship(TEXT, eight_bit=EightBit.REFUSE, body="8BITMIME")
        self.assertEqual((type(outcome), outcome.reply.enhanced, outcome.peer, mail), (Failed, "5.6.3", "", ""))

    def test_a_report_is_never_refused_for_it(self):
        outcome, _, arrived = self.ship(TEXT, eight_bit=EightBit.REFUSE, body="8BITMIME", sender=None)
        self.assertIsInstance(outcome, Delivered)
        self.assertTrue(arrived.isascii())

    def test_what_would_be_too_large_when_converted_goes_raw(self):
        data = HEAD + b"\xfc" * 2000 + b"\r\n"
        outcome, _, arrived = self.ship(data, ("PIPELINING", "SIZE 2300"), body="8BITMIME")
        self.assertEqual((type(outcome), arrived), (Delivered, data))
        self.assertIn("too large", outcome.note)

    def test_the_next_host_gets_what_it_takes(self):
        self.peers(Peer({"MAIL": CLOSE}, SEVEN_BIT), b := Peer())
        self.assertIsInstance(self.deliver(data=TEXT, body="8BITMIME"), Delivered)
        self.assertEqual(b.messages[0][2], TEXT)

    def test_a_refusal_keeps_the_connection_and_other_recipients_of_other_hosts_unharmed(self):
        self.relay = self.make(zones={"other.example": {"A": [self.B]}}, eight_bit=EightBit.REFUSE)
        a, b = self.peers(Peer(offers=SEVEN_BIT), Peer())
        refused, taken = self.deliver("x@example.org", "y@other.example", data=TEXT, body="8BITMIME")
        self.assertEqual((type(refused), type(taken), len(b.messages)), (Failed, Delivered, 1))
        self.assertIsInstance(self.deliver(), Delivered)
        self.assertEqual(len(a.connections), 1)


class BinaryTests(FormsCase):
    """RFC 3030"""

    def binary(self, data, offers, **more):
        return self.ship(data, offers, content=Content.of(data, binary=True), body="BINARYMIME", **more)

    def test_lines_without_nul_count_as_8_bit(self):
        _, mail, arrived = self.binary(TEXT, OFFERS)
        self.assertEqual((mail.endswith("BODY=8BITMIME"), arrived), (True, TEXT))
        _, mail, arrived = self.binary(MESSAGE, OFFERS)
        self.assertEqual(("BODY" in mail, arrived), (False, MESSAGE))
        _, mail, arrived = self.binary(TEXT, SEVEN_BIT)
        self.assertTrue(arrived.isascii())

    def test_other_content_becomes_base64(self):
        for offers in (OFFERS, SEVEN_BIT):
            for eight_bit in (EightBit.CONVERT, EightBit.RAW):
                outcome, mail, arrived = self.binary(BINARY, offers, eight_bit=eight_bit)
                self.assertIsInstance(outcome, Delivered)
                self.assertEqual(("BODY" in mail, arrived), (False, PICTURE.replace(b"binary\r\n", b"base64\r\n") + b"AAoN/w==\r\n"))

    def test_a_signed_one_comes_back_and_so_does_what_cannot_be_converted(self):
        signed = SIGNED.replace(b"Gr", b"\0")
        for data in (signed, b"DKIM-Signature: x\r\n" + BINARY, b"Subject: \0\r\n" + BINARY, b"Subject: a\nb\r\n\r\nx\r\n", b"no field\r\n\r\n\0"):
            for offers in (OFFERS, SEVEN_BIT):
                outcome, mail, arrived = self.binary(data, offers)
                self.assertEqual((type(outcome), mail, arrived), (Failed, "", None), data)
                self.assertEqual(outcome.reply.enhanced, "5.6.3")

    def test_one_that_may_not_be_converted_by_configuration_comes_back(self):
        self.assertEqual(self.binary(BINARY, SEVEN_BIT, eight_bit=EightBit.REFUSE)[0].reply.enhanced, "5.6.3")


class UTF8Tests(FormsCase):
    """RFC 6531"""

    def test_what_is_missing_is_smtputf8_where_both_are(self):
        data = "Subject: Grüße\r\n\r\nGrüße\r\n".encode()
        outcome, _, arrived = self.ship(data, SEVEN_BIT, body="8BITMIME", smtputf8=True)
        self.assertEqual((type(outcome), outcome.reply.enhanced, arrived), (Failed, "5.6.7", None))
        sender = Address("ü", "example.net")
        for eight_bit in EightBit:
            outcome, _, arrived = self.ship(TEXT, SEVEN_BIT, eight_bit, body="8BITMIME", sender=sender)
            self.assertEqual((type(outcome), outcome.reply.enhanced, arrived), (Failed, "5.6.7", None))

    def test_our_own_received_field_does_not_make_a_message_need_it(self):
        """RFC 6531 section 3.2: an ASCII message for an address whose domain alone is outside ASCII."""
        address = Address("user", "exämple.org")
        parameters = MailParameters(smtputf8=True)
        envelope = Envelope("id", Client("192.0.2.9", 1, "mx"), None, (Recipient(address),), 0.0, parameters)
        content = Content.of(MESSAGE, prefix=received(envelope, hostname="us.example"))
        self.relay = self.make(zones={"xn--exmple-cua.org": {"A": [self.A]}})
        a, _ = self.peers(Peer(offers=SEVEN_BIT))
        self.assertIsInstance(self.deliver(address, content=content, smtputf8=True), Delivered)
        self.assertIn("RCPT TO:<user@xn--exmple-cua.org>", a.commands)

    def test_an_ascii_header_needs_none_and_its_body_is_converted(self):
        outcome, mail, arrived = self.ship(TEXT, SEVEN_BIT, body="8BITMIME", smtputf8=True)
        self.assertEqual((type(outcome), arrived.isascii(), "SMTPUTF8" in mail), (Delivered, True, False))


class LargeTests(FormsCase):
    """A message in a file is converted in a thread, into a file that ends with it."""

    def setUp(self):
        super().setUp()
        self.work = []

    def large(self):
        path = self.mktemp()
        data = HEAD + "Grüße an alle, die das lesen\r\n".encode() * 20_000
        with open(path, "wb") as file:
            file.write(data)
        return Content.at(path, len(data)), data

    def in_thread(self, function, *arguments):
        """A thread that has not come to it yet."""
        later = Deferred()
        self.work.append(lambda: later.callback(function(*arguments)))
        return later

    def run_threads(self):
        while self.work:
            self.work.pop(0)()
            self.turn()

    def held(self):
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
            except FileNotFoundError:
                continue
        return [path for path in found if "converted-" in path]

    def test_it_arrives_converted_and_no_file_is_left(self):
        before = set(os.listdir(tempfile.gettempdir()))
        content, data = self.large()
        outcome, mail, arrived = self.ship(data, content=content, body="8BITMIME")
        self.assertIsInstance(outcome, Delivered)
        self.assertTrue(arrived.isascii())
        self.assertIn(f"SIZE={len(arrived)}", mail)
        self.assertEqual(
            email.message_from_bytes(arrived).get_payload(decode=True), email.message_from_bytes(data).get_payload(decode=True)
        )
        gc.collect()
        self.assertEqual(self.held(), [])
        self.assertEqual([name for name in set(os.listdir(tempfile.gettempdir())) - before if "converted" in name], [])

    def test_meanwhile_the_connection_serves_others_and_the_message_goes_once(self):
        self.relay = self.make(run_in_thread=self.in_thread)
        a, _ = self.peers(Peer(offers=SEVEN_BIT))
        content, _ = self.large()
        answers = self.begin(content=content, body="8BITMIME")
        self.turn()
        self.assertIsInstance(self.deliver(), Delivered)
        self.assertEqual((answers, len(a.connections), self.relay.counts()["reused"]), ([], 1, 0))
        self.run_threads()
        self.assertIsInstance(answers[0][0], Delivered)
        self.assertEqual((len(a.messages), len(a.connections)), (2, 1))

    def test_hosts_that_name_another_size_each_have_the_same_file(self):
        """A host that did so with each connection would fill the disk."""
        made = []
        self.relay = self.make(run_in_thread=lambda *work: made.append(work) or self.in_thread(*work))
        sizes = iter(range(2_000_000, 3_000_000))
        changing = {"EHLO": lambda line: f"250-peer.example\r\n250 SIZE {next(sizes)}", "MAIL": CLOSE}
        _, b = self.peers(Peer(changing), Peer(changing | {"MAIL": None}))
        content, _ = self.large()
        answers = self.begin(content=content, body="8BITMIME")
        self.turn()
        self.run_threads()
        self.assertIsInstance(answers[0][0], Delivered)
        self.assertTrue(b.messages[0][2].isascii())
        self.assertEqual(len([one for one in made if getattr(one[0], "func", None) is form_of]), 1)

    def test_those_that_wait_for_one_host_take_half_of_the_room_and_others_go_on(self):
        zones = {"other.example": {"A": [self.B]}}
        self.relay = self.make(zones=zones, run_in_thread=self.in_thread)
        self.connections._conversions._octets_most = 4_000_000
        a, b = self.peers(Peer(offers=SEVEN_BIT), Peer(offers=SEVEN_BIT))
        contents = [self.large()[0] for _ in range(4)]  # of 600,000 octets: 900,000 are set aside for each form
        answers = [self.begin(content=one, body="8BITMIME") for one in contents]
        self.turn()
        self.assertEqual([len(one) for one in answers], [0, 0, 1, 1])
        self.assertEqual((type(answers[2][0][0]), answers[2][0][0].reply.enhanced), (Delayed, "4.3.1"))
        other = self.begin("y@other.example", content=self.large()[0], body="8BITMIME")
        self.run_threads()
        for answer in (*answers[:2], other):
            self.assertIsInstance(answer[0][0], Delivered)
        self.assertEqual((len(a.messages), len(b.messages)), (2, 1))
        del answer, answers, other
        gc.collect()
        self.assertEqual(sum(octets for _, octets in self.connections._conversions._held.values()), 0)

    def test_one_form_is_made_however_large_it_is_but_not_on_a_full_disk(self):
        asked = []
        self.relay = self.make(room_for=lambda octets: not asked.append(octets) and len(asked) > 1)
        self.connections._conversions._octets_most = 1
        self.peers(Peer(offers=SEVEN_BIT))
        content, data = self.large()
        outcome = self.deliver(content=content, body="8BITMIME")
        self.assertEqual((type(outcome), outcome.reply.code, asked), (Delayed, 452, [len(data) * 3 // 2]))
        self.assertIsInstance(self.deliver(content=content, body="8BITMIME"), Delivered)

    def test_a_disk_that_turns_out_to_be_full_is_no_fault_of_ours(self):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        self.relay = self.make()
        self.peers(Peer(offers=SEVEN_BIT))
        with mock.patch("mailserver.relay.conversion_forms.HeldFile.write", full):
            outcome = self.deliver(content=self.large()[0], body="8BITMIME")
        self.assertEqual((type(outcome), outcome.reply.code), (Delayed, 452))

    def test_a_file_that_cannot_be_read_defers_this_message_alone(self):
        self.relay = self.make()
        a, _ = self.peers(Peer(offers=SEVEN_BIT))
        outcome = self.deliver(content=Content.at("/nonexistent/file", 500_000), body="8BITMIME")
        self.assertEqual((type(outcome), outcome.reply.enhanced), (Delayed, "4.3.0"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertIsInstance(self.deliver(), Delivered)
        self.assertEqual(len(a.connections), 1)

    def test_when_the_server_stops_it_is_deferred_and_what_comes_later_is_dropped(self):
        self.relay = self.make(run_in_thread=self.in_thread)
        a, _ = self.peers(Peer(offers=SEVEN_BIT))
        answers = self.begin(content=self.large()[0], body="8BITMIME")
        self.turn()
        Deferred.fromCoroutine(self.relay.stop())
        self.turn()
        self.assertIsInstance(answers[0][0], Delayed)
        self.run_threads()
        gc.collect()
        self.assertEqual((a.messages, self.held()), ([], []))

    def test_a_call_that_was_cancelled_meanwhile_sends_nothing(self):
        self.relay = self.make(run_in_thread=self.in_thread)
        a, _ = self.peers(Peer(offers=SEVEN_BIT))
        self.begin(content=self.large()[0], body="8BITMIME")
        self.turn()
        self.last.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self.last.cancel()
        self.run_threads()
        self.assertEqual(a.messages, [])
        del self.last
        gc.collect()
        self.assertEqual(self.held(), [])

    def test_two_are_converted_at_a_time(self):
        self.relay = self.make(run_in_thread=self.in_thread)
        self.peers(Peer(offers=SEVEN_BIT))
        answers = [self.begin(content=self.large()[0], body="8BITMIME") for _ in range(5)]
        self.turn()
        self.assertEqual(len(self.work), 2)
        self.run_threads()
        self.turn(200)
        self.assertTrue(all(isinstance(one[0][0], Delivered) for one in answers))
