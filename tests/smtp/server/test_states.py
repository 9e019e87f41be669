"""Every state meets every input."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.events import (
    Data,
    Event,
    Expand,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reset,
    StartTLS,
    Verify,
    Wait,
)
from mailserver.smtp.server.refusals import OUT_OF_ORDER
from mailserver.smtp.server.session import COMMANDS, READERS
from mailserver.smtp.server.states import MOVES, Input, State
from tests.smtp.server.conversation import Conversation, friendly

LINES = {
    "EHLO": b"EHLO c.example\r\n",
    "HELO": b"HELO c.example\r\n",
    "LHLO": b"LHLO c.example\r\n",
    "MAIL": b"MAIL FROM:<a@b.example>\r\n",
    "RCPT": b"RCPT TO:<a@b.example>\r\n",
    "DATA": b"DATA\r\n",
    "BDAT": b"BDAT 3\r\nabc",
    "RSET": b"RSET\r\n",
    "NOOP": b"NOOP\r\n",
    "VRFY": b"VRFY someone\r\n",
    "EXPN": b"EXPN some\r\n",
    "HELP": b"HELP\r\n",
    "QUIT": b"QUIT\r\n",
    "STARTTLS": b"STARTTLS\r\n",
    "AUTH": b"AUTH LOGIN\r\n",
}
EVENTS: dict[str, type[Event]] = {
    "EHLO": Hello,
    "HELO": Hello,
    "MAIL": Mail,
    "RCPT": Rcpt,
    "DATA": Data,
    "RSET": Reset,
    "NOOP": Noop,
    "VRFY": Verify,
    "EXPN": Expand,
    "HELP": Help,
    "QUIT": Quit,
}
COMMAND_STATES = (State.STRANGER, State.READY, State.SENDER, State.RECIPIENTS, State.BETWEEN)


def reach(state: State, lmtp: bool = False) -> Conversation:
    """A conversation that has come to the state by its usual road, with nothing said yet."""
    conversation = Conversation(lmtp=lmtp, greet=state is not State.GREETING)
    if state in (State.GREETING, State.STRANGER):
        return conversation
    if state is State.CLOSED:
        conversation.send(b"QUIT\r\n")
    elif state is State.HANDSHAKE:
        conversation.say_hello()
        conversation.session.receive_data(b"STARTTLS\r\n")
        conversation.session.next_event()
        conversation.session.reply(friendly(StartTLS()))
        conversation.session.data_to_send()
    elif state is State.EXCHANGE:
        conversation.say_hello().send(b"AUTH LOGIN\r\n")
    elif state is State.SENDER:
        conversation.say_hello().send(LINES["MAIL"])
    else:
        roads = {State.RECIPIENTS: b"", State.CONTENT: b"DATA\r\n", State.CHUNK: b"BDAT 9\r\n", State.BETWEEN: b"BDAT 2\r\nab"}
        conversation.address() if state is not State.READY else conversation.say_hello()
        conversation.send(roads.get(state, b""))
    conversation.forget()
    return conversation


class TableTests(SynchronousTestCase):
    def test_every_state_has_a_row_and_a_reader(self):
        self.assertEqual(set(MOVES), set(State))
        self.assertEqual(set(READERS), set(State))

    def test_every_input_moves_something(self):
        self.assertEqual({move for row in MOVES.values() for move in row}, set(Input))

    def test_every_verb_has_a_command_and_no_other_input_has(self):
        self.assertEqual(set(COMMANDS), {move for move in Input if move.isupper()})

    def test_every_state_that_reads_commands_can_say_that_one_is_out_of_order(self):
        self.assertEqual(set(OUT_OF_ORDER), set(COMMAND_STATES))

    def test_every_state_can_be_reached(self):
        for state in State:
            self.assertIs(reach(state).session.state, state)

    def test_nothing_leaves_closed(self):
        self.assertEqual(MOVES[State.CLOSED], {})


class EveryStateMeetsEveryVerbTests(SynchronousTestCase):
    def test_a_legal_verb_moves_as_the_table_says(self):
        for state in COMMAND_STATES:
            for verb in EVENTS:
                if verb not in MOVES[state]:
                    continue
                conversation = reach(state)
                conversation.send(LINES[verb])
                self.assertEqual(type(conversation.events[-1]), EVENTS[verb], (state, verb))
                self.assertIs(conversation.session.state, MOVES[state][verb], (state, verb))
                self.assertTrue(all(code < 400 for code in conversation.codes), (state, verb, conversation.said))

    def test_an_illegal_verb_is_503_and_moves_nothing(self):
        met = 0
        for state in COMMAND_STATES:
            for verb in sorted(set(LINES) - set(MOVES[state])):
                conversation = reach(state)
                conversation.send(LINES[verb])
                expected = 554 if (state, verb) == (State.SENDER, "DATA") else 503
                self.assertEqual(conversation.rejected, [(verb, expected, "5.5.1")], (state, verb))
                self.assertEqual(conversation.codes, [expected], (state, verb))
                self.assertIs(conversation.session.state, state, (state, verb))
                self.assertIs(conversation.wait, Wait.NEED_DATA)
                self.assertEqual(conversation.send(b"NOOP\r\n"), b"250 2.0.0 OK\r\n", (state, verb))
                met += 1
        self.assertEqual(met, 6 + 3 + 5 + 3 + 5, "the table has lost a refusal, or the test")

    def test_the_greeting_of_the_other_protocol_is_500(self):
        for state in COMMAND_STATES:
            for lmtp, verbs in ((False, ["LHLO"]), (True, ["EHLO", "HELO"])):
                for verb in verbs:
                    conversation = reach(state, lmtp)
                    conversation.send(LINES[verb])
                    self.assertEqual(conversation.rejected, [(verb, 500, "5.5.1")], (state, verb))
                    self.assertIs(conversation.session.state, state)

    def test_bdat_starttls_and_auth_where_they_are_legal(self):
        for state, verb, after in (
            (State.RECIPIENTS, "BDAT", State.BETWEEN),
            (State.BETWEEN, "BDAT", State.BETWEEN),
            (State.READY, "AUTH", State.EXCHANGE),
            (State.READY, "STARTTLS", State.STRANGER),  # the test's handshake succeeds at once
        ):
            conversation = reach(state)
            conversation.send(LINES[verb])
            self.assertEqual(conversation.rejected, [], (state, verb))
            self.assertIs(conversation.session.state, after, (state, verb))

    def test_in_content_every_verb_is_content(self):
        for state in (State.CONTENT, State.CHUNK):
            for verb, line in LINES.items():
                conversation = reach(state)
                conversation.send(line[:9])
                self.assertEqual(conversation.codes, [250] if state is State.CHUNK and len(line) >= 9 else [], (state, verb))
                self.assertEqual(conversation.rejected, [], (state, verb))

    def test_in_an_exchange_every_verb_is_a_response(self):
        for verb, line in LINES.items():
            conversation = reach(State.EXCHANGE)
            conversation.send(line.partition(b"\r\n")[0] + b"\r\n")
            # STARTTLS, DATA and their like happen to be base64; none is obeyed.
            self.assertIn(conversation.codes, ([501], [235]), verb)
            self.assertIs(conversation.session.state, State.READY)

    def test_before_the_greeting_during_the_handshake_and_after_the_end_nothing_is_obeyed(self):
        for state, wait in ((State.GREETING, Wait.PAUSED), (State.HANDSHAKE, Wait.PAUSED), (State.CLOSED, Wait.CLOSED)):
            for verb, line in LINES.items():
                conversation = reach(state)
                self.assertEqual(conversation.send(line), b"", (state, verb))
                self.assertEqual(conversation.events, [], (state, verb))
                self.assertIs(conversation.wait, wait)
                self.assertIs(conversation.session.state, state)

    def test_an_unknown_verb_moves_nothing(self):
        for state in COMMAND_STATES:
            conversation = reach(state)
            conversation.send(b"XYZZY plugh\r\n")
            self.assertEqual(conversation.rejected, [("", 500, "5.5.2")])
            self.assertIs(conversation.session.state, state)
