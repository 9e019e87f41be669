"""The order of everything that touches a message's octets (docs/octets.md)."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mailserver.interfaces import IContentFilter, IModifier, ISigner
from mailserver.mail.answers import Pass
from mailserver.mail.content import Content
from mailserver.mail.edits import AddHeader
from mailserver.mail.own_results import without_own_results
from mailserver.receive.judging import BoundFilter
from mailserver.receive.submission.rules import Submission
from tests.receive.test_protocol import ConnectionCase

OURS = b"Authentication-Results: mx.example.org; spf=pass\r\n"
THEIRS = b"Authentication-Results: other.example; spf=fail\r\n"


@implementer(IContentFilter, IModifier, ISigner)
class Watches:
    """Keeps the octets that it sees at each stage."""

    def __init__(self) -> None:
        self.seen: dict[str, bytes] = {}

    async def judge_content(self, envelope: Any, content: Content) -> Any:
        self.seen["judged"] = b"".join(content.chunks())
        return Pass()

    async def edits(self, envelope: Any, content: Content) -> Any:
        self.seen["edited"] = b"".join(content.chunks())
        return [AddHeader("X-Edited", "yes")]

    async def sign(self, envelope: Any, content: Content) -> Any:
        self.seen["signed"] = b"".join(content.chunks())
        return [AddHeader("X-Signature", "yes")]


class Order(ConnectionCase):
    def sent(self, text: bytes, address: str = "203.0.113.9", **options: Any) -> tuple[dict[str, bytes], bytes]:
        """What was seen at each stage, and what was committed."""
        watches = Watches()
        listener = self.listener(filters=[BoundFilter("watches", watches)], **options)
        protocol, wire = listener.greeted(address)
        protocol.dataReceived(b"MAIL FROM:<a@example.net>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n" + text + b".\r\n")
        self.assertEqual(wire.codes()[-1], 250)
        ((_, octets, _),) = listener.store.taken
        return watches.seen, octets

    def test_mail_from_other_hosts(self) -> None:
        seen, committed = self.sent(OURS + THEIRS + b"Subject : x\r\nnot a field\r\n\r\nhel\nlo\r\n")
        mended = THEIRS + b"Subject : x\r\n\r\nnot a field\r\n\r\nhel\r\nlo\r\n"
        self.assertEqual(seen["judged"], OURS + mended)
        self.assertTrue(seen["edited"].startswith(b"Received: from client.example"))
        received = seen["edited"].removesuffix(mended)
        self.assertEqual(seen["edited"], received + mended)
        self.assertEqual(received.count(b"Received:"), 1)
        self.assertNotIn(b"mx.example.org; spf", received)
        self.assertEqual(seen["signed"], b"X-Edited: yes\r\n" + seen["edited"])
        self.assertEqual(committed, b"X-Signature: yes\r\n" + seen["signed"])

    def test_submitted_mail_is_complete_before_it_is_judged_and_fit_for_every_host_before_it_is_signed(self) -> None:
        submission = Submission  # as a listener has it
        listener = self.listener()
        policy = submission(
            hostname="mx.example.org", clock=listener.clock, rights=None, allowance=None, header_from=True, complete=True
        )
        text = OURS + b"From: <a@example.net>\r\nBcc: <b@example.net>\r\n\r\n" + "gr\u00fc\u00dfe\r\n".encode() + b"x" * 1200 + b"\r\n"
        seen, committed = self.sent(text, "192.0.2.7", service="submission", submission=policy)
        judged = seen["judged"]
        for field in (b"Date: ", b"Message-ID: ", b"From: <a@example.net>", b"Content-Transfer-Encoding: "):
            self.assertIn(field, judged)
        self.assertNotIn(b"Bcc", judged)
        self.assertTrue(judged.isascii())
        self.assertLess(max(map(len, judged.split(b"\r\n"))), 999)
        self.assertNotIn(OURS, seen["edited"])
        self.assertEqual(committed, b"X-Signature: yes\r\nX-Edited: yes\r\n" + seen["edited"])

    def test_what_is_signed_already_keeps_its_octets(self) -> None:
        listener = self.listener()
        policy = Submission(hostname="mx.example.org", clock=listener.clock, rights=None, allowance=None, complete=False)
        body = "gr\u00fc\u00dfe\r\n".encode() + b"x" * 1200 + b"\r\n"
        text = b"DKIM-Signature: v=1\r\nFrom: <a@example.net>\r\n\r\n" + body
        _, committed = self.sent(text, "192.0.2.7", service="submission", submission=policy)
        self.assertTrue(committed.endswith(text))


class OwnResults(ConnectionCase):
    def test_however_it_is_written_a_field_with_our_name_goes(self) -> None:
        for value in (
            b"mx.example.org; spf=pass", b" MX.Example.ORG;none", b"(a (nested) comment) mx.example.org 1; x=y", b'"mx.example.org"; x',
            b"\r\n\tmx.example.org;\r\n\tspf=pass", b"mx.example.org", b"mx.example.org. ; x", b'"mx\\.example.org"; x',
        ):  # fmt: skip
            content = Content.of(b"A: 1\r\naUthentication-results:" + value + b"\r\nB: 2\r\n\r\nbody\r\n")
            self.assertEqual(b"".join(without_own_results(content, "mx.example.org").chunks()), b"A: 1\r\nB: 2\r\n\r\nbody\r\n", value)

    def test_one_that_hides_its_name_goes_and_so_does_our_name_in_other_letters(self) -> None:
        hidden = (b"((((" * 600, b"(" + b"a" * 2100 + b") mx.example.org; dmarc=pass", b" ( mx.example.org; dmarc=pass")
        for host, values in (("mx.example.org", hidden), ("mx.xn--bcher-kva.example", (b"mx.B\xc3\xbccher.example; dmarc=pass",))):
            for value in values:
                content = Content.of(b"A: 1\r\nAuthentication-Results:" + value + b"\r\n\r\nbody\r\n")
                self.assertEqual(b"".join(without_own_results(content, host).chunks()), b"A: 1\r\n\r\nbody\r\n", value)

    def test_those_of_others_stay_and_so_does_the_object(self) -> None:
        for value in (b"other.example; x", b"mx.example.org.evil.example; x", b"evil.mx.example.org; x", b"", b"; mx.example.org", b"b\xc3\xbccher.example; x"):
            content = Content.of(b"Authentication-Results:" + value + b"\r\n\r\nbody mx.example.org\r\n")
            self.assertIs(without_own_results(content, "mx.example.org"), content)
