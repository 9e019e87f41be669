"""What is tried after a handshake that failed."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.relay.fallbacks import STEPS_KEPT, Fallbacks, TLSStep
from mailserver.relay.pool import Key

FULL, SMALL, CLEAR = TLSStep
A, B = Key("192.0.2.1", 25, "opportunistic"), Key("192.0.2.1", 25, "required")


class Steps(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.fallbacks = Fallbacks(self.clock.seconds)

    def test_a_smaller_hello_comes_before_mail_in_the_clear(self):
        self.assertIs(self.fallbacks.step(A), FULL)
        self.assertIs(self.fallbacks.failed(A, FULL, allows_clear=True), SMALL)
        self.assertIs(self.fallbacks.step(A), SMALL)
        self.assertIs(self.fallbacks.failed(A, SMALL, allows_clear=True), CLEAR)
        self.assertEqual([self.fallbacks.step(one) for one in (A, B)], [CLEAR, FULL], "another demand is another place")

    def test_what_is_demanded_never_comes_to_the_clear_and_begins_anew(self):
        self.assertIs(self.fallbacks.failed(B, FULL, allows_clear=False), SMALL)
        self.assertIsNone(self.fallbacks.failed(B, SMALL, allows_clear=False))
        self.assertIs(self.fallbacks.step(B), FULL)

    def test_before_the_first_hello_a_smaller_one_is_of_no_use(self):
        self.assertIs(self.fallbacks.failed(A, FULL, allows_clear=True, said_hello=False), CLEAR)
        self.assertIsNone(self.fallbacks.failed(B, FULL, allows_clear=False, said_hello=False))

    def test_connections_that_fail_together_take_one_step(self):
        steps = [self.fallbacks.failed(A, FULL, allows_clear=True) for _ in range(3)]
        self.assertEqual(steps, [SMALL] * 3)
        self.assertIs(self.fallbacks.step(A), SMALL)

    def test_after_an_hour_all_begins_anew(self):
        self.fallbacks.failed(A, FULL, allows_clear=True)
        self.clock.advance(3599)
        self.assertIs(self.fallbacks.step(A), SMALL)
        self.clock.advance(1)
        self.assertIs(self.fallbacks.step(A), FULL)

    def test_it_is_bounded(self):
        for port in range(STEPS_KEPT + 10):
            self.fallbacks.failed(A._replace(port=port), FULL, allows_clear=True)
        self.assertLessEqual(len(self.fallbacks._steps), STEPS_KEPT)
        self.assertIs(self.fallbacks.step(A._replace(port=STEPS_KEPT + 9)), SMALL)
