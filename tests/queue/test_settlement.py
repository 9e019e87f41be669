import random
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import IRetrySchedule, RetryTimes
from mailserver.mail.answers import Delayed, Failed
from mailserver.mail.envelope import Recipient, RecipientParameters
from mailserver.mail.reply import Reply
from mailserver.queue.active_message import ActiveMessage
from mailserver.queue.entry import TRIALS_KEPT, EntryState, number_of
from mailserver.queue.schedule import Schedule, Schedules
from mailserver.queue.settlement import GIVEN_UP, NO_ANSWER, Settlement
from tests.queue.doubles import EPOCH, envelope, local, remote

NO_USER = Reply.of(550, "5.1.1", "No such user")
BUSY = Reply.of(451, "4.2.1", "Busy")
DAY = 86_400


class Settling(SynchronousTestCase):
    def settlement(self, reports=True):
        schedule = Schedule(retry_seconds=(60, 300, 3600), expire_seconds=7 * DAY, warn_seconds=14_400)
        return Settlement(schedules=Schedules(schedule), reports=reports)

    def entry(self, destination, *, sender=True):
        sent = envelope(destination)
        return ActiveMessage(
            number=number_of(sent.id), envelope=sent if sender else replace(sent, sender=None), open=1, spooled=False
        )

    def asking(self, *notify, plain=None):
        plain = plain or local()
        return replace(plain, recipient=Recipient(plain.recipient.address, RecipientParameters(notify=frozenset(notify))))

    def settled(self, outcome, destination=None, *, sender=True, reports=True, now=EPOCH + 1, why=""):
        destination = destination or local()
        entry = self.entry(destination, sender=sender)
        return self.settlement(reports).not_delivered(entry, destination, outcome, why, now=now, chance=0.5)

    def test_a_failure_is_owed_to_its_sender_at_once(self):
        attempt = self.settled(Failed(NO_USER, "said so", peer="mx.example.com", phase="RCPT"))
        self.assertEqual((attempt.state, attempt.due, attempt.report), (EntryState.FAILED, None, EPOCH + 1))
        self.assertEqual((attempt.reply, attempt.note, attempt.attempts), (NO_USER, "said so", 1))
        (trial,) = attempt.history
        self.assertEqual((trial.made_at, trial.peer, trial.phase, trial.reply), (EPOCH + 1, "mx.example.com", "RCPT", str(NO_USER)))

    def test_a_delivery_counts_with_the_attempts_before_it_and_keeps_their_history(self):
        destination, settlement = local(), self.settlement()
        entry = self.entry(destination)
        self.assertEqual((settlement.delivered(entry, destination, now=EPOCH + 1).attempts, self.settled(Delayed(BUSY)).attempts), (1, 1))
        earlier = self.settled(Delayed(BUSY))
        entry.attempts = {destination.index: earlier}
        attempt = settlement.delivered(entry, destination, now=EPOCH + 70)
        self.assertEqual((attempt.state, attempt.attempts, attempt.history), (EntryState.DELIVERED, 2, earlier.history))

    def test_where_nobody_was_asked_no_attempt_is_counted_and_the_schedule_stays_where_it_was(self):
        destination, settlement = local(), self.settlement()
        entry = self.entry(destination)
        waits = Delayed(BUSY, "over the pace", put_off_seconds=40.0)
        first = settlement.not_delivered(entry, destination, waits, "", now=EPOCH + 1, chance=0.5)
        self.assertEqual((first.state, first.attempts, first.due, first.history), (EntryState.DEFERRED, 0, EPOCH + 41, ()))
        entry.attempts = {destination.index: first}
        tried = settlement.not_delivered(entry, destination, Delayed(BUSY), "", now=EPOCH + 41, chance=0.5)
        self.assertEqual((tried.attempts, tried.due), (1, EPOCH + 41 + 60))
        entry.attempts = {destination.index: tried}
        again = settlement.not_delivered(entry, destination, waits, "", now=EPOCH + 101, chance=0.5)
        self.assertEqual((again.attempts, again.due, again.history), (1, EPOCH + 141, tried.history))

    def test_what_is_put_off_is_given_up_at_the_end_of_its_time_unless_it_was_never_tried(self):
        destination, settlement = local(), self.settlement()
        waits = Delayed(BUSY, "over the pace", put_off_seconds=40.0)
        entry = self.entry(destination)
        end = entry.envelope.received_at + 7 * DAY
        soon = settlement.not_delivered(entry, destination, waits, "", now=end - 10, chance=0.5)
        self.assertEqual((soon.state, soon.due), (EntryState.DEFERRED, end))
        entry.attempts = {destination.index: soon}
        never_tried = settlement.not_delivered(entry, destination, waits, "", now=end + 1, chance=0.5, since=end - DAY)
        self.assertEqual((never_tried.state, never_tried.due), (EntryState.DEFERRED, end + 41))
        entry.attempts = {destination.index: never_tried}
        for since, state in ((end - DAY, EntryState.DEFERRED), (end - 7 * DAY, EntryState.FAILED)):
            later = settlement.not_delivered(entry, destination, waits, "", now=end + 41, chance=0.5, since=since)
            self.assertEqual(later.state, state)
        entry.attempts = {destination.index: settlement.not_delivered(entry, destination, Delayed(BUSY), "", now=end - 5, chance=0.5)}
        over = settlement.not_delivered(entry, destination, waits, "", now=end + 1, chance=0.5)
        self.assertEqual(over.state, EntryState.FAILED)
        self.assertIn(GIVEN_UP, over.note)

    def test_who_wants_no_failures_is_done_with_it(self):
        for notify in (("NEVER",), ("SUCCESS", "DELAY")):
            attempt = self.settled(Failed(NO_USER), self.asking(*notify))
            self.assertEqual((attempt.state, attempt.report), (EntryState.RETURNED, None))

    def test_nothing_is_owed_to_the_null_sender_or_without_reports(self):
        for more in ({"sender": False}, {"reports": False}):
            failed, deferred = self.settled(Failed(NO_USER), **more), self.settled(Delayed(BUSY), **more)
            self.assertEqual((failed.state, failed.report), (EntryState.FAILED, None))
            self.assertEqual((deferred.state, deferred.report), (EntryState.DEFERRED, None))

    def test_a_delay_is_owed_later_if_it_is_wanted(self):
        attempt = self.settled(Delayed(BUSY))
        self.assertEqual((attempt.state, attempt.due, attempt.report), (EntryState.DEFERRED, EPOCH + 61, EPOCH + 14_400))
        self.assertIsNone(self.settled(Delayed(BUSY), self.asking("FAILURE")).report)
        self.assertIsNotNone(self.settled(Delayed(BUSY), self.asking("DELAY")).report)

    def test_a_delivery_without_an_answer_is_deferred(self):
        attempt = self.settled(None, why="no answer within 300 seconds")
        self.assertEqual((attempt.state, attempt.reply, attempt.note), (EntryState.DEFERRED, NO_ANSWER, "no answer within 300 seconds"))

    def test_success_is_owed_where_it_was_asked_for_and_the_next_host_does_not_tell(self):
        plain, asked = local(), self.asking("SUCCESS", plain=remote())
        settlement = self.settlement()
        self.assertIsNone(settlement.delivered(self.entry(plain), plain, now=EPOCH).report)
        entry = self.entry(asked)
        attempt = settlement.delivered(entry, asked, now=EPOCH)
        self.assertEqual((attempt.state, attempt.report, attempt.remote), (EntryState.DELIVERED, EPOCH, True))
        entry.passed_on = 1
        self.assertIsNone(settlement.delivered(entry, asked, now=EPOCH).report)
        self.assertIsNone(settlement.delivered(self.entry(asked, sender=False), asked, now=EPOCH).report)

    def test_a_week_of_attempts_ends_with_one_failure_at_the_end_of_the_time(self):
        for seed in range(20):
            chance, destination, now = random.Random(seed), remote(), EPOCH
            entry, settlement, attempts = self.entry(destination), self.settlement(), []
            while not attempts or attempts[-1].state is EntryState.DEFERRED:
                attempt = settlement.not_delivered(entry, destination, Delayed(BUSY), "", now=now, chance=chance.random())
                entry.attempts = {0: attempt}
                attempts.append(attempt)
                now = attempt.due or now
            self.assertEqual(now, EPOCH + 7 * DAY)
            self.assertEqual({attempt.report for attempt in attempts[:-1]}, {EPOCH + 14_400})
            last = attempts[-1]
            self.assertEqual((last.state, last.report, last.note), (EntryState.FAILED, now, GIVEN_UP))
            self.assertEqual(last.attempts, len(attempts))
            self.assertTrue(7 * 24 / 1.1 <= len(attempts) <= 7 * 24 / 0.9 + 4, len(attempts))
            self.assertEqual(len(last.history), TRIALS_KEPT)
            self.assertEqual(last.history[-1].made_at, now)


@implementer(IRetrySchedule)
class Relay:
    """Has times of its own for slow.example, and others for whoever sends to bad.example."""

    longest_retry_times = (RetryTimes((7200.0,), None, 30 * DAY), RetryTimes(None, 3600.0, None))

    def __init__(self):
        self.times = dict(zip(("slow.example", "warned.example"), self.longest_retry_times, strict=True))

    def retry_times(self, sender, address):
        if address.domain == "bad.example":
            raise RuntimeError("a fault of ours")
        return self.times.get(address.domain)


class TimesOfRoutes(SynchronousTestCase):
    """Each recipient has the times of its own route."""

    def setUp(self):
        usual = Schedule(retry_seconds=(60, 300), expire_seconds=7 * DAY, warn_seconds=14_400)
        self.relay = Relay()
        self.schedules = Schedules(usual, self.relay)
        self.settlement = Settlement(schedules=self.schedules, reports=True)

    def settled(self, *destinations, now=EPOCH + 1, before=()):
        sent = envelope(*destinations)
        entry = ActiveMessage(number=number_of(sent.id), envelope=sent, open=len(destinations), spooled=False)
        entry.attempts = {one.destination: one for one in before}
        return [
            self.settlement.not_delivered(entry, one, Delayed(BUSY), "", now=now, chance=0.5) for one in destinations
        ]

    def test_recipients_of_one_message_each_have_their_own(self):
        usual, slow, warned = self.settled(
            remote(0, domain="x.example"), remote(1, domain="slow.example"), remote(2, domain="warned.example")
        )
        self.assertEqual([one.due - EPOCH - 1 for one in (usual, slow, warned)], [60, 7200, 60])
        self.assertEqual([one.report - EPOCH for one in (usual, slow, warned)], [14_400, 14_400, 3600])
        both = remote(0, domain="x.example"), remote(1, domain="slow.example")
        late = self.settled(*both, now=EPOCH + 8 * DAY, before=[usual, slow])
        self.assertEqual([one.state for one in late], [EntryState.FAILED, EntryState.DEFERRED])

    def test_a_mailbox_here_has_the_queues_times_whatever_its_domain(self):
        (attempt,) = self.settled(local(0))
        self.assertEqual(attempt.due, EPOCH + 61)

    def test_what_a_reload_changes_counts_at_the_next_attempt(self):
        destination = remote(0, domain="slow.example")
        self.relay.times["slow.example"] = RetryTimes((30.0,), None, None)
        self.assertEqual(self.settled(destination)[0].due, EPOCH + 31)

    def test_a_relay_that_fails_then_costs_no_outcome(self):
        (attempt,) = self.settled(remote(0, domain="bad.example"))
        self.assertEqual((attempt.state, attempt.due), (EntryState.DEFERRED, EPOCH + 61))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_clock_that_was_ahead_is_told_by_the_longest_of_all(self):
        self.assertEqual([round(one) for one in self.schedules.longest_pauses], [7920, 7920])
        self.assertEqual(self.schedules.warn_seconds, 14_400)
