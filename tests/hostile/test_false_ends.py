"""The twelve sequences that some server has taken for the end of the data, on every way in: nothing comes of what hides behind one.

On each listener, as DATA and as BDAT, with commands that end in CRLF and in LF.  The peer hides a whole transaction behind the
sequence; it is content, and what the server keeps has clean line ends, so the next host is not fooled either.
"""

from __future__ import annotations

import ipaddress
import itertools
import re

from twisted.trial.unittest import SynchronousTestCase

from mailserver.receive.profile import ConnectionLimits
from mailserver.smtp.client.content import DotWriter
from tests.receive.connections import Listener

FALSE_ENDS = (
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\n.\r",
    b"\r.\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\0\n.\r\n",
    b"\r\n.\r\0\n",
)
DEVICES = "198.51.100.7"  # in bare_lf_networks
TRUSTED = "192.0.2.7"  # may relay on submission
HIDDEN = b"MAIL FROM:<evil@b.example>%bRCPT TO:<alice@example.org>%bDATA%bforged%b"
LISTENERS = (("mx", "203.0.113.9"), ("submission", TRUSTED), ("mx", DEVICES), ("lmtp", "203.0.113.9"))


class FalseEnds(SynchronousTestCase):
    def listener(self, service: str, **limits: object) -> Listener:
        return Listener(self.mktemp(), service=service, limits=ConnectionLimits(**limits))  # type: ignore[arg-type]

    def send(self, listener: Listener, address: str, end: bytes, false_end: bytes, *, chunking: bool) -> list[int]:
        """The codes from MAIL on; each command waits for its answer."""
        protocol, wire = listener.connect(address)
        codes: list[int] = []
        hello = b"LHLO dev" if listener.profile.lmtp else b"EHLO dev"
        for command in (hello, b"MAIL FROM:<a@b.example>", b"RCPT TO:<bob@example.org>"):
            protocol.dataReceived(command + end)
        hidden = HIDDEN % ((end,) * 4)
        content = b"Subject: x" + end * 2 + b"text" + false_end + hidden
        wire.clear()
        if chunking:
            protocol.dataReceived(b"BDAT %d LAST" % len(content) + end)
            protocol.dataReceived(content)
        else:
            protocol.dataReceived(b"DATA" + end)
            protocol.dataReceived(content)
            protocol.dataReceived(b"\r\n.\r\n")
        codes += wire.codes()
        return codes

    def test_no_second_message_comes_in_and_the_first_is_kept_clean(self) -> None:
        for (service, address), end, chunking in itertools.product(LISTENERS, (b"\r\n", b"\n"), (False, True)):
            if end == b"\n" and address != DEVICES:
                continue
            for false_end in FALSE_ENDS:
                case = repr((service, address, end, chunking, false_end))
                listener = self.listener(service)
                codes = self.send(listener, address, end, false_end, chunking=chunking)
                self.assertEqual(codes, [250] if chunking else [354, 250], case)
                ((envelope, octets, _),) = listener.store.taken
                self.assertEqual(str(envelope.sender), "a@b.example", case)
                self.assertIn(b"evil@b.example", octets, case)
                self.assertIsNone(re.search(rb"\r(?!\n)|(?<!\r)\n", octets), case)
                self.assertOnlyOneEnd(octets, case)

    def assertOnlyOneEnd(self, octets: bytes, case: str) -> None:
        """On the way to the next host a line with nothing but a dot is doubled."""
        writer = DotWriter()
        out = writer.write(octets) + writer.end()
        self.assertEqual(out.index(b"\r\n.\r\n"), len(out) - 5, case)

    def test_where_stray_line_ends_are_refused_nothing_comes_in(self) -> None:
        for (service, address), chunking in itertools.product(LISTENERS, (False, True)):
            for false_end in FALSE_ENDS:
                listener = self.listener(service, stray_line_ends="refuse")
                codes = self.send(listener, address, b"\r\n", false_end, chunking=chunking)
                expected = 250 if address == DEVICES else 550
                self.assertEqual(codes[-1], expected, repr((service, chunking, false_end)))
                self.assertEqual(len(listener.store.taken), address == DEVICES)

    def test_commands_that_end_in_lf_are_answered_at_once_and_lead_nowhere(self) -> None:
        for service in ("mx", "submission", "lmtp"):
            listener = self.listener(service)
            protocol, wire = listener.connect()
            for command in (b"LHLO dev\n" if service == "lmtp" else b"EHLO dev\n", b"MAIL FROM:<a@b.example>\n", b"DATA\n", b"x\n.\n"):
                protocol.dataReceived(command)
            protocol.dataReceived(b"\r\n")
            self.assertEqual(wire.codes(), [220, 500], service)
            self.assertEqual(listener.store.taken, [])

    def test_a_device_that_waits_for_its_answers_ends_its_data_with_lf(self) -> None:
        listener = self.listener("mx")
        self.assertIn(DEVICES, listener.profile.bare_lf_networks)
        self.assertEqual(ipaddress.ip_address(DEVICES).version, 4)
        protocol, wire = listener.connect(DEVICES)
        for piece in (b"HELO dev\n", b"MAIL FROM:<a@b.example>\n", b"RCPT TO:<bob@example.org>\n", b"DATA\n", b"Subject: x\n\ntext\n.\n"):
            protocol.dataReceived(piece)
        self.assertEqual(wire.codes(), [220, 250, 250, 250, 354, 250])
        ((_, octets, _),) = listener.store.taken
        self.assertTrue(octets.endswith(b"Subject: x\r\n\r\ntext\r\n"))
        self.assertEqual(listener.step("mended")["what"], "stray line ends in the header")
