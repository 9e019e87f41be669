from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Remote
from mailserver.mail.envelope import (
    NO_MAIL_PARAMETERS,
    NO_RECIPIENT_PARAMETERS,
    Envelope,
    MailParameters,
    Peer,
    Recipient,
)
from mailserver.mail.envelope_codec import UnknownVersion, UnreadableEnvelope, decode_envelope, encode_envelope
from mailserver.mail.parcel import Destination
from tests.mail.strategies import envelopes_with_destinations


def simple() -> tuple[Envelope, tuple[Destination, ...]]:
    recipient = Recipient(Address("bob", "example.org"))
    envelope = Envelope(
        "1K0WZABCDEFGHJKM", Peer("192.0.2.1", 4711, "mx", "client.example"), None, (recipient,), 1795400000.25
    )
    return envelope, (
        Destination(0, recipient, Local(Address("b", "example.org"), Mailbox("b", "example.org", ("lists",)))),
        Destination(1, recipient, Remote(Address("b", "elsewhere.example"))),
    )


class CodecTests(SynchronousTestCase):
    @given(envelopes_with_destinations())
    def test_what_was_encoded_is_decoded(self, given: tuple[Envelope, tuple[Destination, ...]]) -> None:
        self.assertEqual(decode_envelope(encode_envelope(*given)), given)

    def test_a_destination_shares_its_recipient_with_the_envelope(self) -> None:
        envelope, destinations = decode_envelope(encode_envelope(*simple()))
        self.assertIs(destinations[0].recipient, envelope.recipients[0])
        self.assertIs(destinations[1].recipient, envelope.recipients[0])

    def test_an_address_goes_on_as_it_came_after_a_rest_in_the_store(self) -> None:
        odd = Address.parse("a..b@x.example")
        recipient = Recipient(odd)
        envelope = replace(simple()[0], sender=odd, recipients=(recipient,))
        destinations = (Destination(0, recipient, Remote(odd)), Destination(1, Recipient(odd), Remote(odd)))
        found, places = decode_envelope(encode_envelope(envelope, destinations))
        assert found.sender is not None
        for address in (found.sender, found.recipients[0].address, *[one.route.address for one in places], places[1].recipient.address):
            self.assertEqual((address.path, str(address)), ("a..b@x.example", '"a..b"@x.example'))

    def test_default_parameters_come_back_as_the_shared_constants(self) -> None:
        envelope, _ = decode_envelope(encode_envelope(*simple()))
        self.assertIs(envelope.parameters, NO_MAIL_PARAMETERS)
        self.assertIs(envelope.recipients[0].parameters, NO_RECIPIENT_PARAMETERS)

    def test_the_layout_of_version_1_stays_readable_and_its_files_are_named_by_the_index(self) -> None:
        octets = (
            b'[1,"1K0WZABCDEFGHJKM",1795400000.25,null,null,["192.0.2.1",4711,"mx","client.example","",null,""],'
            b'[[["bob","example.org"]]],'
            b'[[0,0,[["b","example.org"],"b","example.org",["lists"],false]],[1,0,[["b","elsewhere.example"]]]]]'
        )
        envelope, destinations = simple()
        of_old = tuple([replace(one, named_by_index=True) for one in destinations])
        self.assertEqual(decode_envelope(octets), (envelope, of_old))
        self.assertEqual(decode_envelope(encode_envelope(envelope, of_old)), (envelope, of_old))

    def test_the_layout_of_version_2_stays_readable(self) -> None:
        """Rows of this release rest in stores; whoever changes the layout must keep this test and raise the version."""
        octets = (
            b'[2,"1K0WZABCDEFGHJKM",1795400000.25,null,null,["192.0.2.1",4711,"mx","client.example","",null,""],'
            b'[[["bob","example.org"]]],'
            b'[[0,0,[["b","example.org"],"b","example.org",["lists"],false]],[1,0,[["b","elsewhere.example"]]]]]'
        )
        self.assertEqual(decode_envelope(octets), simple())
        self.assertEqual(encode_envelope(*simple()), octets)

    def test_lines_of_a_destination_make_it_version_3_and_come_back(self) -> None:
        envelope, (first, second) = simple()
        for lines in (b"X-Spam-Score: 5\r\n", "X-Tag: ä\r\n".encode(), b"\xff\r\n"):
            for named in (False, True):
                wanted = (replace(first, lines=lines, named_by_index=named), second)
                octets = encode_envelope(envelope, wanted)
                self.assertTrue(octets.startswith(b"[3,"))
                self.assertEqual(decode_envelope(octets), (envelope, wanted))

    def test_requiretls_makes_it_version_4_which_older_releases_leave_alone(self) -> None:
        envelope, destinations = simple()
        envelope = replace(envelope, parameters=MailParameters(requiretls=True))
        octets = encode_envelope(envelope, destinations)
        self.assertTrue(octets.startswith(b'[4,"1K0WZABCDEFGHJKM",1795400000.25,null,[null,"7BIT",false,null,null,null,true],'))
        self.assertEqual(decode_envelope(octets), (envelope, destinations))

    def test_a_quiet_destination_makes_it_version_5_and_comes_back(self) -> None:
        envelope, (first, second) = simple()
        for lines in (b"", b"X-Spam-Score: 5\r\n"):
            for named in (False, True):
                wanted = (replace(first, lines=lines), replace(second, quiet=True, lines=lines, named_by_index=named))
                octets = encode_envelope(envelope, wanted)
                self.assertTrue(octets.startswith(b"[5,"))
                self.assertEqual(decode_envelope(octets), (envelope, wanted))

    def test_a_later_version_says_so(self) -> None:
        row = json.loads(encode_envelope(*simple()))
        row[0] = 6
        error = self.assertRaises(UnknownVersion, decode_envelope, json.dumps(row).encode())
        self.assertIn("version 6", str(error))

    def test_what_is_no_envelope_is_refused(self) -> None:
        whole = encode_envelope(*simple())
        for octets in (
            b"",
            b"\xff",
            b"{}",
            b"[]",
            b"[true]",
            b"[1]",
            b"[0]",
            b'["1"]',
            whole[:-1],
            b"null",
            b'[1,"i",0,null,null,["a",1,"mx","","",null,""],[],[[0,7,[["a","b"]]]]]',
            b'[1,"i",0,["a"],null,["a",1,"mx","","",null,""],[],[]]',
        ):
            self.assertRaises(UnreadableEnvelope, decode_envelope, octets)
