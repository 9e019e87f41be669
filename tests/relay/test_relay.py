"""The relay against peers that behave in every way, in virtual time."""

import gc
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred

from mailserver.interfaces import Candidate
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Recipient, RecipientParameters
from mailserver.mail.envelope import Peer as Client
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.relay.delivery import _recipient
from mailserver.relay.route_settings import ConnectSettings
from mailserver.relay.security import OverrideKind, TLSMode, TLSOverride
from mailserver.relay.transmission import Transmission
from tests.relay.network import CLOSE, DRIP, MESSAGE, OFFERS, STALL, Peer, RelayCase
from tests.rounds import rounds


class Sending(RelayCase):
    def test_a_message_goes_to_the_best_host(self):
        a, b = self.peers(Peer(), Peer())
        outcome = self.deliver()
        self.assertEqual(a.messages, [("sender@example.net", ("user@example.org",), MESSAGE)])
        self.assertEqual(b.connections, [])
        self.assertEqual((type(outcome), outcome.peer), (Delivered, "a.example"))
        self.assertRegex(
            outcome.note, r"^250 2.0.0 Kept; a.example\[192.0.2.1\]:25, in the clear, message 1 .*, \d+ ms$"
        )

    def test_a_host_that_refuses_ehlo_hears_helo_as_long_as_its_mail_may_go_in_the_clear(self):
        for tls, delivered in ((TLSMode.NONE, True), (TLSMode.OPPORTUNISTIC, True), (TLSMode.REQUIRED, False)):
            self.setUp()
            self.relay = self.make(tls=tls)
            peer, _ = self.peers(Peer({"EHLO": "550 5.0.0 No"}))
            self.assertEqual(isinstance(self.deliver(), Delivered), delivered, tls)
            self.assertEqual([line for line in peer.commands if line.startswith("HELO")], ["HELO us.example"] * delivered)

    def test_after_an_alias_orcpt_is_what_the_sender_gave_or_what_he_wrote(self):
        """RFC 3461 section 5.2.7.1"""
        written, final = Address.parse("sales@example.com"), Address.parse("user@example.org")
        for given, told in ((("rfc822", "first@far.example"), ("rfc822", "first@far.example")), (None, ("rfc822", "sales@example.com"))):
            asked = RecipientParameters(frozenset({"NEVER"}), given)
            found = _recipient(Destination(0, Recipient(written, asked), Remote(final)))
            self.assertEqual(found, Recipient(final, RecipientParameters(frozenset({"NEVER"}), told)))
            same = Recipient(final, asked)
            self.assertIs(_recipient(Destination(0, same, Remote(final))), same)

    def test_of_what_its_sender_hears_nothing_the_next_host_tells_him_no_success_and_no_delay(self):
        written, final = Address.parse("sales@example.com"), Address.parse("user@example.org")
        for given, told in (
            (None, {"FAILURE"}), ({"SUCCESS", "FAILURE", "DELAY"}, {"FAILURE"}), ({"SUCCESS"}, {"NEVER"}), ({"NEVER"}, {"NEVER"}),
        ):  # fmt: skip
            asked = RecipientParameters(None if given is None else frozenset(given))
            found = _recipient(Destination(0, Recipient(written, asked), Remote(final), quiet=True))
            self.assertEqual(found.parameters.notify, told)

    def test_hosts_that_are_named_are_tried_by_rank_at_their_ports_and_share_nothing_with_the_dns(self):
        a, b = self.peers(None, Peer())
        where, connect = [], self.network.connect_tcp

        def noting(address, port, *arguments, **named):
            where.append((address, port))
            return connect(address, port, *arguments, **named)

        self.connections._connect_tcp = noting
        hosts = [Candidate("b.own.example", (self.B,), 2526, 7), Candidate("a.own.example", (self.A,), 2525, 3)]
        destination = Destination(4, Recipient(Address("user", "nowhere.example")), Remote(Address("user", "nowhere.example")))
        envelope = Envelope("ID", Client("192.0.2.200", 1, "mx"), None, (destination.recipient,), 0.0)
        answer = self.relay.deliver_to(hosts, envelope, Content.of(MESSAGE), [destination])
        self.turn()
        self.assertIsInstance(self.successResultOf(answer)[4], Delivered)
        self.assertEqual((where, len(b.messages), a), ([(self.A, 2525), (self.B, 2526)], 1, None))

    def test_what_an_administrator_has_said_of_a_domain_holds_for_hosts_that_are_named_too(self):
        self.peers(Peer(), None)
        require = TLSOverride(OverrideKind.REQUIRE, 1e12)
        self.relay.tls_override = lambda domain: require if domain == "one.example" else None
        paths = [Recipient(Address("user", name)) for name in ("one.example", "two.example")]
        destinations = [Destination(n, path, Remote(path.address)) for n, path in enumerate(paths)]
        envelope = Envelope("ID", Client("192.0.2.200", 1, "mx"), None, tuple(paths), 0.0)
        answer = self.relay.deliver_to([Candidate("a", (self.A,), 25, 0)], envelope, Content.of(MESSAGE), destinations)
        self.turn()
        outcomes = self.successResultOf(answer)
        self.assertEqual([type(outcomes[n]) for n in (0, 1)], [Delayed, Delivered])
        self.assertEqual(outcomes[0].reply.enhanced, "4.7.4")

    def test_a_look_up_that_the_stop_cuts_short_leads_to_no_connection(self):
        a, _ = self.peers(Peer())
        book, later = self.relay.routes.default.book, Deferred()
        hosts = book.find("example.org")

        class Keeper:
            async def stop(self):
                later.callback(hosts)  # as they are found without what MTA-STS says

        self.relay._sts = Keeper()
        with mock.patch.object(book, "find", return_value=later):
            answers = self.begin()
            Deferred.fromCoroutine(self.relay.stop())
            self.turn()
        self.assertEqual((type(answers[0][0]), a.connections, a.messages), (Delayed, [], []))

    def test_a_smarthost_that_has_a_password_for_one_host_is_told_no_other(self):
        self.relay = self.make(by_domain=False)
        self.assertFalse(self.relay.takes_hosts)
        self.assertRaises(ValueError, self.relay.deliver_to, [Candidate("a", (self.A,), 25, 0)], None, Content.of(b""), [])

    def test_a_look_up_that_takes_its_time_is_waited_for(self):
        peer, _ = self.peers(Peer())
        book = self.relay.routes.default.book
        found, later = book.find("example.org"), Deferred()
        with mock.patch.object(book, "find", return_value=later):
            answers = self.begin()
            self.turn()
        self.assertEqual((answers, peer.messages), ([], []))
        later.callback(found)
        self.turn()
        self.assertIsInstance(answers[0][0], Delivered)
        self.assertEqual(len(peer.messages), 1)

    def test_recipients_of_one_domain_share_a_transaction_and_each_domain_has_its_own(self):
        self.relay = self.make(zones={"other.example": {"MX": ["10 b.example"]}})
        a, b = self.peers(Peer(), Peer())
        outcomes = self.deliver("one@example.org", "x@other.example", "two@EXAMPLE.org")
        self.assertEqual([type(one) for one in outcomes], [Delivered] * 3)
        self.assertEqual([message[1] for message in a.messages], [("one@example.org", "two@EXAMPLE.org")])
        self.assertEqual([message[1] for message in b.messages], [("x@other.example",)])

    def test_an_address_that_several_recipients_lead_to_gets_it_once_and_all_have_the_answer(self):
        a, _ = self.peers(Peer())
        outcomes = self.deliver("one@example.org", "two@example.org", "one@EXAMPLE.org")
        self.assertEqual([type(one) for one in outcomes], [Delivered] * 3)
        self.assertEqual([message[1] for message in a.messages], [("one@example.org", "two@example.org")])

    def test_what_is_known_of_some_is_told_while_a_host_takes_its_time_for_the_others(self):
        self.peers(Peer())
        told = []
        impossible = Address("user", "\N{COMBINING DIAERESIS}.example")
        addresses = [Address("user", "example.org"), impossible, Address("nobody", "tar.example")]
        held = Deferred()
        relay, book = self.relay, self.relay.routes.default.book
        find = book.find
        with mock.patch.object(book, "find", lambda domain: held if domain == "tar.example" else find(domain)):
            envelope = Envelope("id1", Client("192.0.2.200", 1, "mx"), None, tuple(map(Recipient, addresses)), 0.0)
            destinations = [Destination(n, Recipient(one), Remote(one)) for n, one in enumerate(addresses)]
            answer = relay.deliver(envelope, Content.of(MESSAGE), destinations, told.append)
        self.turn()
        self.assertEqual([[(n, type(one)) for n, one in outcomes.items()] for outcomes in told], [[(1, Failed)], [(0, Delivered)]])
        held.callback(Delayed(Reply.of(451, "4.4.3", "No answer")))
        self.turn()
        self.assertEqual(sorted(self.successResultOf(answer)), [0, 1, 2])
        self.assertEqual(len(told), 2)

    def test_a_fault_of_ours_with_one_domain_leaves_the_others_their_outcomes(self):
        self.relay = self.make(zones={f"{name}.example": {"MX": ["10 a.example"]} for name in ("two", "three")})
        self.peers(Peer())
        asked, targets = [], ConnectSettings.targets

        def broken(settings, hosts, *more, **named):
            asked.append(hosts.domain)
            if len(asked) == 2:
                raise ZeroDivisionError
            return targets(settings, hosts, *more, **named)

        with mock.patch.object(ConnectSettings, "targets", broken):
            answers = self.begin("x@example.org", "x@two.example", "x@three.example")
            self.turn()
        self.assertEqual([sorted(outcomes) for outcomes in answers], [[0, 2]])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_many_recipients_go_in_several_transactions(self):
        self.relay = self.make(recipients_most=2)
        a, _ = self.peers(Peer())
        self.deliver(*(f"user{n}@example.org" for n in range(5)))
        self.assertEqual(sorted(len(message[1]) for message in a.messages), [1, 2, 2])

    def test_a_command_group_and_the_content_are_one_write_each(self):
        """RFC 2920 section 3.1"""
        a, _ = self.peers(Peer())
        writes = []
        self.deliver()
        (transport,) = a.connections
        write, transport.protocol._write = transport.protocol._write, lambda data: (writes.append(data), write(data))
        self.deliver("one@example.org", "two@example.org")
        self.assertEqual([data.count(b"\r\n") for data in writes], [4, MESSAGE.count(b"\r\n") + 1])

    def test_a_prefix_goes_before_the_message(self):
        a, _ = self.peers(Peer())
        self.deliver(content=Content.of(MESSAGE, prefix=b".Received: by us\r\n"))
        self.assertEqual(a.messages[0][2], b".Received: by us\r\n" + MESSAGE)

    def test_a_message_in_a_file_is_streamed_in_pieces(self):
        a, _ = self.peers(Peer())
        path = self.mktemp()
        data = b"".join(b".line %d\r\n" % n for n in range(100_000))
        with open(path, "wb") as file:
            file.write(data)
        self.assertIsInstance(self.deliver(content=Content.at(path, len(data), prefix=b"A: b\r\n")), Delivered)
        self.assertEqual(a.messages[0][2], b"A: b\r\n" + data)

    def test_a_file_that_cannot_be_read_never_arrives_torn(self):
        a, b = self.peers(Peer(), Peer())
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"short\r\n")
        outcome = self.deliver(content=Content.at(path, 1000))
        self.assertEqual((type(outcome), outcome.reply.enhanced), (Delayed, "4.3.0"))
        self.assertEqual((a.messages, b.messages), ([], []))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)

    def file(self, octets):
        path, data = self.mktemp(), b"0123456789abcdef\r\n" * (octets // 18)
        with open(path, "wb") as file:
            file.write(data)
        return Content.at(path, len(data))

    def test_a_host_that_stops_reading_is_left_for_the_next_one(self):
        """RFC 5321 section 4.5.3.2.5"""
        a, b = self.peers(Peer(), Peer())
        a.deaf = True
        outcome = self.deliver(content=self.file(2_000_000))
        self.assertEqual((type(outcome), outcome.peer), (Delivered, "b.example"))
        self.assertAlmostEqual(self.clock.seconds(), 180, delta=3)
        self.assertEqual((a.messages, a.open, len(b.messages)), ([], 0, 1))

    def test_a_host_that_reads_nothing_gains_no_time_by_octets_of_its_own(self):
        a, b = self.peers(Peer(), Peer())
        a.deaf = True
        answers = self.begin(content=self.file(2_000_000))
        self.turn()
        for _ in range(19):
            self.clock.advance(10)
            a.connections[0].hear(b"4")
            self.turn(10)
        self.turn()
        self.assertEqual((a.open, len(b.messages), answers[0][0].peer), (0, 1, "b.example"))

    def test_a_refusal_in_the_middle_of_the_content_is_heard(self):
        a, b = self.peers(Peer(), Peer())
        a.early = "552 5.3.4 Too much"
        outcome = self.deliver(content=self.file(2_000_000))
        self.assertEqual((type(outcome), str(outcome.reply)), (Failed, "552 5.3.4 Too much"))
        self.turn()
        self.assertEqual((a.open, b.connections, self.pool.connections), (0, [], 0))

    def test_of_what_was_not_delivered_the_dialogue_is_kept(self):
        self.peers(Peer({"RCPT": lambda line: "450 4.2.1 Busy" if "busy" in line else None}))
        ok, busy = self.deliver("user@example.org", "busy@example.org")
        self.assertIsInstance(ok, Delivered)
        said = "\n".join(busy.dialogue)
        self.assertTrue(said.startswith("S: 220 peer.example ESMTP\nC: EHLO\nS: 250 "), said)
        self.assertIn("\nC: RCPT TO:<busy@example.org>\nS: 450 4.2.1 Busy\n", said)
        self.assertNotIn("user@example.org", said)
        self.assertTrue(said.endswith("C: (the content)\nS: 250 2.0.0 Kept"), said)

    def test_the_dialogue_is_that_with_the_last_host_that_spoke(self):
        self.peers(Peer({"greeting": "554 5.3.2 Closed"}), Peer({"MAIL": "451 4.3.0 Later"}))
        outcome = self.deliver()
        self.assertIsInstance(outcome, Delayed)
        self.assertIn("S: 451 4.3.0 Later", outcome.dialogue)
        self.assertNotIn("S: 554 5.3.2 Closed", outcome.dialogue)

    def test_a_greeting_that_turns_us_away_is_a_dialogue_too(self):
        self.peers(Peer({"greeting": "554 5.3.2 Closed"}), Peer({"greeting": "421 4.3.2 Full"}))
        self.assertEqual(self.deliver().dialogue, ("S: 421 4.3.2 Full",))

    def test_a_domain_with_an_impossible_name_fails_alone(self):
        self.peers(Peer())
        impossible = Address("user", "\N{COMBINING DIAERESIS}.example")
        one, two = self.deliver("user@example.org", impossible)
        self.assertEqual((type(one), type(two), two.reply.enhanced), (Delivered, Failed, "5.1.2"))

    def test_what_the_dns_says_is_the_outcome_of_the_domain(self):
        self.relay = self.make(zones={"null.example": {"MX": ["0 ."]}})
        outcome, unknown = self.deliver("user@null.example", "user@unknown.example")
        self.assertEqual((outcome.reply.enhanced, unknown.reply.enhanced), ("5.1.10", "5.1.2"))

    def test_a_need_that_the_host_cannot_meet_fails_and_the_connection_is_kept(self):
        a, _ = self.peers(Peer(offers=("PIPELINING",)))
        outcome = self.deliver(data="Subject: ü\r\n\r\n".encode(), smtputf8=True)
        self.assertEqual((type(outcome), outcome.reply.enhanced, outcome.peer), (Failed, "5.6.7", ""))
        self.assertIsInstance(self.deliver(), Delivered)
        self.assertEqual(len(a.connections), 1)


class Memory(RelayCase):
    """What has been answered is given up at once: by the time the garbage collector comes by there could be thousands, of up to a
    megabyte each."""

    def setUp(self):
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        # What another test of this process has left is not ours; it is held here, so that nothing of ours gets its identity.
        self.others = self.transmissions()

    def transmissions(self):
        return [one for one in gc.get_objects() if isinstance(one, Transmission)]

    def kept(self):
        others = set(map(id, self.others))
        return sum(id(one) not in others for one in self.transmissions())

    def test_after_a_delivery(self):
        self.peers(Peer())
        for _ in range(3):
            self.deliver()
        self.assertEqual(self.kept(), 0)

    def test_after_several_transactions_and_a_look_up(self):
        self.relay = self.make(zones={"other.example": {"MX": ["10 b.example"]}}, recipients_most=1)
        self.peers(Peer(), Peer())
        self.deliver("one@example.org", "two@example.org", "x@other.example")
        self.assertEqual(self.kept(), 0)

    def test_after_refusals_and_faults(self):
        self.peers(Peer({"DATA": "554 5.0.0 No"}), Peer())
        self.deliver()
        self.peers(Peer({"MAIL": CLOSE}), Peer({"RCPT": "450 4.2.1 Later"}))
        self.deliver("one@example.org", "two@example.org")
        self.assertEqual(self.kept(), 0)

    def test_after_a_call_that_was_cancelled(self):
        self.peers(Peer({"DATA": STALL}), Peer())
        self.begin()
        self.turn()
        self.last.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self.last.cancel()
        self.turn()
        del self.last
        self.assertEqual(self.kept(), 0)


class Tarpits(RelayCase):
    """Hosts that are slow on purpose."""

    TARPITS = 200
    ZONES = {
        "good.example": {"A": ["192.0.2.1"]},
        **{f"tar{n}.example": {"A": [f"198.51.100.{n}"]} for n in range(TARPITS)},
    }

    def test_each_answer_of_many_has_its_time_and_all_together_have_a_bound(self):
        """RCPT for many recipients: a host that needs a minute for each is waited for, one that takes all it may is not."""
        self.relay = self.make(zones={"slow.example": {"A": ["192.0.2.2"]}})
        for pause, goes_through in ((25, True), (250, False)):
            peer = self.network.peers[self.B] = Peer({"RCPT": STALL}, ("PIPELINING",))
            answers = self.begin(*(f"u{n}@slow.example" for n in range(40)))
            self.turn()
            begun = self.clock.seconds()
            (transport,) = [one for one in peer.connections if not one.lost]
            for _ in range(40):
                self.clock.advance(pause)
                transport.hear(b"250 2.1.5 Ok\r\n")
                self.turn(3)
            if goes_through:
                self.assertFalse(transport.lost)
                transport.hang_up()
            self.turn()
            self.assertEqual((len(answers), transport.lost), (1, True))
            self.assertLess(self.clock.seconds() - begun, 1100 if goes_through else 10_100)
            self.assertIn(answers[0][39].phase, ("DATA",) if goes_through else ("RCPT",))
            self.relay.forgive()

    def tarpits(self, **script):
        self.network.peers.update({f"198.51.100.{n}": Peer(dict(script)) for n in range(self.TARPITS)})
        good = self.network.peers["192.0.2.1"] = Peer()
        return good

    def test_two_hundred_of_them_leave_a_good_host_its_turn(self):
        """They fill all connections that they may have: each lets one message through, then says nothing more in an hour."""
        good = self.tarpits(MAIL=[None, DRIP])
        warm = [self.begin(f"u@tar{n}.example") for n in range(self.TARPITS)]
        self.turn(30)
        self.assertTrue(all(warm))
        held = [self.begin(f"u@tar{n}.example") for n in range(self.TARPITS) for _ in range(4)]
        self.turn(30)
        self.assertGreater(self.pool.connections, 400)
        for _ in range(3):
            begun = self.clock.seconds()
            self.assertIsInstance(self.deliver("u@good.example"), Delivered)
            self.assertEqual(self.clock.seconds(), begun)
        self.assertEqual(len(good.messages), 3)
        self.assertFalse(all(held))

    def test_one_connection_that_cannot_be_timed_out_keeps_no_other_from_it(self):
        self.tarpits(greeting=DRIP)
        held = [self.begin(f"u@tar{n}.example") for n in range(3)]
        self.clock.advance(1)
        first = next(iter(self.relay.connections._connections.values()))

        def stumble():
            raise RuntimeError("a fault of ours")

        self.patch(first, "time_out", stumble)
        for _ in range(61):
            self.clock.advance(10)
            self.turn(10)
        self.assertTrue(all(held))
        self.assertEqual(self.pool.connections, 0)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_their_own_mail_is_given_up_in_bounded_time(self):
        self.tarpits(greeting=DRIP)
        held = [self.begin(f"u@tar{n}.example") for n in range(40) for _ in range(2)]
        for _ in range(61):
            self.clock.advance(10)
            self.turn(2)
        self.assertTrue(all(held))
        self.assertEqual(self.pool.connections, 0)


class Answers(RelayCase):
    """What each recipient's outcome is."""

    def test_some_recipients_are_accepted_some_refused_some_deferred(self):
        replies = {"no": "550 5.1.1 Unknown", "later": "450 4.2.1 Greylisted"}
        a, b = self.peers(Peer({"RCPT": lambda line: replies.get(line[9:].split("@")[0])}), Peer())
        yes, no, later = self.deliver("yes@example.org", "no@example.org", "later@example.org")
        self.assertEqual([type(one) for one in (yes, no, later)], [Delivered, Failed, Delayed])
        self.assertEqual((no.reply.lines, no.peer, no.phase), (("Unknown",), "a.example", "RCPT"))
        self.assertEqual([message[1] for message in a.messages], [("yes@example.org",)])
        self.assertEqual(b.connections, [], "4yz to RCPT is the recipient's answer, not the host's")

    def test_the_next_message_goes_on_after_one_that_nobody_wanted(self):
        a, _ = self.peers(Peer({"RCPT": ["550 5.1.1 Unknown", None]}))
        self.assertIsInstance(self.deliver(), Failed)
        self.assertIsInstance(self.deliver(), Delivered)
        self.assertEqual(len(a.connections), 1)

    def test_an_answer_to_the_content_is_that_of_all_who_were_accepted(self):
        for reply, kind in (("554 5.7.1 Spam", Failed), ("451 4.3.0 Try later", Delayed)):
            self.setUp()
            _, b = self.peers(Peer({"END": reply}), Peer())
            outcomes = self.deliver("one@example.org", "two@example.org")
            self.assertEqual([type(one) for one in outcomes], [kind] * 2)
            self.assertEqual((outcomes[0].peer, b.messages), ("a.example", []))

    def test_a_sender_that_is_refused_fails_all_and_no_other_host_is_asked(self):
        _, b = self.peers(Peer({"MAIL": "550 5.7.1 Not you"}), Peer())
        outcome = self.deliver()
        self.assertEqual((type(outcome), outcome.phase, b.connections), (Failed, "MAIL", []))


class NextHost(RelayCase):
    """What sends a message to the next host."""

    def second(self, first, **more):
        a, b = self.peers(first, Peer())
        outcome = self.deliver(**more)
        self.assertIsInstance(outcome, Delivered)
        self.assertEqual((outcome.peer, len(b.messages), a.messages if a else []), ("b.example", 1, []))
        return outcome

    def test_what_waits_for_a_host_that_ends_its_connections_goes_elsewhere_at_once(self):
        self.relay = self.make(pool={"per_destination": 1})
        a, b = self.peers(Peer({"MAIL": CLOSE}), Peer())
        answers = [self.begin() for _ in range(10)]
        self.turn(1000)
        self.assertTrue(all(one and isinstance(one[0][0], Delivered) for one in answers))
        self.assertEqual((len(a.connections), len(b.messages)), (1, 10))

    def test_a_refused_connection(self):
        self.assertIn("before: a.example[192.0.2.1]:25: 451 4.4.1 No connection: ", self.second(None).note)

    def test_a_host_that_does_not_answer_at_all(self):
        self.network.silent.add(self.A)
        self.second(None)
        self.assertGreaterEqual(self.clock.seconds(), 30)

    def test_a_greeting_that_turns_us_away_whatever_its_code(self):
        for greeting in ("421 4.3.2 Busy", "450 4.7.1 Later", "554 5.7.1 No service"):
            self.setUp()
            self.second(Peer({"greeting": greeting}))

    def test_a_connection_that_is_closed_or_says_421_at_any_stage_before_the_end_of_the_content(self):
        for stage in ("greeting", "EHLO", "MAIL", "RCPT", "DATA"):
            for event in (CLOSE, "421 4.3.2 Shutting down"):
                self.setUp()
                self.second(Peer({stage: event}))

    def test_silence_at_any_stage_before_the_end_of_the_content(self):
        """RFC 5321 section 4.5.3.2"""
        for stage, seconds in (("greeting", 300), ("EHLO", 300), ("MAIL", 300), ("RCPT", 300), ("DATA", 120)):
            self.setUp()
            self.second(Peer({stage: STALL}))
            self.assertAlmostEqual(self.clock.seconds(), seconds, delta=3)

    def test_a_stop_waits_for_no_host_that_has_not_answered_yet(self):
        self.network.silent.add(self.A)
        self.begin()
        self.turn()
        self.connections.stop(30)
        self.assertEqual(self.network.disconnected, 1)

    def test_an_answer_that_drips_has_no_more_time_than_one_that_does_not_come(self):
        """A phase's time is for the whole answer, whatever octets and lines come of it."""
        for stage, seconds in (("greeting", 300), ("EHLO", 300), ("MAIL", 300), ("RCPT", 300), ("DATA", 120)):
            self.setUp()
            drips, b = self.peers(Peer({stage: DRIP}, OFFERS if stage == "RCPT" else ("8BITMIME",)), Peer())
            answers = self.begin()
            self.turn(20)
            for _ in range(seconds // 10):
                self.assertEqual((drips.open, answers), (1, []))
                self.clock.advance(10)
                self.turn(2)
            self.turn(20)
            self.assertEqual((drips.open, len(b.messages), answers[0][0].peer), (0, 1, "b.example"))

    def test_4yz_to_ehlo_and_to_mail(self):
        for stage in ("EHLO", "MAIL"):
            self.setUp()
            self.second(Peer({stage: "451 4.3.0 Not now"}))

    def test_what_is_no_smtp(self):
        self.second(Peer({"MAIL": "hello?"}))

    def test_a_host_that_calls_itself_by_our_name(self):
        self.second(Peer({"EHLO": "250 us.example"}))

    def test_without_a_next_host_it_is_deferred_with_the_last_reason(self):
        self.peers(Peer({"MAIL": "451 4.3.0 Not now"}), Peer({"MAIL": "452 4.3.1 Disk full"}))
        outcome = self.deliver()
        self.assertEqual((type(outcome), str(outcome.reply)), (Delayed, "452 4.3.1 Disk full"))
        self.assertEqual((outcome.peer, outcome.phase), ("b.example", "MAIL"))
        self.assertIn("a.example[192.0.2.1]:25: 451 4.3.0 Not now", outcome.note)

    def test_those_who_have_a_final_answer_are_not_asked_about_again(self):
        first = Peer({"RCPT": lambda line: "550 5.1.1 Unknown" if "no@" in line else None, "DATA": CLOSE})
        _, b = self.peers(first, Peer())
        yes, no = self.deliver("yes@example.org", "no@example.org")
        self.assertEqual((type(yes), type(no)), (Delivered, Failed))
        self.assertEqual([message[1] for message in b.messages], [("yes@example.org",)])

    def test_the_number_of_addresses_is_bounded(self):
        many = {"many.example": {"A": [f"198.51.100.{n}" for n in range(8)]}}
        self.relay = self.make(zones=many, settings={"addresses_most": 3})
        self.assertIsInstance(self.deliver("user@many.example"), Delayed)
        self.assertEqual(sum(self.network.attempts.values()), 3)

    def test_a_host_with_many_addresses_leaves_the_next_host_one(self):
        many = {
            "many.example": {"MX": ["10 big.example", "20 b.example"]},
            "big.example": {"A": [f"198.51.100.{n}" for n in range(8)]},
        }
        self.relay = self.make(zones=many)
        self.peers(b=Peer())
        self.assertIsInstance(self.deliver("user@many.example"), Delivered)
        self.assertEqual(sum(self.network.attempts.values()), 5)

    def test_the_number_of_hosts_is_bounded(self):
        self.relay = self.make(settings={"hosts_most": 1})
        _, b = self.peers(b=Peer())
        self.assertIsInstance(self.deliver(), Delayed)
        self.assertEqual(b.connections, [])

    def test_the_preferred_addresses_of_each_host_are_tried_first(self):
        both = {"a.example": {"A": [self.A], "AAAA": ["2001:db8::1"]}}
        orders = {"any": [self.A, "2001:db8::1", self.B], "ipv4": [self.A, "2001:db8::1", self.B],
                  "ipv6": ["2001:db8::1", self.A, self.B]}  # fmt: skip
        for prefer, order in orders.items():
            self.setUp()
            self.relay = self.make(zones=both, settings={"prefer": prefer})
            self.deliver()
            self.assertEqual(list(self.network.attempts), order)


class AfterTheFinalDot(RelayCase):
    """The message may have arrived: no other host gets it in this attempt."""

    def test_a_connection_that_breaks_then_defers_and_says_so(self):
        for event in (CLOSE, STALL):
            self.setUp()
            _, b = self.peers(Peer({"END": event}), Peer())
            outcome = self.deliver()
            self.assertEqual((type(outcome), b.connections), (Delayed, []))
            self.assertIn("may have been delivered", outcome.note)

    def test_421_in_place_of_the_answer_defers(self):
        _, b = self.peers(Peer({"END": "421 4.3.2 Shutting down"}), Peer())
        self.assertEqual((type(self.deliver()), b.connections), (Delayed, []))

    def test_a_connection_that_breaks_after_its_250_was_read_changes_nothing(self):
        a, b = self.peers(Peer(), Peer())
        self.deliver()
        a.connections[0].hang_up()
        self.turn()
        self.assertEqual((len(a.messages), len(b.messages), self.pool.connections), (1, 0, 0))


class Pooling(RelayCase):
    def test_messages_one_after_the_other_use_one_connection_without_rset(self):
        a, _ = self.peers(Peer())
        for _ in range(5):
            self.deliver()
        self.assertEqual((len(a.connections), len(a.messages)), (1, 5))
        self.assertNotIn("RSET", a.commands)
        expected = {"connections": 1, "opened": 1, "reused": 4, "failed": 0, "stale": 0, "hit_rate": 0.8}
        self.assertEqual(self.relay.counts(), expected)

    def test_many_messages_at_once_go_over_a_few_connections(self):
        a, _ = self.peers(Peer())
        answers = [self.begin() for _ in range(300)]
        self.turn(400)
        self.assertTrue(all(isinstance(one[0][0], Delivered) for one in answers))
        self.assertEqual(len(a.messages), 300)
        self.assertLessEqual(len(a.connections), 20)

    def test_an_idle_connection_is_closed_with_quit(self):
        a, _ = self.peers(Peer())
        self.deliver()
        self.pass_time(14)
        self.assertEqual(a.open, 1)
        self.pass_time(3)
        self.assertEqual((a.open, a.commands[-1], self.pool.connections), (0, "QUIT", 0))

    def test_a_connection_carries_so_many_messages_and_no_more(self):
        self.relay = self.make(pool={"messages": 2})
        a, _ = self.peers(Peer())
        for _ in range(5):
            self.deliver()
        self.assertEqual((len(a.connections), len(a.messages), a.open), (3, 5, 1))

    def test_a_stale_connection_is_replaced_at_once_and_costs_no_attempt(self):
        for event in (CLOSE, "421 4.4.2 Idle for too long"):
            self.setUp()
            a, b = self.peers(Peer({"MAIL": [None, event, None]}), Peer())
            self.deliver()
            outcome = self.deliver()
            self.assertIsInstance(outcome, Delivered)
            self.assertEqual((len(a.connections), len(a.messages), b.connections), (2, 2, []))
            self.assertNotIn("before:", outcome.note)
            self.assertEqual(self.pool.counts.stale, 1)

    def test_a_connection_that_the_peer_closes_while_it_is_idle_is_not_used_again(self):
        a, _ = self.peers(Peer())
        self.deliver()
        a.connections[0].hang_up()
        self.turn()
        self.assertIsInstance(self.deliver(), Delivered)
        self.assertEqual((len(a.connections), self.pool.counts.stale), (2, 0))

    def test_a_peer_that_says_how_many_messages_it_takes_is_believed(self):
        """RFC 9422: MAILMAX"""
        a, _ = self.peers(Peer(offers=(*OFFERS, "LIMITS MAILMAX=2")))
        for _ in range(4):
            self.assertIsInstance(self.deliver(), Delivered)
        self.assertEqual(len(a.connections), 2)


class OutOfReach(RelayCase):
    ZONES = {"example.org": {"MX": ["10 a.example"]}, "a.example": {"A": ["192.0.2.1"]}}

    def test_a_dead_destination_costs_one_probe_at_a_time(self):
        outcomes = [self.begin() for _ in range(50)]
        self.turn()
        self.assertTrue(all(isinstance(one[0][0], Delayed) for one in outcomes))
        self.assertEqual(self.network.attempts[self.A], 2)
        for _ in range(500):
            (outcome,) = self.begin()
            self.assertIn("Connection was refused", str(outcome[0].reply))
        self.assertEqual(self.network.attempts[self.A], 2)
        self.pass_time(60)
        outcomes = [self.begin() for _ in range(50)]
        self.turn()
        self.assertTrue(all(isinstance(one[0][0], Delayed) for one in outcomes))
        self.assertEqual(self.network.attempts[self.A], 3)

    def test_when_it_is_back_all_that_waits_for_the_probe_goes_through(self):
        self.deliver()
        self.pass_time(60)
        a, _ = self.peers(Peer())
        answers = [self.begin() for _ in range(50)]
        self.turn(200)
        self.assertTrue(all(isinstance(one[0][0], Delivered) for one in answers))
        self.assertEqual(len(a.messages), 50)

    def test_when_a_person_asks_it_is_connected_to_at_once_and_all_wait_for_that(self):
        for _ in range(3):
            self.deliver()
            self.pass_time(60)
        a, _ = self.peers(Peer())
        self.relay.forgive()
        answers = [self.begin() for _ in range(500)]
        self.turn(1500)
        self.assertTrue(all(isinstance(one[0][0], Delivered) for one in answers))
        self.assertEqual(len(a.messages), 500)

    def test_a_host_that_lets_in_a_few_only_is_used_by_a_few(self):
        a = Peer({"greeting": lambda _: "421 4.7.0 Too many connections" if a.open > 3 else None})
        self.peers(a)
        answers = [self.begin() for _ in range(200)]
        self.turn(600)
        self.assertTrue(all(one and isinstance(one[0][0], Delivered) for one in answers))
        self.assertEqual(len(a.messages), 200)
        self.assertLess(self.pool.counts.failed, 20)

    def test_what_waits_too_long_for_a_connection_is_deferred(self):
        self.relay = self.make(pool={"per_destination": 1}, waiting=100)
        self.peers(Peer({"END": STALL}))
        stuck, waiting = self.begin(), self.begin()
        self.pass_time(99)
        self.assertEqual((stuck, waiting), ([], []))
        self.pass_time(2)
        self.assertEqual((stuck, waiting[0][0].reply.enhanced), ([], "4.4.5"))


class ManyDestinations(RelayCase):
    def test_with_a_tenth_of_the_hosts_dead_the_living_drain(self):
        hosts = rounds(200)
        zones = {f"d{n}.example": {"A": [f"10.0.{n // 250}.{n % 250}"]} for n in range(hosts)}
        self.relay = self.make(zones=zones, pool={"in_all": hosts // 10})
        addresses = [zones[f"d{n}.example"]["A"][0] for n in range(hosts)]
        for n, address in enumerate(addresses):
            if n % 20 == 0:
                self.network.silent.add(address)
            elif n % 20 != 10:
                self.network.peers[address] = Peer()
        answers = [self.begin(f"user@d{n}.example") for n in range(hosts) for _ in range(3)]
        alive = len(answers) * 9 // 10
        for seconds in range(600):
            self.turn(20)
            living = sum(len(peer.messages) for peer in self.network.peers.values())
            if living == alive:
                break
            self.clock.advance(1)
        self.assertEqual(living, alive)
        self.assertLess(
            seconds, 150, "connections that wait for the dead hold the living up for no more than their time"
        )
        self.pass_time(60)
        kinds = [type(one[0][0]) for one in answers]
        self.assertEqual((kinds.count(Delivered), kinds.count(Delayed)), (alive, len(answers) - alive))
        self.assertLessEqual(self.network.most_open, hosts // 10)
        dead = [address for address in addresses if address not in self.network.peers]
        self.assertLessEqual(max(self.network.attempts[address] for address in dead), 2)


class Ending(RelayCase):
    def stop(self):
        stopped = Deferred.fromCoroutine(self.relay.stop())
        self.turn()
        return stopped

    def test_idle_connections_are_closed_with_quit(self):
        a, _ = self.peers(Peer())
        self.deliver()
        self.successResultOf(self.stop())
        self.assertEqual((a.open, a.commands[-1]), (0, "QUIT"))

    def test_a_transaction_under_way_comes_to_its_end_and_what_waits_is_deferred(self):
        self.relay = self.make(pool={"per_destination": 1})
        a, _ = self.peers(Peer({"END": STALL}))
        under_way, waiting = self.begin(), self.begin()
        self.turn()
        stopped = self.stop()
        self.assertIsInstance(waiting[0][0], Delayed)
        self.assertNoResult(stopped)
        a.connections[0].peer.stalled = False
        a.connections[0].hear(b"250 2.0.0 Kept\r\n")
        self.turn()
        self.successResultOf(stopped)
        self.assertIsInstance(under_way[0][0], Delivered)

    def test_it_does_not_wait_for_ever(self):
        self.peers(Peer({"END": STALL}))
        under_way = self.begin()
        self.turn()
        stopped = self.stop()
        self.pass_time(5)
        self.successResultOf(stopped)
        self.assertIsInstance(under_way[0][0], Delayed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_it_nothing_is_sent(self):
        a, _ = self.peers(Peer())
        self.successResultOf(self.stop())
        self.assertIsInstance(self.deliver(), Delayed)
        self.assertEqual(a.connections, [])

    def test_a_call_that_is_cancelled_while_it_waits_is_never_sent(self):
        self.relay = self.make(pool={"per_destination": 1})
        a, _ = self.peers(Peer({"END": STALL}))
        self.begin()
        self.turn()
        self.begin()
        self.last.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self.last.cancel()
        a.connections[0].peer.stalled = False
        a.connections[0].hear(b"250 2.0.0 Kept\r\n")
        self.turn()
        self.assertEqual(sum(line.startswith("MAIL") for line in a.commands), 1)


    def test_a_call_that_is_cancelled_in_the_middle_is_not_completed(self):
        a, b = self.peers(Peer({"DATA": STALL}), Peer())
        self.begin()
        self.turn()
        self.last.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self.last.cancel()
        self.turn()
        self.assertEqual((a.open, a.messages, b.connections, self.pool.connections), (0, [], [], 0))

    def test_a_call_that_is_cancelled_after_the_final_dot_is_left_to_its_end(self):
        a, _ = self.peers(Peer({"END": STALL}))
        self.begin()
        self.turn()
        self.last.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self.last.cancel()
        self.turn()
        self.assertEqual((a.open, self.pool.connections), (1, 1))


class Encryption(RelayCase):
    """What needs no handshake; the rest is in test_encryption."""

    def test_a_host_that_must_encrypt_and_offers_nothing_gets_nothing(self):
        self.relay = self.make(tls=TLSMode.REQUIRED)
        a, b = self.peers(Peer(), Peer({"STARTTLS": "454 4.7.0 Not now"}, offers=(*OFFERS, "STARTTLS")))
        outcome = self.deliver()
        self.assertEqual((type(outcome), outcome.reply.enhanced), (Delayed, "4.7.4"))
        self.assertEqual((a.messages, b.messages), ([], []))

    def test_where_encryption_is_an_offer_its_refusal_is_taken(self):
        self.relay = self.make(tls=TLSMode.OPPORTUNISTIC)
        a, _ = self.peers(Peer({"STARTTLS": "454 4.7.0 Not now"}, offers=(*OFFERS, "STARTTLS")))
        self.assertIsInstance(self.deliver(), Delivered)
        self.assertEqual((len(a.connections), len(a.messages)), (1, 1))

    def test_a_connection_that_breaks_at_starttls_is_replaced_by_one_in_the_clear(self):
        for event in (CLOSE, STALL):
            self.setUp()
            self.relay = self.make(tls=TLSMode.OPPORTUNISTIC)
            a, b = self.peers(Peer({"STARTTLS": event}, offers=(*OFFERS, "STARTTLS")), Peer())
            self.assertIsInstance(self.deliver(), Delivered)
            self.assertEqual((len(a.connections), len(a.messages), b.connections), (2, 1, []))
            self.pass_time(20)
            self.assertIsInstance(self.deliver(), Delivered)
            self.assertEqual(sum(line == "STARTTLS" for line in a.commands), 1, "it is remembered")
            self.pass_time(3600)
            self.deliver()
            self.assertEqual(sum(line == "STARTTLS" for line in a.commands), 2, "not for ever")
