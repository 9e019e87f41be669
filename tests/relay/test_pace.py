"""The pace: a matrix of what it does, how it finds the limits of peers, and what becomes of mail that is over it."""

from collections import Counter
from itertools import pairwise

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.interfaces import IDestinations
from mailserver.mail.answers import Delayed, Delivered
from mailserver.mail.reply import Reply
from mailserver.relay.operators import Operator, PaceLimit, PaceTable
from mailserver.relay.pace import NO_LIMIT, DestinationPace, Paces
from mailserver.relay.pace_options import PaceKeys, pace_table
from mailserver.relay.pool import Key, Pool, PoolLimits
from mailserver.relay.rate_replies import SlowDown, slow_down
from tests.relay.network import Peer, RelayCase, Transport
from tests.relay.rate_sink import Bucket, FixedWindow, Sending, SlidingWindow

SLOWER = Reply.heard(421, "4.7.28", ("Our system has detected an unusual rate of mail",))
MESSAGES, CONNECTIONS = SlowDown.MESSAGES, SlowDown.CONNECTIONS


class Words(SynchronousTestCase):
    def test_which_replies_ask_for_less(self):
        for code, enhanced, words, expected in (
            (421, "4.7.28", "[192.0.2.1] Our system has detected an unusual rate of unsolicited mail", MESSAGES),
            (421, "4.7.0", "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints", MESSAGES),
            (421, "4.7.1", "Messages to a@b.example deferred due to excessive volume. Try again later", MESSAGES),
            (451, "4.7.650", "The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation (S775)", MESSAGES),
            (451, "4.7.500", "Server busy. Please try again later from [192.0.2.1]", MESSAGES),
            (451, "4.7.652", "The mail server [192.0.2.1] has exceeded the maximum number of connections", CONNECTIONS),
            (450, "4.7.1", "Error: too much mail from 192.0.2.1; too many messages", MESSAGES),
            (421, "4.7.0", "Too many connections", CONNECTIONS),
            (421, "4.7.0", "mx.example Error: too many connections from 192.0.2.1", CONNECTIONS),
            (421, "4.3.2", "Concurrent connections limit exceeded", CONNECTIONS),
            (421, "", "too many concurrent SMTP connections; please try again later", CONNECTIONS),
            (450, "4.7.1", "You are sending too fast, slow down", MESSAGES),
            (450, "4.7.1", "Greylisted, please try again in 300 seconds; rate limit for new senders", None),
            (450, "4.2.1", "The user you are trying to contact is receiving mail at a rate that prevents additional messages", None),
            (452, "4.2.2", "The recipient's mailbox is over quota", None),
            (452, "4.5.3", "Too many recipients", None),
            (432, "4.3.2", "STOREDRV.Deliver; recipient thread limit exceeded", None),
            (421, "4.3.2", "Shutting down", None),
            (421, "4.4.2", "Idle for too long", None),
            (450, "4.1.2", "Domain not found", None),
            (550, "5.7.1", "Too many messages: rate limit exceeded", None),
        ):
            self.assertEqual(slow_down(Reply.heard(code, enhanced, (words,))), expected, words)

    def test_whose_hosts_are_whose(self):
        table = PaceTable(
            PaceLimit(20, 100, 0), [Operator("google", (), messages=7), Operator("ours", ("Example.NET", "eu.example.com"), per_minute=60)]
        )
        for host, expected in (
            ("alt1.aspmx.l.google.com.", ("google", PaceLimit(20, 7, 0), True)),
            ("notgoogle.com", ("notgoogle.com", PaceLimit(20, 100, 0), False)),
            ("x-com.mail.protection.OUTLOOK.com", ("microsoft", PaceLimit(20, 100, 0), True)),
            ("x-com.n-v1.mx.microsoft", ("microsoft", PaceLimit(20, 100, 0), True)),
            ("mta5.am0.yahoodns.net", ("yahoo", PaceLimit(20, 20, 0), True)),
            ("example.net", ("ours", PaceLimit(20, 100, 60), True)),
            ("mx.eu.example.com", ("ours", PaceLimit(20, 100, 60), True)),
            ("mx.us.example.com", ("mx.us.example.com", PaceLimit(20, 100, 0), False)),
            ("192.0.2.1", ("192.0.2.1", PaceLimit(20, 100, 0), False)),
        ):
            self.assertEqual(table.of(host), expected)
        self.assertRaises(ValueError, PaceTable, PaceLimit(), [Operator("nobody", ())])
        keys = PaceKeys.model_validate({"pace": [{"name": "hub", "hosts": ["192.0.2.7", "[2001:DB8::7]"], "connections": 1}]})
        for host in ("192.0.2.7", "2001:db8::7"):
            self.assertEqual(pace_table(keys).of(host), ("hub", PaceLimit(1, 100, 0), True))

    def test_an_address_has_one_pace_an_operators_if_one_of_its_names_is_and_its_own_if_there_are_several(self):
        paces = Paces(PaceTable(PaceLimit()))
        first = paces.find("mx.customer.example", "192.0.2.1", 25)
        self.assertIs(paces.find("mx.customer.example", "192.0.2.3", 25), first)
        own = paces.find("mx.other.example", "192.0.2.1", 25)
        self.assertEqual(own.name, "192.0.2.1")
        for name in ("mx.customer.example", "mx.third.example", ""):
            self.assertIs(paces.find(name, "192.0.2.1", 25), own)
        self.assertIs(paces.find("mx.customer.example", "192.0.2.3", 25), first)
        google = paces.find("aspmx.l.google.com", "192.0.2.1", 25)
        self.assertEqual(google.name, "google")
        self.assertIs(paces.find("mx.customer.example", "192.0.2.1", 25), google)
        self.assertEqual(paces.find("c-192-0-2-9.hsd1.ca.comcast.net", "192.0.2.9", 25).name, "c-192-0-2-9.hsd1.ca.comcast.net")

    def test_who_names_an_address_of_others_as_his_host_does_not_slow_their_mail(self):
        pool = Pool(PoolLimits())
        his, theirs = Key("192.0.2.66", 25, ""), Key("192.0.2.1", 25, "")
        for key in (his, theirs):
            pool.submit(key, "a", host="mx.evil.example")
        records = {record.key: record for record, _ in pool.assign(0.0).open}
        pool.opened(records[theirs], 0.0)
        pool.submit(theirs, "b", host="mx.evil.example")
        pool.assign(0.0)
        pool.failed(records[his], 0.0, SLOWER, slow_down=MESSAGES)
        self.assertTrue(pool.is_paused(theirs, "mx.evil.example", 1.0))
        encrypted = theirs._replace(policy="dane")
        self.assertFalse(pool.is_paused(encrypted, "mx.victim.example", 1.0))
        self.assertFalse(pool.is_paused(theirs, "mx.evil.example", 1.0))
        self.assertTrue(pool.is_paused(his, "mx.evil.example", 1.0))
        pace = pool.pace_of(theirs)
        self.assertIs(pool.pace_of(encrypted), pace)
        self.assertEqual((pace.connections, pace.opening, pace.busy), (2, 1, 1))
        self.assertEqual((pool.pace_of(his).connections, pool.pace_of(his).busy), (0, 0))
        pool.change(PoolLimits(), PaceTable(PaceLimit()))
        self.assertEqual(pool.pace_of(theirs).name, "192.0.2.1")
        pool.gone(records[theirs])
        self.assertEqual((pool.pace_of(theirs).connections, pool.pace_of(theirs).busy), (1, 0))

    def test_after_a_reload_an_address_has_one_pace_too_whatever_names_led_there(self):
        pool, table = Pool(PoolLimits()), PaceTable(PaceLimit(), [Operator("big", ("big.example",), connections=1)])
        keys = [Key("192.0.2.1", 25, policy) for policy in ("", "dane", "required")]
        for key, host in zip(keys, ("mx.customer.example", "mx1.big.example", "mx.other.example"), strict=True):
            pool.submit(key, "a", host=host)
        pool.assign(0.0)
        for names, connections in ((table, 3), (PaceTable(PaceLimit()), 3), (table, 3)):
            pool.change(PoolLimits(), names)
            paces = [pool.pace_of(key) for key in keys]
            self.assertEqual([one.connections for one in paces], [connections] * 3)
            self.assertEqual(len(set(map(id, paces))), 1)

    def test_a_host_that_turns_out_to_be_an_operators_has_the_operators_limits(self):
        pool = Pool(PoolLimits(), PaceTable(PaceLimit(), [Operator("big", ("big.example",), connections=1)]))
        key = Key("192.0.2.1", 25, "")
        for job in range(3):
            pool.submit(key, job, host="mx.customer.example")
        self.assertEqual(len(pool.assign(0.0).open), 2)
        pool.put_off(key, "mx1.big.example", 0.0)
        pace = pool.pace_of(key)
        self.assertEqual((pace.name, pace.connections, pace.connections_most), ("big", 2, 1))
        pool.submit(Key("192.0.2.2", 25, ""), 4, host="mx2.big.example")
        self.assertEqual(pool.assign(0.0).open, [])


class Matrix(SynchronousTestCase):
    def pace(self, **limit):
        return DestinationPace("mx.example", PaceLimit(**limit))

    def send(self, pace, messages, now=0.0, *, taken=True):
        for _ in range(messages):
            pace.begin(now)
            pace.busy -= 1
            if taken:
                pace.taken(now, now)

    def test_without_a_limit_there_is_always_room(self):
        pace = self.pace()
        self.send(pace, 1000)
        self.assertEqual((pace.room(0.0), pace.is_limited, pace.put_off(10_000, 0.0)), (NO_LIMIT, False, None))

    def test_a_configured_limit_is_kept_from_the_first_message_on(self):
        pace, begun = self.pace(per_minute=30), []
        for tick in range(6000):
            now = tick / 10
            while pace.room(now):
                self.send(pace, 1, now)
                begun.append(now)
        self.assertEqual(len(begun), 300)
        self.assertLessEqual(max(later - earlier for earlier, later in pairwise(begun)), 2.1)

    def test_a_refusal_halves_a_pace_of_which_nothing_was_taken_and_pauses(self):
        pace = self.pace(per_minute=600)
        pace.begin(10.0)
        pace.busy -= 1
        pace.refused(MESSAGES, 10.0, 10.1, SLOWER)
        self.assertEqual((pace.per_minute, pace.is_lowered, pace.room(11.0), pace.ready_at(11.0)), (300, True, 0, 15.1))
        self.assertEqual((pace.last_reply, pace.last_at), (str(SLOWER), 10.1))

    def test_without_a_limit_the_new_pace_is_below_what_was_taken_in_the_last_minute(self):
        pace = self.pace()
        for second in range(120):
            self.send(pace, 5, float(second))
        pace.begin(120.0)
        pace.refused(MESSAGES, 120.0, 120.0, SLOWER)
        self.assertGreater(pace.per_minute, 250)
        self.assertLess(pace.per_minute, 300)

    def test_what_was_begun_before_it_was_lowered_does_not_lower_it_again(self):
        pace = self.pace(per_minute=600)
        for _ in range(20):
            pace.refused(MESSAGES, 10.0, 10.5, SLOWER)
        self.assertEqual((pace.per_minute, pace.lowered, pace.paused_until), (300, 1, 15.5))

    def test_after_a_pause_one_message_goes_and_no_second_before_its_answer(self):
        pace = self.pace(per_minute=600)
        pace.refused(MESSAGES, 10.0, 10.0, SLOWER)
        self.assertEqual((pace.room(14.9), pace.room(15.0)), (0, 1))
        pace.begin(15.0)
        self.assertEqual((pace.room(60.0), pace.ready_at(60.0)), (0, float("inf")))
        pace.busy -= 1
        pace.taken(15.0, 61.0)
        self.assertGreaterEqual(pace.room(62.0), 1)

    def test_the_pauses_double_while_it_is_refused_up_to_a_quarter_of_an_hour(self):
        pace, now, pauses = self.pace(per_minute=600), 10.0, []
        for _ in range(12):
            pace.refused(MESSAGES, now, now, SLOWER)
            pauses.append(pace.paused_until - now)
            now = pace.paused_until
        self.assertEqual(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 900])

    def test_success_raises_it_back_to_the_configured_limit_and_not_beyond(self):
        pace, now = self.pace(per_minute=100), 0.0
        pace.refused(MESSAGES, now, now, SLOWER)
        self.assertEqual(pace.per_minute, 50)
        paces = [pace.per_minute]
        while now < 3600:
            now = max(now + 0.01, pace.ready_at(now))
            self.send(pace, pace.room(now), now)
            paces.append(pace.per_minute)
        self.assertEqual((paces, paces[-1], pace.is_lowered), (sorted(paces), 100, False))

    def test_without_a_configured_limit_success_takes_the_pace_away_at_last(self):
        pace, now = self.pace(), 0.0
        self.send(pace, 100)
        pace.refused(MESSAGES, now, now, SLOWER)
        for _ in range(100_000):
            now += 0.1
            self.send(pace, 1, now)
        self.assertIsNone(pace.per_minute)

    def test_too_many_connections_lower_their_number_alone(self):
        pace = self.pace(connections=20)
        pace.connections = 8
        pace.refused(CONNECTIONS, 0.0, 0.0, SLOWER)
        self.assertEqual((pace.connections_most, pace.per_minute), (7, None))
        for _ in range(1000):
            pace.taken(0.0, 0.0)
        self.assertEqual(pace.connections_most, 20)

    def test_forgive_brings_all_back(self):
        pace = self.pace(per_minute=600)
        pace.connections = 2
        for what in (MESSAGES, CONNECTIONS):
            pace.refused(what, 10.0, 10.0, SLOWER)
        pace.forgive()
        self.assertEqual((pace.per_minute, pace.connections_most, pace.refusals), (600, 20, 0))
        self.assertTrue(pace.room(10.0))

    def test_what_is_over_the_pace_comes_again_one_after_the_other(self):
        pace = self.pace(per_minute=60)
        self.assertIsNone(pace.put_off(60, 0.0))
        times = [pace.put_off(61, 0.0) for _ in range(100)]
        self.assertEqual([round(later - earlier) for earlier, later in pairwise(times)], [1] * 99)
        slow = self.pace(per_minute=1)
        times = [slow.put_off(20, 0.0) for _ in range(1000)]
        self.assertEqual((min(times) >= 60, max(times) <= 1800), (True, True))
        self.assertLess(max(Counter([time // 60 for time in times]).values()), 80)  # the next half hour has room for 30


class Settling(SynchronousTestCase):
    def test_it_settles_within_a_tenth_of_the_peers_limit_and_never_falls_into_a_storm(self):
        for sink, most in (
            (FixedWindow(60), 60),
            (SlidingWindow(60), 60),
            (SlidingWindow(300), 300),
            (Bucket(30, 5), 30),
            (SlidingWindow(1, 1.0), 60),
            (Bucket(6, 2), 6),
        ):
            sending = Sending(sink)
            sending.run(1800)
            before = len(sending.refused)
            sending.run(4800)
            name = f"{type(sink).__name__}({most})"
            self.assertTrue(0.9 * most <= sending.rate(1800) <= 1.1 * most, f"{name}: {sending.rate(1800)}")
            self.assertLess(len(sending.refused) - before, 30, name)  # in fifty minutes
            self.assertLess(before, 60, name)

    def test_a_peer_that_counts_over_an_hour_is_not_asked_again_and_again(self):
        sending = Sending(FixedWindow(100, 3600))
        sending.run(4 * 3600)
        self.assertLess(len(sending.refused), 60)
        self.assertGreaterEqual(len(sending.taken), 300)

    def test_a_peer_that_takes_nothing_gets_a_few_messages_an_hour(self):
        sending = Sending(FixedWindow(0))
        sending.run(4 * 3600)
        self.assertEqual(sending.taken, [])
        self.assertLess(len(sending.refused), 40)

    def test_when_the_limit_has_gone_the_pace_follows(self):
        sink = SlidingWindow(60)
        sending = Sending(sink)
        sending.run(1800)
        sink.most = 6000
        sending.run(3600)
        self.assertGreater(sending.rate(3000), 600)


class Connections(SynchronousTestCase):
    def test_a_host_never_has_more_connections_than_its_limit_over_all_its_addresses_even_while_they_close(self):
        for closing_seconds in (0.0, 0.3, 20.0):
            sending = Sending(SlidingWindow(40, 1.0), keys=3, per_destination=4, messages=3, closing_seconds=closing_seconds)
            sending.run(60)
            self.assertEqual(sending.open_most, 4)
            self.assertGreater(len(sending.taken), 10)

    def test_each_address_of_a_host_has_its_turn(self):
        sending = Sending(SlidingWindow(1000), keys=5, per_destination=2)
        sending.run(60)
        self.assertEqual(sending.open_most, 2)
        waited = [one.waiting[0] for one in sending.pool.destinations]
        self.assertGreater(min(waited), 100)  # the oldest that waits anywhere is young


class OpenSockets(RelayCase):
    """What the peer counts: a connection that has said QUIT is open until it is closed."""

    def count(self, peer, messages=60):
        self.patch(Transport, "closing_seconds", 3.0)
        self.patch(Transport, "hang_up", lambda transport: None)  # whoever is slow to close after QUIT
        self.peers(peer)
        answers = [self.begin() for _ in range(messages)]
        most = 0
        for _ in range(400):
            self.clock.advance(0.25)
            self.turn(5)
            most = max(most, peer.open)
        return most, answers

    def test_a_host_that_closes_slowly_never_sees_more_than_the_limit(self):
        self.relay = self.make(pool={"per_destination": 3, "messages": 2})
        most, answers = self.count(Peer())
        self.assertEqual(most, 3)
        self.assertTrue(all(isinstance(one[0][0], Delivered) for one in answers))

    def test_nor_does_one_that_turns_connections_away(self):
        self.relay = self.make(pool={"per_destination": 3})
        peer = Peer({"greeting": ["421 4.7.0 Too many connections", None, "421 4.3.2 Busy", None]})
        most, _ = self.count(peer, 20)
        self.assertLessEqual(most, 3)

    def test_nor_does_one_that_says_421_in_the_middle(self):
        self.relay = self.make(pool={"per_destination": 3})
        most, _ = self.count(Peer({"MAIL": [None, None, "421 4.3.2 Busy", None, "421 4.7.0 Too many connections", None]}), 20)
        self.assertLessEqual(most, 3)


class OverThePace(RelayCase):
    ZONES = {
        "example.org": {"MX": ["10 a.example"]},
        "example.com": {"MX": ["10 b.example"]},
        "a.example": {"A": ["192.0.2.1"]},
        "b.example": {"A": ["192.0.2.2"]},
    }

    def test_mail_over_it_is_put_off_without_an_attempt_and_another_destination_does_not_notice(self):
        self.relay = self.make(paces=PaceTable(PaceLimit(), [Operator("slow", ("a.example",), per_minute=12)]))
        a, b = self.peers(Peer(), Peer())
        waiting = [self.begin() for _ in range(100)]
        self.assertEqual(len(self.begin("user@example.com")), 0)
        self.turn()
        self.assertEqual((len(a.messages), len(b.messages)), (1, 1))
        put_off = [one[0][0] for one in waiting if one and isinstance(one[0][0], Delayed)]
        self.assertEqual(len(put_off), 100 - 13)  # the next minute's wait here
        self.assertTrue(all(one.put_off_seconds >= 5 for one in put_off))
        self.assertEqual(len({round(one.put_off_seconds) for one in put_off}), len(put_off))
        self.assertIn("over the pace of slow, 12 messages a minute", put_off[0].note)
        self.pass_time(60)
        self.assertEqual(len(a.messages), 13)
        self.assertEqual(sum(isinstance(one[0][0], Delivered) for one in waiting if one), 13)

    def test_a_rate_limiting_greeting_costs_one_message_its_attempt_and_the_others_wait(self):
        self.relay = self.make(pool={"per_destination": 1})
        a, _ = self.peers(Peer({"greeting": ["421 4.7.0 [TSS04] deferred due to unexpected volume", None]}))
        answers = [self.begin() for _ in range(5)]
        self.turn()
        heard = [one[0][0] for one in answers if one]
        self.assertEqual([str(one.reply)[:9] for one in heard], ["421 4.7.0"])
        self.assertIsNone(heard[0].put_off_seconds)
        self.pass_time(120)
        self.assertEqual(len(a.messages), 4)

    def test_a_group_that_wants_less_is_not_asked_at_its_other_hosts(self):
        self.relay = self.make(
            zones={"example.org": {"MX": ["10 a.example", "20 b.example"]}},
            paces=PaceTable(PaceLimit(), [Operator("group", ("a.example", "b.example"))]),
        )
        _, b = self.peers(Peer({"MAIL": "421 4.7.28 rate limited"}), Peer())
        outcome = self.deliver()
        self.assertEqual((outcome.reply.enhanced, outcome.put_off_seconds, b.messages), ("4.7.28", None, []))

    def test_what_waits_when_the_pace_falls_goes_back_to_the_queue(self):
        self.relay = self.make(pool={"per_destination": 1})
        self.peers(Peer({"MAIL": [None, "421 4.7.28 rate limited", None]}))
        answers = [self.begin() for _ in range(500)]
        self.turn(20)
        self.pass_time(3)
        put_off = [one[0][0] for one in answers if one and isinstance(one[0][0], Delayed) and one[0][0].put_off_seconds]
        self.assertGreater(len(put_off), 400)
        self.assertLess(len([one for one in answers if not one]), 70)

    def test_what_people_are_told_of_the_destinations(self):
        self.relay = self.make(pool={"per_destination": 2}, paces=PaceTable(PaceLimit(2), [Operator("slow", ("a.example",), per_minute=12)]))
        self.peers(Peer({"MAIL": ["421 4.7.28 rate limited", None]}))
        verifyObject(IDestinations, self.relay)
        for _ in range(100):
            self.begin()
        self.begin("user@example.com")
        self.turn()
        slow, dead = self.relay.destinations(10)
        self.assertEqual((slow.name, slow.waiting, slow.connections, slow.connections_limit), ("slow", 12, 0, 2))
        self.assertEqual((slow.per_minute, slow.per_minute_limit, slow.paused_seconds), (6, 12, 5))
        self.assertEqual((slow.last_reply, slow.last_reply_seconds, slow.why), ("421 4.7.28 rate limited", 0, "it was asked for fewer messages"))
        self.assertGreater(slow.put_off, 80)
        self.assertEqual([(one.address, one.host, one.waiting) for one in slow.addresses], [("192.0.2.1:25", "a.example", 12)])
        self.assertEqual((dead.name, dead.waiting, dead.per_minute, dead.addresses[0].out_of_reach_seconds), ("b.example", 0, None, 30))
        self.assertIn("refused", dead.last_reply)
        self.assertEqual(len(self.relay.destinations(1)), 1)
        self.pass_time(3600)
        self.assertEqual(self.relay.destinations(1)[0].put_off, 0)

    def test_a_relay_that_stops_waits_for_no_turn(self):
        self.successResultOf(Deferred.fromCoroutine(self.relay.stop()))
        self.relay = self.make(paces=PaceTable(PaceLimit(per_minute=6)))
        self.peers(Peer())
        waiting = [self.begin() for _ in range(5)]
        self.turn()
        stopped = Deferred.fromCoroutine(self.relay.stop())
        self.turn()
        self.successResultOf(stopped)
        self.assertTrue(all(waiting))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_reload_changes_limits_and_keeps_what_was_learnt(self):
        self.relay = self.make(paces=PaceTable(PaceLimit(per_minute=600)))
        self.peers(Peer({"MAIL": "421 4.7.28 rate limited"}), Peer())
        self.deliver()
        self.deliver("user@example.com")
        pool, table = self.pool, PaceTable(PaceLimit(connections=3, per_minute=30), [Operator("group", ("b.example",), per_minute=60)])
        pool.change(pool.limits, table)
        paces = {one.name: (one.per_minute, one.connections_most, one.connections) for one in pool.paces}
        self.assertEqual(paces, {"a.example": (30, 3, 0), "group": (60, 3, 1)})
        self.assertGreater(next(iter(pool.paces)).paused_until, self.clock.seconds())

    def test_a_person_who_asks_gets_it_tried_at_once(self):
        self.relay = self.make(paces=PaceTable(PaceLimit(per_minute=600)))
        self.peers(Peer({"MAIL": ["421 4.7.28 rate limited", "421 4.7.28 rate limited", None]}))
        self.deliver()
        waiting = self.begin()
        self.turn()
        self.assertEqual(waiting, [])
        self.relay.forgive()
        self.turn()
        self.assertTrue(waiting)
