from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.queue.retry_timer import PAGE, RetryTimer


class Due(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.clock.rightNow = 1000.0
        self.questions = []
        self.found = []
        self.times = RetryTimer(clock=self.clock, ask=self.ask, found=self.found.extend)

    def ask(self, after, now, limit):
        self.questions.append((after, now))
        self.answer = Deferred()
        return self.answer

    def test_it_sleeps_until_something_is_due(self):
        self.times.look()
        self.answer.callback(([], 1060.0))
        self.clock.advance(59)
        self.assertEqual(len(self.questions), 1)
        self.clock.advance(1)
        self.answer.callback(([(1060.0, 7, False)], None))
        self.assertEqual(self.found, [(7, False)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_earlier_time_comes_first(self):
        self.times.expect(1100.0)
        self.times.expect(1050.0)
        self.times.expect(1070.0)
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()], [1050.0])

    def test_a_full_page_is_followed_by_the_next_from_its_end(self):
        self.times.look()
        page = [(900.0, n, False) for n in range(PAGE)]
        self.answer.callback((page, None))
        self.assertEqual(self.questions[1][0], page[-1])
        self.assertEqual(len(self.found), PAGE)

    def test_an_entry_with_several_due_destinations_is_found_once_for_each_active_queue(self):
        self.times.look()
        self.answer.callback(([(1.0, 7, False), (2.0, 7, False), (2.0, 7, True)], None))
        self.assertEqual(self.found, [(7, False), (7, True)])

    def test_what_falls_due_while_it_asks_is_asked_for_once_more(self):
        self.times.look()
        self.times.expect(1000.0)
        self.clock.advance(0)
        self.assertEqual(len(self.questions), 1)
        self.answer.callback(([], None))
        self.assertEqual(len(self.questions), 2)

    def test_what_is_written_while_it_asks_and_was_due_before_is_not_passed_over(self):
        # A person's retry: due at the moment of the decision, in the store a moment later, when the answer was made already.
        self.times.look()
        self.times.expect(990.0)
        self.answer.callback(([(980.0, 7, True), (995.0, 8, True)], None))
        self.clock.advance(0)
        self.assertEqual([after for after, _ in self.questions], [(0.0, 0, False), (990.0, 0, False)])
        self.answer.callback(([(990.0, 6, True), (995.0, 8, True)], None))
        self.clock.advance(0)
        self.assertEqual((len(self.questions), self.times._seen), (2, (995.0, 8, True)))

    def test_what_falls_due_later_is_no_reason_to_go_back(self):
        self.times.look()
        self.times.expect(1060.0)
        self.answer.callback(([(980.0, 7, True)], 1060.0))
        self.clock.advance(60)
        self.assertEqual(self.questions[-1][0], (980.0, 7, True))

    def test_what_could_not_be_used_while_it_asks_is_found_again(self):
        self.times.look()
        self.times.look_from_the_start(5.0)
        self.answer.callback(([(990.0, 7, False)], None))
        self.clock.advance(5)
        self.assertEqual(self.questions[-1], ((0.0, 0, False), 1005.0))

    def test_a_clock_that_went_back_hides_nothing(self):
        self.times.look()
        self.answer.callback(([(990.0, 7, False)], None))
        self.times.expect(500.0)
        self.clock.advance(0)
        self.assertEqual(self.questions[-1][0], (500.0, 0, False))

    def test_a_store_that_cannot_answer_is_asked_again(self):
        self.times.look()
        self.answer.errback(RuntimeError("no answer"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.clock.advance(5)
        self.assertEqual(len(self.questions), 2)

    def test_what_could_not_be_used_is_found_again_after_a_pause(self):
        self.times.look()
        self.answer.callback(([(990.0, 7, False)], None))
        self.times.look_from_the_start(5.0)
        self.clock.advance(5)
        self.assertEqual(self.questions[-1], ((0.0, 0, False), 1005.0))

    def test_without_room_it_waits_with_the_next_page(self):
        room = [True]
        self.times = RetryTimer(clock=self.clock, ask=self.ask, found=self.found.extend, has_room=lambda: room[0])
        self.times.look()
        room[0] = False
        self.answer.callback(([(900.0, n, False) for n in range(PAGE)], None))
        self.times.expect(1000.0)
        self.clock.advance(0)
        self.times.resume()
        self.assertEqual(len(self.questions), 1)
        room[0] = True
        self.times.resume()
        self.times.resume()
        self.assertEqual(len(self.questions), 2)

    def test_after_the_stop_it_sleeps_for_good(self):
        self.times.look()
        self.times.expect(2000.0)
        self.times.stop()
        self.answer.callback(([(1.0, 7, False)], 1500.0))
        self.assertEqual((self.found, self.clock.getDelayedCalls()), ([], []))
