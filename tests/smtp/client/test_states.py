"""Every state of the client meets every act of its caller and everything a peer may say."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl.client import ClientExchange, Credentials
from mailserver.smtp.client.session import ANSWERS, PHASES, STATE_PHASES, ClientSession, LocalProtocolError
from mailserver.smtp.client.states import CLIENT_MOVES, ClientInput, ClientState, Command
from mailserver.smtp.events import Wait
from tests.smtp.client.client_talk import CONTENT, Talk, request

EHLO = b"250-mx\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"
ACTS: dict[ClientInput, Callable[[ClientSession], object]] = {
    ClientInput.START_TLS: ClientSession.start_tls,
    ClientInput.ENCRYPTED: ClientSession.tls_established,
    ClientInput.AUTHENTICATE: lambda session: session.authenticate(plain()),
    ClientInput.SEND: lambda session: session.send(request()),
    ClientInput.CONTENT_ENDED: ClientSession.end_of_content,
    ClientInput.RESET: ClientSession.reset,
    ClientInput.QUIT: ClientSession.quit,
}
HEARD = (
    *(b"%d x\r\n" % code for code in (200, 220, 221, 235, 250, 251, 334, 354, 421, 450, 452, 500, 501, 502, 550, 552, 554)),
    b"250\r\n",
    b"nonsense\r\n",
)


def plain() -> ClientExchange:
    exchange = Credentials("user", "secret").exchange(["PLAIN"])
    assert exchange is not None
    return exchange


def reach(state: ClientState) -> Talk:
    """A session that has come to the state by its usual road."""
    talk = Talk(streams=False)
    if state is ClientState.GREETING:
        return talk
    if state is ClientState.REFUSED:
        talk.hear(b"554 no\r\n")
        return talk
    talk.hear(b"220 mx\r\n")
    if state is ClientState.HELLO:
        return talk
    talk.hear(EHLO)
    session = talk.session
    if state in (ClientState.ENVELOPE, ClientState.CONTENT, ClientState.END):
        talk.send("a", "b")
    if state in (ClientState.CONTENT, ClientState.END):
        talk.hear(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    match state:
        case ClientState.SECURING | ClientState.HANDSHAKE:
            session.start_tls()
        case ClientState.LOGGING_IN:
            session.authenticate(plain())
        case ClientState.END:
            session.content(CONTENT)
            session.end_of_content()
        case ClientState.RESETTING:
            session.reset()
        case ClientState.QUITTING:
            session.quit()
        case ClientState.CLOSED:
            talk.eof()
    talk.take()
    if state is ClientState.HANDSHAKE:
        talk.hear(b"220 go\r\n")
    return talk


class TableTests(SynchronousTestCase):
    def test_every_state_has_a_row_and_can_be_reached(self):
        self.assertEqual(set(CLIENT_MOVES), set(ClientState))
        for state in ClientState:
            self.assertIs(reach(state).session.state, state)

    def test_every_input_moves_something(self):
        self.assertEqual({move for row in CLIENT_MOVES.values() for move in row}, set(ClientInput))

    def test_every_command_has_an_answer_and_a_phase(self):
        self.assertEqual(set(ANSWERS), set(Command) - {Command.QUIT})
        self.assertEqual(set(PHASES), set(Command))

    def test_every_state_has_a_phase(self):
        for state in ClientState:
            self.assertIsNotNone(reach(state).session.phase)
        always_awaiting = {ClientState.GREETING, ClientState.QUITTING}
        self.assertEqual(set(STATE_PHASES), set(ClientState) - always_awaiting - {ClientState.REFUSED, ClientState.CLOSED})

    def test_nothing_leaves_closed(self):
        self.assertEqual(CLIENT_MOVES[ClientState.CLOSED], {})


class EveryStateTests(SynchronousTestCase):
    def test_an_act_moves_as_the_table_says_or_is_refused_and_changes_nothing(self):
        refused = 0
        for state in ClientState:
            for move, act in ACTS.items():
                session = reach(state).session
                if move in CLIENT_MOVES[state]:
                    act(session)
                    self.assertIs(session.state, CLIENT_MOVES[state][move], (state, move))
                else:
                    self.assertRaises(LocalProtocolError, act, session)
                    self.assertIs(session.state, state, (state, move))
                    self.assertEqual(session.data_to_send(), b"", (state, move))
                    refused += 1
        self.assertEqual(refused, len(ClientState) * len(ACTS) - 8)

    def test_content_is_due_in_its_state_alone(self):
        for state in ClientState:
            session = reach(state).session
            if state is ClientState.CONTENT:
                self.assertEqual(session.content(b"x"), b"x")
            else:
                self.assertRaises(LocalProtocolError, session.content, b"x")

    def test_whatever_is_heard_leaves_a_session_that_waits_or_is_over(self):
        """And a transaction that was open has its outcomes, or still waits for them."""
        for state in ClientState:
            for heard in HEARD:
                talk = reach(state)
                was_open = talk.session.phase.name in ("MAIL", "RCPT", "DATA", "CONTENT", "END")
                talk.forget()
                talk.hear(heard)
                case = (state, heard, talk.events)
                names = [type(event).__name__ for event in talk.events]
                if talk.session.state is ClientState.CLOSED:
                    self.assertIs(talk.wait, Wait.CLOSED, case)
                    self.assertEqual(names.count("Done"), was_open and state is not ClientState.CLOSED, case)
                    self.assertLessEqual(len(names), 2, case)
                elif was_open and "Done" not in names:
                    self.assertIs(talk.session._transaction is None, False, case)
                else:
                    self.assertIs(talk.session._transaction, None, case)

    def test_421_ends_every_state(self):
        for state in ClientState:
            talk = reach(state)
            talk.hear(b"421 bye\r\n")
            self.assertIs(talk.session.state, ClientState.CLOSED)

    def test_the_end_of_the_connection_ends_every_state(self):
        for state in ClientState:
            talk = reach(state)
            talk.forget()
            talk.eof()
            self.assertIs(talk.session.state, ClientState.CLOSED)
            silent = state in (ClientState.QUITTING, ClientState.REFUSED, ClientState.CLOSED)
            self.assertEqual([type(event).__name__ for event in talk.events[-1:]], [] if silent else ["Lost"], state)

    def test_giving_up_ends_every_state(self):
        for state in ClientState:
            talk = reach(state)
            talk.session.give_up()
            talk.take()
            self.assertIs(talk.wait, Wait.CLOSED)
