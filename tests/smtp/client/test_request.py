"""What is asked for, held against what is offered."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Failed
from mailserver.mail.envelope import Recipient, RecipientParameters
from mailserver.smtp.client.offer import NOTHING_OFFERED, Offer
from mailserver.smtp.client.request import mail_command, rcpt_command
from mailserver.smtp.client.session import Request
from mailserver.smtp.events import Mail, Rcpt
from mailserver.smtp.server.commands import parse_mail, parse_rcpt
from mailserver.smtp.server.extensions import Extensions
from tests.smtp.client.client_talk import Talk, request, to

EVERYTHING = Offer(
    extended=True, pipelining=True, size=True, eightbitmime=True, smtputf8=True, chunking=True, binarymime=True, dsn=True, requiretls=True
)
OFFERED = Extensions(size=1000)
UTF8_SENDER = Address("ü", "client.example")


def hello(*keywords: str) -> bytes:
    return "".join(f"250-{word}\r\n" for word in ("mx.example.org", "PIPELINING", *keywords)).encode() + b"250 HELP\r\n"


class NeedsTests(SynchronousTestCase):
    """A message that cannot go is refused in our own words, and nothing is said to the peer."""

    def assert_refused(self, talk: Talk, written: bytes, code: int, enhanced: str) -> None:
        self.assertEqual(written, b"")
        for outcome in talk.done.outcomes:
            self.assertIsInstance(outcome, Failed)
            self.assertEqual((outcome.reply.code, outcome.reply.enhanced), (code, enhanced))
            self.assertIn("not sent", outcome.note)
        self.assertIsNone(talk.done.sender_reply)
        self.assertTrue(talk.session.is_ready)

    def test_8bitmime(self):
        # RFC 6152 section 3.
        talk = Talk().ready(hello())
        self.assert_refused(talk, talk.send("a", "b", body="8BITMIME"), 554, "5.6.3")
        self.assertIn(b" BODY=8BITMIME\r\n", Talk().ready(hello("8BITMIME")).send(body="8BITMIME"))

    def test_binarymime(self):
        # RFC 3030 section 3.
        for keywords in ((), ("CHUNKING",), ("BINARYMIME",), ("8BITMIME",)):
            talk = Talk().ready(hello(*keywords))
            self.assert_refused(talk, talk.send(body="BINARYMIME"), 554, "5.6.3")
        self.assertIn(b" BODY=BINARYMIME\r\n", Talk().ready(hello("CHUNKING", "BINARYMIME")).send(body="BINARYMIME"))

    def test_a_size_above_the_greatest(self):
        # RFC 1870 section 6.2.
        talk = Talk().ready(hello("SIZE 10"))
        self.assert_refused(talk, talk.send(content=b"x" * 11), 552, "5.3.4")
        self.assertIn(b" SIZE=10\r\n", Talk().ready(hello("SIZE 10")).send(content=b"x" * 10))
        self.assertIn(b" SIZE=11\r\n", Talk().ready(hello("SIZE")).send(content=b"x" * 11))
        self.assertNotIn(b"SIZE", Talk().ready(hello()).send(content=b"x" * 11))

    def test_smtputf8_of_the_message(self):
        # RFC 6531 section 3.4.
        talk = Talk().ready(hello("8BITMIME"))
        self.assert_refused(talk, talk.send("a", "b", smtputf8=True), 550, "5.6.7")
        self.assertIn(b" SMTPUTF8\r\n", Talk().ready(hello("8BITMIME", "SMTPUTF8")).send(smtputf8=True))

    def test_smtputf8_of_the_sender(self):
        talk = Talk().ready(hello("8BITMIME"))
        for body in ("7BIT", "8BITMIME"):
            talk = Talk().ready(hello())
            self.assert_refused(talk, talk.send("a", "b", sender=UTF8_SENDER, body=body), 550, "5.6.7")
        written = Talk().ready(hello("SMTPUTF8")).send("a", sender=UTF8_SENDER)
        self.assertTrue(written.startswith("MAIL FROM:<ü@client.example> SMTPUTF8\r\n".encode()))

    def test_smtputf8_of_one_recipient_is_the_matter_of_this_recipient_alone(self):
        talk = Talk().ready(hello())
        written = talk.send("a", "ü", "b")
        self.assertEqual(written.count(b"RCPT"), 2)
        talk.hear(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", b"250 ok\r\n")
        self.assertEqual(talk.verdicts, ["ok", "never 553", "ok"])
        self.assertEqual(talk.done.outcomes[1].reply.enhanced, "5.6.7")

    def test_requiretls_needs_the_offer_and_tls(self):
        # RFC 8689 section 4.2.1.
        for keywords, is_encrypted in (((), True), (("REQUIRETLS",), False)):
            talk = Talk(is_encrypted=is_encrypted).ready(hello(*keywords))
            self.assert_refused(talk, talk.send(require_tls=True), 550, "5.7.30")
        self.assertIn(b" REQUIRETLS\r\n", Talk(is_encrypted=True).ready(hello("REQUIRETLS")).send(require_tls=True))

    def test_dsn_is_dropped_where_it_is_not_offered(self):
        # RFC 3461 section 5.2.2.
        more = {"ret": "HDRS", "envid": "id"}
        written = Talk().ready(hello()).send("a", **more)
        self.assertEqual(written.split(b"\r\n")[0], b"MAIL FROM:<s@client.example>")
        written = Talk().ready(hello("DSN")).send("a", **more)
        self.assertEqual(written.split(b"\r\n")[0], b"MAIL FROM:<s@client.example> RET=HDRS ENVID=id")

    def test_an_outcome_tells_whether_the_next_host_takes_reports_upon_itself(self):
        for keywords, notifies in ((("DSN",), True), ((), False)):
            talk = Talk().ready(hello(*keywords))
            talk.send()
            talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n", b"250 ok\r\n")
            self.assertIs(talk.done.outcomes[0].notifies, notifies)

    def test_no_request_is_without_recipients_or_with_a_body_that_is_none(self):
        self.assertRaises(ValueError, Request, None, (), 1)
        for more in ({"body": "9BIT"}, {"size": -1}, {"ret": "ALL"}):
            self.assertRaises(ValueError, replace, request(), **more)


class CommandTests(SynchronousTestCase):
    def test_the_null_sender(self):
        self.assertEqual(mail_command(request(sender=None), NOTHING_OFFERED, smtputf8=False), b"MAIL FROM:<>\r\n")

    def test_everything_at_once_and_the_server_core_reads_it(self):
        asked = request(content=b"x" * 9, body="8BITMIME", smtputf8=True, ret="FULL", envid="a b+c=d", require_tls=False)
        line = mail_command(asked, EVERYTHING, smtputf8=True)
        self.assertEqual(line, b"MAIL FROM:<s@client.example> SIZE=9 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=a+20b+2Bc+3Dd\r\n")
        mail = parse_mail(line[5:-2].decode(), OFFERED, takes_auth=False)
        self.assertIsInstance(mail, Mail)
        self.assertEqual((mail.parameters.envid, mail.parameters.ret, mail.parameters.size), ("a b+c=d", "FULL", 9))

    def test_notify_and_orcpt(self):
        (recipient,) = to("a", notify=frozenset({"FAILURE", "DELAY"}), orcpt=("rfc822", "x+y=z@example.net"))
        line = rcpt_command(recipient, EVERYTHING, smtputf8=False)
        self.assertEqual(line, b"RCPT TO:<a@example.org> NOTIFY=DELAY,FAILURE ORCPT=rfc822;x+2By+3Dz@example.net\r\n")
        self.assertEqual(rcpt_command(recipient, NOTHING_OFFERED, smtputf8=False), b"RCPT TO:<a@example.org>\r\n")

    def test_a_utf8_orcpt_is_written_in_ascii(self):
        # RFC 6533 section 3: this form may stand with and without SMTPUTF8.
        (recipient,) = to("a", orcpt=("utf-8", "ü+\\@example.net"))
        line = rcpt_command(recipient, EVERYTHING, smtputf8=False)
        self.assertEqual(line, b"RCPT TO:<a@example.org> ORCPT=utf-8;\\x{FC}\\x{2B}\\x{5C}@example.net\r\n")

    @given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=33))
    def test_the_server_core_decodes_every_envid_and_orcpt(self, text):
        line = mail_command(request(envid=text), EVERYTHING, smtputf8=False)
        if len(line.partition(b"ENVID=")[2]) > 102:
            return  # RFC 3461 section 4.4: too long for anyone
        mail = parse_mail(line[5:-2].decode(), OFFERED, takes_auth=False)
        self.assertEqual(mail.parameters.envid, text)
        for address_type in ("rfc822", "utf-8"):
            line = rcpt_command(to("a", orcpt=(address_type, text))[0], EVERYTHING, smtputf8=False)
            rcpt = parse_rcpt(line[5:-2].decode(), OFFERED, smtputf8=False)
            self.assertIsInstance(rcpt, Rcpt)
            self.assertEqual(rcpt.parameters, RecipientParameters(orcpt=(address_type, text)))

    def test_postmaster_and_quoted_local_parts_and_literals(self):
        for address, path in (
            (Address("postmaster", ""), b"<postmaster>"),
            (Address('a "b', "example.org"), b'<"a \\"b"@example.org>'),
            (Address("a", "[192.0.2.1]"), b"<a@[192.0.2.1]>"),
        ):
            self.assertEqual(rcpt_command(Recipient(address), EVERYTHING, smtputf8=False), b"RCPT TO:" + path + b"\r\n")

    def test_odd_dots_go_on_as_they_came(self):
        for spelling in ("a..b@x.example", ".a@x.example", "a.@x.example", '"a..b"@x.example'):
            recipient = Recipient(Address.parse(spelling))
            self.assertEqual(rcpt_command(recipient, Offer(), smtputf8=False), f"RCPT TO:<{spelling}>\r\n".encode())
        recipient = Recipient(Address.parse("a..b@bücher.example", utf8=True))
        self.assertEqual(rcpt_command(recipient, Offer(), smtputf8=False), b"RCPT TO:<a..b@xn--bcher-kva.example>\r\n")

    def test_where_only_the_domain_is_not_ascii_its_a_labels_are_said(self):
        # RFC 5891 section 4.4: they are the same name.
        address = Address("a", "Bücher.example")
        self.assertEqual(rcpt_command(Recipient(address), NOTHING_OFFERED, smtputf8=False), b"RCPT TO:<a@xn--bcher-kva.example>\r\n")
        asked = request(sender=address)
        self.assertEqual(mail_command(asked, NOTHING_OFFERED, smtputf8=False), b"MAIL FROM:<a@xn--bcher-kva.example>\r\n")
        talk = Talk().ready(hello("SMTPUTF8"))
        self.assertNotIn(b"SMTPUTF8", talk.send("a@bücher.example"))

    def test_in_a_transaction_with_smtputf8_addresses_stay_as_they_are(self):
        written = Talk().ready(hello("SMTPUTF8")).send("a@bücher.example", "ü")
        self.assertIn("RCPT TO:<a@bücher.example>\r\nRCPT TO:<ü@example.org>\r\n".encode(), written)

    def test_no_address_can_break_its_command(self):
        bad = ["a\r\nRSET", "a\nb", "a\0b", "a\x7fb"]
        for smtputf8 in (False, True):
            for local in bad:
                reply = rcpt_command(Recipient(Address(local, "example.org")), EVERYTHING, smtputf8=smtputf8)
                self.assertEqual((reply.code, reply.enhanced), (553, "5.1.3"), local)
                reply = mail_command(request(sender=Address(local, "example.org")), EVERYTHING, smtputf8=smtputf8)
                self.assertEqual((reply.code, reply.enhanced), (553, "5.1.7"), local)
        for local in ("ü\x85", "ü\r\n", "ü\u2028", "ü\ud800"):
            reply = rcpt_command(Recipient(Address(local, "example.org")), EVERYTHING, smtputf8=True)
            self.assertEqual(reply.code, 553, ascii(local))

    def test_a_domain_that_is_no_name_fails_its_recipient_alone(self):
        talk = Talk().ready(hello())
        self.assertEqual(talk.send("a@-ü-.example", "b").count(b"RCPT"), 1)
        talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n", b"250 ok\r\n")
        self.assertEqual(talk.verdicts, ["never 553", "ok"])
