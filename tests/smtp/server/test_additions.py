"""Extensions beside the server's own: what may be declared, and what a session makes of it (RFC 5321 section 2.2.2)."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.smtp.events import Extended, Mail, Rcpt, Rejected
from mailserver.smtp.server.additions import (
    OWN_KEYWORDS,
    OWN_MAIL_PARAMETERS,
    OWN_RECIPIENT_PARAMETERS,
    OWN_VERBS,
    ExtensionCommand,
    ExtensionParameter,
    SMTPExtension,
)
from mailserver.smtp.server.extensions import Extensions
from mailserver.smtp.server.parameters import mail_parameters, recipient_parameters
from mailserver.smtp.server.session import COMMANDS
from mailserver.smtp.server.states import MOVES, State
from tests.smtp.server.conversation import Conversation
from tests.smtp.server.test_states import reach

DONE = Reply.of(250, "2.0.0", "Done")
TAGS = SMTPExtension(
    "X-TAGS",
    arguments=("one", "two=2"),
    mail_parameters=(ExtensionParameter("XTAG", octets=5), ExtensionParameter("XFLAG", "none"), ExtensionParameter("XMAY", "optional")),
    recipient_parameters=(ExtensionParameter("XTO"),),
    commands=(ExtensionCommand("XASK"), ExtensionCommand("XNOTE", in_transaction=True)),
    replies={"done": DONE},
)
OFFERED = Extensions(size=1000, added=(TAGS,))


def offering(state: State) -> Conversation:
    conversation = reach(state)
    conversation.session.extensions = OFFERED
    return conversation


class DeclarationTests(SynchronousTestCase):
    def refused(self, words: str, **members: Any) -> None:
        with self.assertRaisesRegex(ValueError, words):
            SMTPExtension(**{"keyword": "X-TAGS", "replies": {"done": DONE}, **members})

    def test_no_word_of_the_protocol_can_be_taken(self):
        for word in OWN_KEYWORDS:
            self.refused(f"{word} is an extension of the server's own|not an EHLO keyword", keyword=word)
        for word in OWN_VERBS | set(COMMANDS):
            with self.assertRaisesRegex(ValueError, "command of the protocol itself"):
                ExtensionCommand(word)
        for word in OWN_MAIL_PARAMETERS:
            self.refused(f"{word} is a parameter of MAIL already", mail_parameters=(ExtensionParameter(word),))
        for word in OWN_RECIPIENT_PARAMETERS:
            self.refused(f"{word} is a parameter of RCPT already", recipient_parameters=(ExtensionParameter(word),))

    def test_every_extension_of_the_server_is_among_the_words_that_are_taken(self):
        everything = Extensions(
            size=1, starttls=True, auth=("PLAIN",), recipients_max=1, mail_max=1
        )  # fmt: skip
        self.assertEqual({line.partition(" ")[0] for line in everything.lines} - OWN_KEYWORDS, set())

    def test_words_that_are_not_well_formed_are_refused(self):
        for word in ("", "x-tags", "X TAGS", "X-TÄGS", "-X", "X\r\n250 AUTH", "X" * 65, "X\x1b"):
            self.refused("not an EHLO keyword", keyword=word)
            with self.assertRaises(ValueError):
                ExtensionParameter(word)
            with self.assertRaises(ValueError):
                ExtensionCommand(word)
        for argument in ("", "a b", "a\r\n", "ä", "x" * 201):
            self.refused("not an argument", arguments=(argument,))
        self.refused("EHLO line is longer", arguments=("x" * 200,) * 3)

    def test_a_reply_of_a_command_has_a_final_code_and_an_enhanced_one_of_its_class(self):
        for reply in (
            Reply.of(354, "3.0.0", "Go on"), Reply.of(334, "", "x"), Reply.of(150, "1.0.0", "x"), Reply.of(699, "6.0.0", "x"),
        ):  # fmt: skip
            self.refused("only 2yz, 4yz and 5yz", replies={"done": reply})
        for enhanced in ("", "5.0.0", "2.0", "2.0.0000"):
            self.refused("no enhanced status code of its class", replies={"done": Reply.of(250, enhanced, "x")})
        self.refused("longer than", replies={"done": Reply.of(250, "2.0.0", *["x"] * 21)})
        self.refused("longer than", replies={"done": Reply.of(250, "2.0.0", "x" * 401)})
        self.refused("not ASCII", replies={"done": Reply.of(250, "2.0.0", "grün")})
        self.refused("`Reply`s by names", replies={"done": "250 yes"})
        self.refused("commands and no replies", replies={}, commands=(ExtensionCommand("XASK"),))

    def test_nothing_is_declared_twice(self):
        self.refused("XTAG of MAIL is there twice", mail_parameters=(ExtensionParameter("XTAG"), ExtensionParameter("XTAG")))
        self.refused("twice", commands=(ExtensionCommand("XASK"), ExtensionCommand("XASK", True)))
        with self.assertRaisesRegex(ValueError, "the EHLO keyword X-TAGS belongs to two .*the command XASK belongs to two"):
            Extensions(added=(TAGS, TAGS))


class SessionTests(SynchronousTestCase):
    def test_the_keyword_is_announced_after_ehlo_and_not_after_helo(self):
        conversation = Conversation(extensions=OFFERED)
        self.assertIn(b"250 X-TAGS one two=2\r\n", conversation.send(b"EHLO c.example\r\n"))
        self.assertEqual(conversation.send(b"HELO c.example\r\n"), b"250 mx.example.org\r\n")

    def test_a_command_comes_where_its_declaration_says(self):
        for verb, states in (("XASK", {State.READY}), ("XNOTE", {State.READY, State.SENDER, State.RECIPIENTS})):
            for state in (State.STRANGER, State.READY, State.SENDER, State.RECIPIENTS, State.BETWEEN):
                conversation = offering(state)
                conversation.send(verb.lower().encode() + b"  a b \r\n")
                if state in states:
                    self.assertEqual(conversation.events, [Extended(verb, "a b")], (verb, state))
                    self.assertEqual(conversation.codes, [250])
                else:
                    self.assertEqual(conversation.rejected, [(verb, 503, "5.5.1")], (verb, state))
                self.assertIs(conversation.session.state, state)

    def test_a_command_that_is_not_offered_is_500(self):
        conversation = reach(State.READY)
        conversation.send(b"XASK\r\n")
        self.assertEqual(conversation.rejected, [("", 500, "5.5.2")])

    def test_amid_data_a_command_is_content(self):
        conversation = offering(State.CONTENT)
        conversation.send(b"XNOTE\r\n.\r\n")
        self.assertEqual(conversation.content, b"XNOTE\r\n")

    def test_the_replies_to_pipelined_commands_come_in_their_order(self):
        conversation = Conversation(extensions=OFFERED, answer=lambda event: None).say_hello()
        conversation.session.reply(DONE)
        conversation.send(b"NOOP\r\nXASK 1\r\nXASK 2\r\nNOOP\r\n")
        self.assertEqual(conversation.events[-1], Extended("XASK", "1"))
        conversation.session.reply(Reply.of(550, "5.7.1", "No"))
        conversation.take()
        conversation.session.reply(Reply.of(250, "2.0.0", "Second"))
        conversation.take()
        self.assertEqual(conversation.codes[-4:], [250, 550, 250, 250])

    def test_an_intermediate_reply_is_the_callers_fault(self):
        from mailserver.smtp.faults import LocalProtocolError

        conversation = offering(State.READY)
        conversation.answer = lambda event: None
        conversation.send(b"XASK\r\n")
        self.assertRaises(LocalProtocolError, conversation.session.reply, Reply.of(354, "", "Go on"))

    def test_every_row_with_mail_or_rcpt_and_no_other_takes_them(self):
        taking = {state for state, row in MOVES.items() if "extended anywhere" in row}
        self.assertEqual(taking, {state for state, row in MOVES.items() if {"MAIL", "RCPT"} & set(row)})


class ParameterTests(SynchronousTestCase):
    def test_added_parameters_stand_in_extra_beside_the_others(self):
        parsed = mail_parameters(" size=7 XtAg=abc BODY=8BITMIME xflag XMAY", OFFERED, takes_auth=False)
        assert not isinstance(parsed, Reply)
        self.assertEqual((parsed.size, parsed.body), (7, "8BITMIME"))
        self.assertEqual(parsed.extra, (("XTAG", "abc"), ("XFLAG", None), ("XMAY", None)))
        told = recipient_parameters(" NOTIFY=NEVER XTO=a=b", OFFERED, smtputf8=False)
        assert not isinstance(told, Reply)
        self.assertEqual((told.notify, told.extra), (frozenset({"NEVER"}), (("XTO", "a=b"),)))

    def test_a_value_that_was_not_declared_is_501(self):
        for text in (" XTAG", " XTAG=", " XTAG=abcdef", " XTAG=ä", " XFLAG=1", " XFLAG=", " XMAY=", " XTAG=a XTAG=a", " XTAG=a xtag=b"):
            refused = mail_parameters(text, OFFERED, takes_auth=False)
            assert isinstance(refused, Reply), text
            self.assertEqual((refused.code, refused.enhanced), (501, "5.5.4"), text)

    def test_a_parameter_of_the_other_command_is_555(self):
        for refused in (
            mail_parameters(" XTO=1", OFFERED, takes_auth=False), recipient_parameters(" XTAG=1", OFFERED, smtputf8=False),
            mail_parameters(" XTAG=1", Extensions(), takes_auth=False), mail_parameters(" ſTAG=1", OFFERED, takes_auth=False),
        ):  # fmt: skip
            assert isinstance(refused, Reply)
            self.assertEqual((refused.code, refused.enhanced), (555, "5.5.4"))

    @given(st.lists(st.sampled_from(["XTAG=abc", "XFLAG", "SIZE=5", "XMAY=1", "RET=FULL", "ENVID=x", "FOO", "XTAG="]), max_size=5))
    def test_what_is_added_changes_nothing_about_the_others(self, words):
        mine = [word for word in words if word.partition("=")[0] in OFFERED.added_to_mail]
        text = " ".join(words)
        with_added = mail_parameters(text, OFFERED, takes_auth=False)
        without = mail_parameters(" ".join(word for word in words if word not in mine), Extensions(size=1000), takes_auth=False)
        if isinstance(with_added, Reply):
            self.assertTrue(isinstance(without, Reply) or "XTAG=" in words or len(set(mine)) < len(mine) or len(mine) > 3, text)
        else:
            assert not isinstance(without, Reply)
            self.assertEqual((with_added.size, with_added.ret, with_added.envid), (without.size, without.ret, without.envid))
            self.assertEqual(len(with_added.extra), len(mine))

    def test_the_wire_shows_them(self):
        conversation = Conversation(extensions=OFFERED).say_hello()
        conversation.send(b"MAIL FROM:<a@b.example> XTAG=abc\r\nRCPT TO:<c@d.example> XTO=1\r\nRCPT TO:<c@d.example> XTO\r\n")
        mail, rcpt, refused = conversation.events
        assert isinstance(mail, Mail) and isinstance(rcpt, Rcpt) and isinstance(refused, Rejected)
        self.assertEqual((mail.parameters.extra, rcpt.parameters.extra), ((("XTAG", "abc"),), (("XTO", "1"),)))
        self.assertEqual(refused.reply.code, 501)
