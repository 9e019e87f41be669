"""While who delivers is missing, its recipients are put off, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailserver.interfaces import IMayBeMissing, IRouter
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Refused, Remote, Route
from mailserver.receive.absence import at_the_door
from mailserver.smtp import replies


@implementer(IMayBeMissing)
class Delivery:
    why = ""

    def missing(self) -> str:
        return self.why


def address(text: str) -> Address:
    return Address.parse(text, utf8=False)


ALICE = Local(address("alice@example.org"), Mailbox("alice", "example.org"))
AWAY = Remote(address("x@elsewhere.example"))
UNKNOWN = Refused(replies.LOCAL_ERROR, "unknown")
ROUTES: dict[str, Sequence[Route]] = {"alice": [ALICE], "away": [AWAY], "both": [AWAY, ALICE], "unknown": [UNKNOWN]}


@implementer(IRouter)
class Routes:
    async def route(self, address: Address) -> Sequence[Route]:
        return ROUTES[address.local]


class AtTheDoor(SynchronousTestCase):
    def routes(self, delivery: Any) -> dict[str, Sequence[Route]]:
        router = at_the_door(Routes(), delivery)
        verifyObject(IRouter, router)
        return {
            name: self.successResultOf(Deferred.fromCoroutine(router.route(address(f"{name}@example.org")))) for name in ROUTES
        }

    def test_one_that_is_there_or_cannot_be_missing_changes_nothing(self) -> None:
        self.assertEqual(self.routes(Delivery()), ROUTES)
        self.assertEqual(self.routes(object()), ROUTES)

    def test_while_it_is_missing_those_whom_it_serves_hear_451(self) -> None:
        delivery = Delivery()
        delivery.why = "it has died"
        found = self.routes(delivery)
        for name in ("alice", "both"):
            [refused] = found[name]
            assert isinstance(refused, Refused)
            self.assertEqual((refused.reply.code, refused.reply.enhanced), (451, "4.3.0"))
            self.assertIn("it has died", refused.why)
        self.assertEqual((found["away"], found["unknown"]), (ROUTES["away"], ROUTES["unknown"]))
