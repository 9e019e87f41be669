"""Single commands and the lines they stand in (RFC 5321 sections 2.3.8, 4.1.1 and 4.5.3.1)."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.events import Closed, Expand, Hello, Help, Mail, Noop, Quit, Rejected, Reset, Verify, Wait
from mailserver.smtp.server.session import SessionLimits
from mailserver.smtp.server.states import State
from tests.smtp.server.conversation import Conversation


def refused(line: bytes, ready: bool = True, **kinds: object) -> tuple[list[tuple[str, int, str]], bytes]:
    conversation = Conversation(**kinds)  # type: ignore[arg-type]
    if ready:
        conversation.say_hello()
    said = conversation.send(line + b"\r\n")
    return conversation.rejected, said


class HelloTests(SynchronousTestCase):
    def test_the_name_is_given_on(self):
        for verb in ("EHLO", "HELO"):
            conversation = Conversation()
            conversation.send(f"{verb} [192.0.2.1]\r\n".encode())
            self.assertEqual(conversation.events, [Hello(verb, "[192.0.2.1]")])

    def test_a_name_that_is_no_domain_is_taken(self):
        for said, name in (
            (b"under_score", "under_score"), (b" Anna's PC\t2 ", "Anna's PC 2"), ("Müller-PC".encode(), "Müller-PC"), (b"x y" * 85, "x y" * 85),
        ):  # fmt: skip
            conversation = Conversation()
            conversation.send(b"ehlo " + said + b"\r\n")
            self.assertEqual(conversation.events, [Hello("EHLO", name)])

    def test_no_name_or_an_endless_one_is_501_without_an_enhanced_code(self):
        for line in (b"EHLO", b"HELO ", b"EHLO \t ", b"EHLO " + b"x" * 256):
            rejected, said = refused(line, ready=False)
            self.assertEqual([code for _, code, _ in rejected], [501], line)
            self.assertTrue(said.startswith(b"501 A host"), said)

    def test_a_second_hello_ends_the_transaction(self):
        # RFC 5321 section 4.1.4
        conversation = Conversation().address()
        conversation.send(b"EHLO again.example\r\n")
        self.assertEqual(conversation.events, [Reset("EHLO"), Hello("EHLO", "again.example")])
        self.assertIs(conversation.session.state, State.READY)
        self.assertEqual(conversation.send(b"DATA\r\n")[:3], b"503")

    def test_a_hello_after_a_message_ends_no_transaction(self):
        conversation = Conversation().address()
        conversation.send(b"DATA\r\n", b".\r\n")
        conversation.forget()
        conversation.send(b"EHLO again.example\r\n")
        self.assertEqual(conversation.events, [Hello("EHLO", "again.example")])

    def test_a_second_hello_that_is_malformed_changes_nothing(self):
        conversation = Conversation().address()
        conversation.send(b"EHLO\r\n")
        self.assertIs(conversation.session.state, State.RECIPIENTS)


class SmallCommandTests(SynchronousTestCase):
    def test_noop_help_rset_and_quit_are_answered_by_the_session(self):
        conversation = Conversation().say_hello()
        said = conversation.send(b"NOOP ignored text\r\nHELP rcpt\r\nRSET\r\nQUIT\r\n")
        self.assertEqual(conversation.events, [Noop(), Help("rcpt"), Reset(), Quit()])
        self.assertEqual(conversation.codes, [250, 214, 250, 221])
        self.assertTrue(said.endswith(b"221 2.0.0 Goodbye\r\n"))
        self.assertIs(conversation.wait, Wait.CLOSED)

    def test_vrfy_and_expn_ask(self):
        conversation = Conversation()
        conversation.send(b"VRFY Joe <joe@b.example>\r\nEXPN list\r\n")
        self.assertEqual(conversation.events, [Verify("Joe <joe@b.example>"), Expand("list")])
        self.assertEqual(conversation.codes, [252, 252])

    def test_vrfy_and_expn_need_something_to_ask_about(self):
        for line in (b"VRFY", b"EXPN", b"EXPN  "):
            self.assertEqual(refused(line)[0], [(line[:4].decode(), 501, "5.5.4")])

    def test_vrfy_takes_utf_8_with_smtputf8(self):
        # RFC 6531 section 3.7.4.2
        conversation = Conversation()
        conversation.send("VRFY jörg SMTPUTF8\r\n".encode())
        self.assertEqual(conversation.events, [Verify("jörg", smtputf8=True)])
        self.assertEqual(refused("EXPN jörg".encode())[0], [("EXPN", 553, "5.6.7")])

    def test_commands_without_arguments_refuse_them(self):
        for line in (b"RSET now", b"QUIT now", b"STARTTLS now"):
            self.assertEqual(refused(line)[0], [(line.split()[0].decode(), 501, "5.5.4")])
        conversation = Conversation().address()
        conversation.send(b"DATA now\r\n")
        self.assertEqual(conversation.rejected, [("DATA", 501, "5.5.4")])
        self.assertIs(conversation.session.state, State.RECIPIENTS)

    def test_white_space_at_the_end_is_tolerated(self):
        # RFC 5321 section 4.1.1
        conversation = Conversation().say_hello()
        conversation.send(b"MAIL FROM:<a@b.example>  \r\nRCPT TO:<c@d.example> \r\nDATA   \r\n")
        self.assertEqual(conversation.codes, [250, 250, 354])

    def test_verbs_ignore_case(self):
        conversation = Conversation().say_hello()
        conversation.send(b"mAiL from:<a@b.example>\r\nrcpt TO:<c@d.example>\r\ndata\r\n.\r\nquit\r\n")
        self.assertEqual(conversation.codes, [250, 250, 354, 250, 221])

    def test_an_unknown_verb_is_500(self):
        for line in (b"FOO", b"", b" ", b"MAILFROM:<a@b.example>", b"DATA.", b"GET / HTTP/1.1"):
            self.assertEqual([(code, enhanced) for _, code, enhanced in refused(line)[0]], [(500, "5.5.2")], line)

    def test_mail_larger_than_the_limit_is_552(self):
        # RFC 1870 section 6.1
        self.assertEqual(refused(b"MAIL FROM:<a@b.example> SIZE=1000001")[0], [("MAIL", 552, "5.3.4")])
        self.assertEqual(refused(b"MAIL FROM:<a@b.example> SIZE=1000000")[0], [])
        self.assertEqual(refused(b"MAIL FROM:<a@b.example> SIZE=" + b"9" * 20)[0], [("MAIL", 552, "5.3.4")])

    def test_no_limit_refuses_no_size(self):
        limits = SessionLimits(message_octets=0)
        self.assertEqual(refused(b"MAIL FROM:<a@b.example> SIZE=" + b"9" * 20, limits=limits)[0], [])

    def test_nothing_follows_quit(self):
        conversation = Conversation()
        conversation.send(b"QUIT\r\nNOOP\r\n")
        self.assertEqual(conversation.events, [Quit()])
        self.assertEqual(conversation.session.buffered, 0)
        self.assertEqual(conversation.send(b"NOOP\r\n"), b"")


class LineTests(SynchronousTestCase):
    def test_only_crlf_ends_a_line(self):
        for line in (b"NOOP\nNOOP", b"NOOP\rNOOP", b"NOOP\n\rNOOP", b"NOOP\r", b"\nNOOP", b"NOOP\n", b"\rNOOP"):
            conversation = Conversation()
            conversation.send(line + b"\r\nHELP\r\n")
            self.assertEqual(conversation.codes, [500, 214], line)
            self.assertEqual([type(event) for event in conversation.events], [Rejected, Help], line)

    def test_a_bare_lf_is_answered_at_once_and_the_rest_of_its_line_is_not_executed(self):
        conversation = Conversation()
        self.assertEqual(conversation.send(b"NOOP\n")[:9], b"500 5.5.2")
        self.assertEqual(conversation.send(b"QUIT\n", b"HELP\nHELP\r"), b"")
        self.assertEqual(conversation.send(b"\nNOOP\r\n"), b"250 2.0.0 OK\r\n")

    def test_control_and_8_bit_octets_are_refused_and_not_said_back(self):
        for octets in (b"\0", b"\x01", b"\x0b", b"\x1b[2J", b"\x7f", b"\xff\xfe", b"\x80", "é".encode(), "\u0085".encode()):
            for line in (b"NOOP " + octets, b"FOO" + octets, b"EHLO " + octets, b"HELP " + octets, b"QUIT" + octets):
                if line == "EHLO é".encode():  # a name that is sound UTF-8
                    continue
                rejected, said = refused(line)
                self.assertEqual(rejected, [("", 500, "5.5.2")], line)
                self.assertNotIn(octets, said)

    def test_a_tab_between_words_is_a_blank_and_none_in_a_quoted_string(self):
        conversation = Conversation()
        conversation.send(b"EHLO\ta.example\t\r\nMAIL\tFROM:\t<a@b.example>\tSIZE=1 \r\nRCPT TO: \t <c@d.example>\r\nRCPT TO:<\"c\td\"@e.example>\r\n")
        self.assertEqual(conversation.codes, [250, 250, 250, 500])
        conversation = Conversation().say_hello()
        conversation.send("MAIL FROM:\t<jörg@b.example>\tSMTPUTF8\r\n".encode())
        self.assertEqual(conversation.codes, [250])

    def test_blanks_may_stand_behind_any_command_and_between_its_words(self):
        conversation = Conversation()
        conversation.send(b"EHLO a.example  \r\n")
        self.assertEqual(conversation.events, [Hello("EHLO", "a.example")])
        conversation.send(b"MAIL  FROM:<a@b.example>  SIZE=1  \r\nRCPT   TO:<c@d.example> \r\nDATA \r\n")
        self.assertEqual(conversation.codes[1:], [250, 250, 354])

    def test_controls_and_broken_utf_8_in_an_address_are_refused(self):
        for path in (b"a\0@b.example", b"a\xe9@b.example", b"a\xc2\x85@b.example", b"a\xe2\x80\xa8@b.example", b"\xed\xa0\x80@b.example"):
            rejected, said = refused(b"MAIL FROM:<" + path + b"> SMTPUTF8")
            self.assertEqual(rejected, [("", 500, "5.5.2")], path)
            self.assertTrue(said.isascii())

    def test_utf_8_in_mail_needs_smtputf8(self):
        line = "MAIL FROM:<jörg@b.example>".encode()
        self.assertEqual(refused(line)[0], [("MAIL", 553, "5.6.7")])
        conversation = Conversation().say_hello()
        conversation.send(line + b" SMTPUTF8\r\n", "RCPT TO:<ünal@b.example>\r\n".encode())
        self.assertEqual(conversation.codes, [250, 250])
        self.assertIsInstance(conversation.events[0], Mail)

    def test_the_longest_line_and_one_octet_more(self):
        # 2048 octets with the CRLF
        conversation = Conversation()
        self.assertEqual(conversation.send(b"NOOP " + b"x" * 2041 + b"\r\n"), b"250 2.0.0 OK\r\n")
        self.assertEqual(conversation.send(b"NOOP " + b"x" * 2042 + b"\r\n"), b"500 5.5.2 The command line is too long\r\n")

    def test_the_longest_line_arriving_in_the_middle_of_its_crlf(self):
        conversation = Conversation()
        self.assertEqual(conversation.send(b"NOOP " + b"x" * 2041 + b"\r"), b"")
        self.assertEqual(conversation.send(b"\n"), b"250 2.0.0 OK\r\n")

    def test_an_endless_line_is_answered_once_and_kept_nowhere(self):
        conversation = Conversation()
        for _ in range(1000):
            conversation.send(b"x" * 10_000)
            self.assertLessEqual(conversation.session.buffered, 2048)
        self.assertEqual(conversation.codes, [500])
        self.assertEqual(conversation.send(b"QUIT\r"), b"", "not executed")
        self.assertEqual(conversation.send(b"\nNOOP\r\n"), b"250 2.0.0 OK\r\n")

    def test_the_rest_of_a_long_line_is_not_executed(self):
        for pieces in ([b"x" * 5000 + b" \r\n"], [b"x" * 5000, b"QUIT", b"\r\n"], [b"x" * 2047, b"\r", b"QUIT\r", b"\n"]):
            conversation = Conversation()
            conversation.send(*pieces)
            self.assertEqual(conversation.codes, [500], pieces)
            self.assertIs(conversation.wait, Wait.NEED_DATA)

    def test_an_auth_line_may_be_longer(self):
        # RFC 4954 section 4: 12288 octets
        conversation = Conversation().say_hello()
        conversation.send(b"AUTH PLAIN " + b"A" * (12288 - 2 - 11 - 3) + b"\r\n")
        self.assertEqual(conversation.codes, [235])
        conversation = Conversation().say_hello()
        conversation.send(b"auth PLAIN " + b"A" * 12288 + b"\r\nNOOP\r\n")
        self.assertEqual(conversation.codes, [500, 250])

    def test_convert_lets_lf_end_a_command(self):
        conversation = Conversation(lf_lines=True)
        conversation.send(b"EHLO a.example\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\nNOOP a\rb\nQUIT\n")
        self.assertEqual(conversation.codes, [250, 250, 250, 500, 221])


class EndTests(SynchronousTestCase):
    def test_complete_commands_are_served_after_the_end_of_input(self):
        conversation = Conversation()
        conversation.session.receive_data(b"NOOP\r\nNOOP\r\nNOO")
        conversation.session.receive_eof()
        conversation.take()
        self.assertEqual(conversation.codes, [250, 250])
        self.assertIs(conversation.wait, Wait.CLOSED)

    def test_the_end_of_input_in_content_ends_no_message(self):
        for state in (b"DATA\r\nabc\r\n.\r", b"BDAT 5 LAST\r\nabc"):
            conversation = Conversation().address()
            conversation.send(state)
            conversation.session.receive_eof()
            conversation.take()
            self.assertIs(conversation.wait, Wait.CLOSED)
            self.assertNotIn(250, conversation.codes)

    def test_a_greeting_that_is_a_refusal_ends_the_session(self):
        from mailserver.mail.reply import Reply

        conversation = Conversation(greet=False)
        conversation.session.greet(Reply.of(554, "5.7.1", "No mail from you here"))
        self.assertEqual(conversation.session.data_to_send(), b"554 No mail from you here\r\n", "no enhanced code (RFC 2034)")
        self.assertEqual(conversation.send(b"QUIT\r\n"), b"")
        self.assertIs(conversation.wait, Wait.CLOSED)

    def test_no_closed_event_where_the_caller_has_ended_the_session(self):
        from mailserver.mail.reply import Reply

        conversation = Conversation(answer=lambda event: Reply.of(421, "4.3.2", "Going down"))
        conversation.send(b"EHLO a.example\r\nNOOP\r\n")
        self.assertEqual(conversation.said, b"421 4.3.2 Going down\r\n")
        self.assertNotIn(Closed, [type(event) for event in conversation.events])
        self.assertIs(conversation.wait, Wait.CLOSED)
