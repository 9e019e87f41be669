"""SCRAM against the client of others: scramp, which shares no line with ours."""

from __future__ import annotations

import base64
from collections.abc import Callable

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scramp import ScramClient, ScramException, ScramMechanism
from scramp.utils import saslprep as their_saslprep
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl.exchange import Exchange
from mailserver.sasl.saslprep import saslprep
from mailserver.sasl.scram import scram_sha_256
from mailserver.sasl.scram_keys import derive_scram_keys, false_scram_keys
from mailserver.sasl.steps import (
    Challenge,
    ChannelBindings,
    Failed,
    FindScramKeys,
    ScramKeys,
    Step,
    Succeeded,
    Trouble,
)
from tests.any_octets import any_octets

SALT = b"0123456789abcdef"
END_POINT = ("tls-server-end-point", b"p" * 32)
BINDINGS = ChannelBindings(dict([END_POINT]))
KEYS = derive_scram_keys("pencil", salt=SALT, iterations=4096)
Wire = Callable[[int, str], str]  # what becomes of a message on its way; 0 to 3, as they come


def untouched(number: int, message: str) -> str:
    return message


def server(*, plus: bool = False, offers_plus: bool = False) -> Exchange:
    return Exchange(scram_sha_256(plus=plus, nonce="snonce", bindings=BINDINGS, offers_plus=offers_plus))


def login(exchange: Exchange, client: ScramClient, keys: ScramKeys = KEYS, wire: Wire = untouched) -> Step:
    """The step at which the exchange ends.  Raises ScramException where the client does not trust the server."""
    step = exchange.respond(wire(0, client.get_client_first()).encode())
    if not isinstance(step, FindScramKeys):
        return step
    step = exchange.answer(keys)
    assert isinstance(step, Challenge)
    client.set_server_first(wire(1, step.data.decode()))
    step = exchange.respond(wire(2, client.get_client_final()).encode())
    if not isinstance(step, Challenge):
        return step
    client.set_server_final(wire(3, step.data.decode()))  # the server's proof
    return exchange.respond(b"")


def client(password: str = "pencil", username: str = "user") -> ScramClient:
    return ScramClient(["SCRAM-SHA-256"], username, password, c_nonce="cnonce")


def prepared(text: str) -> str | None:
    try:
        return saslprep(text, stored=True)
    except ValueError:
        return None


# Commas and equals signs; what is composed, taken for another, for a space, and for nothing; right-to-left.
NAMES = st.text(",=2CDa@ e\u0301\u00e4\u00aa\u2168\u00a0\u3000\u00ad\u200b\u2060", max_size=12) | st.text(
    "\u0627\u0628 ,=", max_size=5
)
PREPARABLE = NAMES.filter(prepared)
# One of each table of RFC 3454, beside those above.
TABLES = "\u0221\ufe00\u1680\x07\x80\ue000\ufdd0\ud800\ufffd\u2ff0\u0340\u200e\U000e0001\u05d0\u0627a1"


class Scramp(SynchronousTestCase):
    @settings(max_examples=60)
    @given(PREPARABLE, PREPARABLE)
    def test_whatever_a_name_and_a_password_are_they_log_in(self, username: str, password: str) -> None:
        keys = derive_scram_keys(password, salt=SALT, iterations=4096)
        ended = login(server(), client(password, username), keys)
        self.assertEqual(ended, Succeeded(saslprep(username)))

    @settings(max_examples=30)
    @given(PREPARABLE, any_octets(min_size=12, max_size=40), st.integers(4096, 5000))
    def test_a_password_has_the_keys_that_they_work_out(self, password: str, salt: bytes, iterations: int) -> None:
        theirs = ScramMechanism("SCRAM-SHA-256").make_auth_info(password, iterations, salt)
        ours = derive_scram_keys(password, salt=salt, iterations=iterations)
        self.assertEqual((ours.salt, ours.stored_key, ours.server_key, ours.iterations), theirs)

    def test_a_wrong_password_and_a_false_key_fail(self) -> None:
        wrong = Failed(Trouble.CREDENTIALS, "user")
        self.assertEqual(login(server(), client("Pencil")), wrong)
        self.assertEqual(login(server(), client(), false_scram_keys("user", b"secret")), wrong)

    def test_a_server_that_does_not_know_the_password_is_not_trusted(self) -> None:
        impostor = ScramKeys(KEYS.iterations, KEYS.salt, KEYS.stored_key, bytes(32))
        self.assertRaises(ScramException, login, server(), client(), impostor)

    def test_plus_binds_to_the_channel(self) -> None:
        for data, ended in ((END_POINT[1], Succeeded("user")), (b"x" * 32, Failed(Trouble.CHANNEL_BINDING, "user"))):
            bound = ScramClient(["SCRAM-SHA-256-PLUS"], "user", "pencil", (END_POINT[0], data))
            self.assertEqual(login(server(plus=True, offers_plus=True), bound), ended)

    def test_a_client_that_was_not_shown_our_plus_is_turned_away(self) -> None:
        # RFC 5802 section 6: it could bind, and so says "y"
        for offers_plus, ended in ((False, Succeeded("user")), (True, Failed(Trouble.CHANNEL_BINDING, "user"))):
            able = ScramClient(["SCRAM-SHA-256"], "user", "pencil", END_POINT)
            self.assertEqual(login(server(offers_plus=offers_plus), able), ended)

    @settings(max_examples=200)
    @given(st.data(), st.integers(0, 3), st.characters(max_codepoint=0xFF), st.booleans())
    def test_nobody_in_between_can_change_a_character_of_any_message(
        self, data: st.DataObject, changed: int, character: str, is_inserted: bool
    ) -> None:
        def wire(number: int, message: str) -> str:
            if number != changed:
                return message
            place = data.draw(st.integers(0, len(message) - 1))
            other = message[:place] + character + message[place + (not is_inserted) :]
            assume(octets_of(other) != octets_of(message))
            return other

        try:
            ended = login(server(), client(), wire=wire)
        except ScramException:
            return  # the client has gone
        self.assertIsInstance(ended, Failed)

    @settings(max_examples=500)
    @given(NAMES | st.text(TABLES, max_size=4) | st.text(max_size=4))
    def test_texts_are_prepared_as_they_prepare_them(self, text: str) -> None:
        try:
            theirs = their_saslprep(text)
        except ScramException:
            theirs = None
        self.assertEqual(prepared(text), theirs)


def octets_of(message: str) -> tuple[str, bytes]:
    """A message in the form in which two that mean the same are the same: the last value of base64 has bits that nobody reads."""
    rest, _, value = message.rpartition(",") if not message.startswith("v=") else ("", "", message)
    try:
        return rest + value[:2], base64.b64decode(value[2:])
    except ValueError:
        return rest, value.encode()
