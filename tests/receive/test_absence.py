"""While who delivers is missing, its recipients are put off, and no others."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import IMayBeMissing
from mailserver.receive.absence import absence_of
from tests.receive.connections import Listener

NETWORK, STRANGER = "192.0.2.7", "203.0.113.9"
ALICE, AWAY, ALIAS, UNKNOWN, FOREIGN = (
    "alice@example.org", "away@example.org", "team@example.org", "unknown@example.org", "x@elsewhere.example",
)  # fmt: skip


@implementer(IMayBeMissing)
class Delivery:
    why: Any = ""

    def missing(self) -> str:
        if isinstance(self.why, Exception):
            raise self.why
        return str(self.why)


class Absent(SynchronousTestCase):
    def setUp(self) -> None:
        self.local, self.remote = Delivery(), Delivery()

    def codes(self, *recipients: str, address: str = NETWORK, **more: Any) -> list[bytes]:
        """What RCPT hears for each."""
        absence = absence_of(local=self.local, remote=self.remote)
        self.listener = Listener(self.mktemp(), relays=True, absence=absence, **more)
        protocol, wire = self.listener.greeted(address)
        protocol.dataReceived(b"MAIL FROM:<a@b.example>\r\n")
        wire.clear()
        for recipient in recipients:
            protocol.dataReceived(f"RCPT TO:<{recipient}>\r\n".encode())
        return [line[:9] for line in wire.value().splitlines()]

    def test_where_all_are_there_nobody_is_put_off(self) -> None:
        self.assertEqual(self.codes(ALICE, AWAY, FOREIGN), [b"250 2.1.5"] * 3)

    def test_who_cannot_be_missing_is_not_asked(self) -> None:
        self.assertIsNone(absence_of(local=object(), remote=None))
        self.remote.why = "it has died"
        absence = absence_of(local=object(), remote=self.remote)
        assert absence is not None
        self.local = object()  # type: ignore[assignment]
        self.assertEqual(self.codes(ALICE, FOREIGN), [b"250 2.1.5", b"451 4.3.0"])

    def test_without_the_delivery_local_recipients_are_put_off(self) -> None:
        self.local.why = "it has died"
        found = self.codes(ALICE, FOREIGN, ALIAS, AWAY, UNKNOWN)
        self.assertEqual(found, [b"451 4.3.0", b"250 2.1.5", b"451 4.3.0", b"250 2.1.5", b"550 5.1.1"])
        why = [fields["why"] for _, step, fields in self.listener.steps if step == "refused"]
        self.assertEqual(why[:2], ["who would deliver it is missing: it has died"] * 2)

    def test_without_the_relay_recipients_elsewhere_are_put_off(self) -> None:
        self.remote.why = "it was killed"
        self.assertEqual(self.codes(ALICE, FOREIGN, ALIAS, AWAY), [b"250 2.1.5", b"451 4.3.0", b"250 2.1.5", b"451 4.3.0"])

    def test_who_may_not_relay_hears_that(self) -> None:
        self.remote.why = "it was killed"
        self.assertEqual(self.codes(FOREIGN, AWAY, address=STRANGER), [b"550 5.7.1", b"451 4.3.0"])

    def test_a_plugin_that_fails_puts_off_its_own_alone(self) -> None:
        self.remote.why = RuntimeError("a plugin's")
        self.assertEqual(self.codes(ALICE, FOREIGN, ALIAS), [b"250 2.1.5", b"451 4.3.0", b"250 2.1.5"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
