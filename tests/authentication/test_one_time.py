"""Secrets with which this host tries a log-in of its own."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.authentication.one_time import OneTimeLogins

PROBE, HOST = "selftest@example.org", "127.0.0.1"


class OneTime(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.logins = OneTimeLogins(self.clock)

    def test_a_secret_lets_one_account_in_once_from_one_place(self) -> None:
        self.assertFalse(self.logins.take(PROBE, "", HOST))
        secret = self.logins.give(PROBE, HOST)
        self.assertFalse(self.logins.take(PROBE, secret + "x", HOST))
        self.assertTrue(self.logins.take(PROBE, secret, HOST))
        self.assertFalse(self.logins.take(PROBE, secret, HOST))
        for account, place in (("alice@example.org", HOST), (PROBE, "192.0.2.1")):
            secret = self.logins.give(PROBE, HOST)
            self.assertFalse(self.logins.take(account, secret, place))
            self.assertFalse(self.logins.take(PROBE, secret, HOST))  # who has shown it has used it

    def test_it_is_over_after_a_minute_and_there_are_few(self) -> None:
        secret = self.logins.give(PROBE, HOST)
        self.clock.advance(60)
        self.assertFalse(self.logins.take(PROBE, secret, HOST))
        many = [self.logins.give(PROBE, HOST) for _ in range(17)]
        self.assertEqual([self.logins.take(PROBE, one, HOST) for one in many], [False] + [True] * 16)
