"""The pool's decision: examples, and its laws over any history."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.reply import Reply
from mailserver.relay.operators import PaceLimit, PaceTable
from mailserver.relay.pool import ConnectionRecord, Key, Pool, PoolLimits, RecordState
from mailserver.relay.rate_replies import SlowDown
from tests.rounds import rounds

NO = Reply.of(451, "4.4.1", "Connection refused")


def key(name="192.0.2.1"):
    return Key(name, 25, "opportunistic")


class Case(SynchronousTestCase):
    def pool(self, **limits):
        return Pool(PoolLimits(**limits))

    def open(self, pool, where, jobs=1, now=0.0):
        """Bring up connections for as many jobs as the pool allows at first; return them busy."""
        for n in range(jobs):
            pool.submit(where, f"job {n}")
        records = [record for record, _ in pool.assign(now).open]
        for record in records:
            pool.opened(record, now)
        pool.assign(now)
        return records


class Assigning(Case):
    def test_the_first_transaction_opens_a_connection_and_gets_it(self):
        pool = self.pool()
        pool.submit(key(), "a")
        plan = pool.assign(0.0)
        ((record, job),) = plan.open
        self.assertEqual((record.key, job, plan.begin, plan.close), (key(), "a", [], []))
        self.assertEqual(pool.assign(0.0), ([], [], []))
        pool.opened(record, 1.0)
        self.assertEqual(pool.assign(1.0).begin, [(record, "a")])

    def test_an_idle_connection_is_taken_before_one_is_opened(self):
        pool = self.pool()
        (record,) = self.open(pool, key())
        pool.finished(record, 1.0)
        pool.submit(key(), "b")
        plan = pool.assign(1.0)
        self.assertEqual((plan.open, plan.begin), ([], [(record, "b")]))
        self.assertEqual((pool.counts.opened, pool.counts.reused, pool.counts.hit_rate), (1, 1, 0.5))

    def test_the_connection_used_last_is_taken_first(self):
        pool = self.pool()
        one, two = self.open(pool, key(), 2)
        pool.finished(one, 1.0)
        pool.finished(two, 2.0)
        pool.submit(key(), "b")
        self.assertEqual(pool.assign(2.0).begin, [(two, "b")])

    def test_keys_that_differ_in_the_policy_alone_share_nothing(self):
        pool = self.pool()
        (record,) = self.open(pool, key())
        pool.finished(record, 1.0)
        pool.submit(key()._replace(policy="required"), "b")
        plan = pool.assign(1.0)
        self.assertEqual((len(plan.open), plan.begin), (1, []))

    def test_a_destination_gets_one_connection_more_with_each_success_up_to_its_cap(self):
        pool = self.pool(per_destination=5)
        for n in range(100):
            pool.submit(key(), n)
        most = 0
        records = [record for record, _ in pool.assign(0.0).open]
        self.assertEqual(len(records), 2)
        for now in range(30):
            for record in records:
                (pool.opened if record.state is RecordState.OPENING else pool.finished)(record, float(now))
            plan = pool.assign(float(now))
            records = [record for record, _ in plan.open] + [record for record, _ in plan.begin]
            most = max(most, pool.connections)
        self.assertEqual(most, 5)

    def test_a_connection_that_has_carried_enough_messages_is_closed_when_it_is_wanted(self):
        pool = self.pool(messages=1)
        (record,) = self.open(pool, key())
        pool.finished(record, 1.0)
        pool.submit(key(), "b")
        plan = pool.assign(1.0)
        self.assertEqual((plan.close, plan.begin, len(plan.open)), ([record], [], 1))

    def test_a_connection_that_is_too_old_is_not_used_again(self):
        pool = self.pool(age_seconds=10)
        (record,) = self.open(pool, key())
        pool.finished(record, 5.0)
        pool.submit(key(), "b")
        self.assertEqual(pool.assign(10.0).close, [record])

    def test_idle_connections_are_reaped_after_their_time_and_not_before(self):
        pool = self.pool(idle_seconds=5)
        (record,) = self.open(pool, key())
        pool.finished(record, 1.0)
        self.assertEqual(pool.reap(5.9), [])
        self.assertEqual(pool.reap(6.0), [record])
        self.assertEqual(pool.reap(60.0), [])
        pool.gone(record)
        self.assertEqual(pool.connections, 0)

    def test_a_stale_transaction_goes_before_all_others(self):
        pool = self.pool(per_destination=1)
        (record,) = self.open(pool, key())
        pool.submit(key(), "later")
        pool.gone(record)
        pool.submit(key(), "stale", first=True)
        ((fresh, wanted),) = pool.assign(1.0).open
        pool.opened(fresh, 1.0)
        self.assertEqual((wanted, pool.assign(1.0).begin), ("stale", [(fresh, "stale")]))

    def test_what_is_withdrawn_is_not_begun(self):
        pool = self.pool()
        pool.submit(key(), "a")
        ((record, _),) = pool.assign(0.0).open
        self.assertTrue(pool.withdraw(key(), "a"))
        self.assertFalse(pool.withdraw(key(), "a"))
        pool.opened(record, 0.0)
        self.assertEqual(pool.assign(0.0), ([], [], []))


class Health(Case):
    def out_of_reach(self, pool, now=0.0):
        pool.submit(key(), "a")
        ((record, _),) = pool.assign(now).open
        return pool.failed(record, now, NO)

    def test_what_waits_for_a_dead_destination_is_handed_back(self):
        pool = self.pool()
        pool.submit(key(), "a")
        pool.submit(key(), "b")
        first, second = [record for record, _ in pool.assign(0.0).open]
        self.assertEqual(pool.failed(first, 0.0, NO), [])
        self.assertEqual(pool.failed(second, 0.0, NO), ["a", "b"])

    def test_nothing_may_wait_for_it_until_the_next_probe_is_due(self):
        pool = self.pool(probe_seconds=60)
        self.assertEqual(self.out_of_reach(pool), ["a"])
        self.assertEqual(pool.refusal(key(), 59.9), NO)
        self.assertIsNone(pool.refusal(key(), 60.0))
        self.assertIsNone(pool.refusal(key("192.0.2.2"), 0.0))

    def test_a_probe_is_one_connection_and_a_bounded_number_waits_for_its_end(self):
        pool = self.pool(probe_seconds=60, probe_waiting=3)
        self.out_of_reach(pool)
        for n in range(3):
            self.assertIsNone(pool.refusal(key(), 60.0))
            pool.submit(key(), n)
            pool.assign(60.0)
        self.assertEqual((pool.connections, pool.refusal(key(), 60.0)), (1, NO))

    def test_the_pauses_between_probes_grow_up_to_a_bound(self):
        pool = self.pool(probe_seconds=60, probe_seconds_most=200)
        now, pauses = 0.0, []
        for _ in range(4):
            self.out_of_reach(pool, now)
            pause = next(seconds for seconds in range(1000) if pool.refusal(key(), now + seconds) is None)
            pauses.append(pause)
            now += pause
        self.assertEqual(pauses, [60, 120, 200, 200])

    def test_what_is_forgiven_is_as_at_the_start(self):
        pool = self.pool(probe_seconds=60)
        for now in (0.0, 60.0):
            self.out_of_reach(pool, now)
        pool.forgive()
        self.assertIsNone(pool.refusal(key(), 61.0))
        for n in range(5):
            pool.submit(key(), n)
        records = [record for record, _ in pool.assign(61.0).open]
        self.assertEqual(len(records), 2)
        self.assertEqual(pool.failed(records[0], 61.0, NO) + pool.failed(records[1], 61.0, NO), [0, 1, 2, 3, 4])
        self.assertEqual((pool.refusal(key(), 120.9), pool.refusal(key(), 121.0)), (NO, None))

    def test_what_is_forgiven_while_it_is_probed_lets_all_wait(self):
        pool = self.pool(probe_seconds=60, probe_waiting=1)
        self.out_of_reach(pool)
        pool.submit(key(), "a")
        ((record, _),) = pool.assign(60.0).open
        self.assertEqual(pool.refusal(key(), 60.0), NO)
        pool.forgive()
        self.assertIsNone(pool.refusal(key(), 60.0))
        pool.submit(key(), "b")
        pool.opened(record, 60.0)
        self.assertEqual([job for _, job in pool.assign(60.0).begin], ["a"])

    def test_a_probe_that_succeeds_makes_it_an_ordinary_destination_again(self):
        pool = self.pool()
        self.out_of_reach(pool)
        pool.submit(key(), "a")
        ((record, _),) = pool.assign(60.0).open
        pool.opened(record, 60.0)
        self.assertIsNone(pool.refusal(key(), 60.0))
        for n in range(5):
            pool.submit(key(), n)
        self.assertGreater(len(pool.assign(60.0).open), 1)

    def test_a_host_that_turns_some_away_keeps_as_many_as_it_let_in(self):
        pool = self.pool()
        for n in range(10):
            pool.submit(key(), n)
        for record, _ in pool.assign(0.0).open:
            pool.opened(record, 0.0)
        turned_away = [record for record, _ in pool.assign(0.0).open]  # beside the two that work
        self.assertEqual(len(turned_away), 2)
        for _ in range(3):
            for record in turned_away:
                self.assertEqual(pool.failed(record, 0.0, NO), [])
            turned_away = [record for record, _ in pool.assign(0.0).open]
        self.assertEqual((turned_away, pool.connections, pool.refusal(key(), 0.0)), ([], 2, None))


class Fairness(Case):
    def test_a_second_destination_gets_its_part_of_a_full_pool(self):
        pool = self.pool(in_all=4, per_destination=4)
        for n in range(1000):
            pool.submit(key("192.0.2.1"), n)
        busy = set()
        for now in range(40):
            if now == 20:
                for n in range(1000):
                    pool.submit(key("192.0.2.2"), n)
            self.turn(pool, busy, float(now))
        share = [sum(record.key.address == address for record in busy) for address in ("192.0.2.1", "192.0.2.2")]
        self.assertEqual(share, [2, 2])

    def turn(self, pool, busy, now):
        """Every transaction ends at once; what closes is gone at once."""
        for record in list(busy):
            busy.discard(record)
            pool.finished(record, now)
        while True:
            plan = pool.assign(now)
            for record in plan.close:
                pool.gone(record)
            for record, _ in plan.open:
                pool.opened(record, now)
            busy.update(record for record, _ in plan.begin)
            if not (plan.close or plan.open):
                return

    def test_idle_connections_of_others_make_room_in_a_full_pool(self):
        pool = self.pool(in_all=2)
        records = self.open(pool, key("192.0.2.1"), 2)
        for record in records:
            pool.finished(record, 1.0)
        pool.submit(key("192.0.2.2"), "b")
        plan = pool.assign(2.0)
        self.assertEqual((plan.open, plan.close), ([], [records[0]]))
        self.assertEqual(pool.assign(2.0), ([], [], []))
        pool.gone(records[0])
        self.assertEqual([wanted for _, wanted in pool.assign(2.0).open], ["b"])

    def test_the_last_tenth_is_for_destinations_that_have_none(self):
        pool = self.pool(in_all=20, per_destination=15)
        busy = set()
        for name in ("192.0.2.1", "192.0.2.2"):
            for n in range(500):
                pool.submit(key(name), n)
        for now in range(40):
            self.turn(pool, busy, float(now))
        self.assertEqual(len(busy), 18)
        for name, records in (("192.0.2.3", 19), ("192.0.2.4", 20)):
            pool.submit(key(name), name)
            self.turn(pool, set(), 41.0)
            self.assertEqual(pool.connections, records)

    def test_one_destination_alone_has_all(self):
        pool = self.pool(in_all=20, per_destination=20)
        busy = set()
        for n in range(1000):
            pool.submit(key(), n)
        for now in range(40):
            self.turn(pool, busy, float(now))
        self.assertEqual(len(busy), 20)

    def test_every_destination_of_many_is_served_in_a_small_pool(self):
        pool = self.pool(in_all=3)
        for n in range(50):
            pool.submit(key(f"192.0.2.{n}"), n)
        busy, served = set(), set()
        for now in range(100):
            self.turn(pool, busy, float(now))
            served.update(record.key for record in busy)
        self.assertEqual(len(served), 50)


class History(RuleBasedStateMachine):
    """Any history of a small pool keeps its laws."""

    def __init__(self):
        super().__init__()
        self.limits = PoolLimits(
            per_destination=3, in_all=5, messages=4, age_seconds=40, idle_seconds=10, probe_waiting=6
        )
        self.pool = Pool(self.limits)
        self.now = 0.0
        self.jobs = 0
        self.waiting, self.running, self.done = {}, {}, set()
        self.live = []
        self.begun_at = {}

    def run_plan(self):
        plan = self.pool.assign(self.now)
        for record, job in plan.open:
            assert job in self.waiting and self.waiting[job] == record.key
            self.live.append(record)
        for record, job in plan.begin:
            assert self.waiting.pop(job) == record.key and record not in self.running
            assert record.state is RecordState.BUSY and record.messages <= self.limits.messages
            assert self.now - record.opened_at < self.limits.age_seconds
            self.running[record] = job
            self.begun_at[record] = self.now
            assert not self.now < self.pool.pace_of(record.key).paused_until
        for record in plan.close:
            assert record not in self.running and record.state is RecordState.CLOSING

    def pick(self, data, *states):
        records = [record for record in self.live if record.state in states]
        return data.draw(st.sampled_from(records)) if records else None

    @rule(name=st.sampled_from("abcd"), first=st.booleans())
    def submit(self, name, first):
        where = key(name)
        if self.pool.refusal(where, self.now) is None:
            self.jobs += 1
            self.waiting[self.jobs] = where
            self.pool.submit(where, self.jobs, host="one.example" if name in "ab" else "two.example", first=first)
            self.run_plan()

    @rule(data=st.data(), succeeds=st.booleans(), slower=st.sampled_from((None, *SlowDown)), is_open=st.booleans())
    def opening_ends(self, data, succeeds, slower, is_open):
        record = self.pick(data, RecordState.OPENING)
        if record is not None and succeeds:
            self.pool.opened(record, self.now)
        elif record is not None:
            for job in self.pool.failed(record, self.now, NO, slow_down=slower, is_open=is_open):
                assert self.waiting.pop(job) == record.key
        self.run_plan()

    @rule(data=st.data(), stays=st.sampled_from(("finished", "ending", "gone")), slower=st.sampled_from((None, *SlowDown)))
    def transaction_ends(self, data, stays, slower):
        record = self.pick(data, RecordState.BUSY)
        if record is not None:
            self.done.add(self.running.pop(record))
            if slower is None:
                self.pool.taken(record, self.begun_at[record], self.now)
            else:
                self.pool.slowed(record, slower, self.begun_at[record], self.now, NO)
            if stays == "finished":
                self.pool.finished(record, self.now)
            else:
                getattr(self.pool, stays)(record)
        self.run_plan()

    @rule()
    def the_configuration_is_read_again(self):
        self.pool.change(self.limits, PaceTable(PaceLimit(3, 4), known=()))
        self.run_plan()

    @rule()
    def what_is_too_much_is_taken_out(self):
        for job, seconds in self.pool.surplus(self.now):
            assert seconds > 0
            del self.waiting[job]
        self.run_plan()

    @precondition(lambda self: self.pool.paced_until < float("inf"))
    @rule()
    def a_turn_comes(self):
        assert self.pool.paced_until > self.now
        self.now = self.pool.paced_until
        self.run_plan()

    @rule(data=st.data())
    def connection_goes(self, data):
        record = self.pick(data, RecordState.IDLE, RecordState.CLOSING)
        if record is not None:
            self.pool.gone(record)
            self.pool.gone(record)  # twice is once
        self.run_plan()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdrawn(self, data):
        job = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.pool.withdraw(self.waiting.pop(job), job)
        self.run_plan()

    @rule()
    def forgiven(self):
        self.pool.forgive()
        self.run_plan()

    @rule(seconds=st.floats(0, 70))
    def time_passes(self, seconds):
        self.now += seconds
        for record in self.pool.reap(self.now):
            assert record not in self.running
        self.run_plan()

    @invariant()
    def the_caps_hold_and_the_counts_are_true(self):
        self.live = [record for record in self.live if record.state is not RecordState.GONE]
        assert self.pool.connections == len(self.live) <= self.limits.in_all
        for destination in self.pool.destinations:
            ours = [record for record in self.live if record.key == destination.key]
            assert destination.connections == len(ours) <= self.limits.per_destination
            assert destination.opening == sum(record.state is RecordState.OPENING for record in ours)
            assert set(destination.idle) == {record for record in ours if record.state is RecordState.IDLE}
            if destination.failures:
                assert destination.connections - destination.closing <= 1
            assert destination.closing == sum(record.state is RecordState.CLOSING for record in ours)
        for pace in self.pool.paces:
            ours = [record for record in self.live if record.key in pace.queues]
            assert pace.connections == len(ours) <= self.limits.per_destination
            assert pace.opening == sum(record.state is RecordState.OPENING for record in ours)
            assert pace.busy == sum(record.state is RecordState.BUSY for record in ours)

    @invariant()
    def nothing_waits_beside_an_idle_connection_or_beside_room(self):
        for destination in self.pool.destinations:
            pace = destination.pace
            if not destination.waiting or not pace.room(self.now):
                continue
            assert not destination.idle
            if not destination.connections and pace.opening < pace.room(self.now):
                assert self.pool.connections == self.limits.in_all or pace.connections >= pace.connections_most

    @invariant()
    def what_waits_for_its_turn_is_not_forgotten(self):
        for destination in self.pool.destinations:
            pace = destination.pace
            if destination.waiting and not pace.room(self.now):
                idle = sum(len(one.idle) for one in pace.queues.values())
                assert self.pool.paced_until < float("inf") or pace.connections > idle

    @invariant()
    def what_waits_is_what_was_submitted(self):
        assert sorted(job for destination in self.pool.destinations for job in destination.waiting) == sorted(self.waiting)


class Laws(SynchronousTestCase):
    def test_any_history(self):
        run = History.TestCase
        run.settings = settings(
            max_examples=rounds(50), stateful_step_count=60, suppress_health_check=list(HealthCheck)
        )
        run("runTest").runTest()

    @given(st.integers(0, 2**32))
    @settings(max_examples=30)
    def test_all_that_is_submitted_is_served_whatever_the_order_of_events(self, seed):
        chance = random.Random(seed)
        pool = Pool(PoolLimits(per_destination=3, in_all=4, messages=5))
        for n in range(60):
            pool.submit(key(chance.choice("abcdef")), n)
        served, live, now = [], [], 0.0
        for _ in range(10_000):
            plan = pool.assign(now)
            for record in plan.close:
                pool.gone(record)
            live += [record for record, _ in plan.open]
            served += [job for _, job in plan.begin]
            live = [record for record in live if record.state in (RecordState.OPENING, RecordState.BUSY)]
            live += [record for record, _ in plan.begin if record not in live]
            if not live and not plan.close:
                break
            if live:
                record = chance.choice(live)
                now += 0.01
                (pool.opened if record.state is RecordState.OPENING else pool.finished)(record, now)
        self.assertEqual(sorted(served), list(range(60)))


class Words(Case):
    def test_the_pool_and_its_parts_say_what_they_are(self):
        pool = self.pool()
        pool.submit(key("2001:db8::1"), "a")
        self.assertIn("1 waiting, 0 connections", repr(pool))
        ((record, _),) = pool.assign(0.0).open
        self.assertEqual(repr(record), "<ConnectionRecord [2001:db8::1]:25 opening, 0 messages>")
        pool.failed(record, 0.0, NO)
        self.assertIn("out of reach until 30: 451 4.4.1 Connection refused", repr(pool.destinations[0]))
        self.assertIsInstance(record, ConnectionRecord)
