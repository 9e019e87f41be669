from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.queue.clock_watch import ClockWatch, boot_seconds


class Reactor(Clock):
    def callFromThread(self, function, *arguments):
        function(*arguments)


class Watching(SynchronousTestCase):
    def setUp(self):
        self.reactor = Reactor()
        self.reactor.rightNow = 1_000_000.0
        self.ahead = 0.0
        self.told = self.rung = 0
        self.watch = ClockWatch(
            reactor=self.reactor, was_set=self.tell, wall=self.reactor.seconds, boot=lambda: self.reactor.seconds() - self.ahead
        )

    def tell(self):
        self.told += 1

    def ring(self):
        self.rung += 1

    def set_clock(self, by):
        self.ahead += by
        self.reactor.rightNow += by

    def test_a_clock_that_is_set_back_makes_no_timer_wait_longer(self):
        self.reactor.callLater(100, self.ring)
        self.set_clock(-86_400)
        self.reactor.advance(4)
        self.reactor.callLater(100, self.ring)  # set by the new time, and left alone
        self.watch.look()
        self.assertEqual(self.told, 1)
        self.reactor.advance(95)
        self.assertEqual(self.rung, 0)
        self.reactor.advance(2)
        self.assertEqual(self.rung, 1)
        self.reactor.advance(4)
        self.assertEqual(self.rung, 2)

    def test_a_clock_that_is_set_forward_moves_no_timer(self):
        self.set_clock(86_400)
        self.reactor.callLater(100, self.ring)
        self.watch.look()
        self.assertEqual(self.told, 1)
        self.reactor.advance(100)
        self.assertEqual(self.rung, 1)

    def test_a_clock_that_goes_on_is_nothing_to_tell(self):
        self.reactor.advance(86_400)
        self.watch.look()
        self.assertEqual(self.told, 0)

    def test_it_starts_and_stops_a_thread(self):
        self.watch.start()
        self.watch.stop()
        self.watch.stop()
        self.assertLessEqual(boot_seconds(), boot_seconds())
