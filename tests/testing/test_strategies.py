"""The strategies of the kit: what they make is what a server would hand on."""

from __future__ import annotations

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.testing import strategies


class Strategies(SynchronousTestCase):
    @given(strategies.addresses())
    def test_an_address_is_one_on_the_wire_too(self, address: Address) -> None:
        self.assertEqual(Address.parse(str(address), utf8=True), address)

    @given(strategies.envelopes())
    def test_an_envelope_has_recipients(self, envelope: Envelope) -> None:
        self.assertGreaterEqual(len(envelope.recipients), 1)

    @given(strategies.contents())
    def test_a_message_has_no_line_end_but_crlf(self, content: Content) -> None:
        octets = b"".join(content.chunks())
        self.assertNotRegex(octets, rb"[^\r]\n|\r[^\n]")
        self.assertTrue(octets.endswith(b"\r\n"))
        self.assertGreater(len(content.headers), 0)
