"""Which deliveries want the queue's store: all that keep mail.  A message for the others alone is answered without it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.courier_client import HomeDelivery
from mailserver.delivery.discard import DiscardDelivery
from mailserver.delivery.maildir import MaildirDelivery
from mailserver.delivery.pipe import PipeDelivery
from mailserver.queue.no_relay import NoRelay
from mailserver.relay.delivery import Relay
from mailserver.relay.lmtp import LMTPDelivery


class Stored(SynchronousTestCase):
    def test_only_what_is_thrown_away_is_never_made_durable(self) -> None:
        keeping: tuple[Any, ...] = (HomeDelivery, LMTPDelivery, MaildirDelivery, NoRelay, PipeDelivery, Relay)
        self.assertEqual([one for one in keeping if one.stores is not True], [])
        self.assertIs(DiscardDelivery.stores, False)
