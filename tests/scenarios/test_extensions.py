"""The service extensions, over a socket."""

from __future__ import annotations

from tests.scenarios.support import BASIC, ID, ScenarioCase, Wire

LMTP = BASIC.replace('service = "mx"', 'service = "lmtp"')


class Extensions(ScenarioCase):
    def test_ehlo_announces_what_is_there_and_no_version(self) -> None:
        server = self.serve(BASIC + "[limits]\nmessage_bytes = 100000\n")
        with Wire(server.port) as wire:
            answer = wire.command("EHLO client.example")
            self.assertIn("mx.example.org", answer.lines[0])
            offered = {line.split()[0] for line in answer.lines[1:]}
            for keyword in ("PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES"):
                self.assertIn(keyword, offered)
            self.assertIn("SIZE 100000", answer.lines)
            self.assertNotIn("STARTTLS", offered)
            for said in (wire.greeting.text, answer.text, wire.command("HELP").text):
                self.assertNotRegex(said.lower(), r"twisted|python|\d+\.\d+\.\d+(?! )")

    def test_a_declared_size_above_the_limit_is_refused_at_mail(self) -> None:
        """RFC 1870 section 6.1."""
        server = self.serve(BASIC + "[limits]\nmessage_bytes = 100000\n")
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            answer = wire.command("MAIL FROM:<sender@example.net> SIZE=100001")
            self.assertEqual((answer.code, answer.enhanced), (552, "5.3.4"))
            self.assertEqual(wire.command("MAIL FROM:<sender@example.net> SIZE=100000").code, 250)

    def test_a_message_above_the_limit_is_refused_at_its_end_and_the_session_goes_on(self) -> None:
        """RFC 1870 section 6.3."""
        server = self.serve(BASIC + "[limits]\nmessage_bytes = 100000\n")
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<sender@example.net>", "RCPT TO:<bob@example.org>", "DATA")
            wire.send(b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 20_000 + b".\r\n")
            answer = wire.reply()
            self.assertEqual((answer.code, answer.enhanced), (552, "5.3.4"))
            codes = wire.dialogue("MAIL FROM:<sender@example.net>", "RCPT TO:<bob@example.org>", "DATA")
            self.assertEqual(codes, [250, 250, 354])
            wire.send(b"Subject: small\r\n\r\nx\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
        (stored,) = server.wait_for_mail("bob")
        self.assertEqual(stored.header("Subject"), "small")

    def test_eight_bit_content_arrives_as_it_was(self) -> None:
        """RFC 6152."""
        server = self.serve()
        body = "Grüße\r\n".encode("latin-1") + bytes(range(128, 256)) + b"\r\n"
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<sender@example.net> BODY=8BITMIME")
            wire.dialogue("RCPT TO:<bob@example.org>", "DATA")
            wire.send(b"Subject: x\r\n\r\n" + body + b".\r\n")
            self.assertEqual(wire.reply().code, 250)
        (stored,) = server.wait_for_mail("bob")
        self.assertEqual(stored.body, body)

    def test_an_internationalised_address_needs_smtputf8_and_is_delivered_with_it(self) -> None:
        """RFC 6531 section 3.4."""
        server = self.serve(accounts=("jürgen@example.org", "bob@example.org"))
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            self.assertGreaterEqual(wire.command("MAIL FROM:<señor@example.net>").code, 500)
            codes = wire.dialogue("MAIL FROM:<señor@example.net> SMTPUTF8", "RCPT TO:<jürgen@example.org>", "DATA")
            self.assertEqual(codes, [250, 250, 354])
            wire.send("Subject: Grüße\r\n\r\nhallo\r\n.\r\n".encode())
            self.assertEqual(wire.reply().code, 250)
        (stored,) = server.wait_for_mail("jürgen")
        self.assertEqual(stored.header("Subject"), "Grüße")
        self.assertIn("UTF8SMTP", stored.header("Received") or "")

    def test_bdat_brings_a_message_in_pieces_with_dots_untouched(self) -> None:
        """RFC 3030 section 2."""
        server = self.serve()
        first, second = b"Subject: chunks\r\n\r\n.\r\n..\r\nMAIL", b" FROM:<x>\r\n.\r\nend\r\n"
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<sender@example.net>", "RCPT TO:<bob@example.org>")
            wire.send(b"BDAT %d\r\n" % len(first) + first)
            self.assertEqual(wire.reply().code, 250)
            wire.send(b"BDAT %d LAST\r\n" % len(second) + second)
            self.assertEqual(wire.reply().code, 250)
            self.assertEqual(wire.command("NOOP").code, 250)
        (stored,) = server.wait_for_mail("bob")
        self.assertEqual(stored.body, b".\r\n..\r\nMAIL FROM:<x>\r\n.\r\nend\r\n")

    def test_bdat_pipelined_with_its_envelope_is_answered_in_order(self) -> None:
        server = self.serve()
        content = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 10_000
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            wire.send(
                b"MAIL FROM:<sender@example.net>\r\nRCPT TO:<nobody@example.org>\r\nRCPT TO:<bob@example.org>\r\n"
                b"BDAT %d\r\n%bBDAT 0 LAST\r\nNOOP\r\nQUIT\r\n" % (len(content), content)
            )
            self.assertEqual([wire.reply().code for _ in range(7)], [250, 550, 250, 250, 250, 250, 221])
            self.assertTrue(wire.is_closed())
        (stored,) = server.wait_for_mail("bob")
        self.assertEqual(len(stored.body), 180_000)

    def test_dsn_parameters_are_taken_and_wrong_ones_refused(self) -> None:
        """RFC 3461 section 4."""
        server = self.serve()
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            codes = wire.dialogue(
                "MAIL FROM:<sender@example.net> RET=SOME",
                "MAIL FROM:<sender@example.net> RET=HDRS ENVID=abc+2Bdef",
                "RCPT TO:<bob@example.org> NOTIFY=NEVER,SUCCESS",
                "RCPT TO:<bob@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;bob+40example.org",
                "RCPT TO:<bob@example.org> UNKNOWN=1",
                "DATA",
            )
            self.assertEqual(codes, [501, 250, 501, 250, 555, 354])
            wire.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
        server.wait_for_mail("bob")

    def test_a_reply_about_a_message_carries_its_id(self) -> None:
        server = self.serve()
        accepted = server.send(b"Subject: x\r\n\r\nx")
        self.assertRegex(accepted.text, ID)
        (stored,) = server.wait_for_mail("alice")
        self.assertIn(accepted.id, stored.path.name)

    def test_lmtp_answers_for_each_recipient(self) -> None:
        """RFC 2033 section 4.2."""
        server = self.serve(LMTP)
        with Wire(server.port) as wire:
            self.assertGreaterEqual(wire.command("EHLO client.example").code, 500)
            codes = wire.dialogue(
                "LHLO client.example",
                "MAIL FROM:<sender@example.net>",
                "RCPT TO:<alice@example.org>",
                "RCPT TO:<nobody@example.org>",
                "RCPT TO:<bob@example.org>",
                "DATA",
            )
            self.assertEqual(codes, [250, 250, 250, 550, 250, 354])
            wire.send(b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
            self.assertEqual([wire.reply().code for _ in range(3)], [250, 250, 221])
        server.wait_for_mail("alice")
        server.wait_for_mail("bob")

    def test_lmtp_on_a_unix_socket_needs_no_network(self) -> None:
        """The socket stands where the configuration says; it is asked by smtplib's own LMTP client."""
        import smtplib

        server = self.serve(BASIC + '\n[[listen]]\nservice = "lmtp"\nendpoint = "unix:{work}/lmtp.sock"\n')
        client = smtplib.LMTP(str(server.work / "lmtp.sock"))
        self.addCleanup(client.close)
        self.assertEqual(client.sendmail("s@example.net", ["alice@example.org"], "Subject: x\r\n\r\nx\r\n"), {})
        client.quit()
        server.wait_for_mail("alice")
