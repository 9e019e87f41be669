"""Hosts are asked up to RCPT, as the relay would ask them, and no message is sent."""

from twisted.internet.defer import Deferred

from mailserver.mail.address import Address
from tests.relay.network import CLOSE, STALL, Peer, RelayCase
from tests.relay.test_routes import ALICE, RoutedCase
from tests.relay.test_sockets import ServerSide, certificate


class Scripted(RelayCase):
    def probe(self, sender=ALICE, to="user@example.org"):
        asked = Deferred.fromCoroutine(self.relay.probe(Address.parse(to), sender))
        self.turn()
        self.clock.advance(0)
        return asked

    def test_the_first_host_that_answers_is_asked_and_nothing_but_the_envelope_is_said(self):
        for offers in (("PIPELINING",), ()):
            self.setUp()
            a, b = self.peers(Peer(offers=offers), Peer())
            found = self.successResultOf(self.probe())
            (one,) = found["attempts"]
            self.assertEqual((one["verdict"], one["reply"], one["host"]), ("accepted", "250 2.1.5 Recipient ok", "a.example"))
            self.assertEqual([line.split()[0] for line in a.commands], ["EHLO", "MAIL", "RCPT", "QUIT"])
            self.assertIn("S: 250 2.1.5 Recipient ok", one["dialogue"])
            self.assertEqual((a.messages, b.connections, self.pool.connections), ([], [], 0))

    def test_what_it_is_told_is_a_verdict(self):
        for script, verdict, reply in (
            ({"RCPT": "550 5.1.1 Unknown"}, "refused", "550 5.1.1 Unknown"),
            ({"RCPT": "450 4.2.1 Later"}, "deferred", "450 4.2.1 Later"),
            ({"MAIL": "550 5.7.1 Not you"}, "refused", "550 5.7.1 Not you"),
        ):
            self.setUp()
            self.peers(Peer(script), Peer())
            (one,) = self.successResultOf(self.probe())["attempts"]
            self.assertEqual((one["verdict"], one["reply"]), (verdict, reply))

    def test_a_host_that_says_nothing_of_the_recipient_is_followed_by_the_next(self):
        for script in ({"greeting": "554 Go away"}, {"EHLO": CLOSE}, {"RCPT": CLOSE}):
            self.setUp()
            self.peers(Peer(script), Peer())
            first, second = self.successResultOf(self.probe())["attempts"]
            self.assertNotEqual(first["verdict"], "accepted")
            self.assertEqual((second["host"], second["verdict"]), ("b.example", "accepted"))
        self.setUp()
        found = self.successResultOf(self.probe())
        self.assertEqual([one["verdict"] for one in found["attempts"]], ["unreachable"] * 2)
        self.assertIn("No connection", found["attempts"][0]["reply"])

    def test_giving_up_ends_the_connection(self):
        a, _ = self.peers(Peer({"RCPT": STALL}), Peer())
        asked = self.probe()
        asked.addErrback(lambda _: None)
        asked.cancel()
        self.turn()
        self.assertEqual(a.open, 0)

    def test_a_host_that_does_not_answer_quit_is_left_after_a_moment(self):
        a, _ = self.peers(Peer({"QUIT": STALL}), Peer())
        self.successResultOf(self.probe())
        self.pass_time(6)
        self.assertEqual(a.open, 0)

    def test_what_is_known_of_a_host_does_not_change_by_it(self):
        self.peers(Peer({"greeting": "421 Busy"}), Peer())
        self.successResultOf(self.probe())
        self.assertEqual(self.pool.destinations, ())


class Routed(RoutedCase):
    async def test_it_goes_the_senders_route_with_its_log_in_and_says_what_tls_was(self):
        sink = self.sink(users=[], tls=ServerSide(certificate("one.example")))
        (self.folder / "alice").write_text("secret\n")
        relay = await self.relay(
            f'[relay]\nuse = "none"\n[[route]]\nsender = "alice@example.net"\nhost = "127.0.0.1"\nport = {sink.port}\n'
            f'source_ipv4 = "127.0.0.2"\ntls = "required"\nusername = "alice"\npassword_file = "{self.folder}/alice"\n'
        )
        found = await relay.probe(Address("x", "one.example"), ALICE)
        (one,) = found["attempts"]
        self.assertEqual((one["verdict"], one["route"], one["from"], one["login"]), ("accepted", "alice@example.net", "127.0.0.2", True))
        self.assertEqual((one["demanded"], one["conclusion"]), ("required", "success"))
        self.assertRegex(one["version"], r"TLSv1\.[23]")
        self.assertEqual((sink.users, sink.envelopes), ([("alice", "secret")], []))
        refused = await relay.probe(Address("x", "one.example"), None)
        self.assertIn("There is no relay", str(refused.reply))
