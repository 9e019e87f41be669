"""Which filters `mailserver replay` asks again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.plugins.catalogue import discover


class Replays(SynchronousTestCase):
    def test_a_replay_asks_what_asks_nobody_but_the_dns(self) -> None:
        found = discover()
        for name in ("spf", "dkim", "dmarc", "arc", "lists", "contacts", "greylist", "denylist", "dnsbl", "peer_rules", "scores"):
            self.assertTrue(found.factory("filter", name).replays, name)
        for name in ("aiosmtpd", "policy_delegation", "milter", "rspamd", "clamav", "spamassassin"):
            self.assertFalse(getattr(found.factory("filter", name), "replays", False), name)
