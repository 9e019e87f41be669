"""The first line of a file in the pickup folder."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.envelope import MailParameters, Recipient, RecipientParameters
from mailserver.pickup.file_format import PickupEnvelope, PickupFault, is_pickup_name, pickup_name
from tests.any_octets import any_octets

GOOD: dict[str, Any] = {"version": 1, "sender": "a@example.org", "recipients": ["b@example.net"]}


def line(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode() + b"\n"


class Envelope(SynchronousTestCase):
    def test_what_is_written_is_read(self) -> None:
        notify = RecipientParameters(frozenset({"FAILURE", "DELAY"}))
        for envelope in (
            PickupEnvelope(None, (Recipient(Address("a b", "example.org")),), MailParameters()),
            PickupEnvelope(
                Address("ü", "example.org"),
                (Recipient(Address("b", "example.org"), notify), Recipient(Address("c", "example.org"), notify)),
                MailParameters(body="8BITMIME", smtputf8=True, ret="HDRS", envid="x y"),
            ),
        ):
            octets = envelope.encode()
            self.assertEqual(PickupEnvelope.decode(octets), envelope)
            self.assertEqual(octets.count(b"\n"), 1)

    def test_an_address_goes_on_as_it_came(self) -> None:
        found = PickupEnvelope.decode(line(recipients=["a..b@x.example", '"c..d"@x.example']))
        again = PickupEnvelope.decode(found.encode())
        self.assertEqual([one.address.path for one in again.recipients], ["a..b@x.example", '"c..d"@x.example'])

    def test_to_be_told_nothing_is_a_wish_of_its_own(self) -> None:
        (recipient,) = PickupEnvelope.decode(line(notify=["NEVER"])).recipients
        self.assertEqual(recipient.parameters.notify, frozenset({"NEVER"}))

    def test_the_same_recipient_is_one(self) -> None:
        self.assertEqual(len(PickupEnvelope.decode(line(recipients=["b@x.example", "b@x.example"])).recipients), 1)

    def test_whatever_else_stands_there_is_a_fault(self) -> None:
        for wrong in (
            b"",
            b"[]",
            b"{",
            b"\xff",
            b"[" * 100_000,
            line(version=2),
            line(sender=None),
            line(sender="no address"),
            line(sender="ü@example.org"),
            line(recipients=[]),
            line(recipients=["b"]),
            line(recipients="b@example.org"),
            line(recipients=[1]),
            line(recipients=[f"{n}@x.example" for n in range(10_001)]),
            line(body="BINARYMIME"),
            line(smtputf8=1),
            line(ret="ALL"),
            line(envid="a\nb"),
            line(notify=["NEVER", "DELAY"]),
            line(notify=[]),
            line(notify=["SOON"]),
            line(login="root"),
        ):
            with self.assertRaises(PickupFault, msg=repr(wrong[:80])):
                PickupEnvelope.decode(wrong)

    @given(any_octets(max_size=60) | st.text(max_size=60).map(lambda text: line(sender=text)))
    def test_nothing_but_a_fault_comes_of_anything(self, octets: bytes) -> None:
        try:
            PickupEnvelope.decode(octets)
        except PickupFault:
            pass

    def test_names(self) -> None:
        self.assertTrue(is_pickup_name(pickup_name(1_795_000_000_000_000, bytes(16))))
        self.assertLess(pickup_name(9, bytes(16)), pickup_name(10, bytes(16)))
        for name in (
            "bad",
            "x.mail",
            f".{pickup_name(1, bytes(16))}",
            pickup_name(1, bytes(16)) + "\n",
            "../" + pickup_name(1, bytes(16)),
        ):
            self.assertFalse(is_pickup_name(name), name)
