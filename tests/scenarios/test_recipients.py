"""Who gets a message, and who is refused at RCPT."""

from __future__ import annotations

from tests.scenarios.support import BASIC, Answer, ScenarioCase, Server, Wire

ALIASES = """
catch_all = "info@example.org"
subaddress = "+"

[domain."example.org".aliases]
sales = ["alice@example.org", "bob@example.org"]
boss = "alice@example.org"
all = ["sales@example.org", "info@example.org"]
away = "someone@elsewhere.example"

[domain."example.com"]
"""


class Recipients(ScenarioCase):
    def rcpt(self, server: Server, path: str) -> Answer:
        with Wire(server.port) as wire:
            self.assertEqual(wire.dialogue("EHLO client.example", "MAIL FROM:<sender@example.net>"), [250, 250])
            return wire.command(f"RCPT TO:<{path}>")

    def test_one_message_goes_to_each_of_its_recipients_once(self) -> None:
        server = self.serve()
        with Wire(server.port) as wire:
            codes = wire.dialogue(
                "EHLO client.example",
                "MAIL FROM:<sender@example.net>",
                "RCPT TO:<alice@example.org>",
                "RCPT TO:<bob@example.org>",
                "RCPT TO:<alice@example.org>",
                "DATA",
            )
            self.assertEqual(codes, [250, 250, 250, 250, 250, 354])
            wire.send(b"Subject: to both\r\n\r\nhello\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
        (for_bob,) = server.wait_for_mail("bob")
        self.assertEqual(for_bob.body, b"hello\r\n")
        self.assertGreaterEqual(len(server.messages("alice")), 1)

    def test_an_alias_reaches_everyone_behind_it(self) -> None:
        server = self.serve(
            BASIC + ALIASES, accounts=("alice@example.org", "bob@example.org", "info@example.org", "carol@example.com")
        )
        self.assertEqual(server.send(b"Subject: all\r\n\r\nhello", to="all@example.org").code, 250)
        for user in ("alice", "bob", "info"):
            (stored,) = server.wait_for_mail(user)
            self.assertEqual(stored.body, b"hello\r\n")

    def test_subaddress_catch_all_and_case_of_the_domain(self) -> None:
        server = self.serve(BASIC + ALIASES, accounts=("alice@example.org", "bob@example.org", "info@example.org"))
        self.assertEqual(server.send(b"Subject: a\r\n\r\na", to="alice+lists@example.org").code, 250)
        self.assertEqual(server.send(b"Subject: b\r\n\r\nb", to="nobody.known@example.org").code, 250)
        self.assertEqual(server.send(b"Subject: c\r\n\r\nc", to="bob@EXAMPLE.Org").code, 250)
        for user in ("alice", "info", "bob"):
            server.wait_for_mail(user)

    def test_an_unknown_user_is_refused_at_rcpt_and_the_others_get_the_message(self) -> None:
        server = self.serve()
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<sender@example.net>")
            unknown = wire.command("RCPT TO:<nobody@example.org>")
            self.assertEqual((unknown.code, unknown.enhanced), (550, "5.1.1"))
            self.assertEqual(wire.dialogue("RCPT TO:<bob@example.org>", "DATA"), [250, 354])
            wire.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
        server.wait_for_mail("bob")

    def test_without_a_valid_recipient_there_is_no_data(self) -> None:
        """RFC 5321 section 3.3: DATA after no accepted RCPT."""
        server = self.serve()
        with Wire(server.port) as wire:
            codes = wire.dialogue(
                "EHLO client.example", "MAIL FROM:<sender@example.net>", "RCPT TO:<nobody@example.org>", "DATA"
            )
        self.assertEqual(codes[:3], [250, 250, 550])
        self.assertIn(codes[3], (503, 554))

    def test_relaying_is_denied_also_in_disguise(self) -> None:
        server = self.serve()
        for path in (
            "someone@elsewhere.example",
            "@example.org:someone@elsewhere.example",  # source route, RFC 5321 appendix C
            "@example.org,@elsewhere.example:someone@elsewhere.example",
            '"someone@elsewhere.example"@elsewhere.example',
            "someone@[127.0.0.2]",
        ):
            answer = self.rcpt(server, path)
            self.assertEqual((answer.code, answer.enhanced), (550, "5.7.1"), path)

    def test_percent_hack_and_bang_path_are_local_parts_like_others(self) -> None:
        """RFC 5321 section 2.3.11: nobody but us interprets the local part, and we do not."""
        server = self.serve()
        for path in (
            "someone%elsewhere.example@example.org",
            "elsewhere.example!someone@example.org",
            '"someone@elsewhere.example"@example.org',
        ):
            answer = self.rcpt(server, path)
            self.assertEqual(answer.code, 550, path)
            self.assertIn(answer.enhanced, ("5.1.1", "5.7.1"), path)

    def test_the_null_sender_is_taken_and_postmaster_needs_no_domain(self) -> None:
        """RFC 5321 sections 4.5.5 and 4.5.1."""
        server = self.serve(BASIC + 'postmaster = "alice@example.org"\n')
        with Wire(server.port) as wire:
            codes = wire.dialogue("EHLO client.example", "MAIL FROM:<>", "RCPT TO:<postmaster>", "DATA")
            self.assertEqual(codes, [250, 250, 250, 354])
            wire.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual(stored.header("Return-Path"), "<>")

    def test_a_network_that_may_relay_is_taken_at_its_word(self) -> None:
        server = self.serve(
            BASIC + '[relay]\nuse = "capture"\nnetworks = ["127.0.0.0/8"]\n[queue]\nretry = ["1s"]\n',
        )
        answer = self.rcpt(server, "someone@elsewhere.example")
        self.assertEqual(answer.code, 250)

    ways = ("alice@example.org", "ALICE@example.org", "alice+x@example.org", "office@example.org")
    aliases = """
[domain."example.org".aliases]
office = ["alice@example.org", "Alice+y@example.org"]
bob = ["bob@example.org", "alice@example.org"]
"""

    def test_a_mailbox_gets_one_copy_and_each_recipient_a_report(self) -> None:
        server = self.serve(BASIC + self.aliases)
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<bob@example.org>")
            for address in self.ways:
                self.assertEqual(wire.command(f"RCPT TO:<{address}> NOTIFY=SUCCESS").code, 250)
            wire.command("DATA")
            answer = wire.command(b"Subject: once\r\n\r\nx\r\n.")
        self.assertEqual(answer.code, 250)
        (report,) = server.wait_for_mail("bob")
        for address in self.ways:
            self.assertIn(f"Final-Recipient: rfc822; {address}".encode(), report.data)
        copies = [one for one in server.wait_for_mail("alice", 2) if one.header("Subject") == "once"]  # and bob's report, kept and forwarded
        self.assertEqual([one.header("Delivered-To") for one in copies], ["alice@example.org"])

    def test_in_lmtp_each_recipient_of_a_mailbox_has_an_answer(self) -> None:
        server = self.serve(BASIC.replace('service = "mx"', 'service = "lmtp"') + self.aliases)
        with Wire(server.port) as wire:
            wire.dialogue("LHLO client.example", "MAIL FROM:<sender@example.net>")
            wire.dialogue(*[f"RCPT TO:<{address}>" for address in self.ways], "DATA")
            wire.send(b"Subject: once\r\n\r\nx\r\n.\r\n")
            self.assertEqual([wire.reply().code for _ in self.ways], [250] * 4)
            wire.dialogue("MAIL FROM:<sender@example.net>", "RCPT TO:<bob@example.org>", "DATA")
            wire.send(b"Subject: kept and forwarded\r\n\r\nx\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
        server.wait_for_mail("bob")
        self.assertEqual(len(server.wait_for_mail("alice", 2)), 2)
        self.assertEqual(server.command("check").returncode, 0)

    def test_the_recipient_after_the_last_allowed_one_hears_452_and_the_rest_is_delivered(self) -> None:
        """RFC 5321 section 4.5.3.1.10."""
        server = self.serve(BASIC + "[limits]\nrecipients = 100\n")
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<sender@example.net>")
            codes = wire.dialogue(*["RCPT TO:<bob@example.org>"] * 101)
            self.assertEqual(codes, [250] * 100 + [452])
            self.assertEqual(wire.command("DATA").code, 354)
            wire.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
        self.assertGreaterEqual(len(server.messages("bob")), 0)
