"""Mail that leaves by an alias: its sender, its mark, and what becomes of the message's other recipients."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import CannotTell, IDelivery
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.faults import StorageFull
from mailserver.mail.parcel import Destination, Parcel
from mailserver.plugins.awaiting import later
from mailserver.plugins.generation import Generation
from mailserver.relay.attempts import AskedBefore, Attempts
from mailserver.relay.forwards import ForwardRules, Forwards
from mailserver.relay.return_paths import ReturnPaths, SenderTable
from mailserver.testing.records import MemoryRecords
from mailserver.trust.srs import NotOurs
from mailserver.trust.srs_keys import rotate_srs_key

NOW, DAY = 1_796_000_000.0, 86_400.0
MESSAGE = b"Subject: one\r\n\r\nhello\r\n"
OWN = ("example.org", "example.com")


def to(index: int, recipient: str, route: str = "") -> Destination:
    """A destination of another host: by an alias, or as it was addressed."""
    return Destination(index, Recipient(Address.parse(recipient, utf8=True)), Remote(Address.parse(route or recipient)))


@implementer(IDelivery)
class Notes:
    """Notes what it is given, and delivers it."""

    stores = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes, list[int]]] = []

    async def deliver(self, envelope: Envelope, content: Content, destinations: Sequence[Destination]) -> Any:
        """Each call with its sender, its octets and its destinations."""
        octets = b"".join(content.chunks())
        self.calls.append((str(envelope.sender or "<>"), octets, [one.index for one in destinations]))
        if any("broken" in one.route.address.local for one in destinations):
            raise RuntimeError("broken")
        return {one.index: Delivered() for one in destinations}

    async def deliver_batch(self, parcels: Sequence[Parcel]) -> Any:
        """As it would be without anybody who divides."""
        return [await self.deliver(one.envelope, one.content, one.destinations) for one in parcels]

    async def flush(self) -> None:
        """Nothing to do."""


class ForwardCase(SynchronousTestCase):
    """Forwards before a delivery that notes."""

    def setUp(self) -> None:
        """Keys in a folder, records in memory, a clock."""
        self.keys = os.path.join(tempfile.mkdtemp(), "keys")
        self.clock = Clock()
        self.clock.advance(NOW)
        self.records = MemoryRecords()
        self.paths = self.return_paths()
        self.road: list[dict[str, Any]] = []
        self.forwards = Forwards(
            paths=self.paths,
            hostname="mx.example.org",
            is_own=lambda domain: domain.lower() in OWN,
            note=lambda id, step, **fields: self.road.append(fields),
        )
        self.attempts = Attempts(clock=self.clock, seconds=self.clock.seconds, note=lambda *a, **k: None, forwards=self.forwards)
        self.attempts.use(AskedBefore((), (), Generation()))
        self.delivery = Notes()

    def return_paths(self, most: int = 100) -> ReturnPaths:
        """Over the same keys and records."""
        table = SenderTable(self.records, most=most)
        return ReturnPaths(keys_directory=self.keys, table=table, run_in_thread=maybeDeferred, clock=self.clock)

    def done(self, awaitable: Any) -> Any:
        """The result."""
        return self.successResultOf(later(awaitable))

    def deliver(self, sender: str | None, *destinations: Destination, message: bytes = MESSAGE) -> Any:
        """The outcomes of one attempt."""
        by = None if sender is None else Address.parse(sender, utf8=True)
        recipients = tuple([one.recipient for one in destinations])
        envelope = Envelope("0123456789ABCDEF", Peer("192.0.2.1", 25, "mx"), by, recipients, NOW)
        return self.done(self.attempts.deliver(self.delivery, envelope, Content.of(message), destinations))

    def opened(self, text: str) -> Any:
        """To whom a bounce goes."""
        return self.done(self.paths.opened(Address.parse(text)))


class Senders(ForwardCase):
    """With which sender a copy leaves."""

    def test_what_leaves_by_an_alias_has_a_return_path_of_the_aliass_domain_and_others_the_sender(self) -> None:
        outcomes = self.deliver("bob@far.example", to(0, "carol@else.example"), to(1, "sales@example.org", "ann@big.example"))
        self.assertEqual(outcomes, {0: Delivered(), 1: Delivered()})
        (plain, octets, first), (rewritten, marked, second) = self.delivery.calls
        self.assertEqual((plain, octets, first, second), ("bob@far.example", MESSAGE, [0], [1]))
        self.assertRegex(rewritten, r"\ASRS0=[A-Z2-7]{8}=[A-Z2-7]{2}=far\.example=bob@example\.org\Z")
        self.assertEqual(marked, b"Delivered-To: sales@example.org\r\n" + MESSAGE)
        self.assertEqual(self.opened(rewritten), Address("bob", "far.example"))
        self.assertEqual(
            self.road, [{"recipient": "sales@example.org", "to": ["ann@big.example"], "return_path": rewritten}]
        )

    def test_the_null_sender_and_our_own_stay(self) -> None:
        for sender in (None, "ann@example.com", "Ann@EXAMPLE.org", "cron@mx.example.org"):
            self.deliver(sender, to(0, "sales@example.org", "ann@big.example"))
        self.assertEqual([sender for sender, _, _ in self.delivery.calls], ["<>", "ann@example.com", "Ann@EXAMPLE.org", "cron@mx.example.org"])
        self.assertEqual((self.road, os.path.exists(self.keys)), ([], False))

    def test_an_address_at_another_host_gets_one_copy_whatever_leads_there(self) -> None:
        same = (to(0, "sales@example.org", "ann@big.example"), to(1, "boss@example.org", "Ann@big.example"))
        self.assertEqual(len(self.deliver("bob@far.example", *same[:1], to(1, "boss@example.org", "ann@big.example"))), 2)
        self.assertEqual(len(self.delivery.calls), 1)
        self.deliver("bob@far.example", to(0, "sales@example.org", "ann@big.example"), to(1, "ann@big.example"))
        self.assertEqual(self.delivery.calls[1][::2], ("bob@far.example", [1, 0]))

    def test_what_stays_in_the_house_or_is_another_hosts_is_no_forward(self) -> None:
        inside, relayed = to(0, "sales@example.org", "ann@example.com"), to(1, "x@else.example", "y@big.example")
        self.assertFalse(self.forwards.concern([inside, relayed]))
        self.assertTrue(self.forwards.concern([relayed, to(2, "postmaster@[192.0.2.1]", "ann@big.example")]))

    def test_one_domain_for_all_or_none(self) -> None:
        self.forwards.rules = ForwardRules(True, "mx.example.org")
        self.deliver("bob@far.example", to(0, "sales@example.org", "ann@big.example"))
        self.forwards.rules = ForwardRules(False)
        self.deliver("bob@far.example", to(0, "sales@example.org", "ann@big.example"))
        self.assertTrue(self.delivery.calls[0][0].endswith("=bob@mx.example.org"), self.delivery.calls[0][0])
        self.assertEqual(self.delivery.calls[1][0], "bob@far.example")

    def test_batches_are_divided_too(self) -> None:
        envelope = Envelope("0123456789ABCDEF", Peer("192.0.2.1", 25, "mx"), Address("bob", "far.example"), (), NOW)
        parcels = [
            Parcel(envelope, Content.of(MESSAGE), (to(0, "sales@example.org", "ann@big.example"),)),
            Parcel(envelope, Content.of(MESSAGE), (to(0, "carol@else.example"),)),
        ]
        self.done(self.attempts.deliver_batch(self.delivery, parcels))
        self.assertEqual([sender[:4] for sender, _, _ in self.delivery.calls], ["SRS0", "bob@"])

    def test_one_that_fails_takes_no_other_along(self) -> None:
        outcomes = self.deliver(
            "bob@far.example",
            to(0, "a@example.org", "ann@big.example"),
            to(1, "b@example.org", "broken@big.example"),
            to(2, "c@example.org", "carol@big.example"),
        )
        self.assertEqual([type(outcomes[n]) for n in range(3)], [Delivered, Delayed, Delivered])

    def test_what_is_known_of_one_part_is_told_while_another_is_under_way(self) -> None:
        told: list[Any] = []
        slow: Deferred[Any] = Deferred()

        async def deliver(envelope: Envelope, content: Content, destinations: Sequence[Destination], told: Any) -> Any:
            if any(one.route.address.local == "slow" for one in destinations):
                return await slow
            return {one.index: Delivered() for one in destinations}

        self.delivery.deliver = deliver  # type: ignore[method-assign,assignment]
        parts = (to(0, "a@example.org", "ann@big.example"), to(1, "slow@big.example"), to(2, "b@example.com", "bea@big.example"))
        envelope = Envelope(
            "0123456789ABCDEF", Peer("192.0.2.1", 25, "mx"), Address.parse("bob@far.example"),
            tuple([one.recipient for one in parts]), NOW,
        )  # fmt: skip
        answer = later(self.attempts.deliver(self.delivery, envelope, Content.of(MESSAGE), parts, told.append))
        self.assertEqual(sorted(index for outcomes in told for index in outcomes), [0, 2])
        slow.callback({1: Delivered()})
        self.assertEqual(sorted(self.successResultOf(answer)), [0, 1, 2])

    def test_a_fault_with_one_alias_is_no_other_recipients_matter(self) -> None:
        made = self.paths.made

        async def broken(sender: Address, domain: str) -> Address:
            if domain == "example.com":
                raise ValueError("a fault")
            return await made(sender, domain)

        self.paths.made = broken  # type: ignore[method-assign]
        outcomes = self.deliver(
            "bob@far.example",
            to(0, "a@example.org", "ann@big.example"),
            to(1, "b@example.com", "dora@big.example"),
            to(2, "carol@else.example"),
        )
        self.assertEqual([type(outcomes[n]) for n in range(3)], [Delivered, Delayed, Delivered])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_message_that_comes_back_to_its_alias_is_not_sent_again(self) -> None:
        self.deliver("bob@far.example", to(0, "Sales@example.org", "ann@big.example"))
        back = b"Received: from big.example\r\n" + self.delivery.calls[0][1].replace(b"Sales", b"sales")
        outcomes = self.deliver(
            "bob@far.example", to(0, "sales@example.org", "ann@big.example"), to(1, "boss@example.org", "carol@big.example"),
            message=back,
        )  # fmt: skip
        assert isinstance(outcomes[0], Failed)
        self.assertEqual((str(outcomes[0].reply), outcomes[1]), ("554 5.4.6 Mail forwarding loop", Delivered()))
        self.assertEqual([indexes for _, _, indexes in self.delivery.calls], [[0], [1]])

    def test_the_mark_of_any_alias_is_ascii_and_stays_out_of_what_is_signed(self) -> None:
        self.deliver("bob@far.example", to(0, "büro@example.org", "ann@big.example"))
        self.assertTrue(self.delivery.calls[0][1].startswith(b"Delivered-To: b\\x{FC}ro@example.org\r\n"), self.delivery.calls)
        self.assertIsInstance(
            self.deliver("b@far.example", to(0, "BÜRO@example.org", "a@big.example"), message=self.delivery.calls[0][1])[0], Failed
        )
        signed = b"Received: x\r\nDKIM-Signature: v=1; h=From:Delivered-To; b=x\r\n" + MESSAGE
        self.deliver("bob@far.example", to(0, "sales@example.org", "ann@big.example"), message=signed)
        self.assertEqual(self.delivery.calls[-1][1], b"X-Loop: sales@example.org\r\n" + signed)
        back = self.deliver("bob@far.example", to(0, "Sales@example.org", "ann@big.example"), message=self.delivery.calls[-1][1])
        self.assertIsInstance(back[0], Failed)


class Keys(ForwardCase):
    """Keys and the table over time and under faults."""

    def test_bounces_find_their_way_over_a_restart_and_a_new_key_until_they_expire(self) -> None:
        short, long = self.made("bob@far.example"), self.made(f"{'b' * 60}@far.example")
        rotate_srs_key(self.keys, NOW + DAY)
        self.clock.advance(2 * DAY)
        self.paths = self.return_paths()
        self.assertEqual(self.opened(short), Address("bob", "far.example"))
        self.assertEqual(self.opened(long.lower()), Address("b" * 60, "far.example"))
        self.clock.advance(21 * DAY)
        self.assertIsInstance(self.opened(short), NotOurs)
        self.assertIsInstance(self.opened(long), NotOurs)

    def made(self, sender: str) -> str:
        """The return path."""
        return str(self.done(self.paths.made(Address.parse(sender, utf8=True), "example.org")))

    def test_the_same_sender_has_one_row_and_a_full_table_forgets_the_oldest(self) -> None:
        self.paths = self.return_paths(most=3)
        made = []
        for n in range(5):
            made.append(self.made(f"{n}{'b' * 60}@far.example"))
            self.assertEqual(self.made(f"{n}{'b' * 60}@FAR.example"), made[-1])
            self.clock.advance(1)
        self.assertEqual(len(self.done(self.records.items())), 3)
        self.assertEqual([isinstance(self.opened(one), Address) for one in made], [False, False, True, True, True])

    def test_a_row_that_has_expired_is_not_found(self) -> None:
        table = SenderTable(self.records)
        self.done(table.keep("a" * 20, Address("bob", "far.example"), NOW))
        self.assertEqual(self.done(table.find("a" * 20, NOW + 22 * DAY)), Address("bob", "far.example"))
        self.assertIsNone(self.done(table.find("a" * 20, NOW + 24 * DAY)))

    def test_rows_that_have_expired_go(self) -> None:
        self.made(f"{'a' * 60}@far.example")
        self.clock.advance(24 * DAY)
        self.paths = self.return_paths()
        self.made(f"{'b' * 60}@far.example")
        self.assertEqual(len(self.done(self.records.items())), 1)

    def test_a_row_that_holds_nonsense_leads_nowhere(self) -> None:
        path = self.made(f"{'b' * 60}@far.example")
        [(name, _)] = self.done(self.records.items())
        for value in (b"", b"[]", b'{"sender": 1, "until": 2}', b"\xff"):
            self.done(self.records.put(name, value))
            self.assertIsInstance(self.opened(path), NotOurs)
            self.done(self.return_paths().made(Address("c" * 60, "far.example"), "example.org"))

    def test_a_key_that_cannot_be_read_defers_what_needs_it_and_nothing_else(self) -> None:
        self.made("bob@far.example")
        [name] = os.listdir(os.path.join(self.keys, "srs"))
        path = os.path.join(self.keys, "srs", name)
        os.chmod(path, 0o600)
        with open(path, "w", encoding="ascii") as file:
            file.write("nonsense")
        self.forwards._paths = self.paths = self.return_paths()
        outcomes = self.deliver(
            "bob@far.example", to(0, "carol@else.example"), to(1, "a@example.org", "x@big.example"), to(2, "d@else.example")
        )
        self.assertEqual([type(outcomes[n]) for n in range(3)], [Delivered, Delayed, Delivered])
        self.assertRaises(CannotTell, self.opened, "SRS0=x=AA=b=c@example.org")

    def test_known_keys_go_on_where_the_folder_is_gone(self) -> None:
        path = self.made("bob@far.example")
        os.rename(self.keys, self.keys + "-away")
        with open(self.keys, "w", encoding="ascii"):
            pass
        self.clock.advance(DAY)
        self.assertEqual(self.opened(path), Address("bob", "far.example"))
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_a_row_that_cannot_be_taken_away_stops_nobody(self) -> None:
        self.paths = self.return_paths(most=1)
        self.made(f"{'a' * 60}@far.example")
        self.records.failing = {"drop"}
        self.assertIsInstance(self.opened(self.made(f"{'b' * 60}@far.example")), Address)

    def test_a_full_disk_defers_the_sender_who_needs_a_row(self) -> None:
        async def full(key: str, value: bytes) -> None:
            raise StorageFull("no room")

        self.records.put = full  # type: ignore[method-assign]
        outcomes = self.deliver(f"{'b' * 60}@far.example", to(0, "a@example.org", "x@big.example"))
        self.assertIn("no room", outcomes[0].note)

    def test_without_a_key_nothing_is_ours_and_none_is_made(self) -> None:
        self.assertIsInstance(self.opened("SRS0=AAAAAAAA=AA=far.example=bob@example.org"), NotOurs)
        self.assertFalse(os.path.exists(self.keys))

    def test_former_secrets_are_read_and_taken_up_by_a_reload(self) -> None:
        path = os.path.join(tempfile.mkdtemp(), "secrets")
        with open(path, "wb") as file:
            file.write(b"sekret\n")
        self.clock.advance((20_787 + 5) * DAY - NOW)
        local = "SRS0=cu2T=JT=example.net=bob"  # postsrsd 1.10 has made it with this secret
        self.clock.advance(((0b0100110011 - 20_792) % 1024) * DAY)
        self.assertIsInstance(self.opened(f"{local}@example.org"), NotOurs)
        self.paths.former = path
        self.assertEqual(self.opened(f"{local}@example.org"), Address("bob", "example.net"))

    def test_cancelling_an_attempt_cancels_what_it_waits_for(self) -> None:
        waiting: list[Deferred[Any]] = []

        def hangs(*work: Any) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        paths = ReturnPaths(keys_directory=self.keys, table=SenderTable(self.records), run_in_thread=hangs, clock=self.clock)
        self.forwards._paths = paths
        envelope = Envelope("0123456789ABCDEF", Peer("192.0.2.1", 25, "mx"), Address("bob", "far.example"), (), NOW)
        answer = later(
            self.attempts.deliver(self.delivery, envelope, Content.of(MESSAGE), [to(0, "a@example.org", "x@big.example")])
        )
        answer.cancel()
        self.failureResultOf(answer)
        self.assertTrue(waiting[0].called)
        self.assertEqual(self.delivery.calls, [])
