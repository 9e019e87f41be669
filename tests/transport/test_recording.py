"""Recordings: who is recorded, what is bounded, how they end."""

from __future__ import annotations

from ipaddress import ip_network

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.transport import recording
from mailserver.transport.recording import NoRoomToRecord, Recorded, Recordings, Tap

HERE = IPv4Address("TCP", "192.0.2.25", 25)


class Recording(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.recordings = Recordings(self.clock, now=lambda: int(self.clock.seconds() * 1e9))

    def start(self, peer: str = "192.0.2.1", seconds: float = 60, octets: int = 1 << 30) -> int:
        return self.recordings.start(ip_network(peer), seconds=seconds, octets=octets, by="test")

    def tap(self, peer: str = "192.0.2.1", **more: bool) -> Tap:
        tap = self.recordings.tap(peer, 40000, HERE, is_client=more.get("is_client", True))
        assert tap is not None
        return tap

    def fetch(self, number: int) -> Deferred[tuple[list[Recorded], str]]:
        return ensureDeferred(self.recordings.fetch(number, seconds=5))

    def fetched(self, number: int) -> tuple[list[tuple[str, bytes, str]], str]:
        found, ended = self.successResultOf(self.fetch(number))
        return [(one.kind, one.octets, one.words) for one in found], ended

    def test_what_both_sides_say_is_kept_in_order_with_whose_it_is(self) -> None:
        number = self.start()
        written: list[bytes] = []
        tap = self.tap()
        tap.writer(written.append)(b"220 mx\r\n")
        tap.received(b"AUTH PLAIN eA==\r\n")
        tap.encrypted("TLSv1.3")
        tap.closed()
        tap.received(b"no more")
        self.assertEqual(written, [b"220 mx\r\n"])
        self.assertEqual(self.fetched(number), ([
            ("opened", b"", "192.0.2.1 40000 192.0.2.25 25"), ("server", b"220 mx\r\n", ""), ("client", b"AUTH PLAIN ****\r\n", ""),
            ("encrypted", b"", "TLSv1.3"), ("closed", b"", ""),
        ], ""))  # fmt: skip

    def test_where_we_are_the_client_our_password_is_masked(self) -> None:
        number = self.start()
        tap = self.tap(is_client=False)
        tap.sent(b"AUTH PLAIN eA==\r\n")
        tap.received(b"235 yes\r\n")
        self.assertEqual([one[:2] for one in self.fetched(number)[0]][1:], [("client", b"AUTH PLAIN ****\r\n"), ("server", b"235 yes\r\n")])

    def test_others_are_not_recorded(self) -> None:
        self.assertIsNone(self.recordings.tap("192.0.2.1", 1, HERE, is_client=True))
        self.start("192.0.2.0/30")
        for peer, ours in (("192.0.2.4", HERE), ("unix", HERE), ("192.0.2.1", UNIXAddress(b"/x")), ("2001:db8::1", HERE)):
            self.assertIsNone(self.recordings.tap(peer, 1, ours, is_client=True), peer)
        self.tap("192.0.2.3")
        self.tap("::ffff:192.0.2.3")

    def test_behind_a_proxy_our_end_has_the_family_of_the_peer(self) -> None:
        number = self.start("2001:db8::/64")
        self.assertIsNotNone(self.recordings.tap("2001:db8::1", 1, HERE, is_client=True))
        self.assertEqual(self.fetched(number)[0][0][2], "2001:db8::1 1 :: 25")
        self.start()
        self.assertIsNotNone(self.recordings.tap("192.0.2.1", 1, IPv6Address("TCP", "::ffff:192.0.2.25", 25), is_client=True))

    def test_who_fetches_waits_for_something_or_for_a_while(self) -> None:
        number = self.start()
        waiting = self.fetch(number)
        self.assertNoResult(waiting)
        tap = self.tap()
        self.assertEqual(len(self.successResultOf(waiting)[0]), 1)
        waiting = self.fetch(number)
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(waiting), ([], ""))
        tap.received(b"x")
        self.assertEqual(len(self.fetched(number)[0]), 1)

    def test_it_ends_after_its_time_its_size_or_by_order(self) -> None:
        number = self.start(seconds=3)
        waiting = self.fetch(number)
        self.clock.advance(3)
        self.assertEqual(self.successResultOf(waiting), ([], "its time is over"))
        number = self.start(octets=10)
        tap = self.tap()
        for _ in range(3):
            tap.received(b"x" * 6)
        self.assertEqual(len(self.fetched(number)[0]), 3)
        number = self.start()
        self.tap()
        self.recordings.stop(number)
        self.assertIsNone(self.recordings.tap("192.0.2.1", 1, HERE, is_client=True))
        self.assertEqual((len(self.fetched(number)[0]), list(self.recordings._open)), (1, []))
        self.failureResultOf(self.fetch(number), KeyError)
        self.recordings.stop(number)

    def test_one_that_nobody_fetches_ends(self) -> None:
        self.start(seconds=3600)
        tap = self.tap()
        self.clock.advance(recording.ABANDONED_SECONDS - 1)
        self.assertEqual(len(self.recordings._open), 1)
        self.clock.advance(1)
        self.assertEqual((self.recordings._open, self.clock.getDelayedCalls()), ({}, []))
        tap.received(b"still spoken")

    def test_what_waits_is_bounded_and_what_is_lost_is_told(self) -> None:
        self.patch(recording, "WAITING_OCTETS", 20_000)
        number = self.start()
        tap = self.tap()
        for _ in range(30):
            tap.received(b"x" * 1000)
        found, _ = self.fetched(number)
        self.assertEqual(len(found), 20)
        tap.received(b"y")
        self.assertEqual(self.fetched(number)[0], [("lost", b"", "client 11000"), ("client", b"y", "")])

    def test_what_is_lost_is_told_where_it_was_said(self) -> None:
        self.patch(recording, "WAITING_OCTETS", 20_000)
        number = self.start()
        first, second, third = self.tap(), self.tap(), self.tap()
        first.received(b"x" * 20_000)
        first.received(b"y" * 5)
        second.received(b"z" * 7)
        third.sent(b"250 ok\r\n")
        first.sent(b"354 go\r\n")
        first.encrypted("TLSv1.3")
        second.closed()
        found = self.successResultOf(self.fetch(number))[0]
        self.assertEqual([(one.connection, one.kind, one.words) for one in found[4:]], [
            (1, "lost", "client 5"), (1, "lost", "server 8"), (1, "encrypted", "TLSv1.3"), (2, "lost", "client 7"), (2, "closed", ""),
        ])  # fmt: skip
        self.recordings.stop(number)
        self.assertEqual(self.fetched(number), ([("lost", b"", "server 8")], "it was stopped"))

    def test_a_connection_for_which_there_is_no_room_is_told_and_not_begun_in_the_middle(self) -> None:
        self.patch(recording, "WAITING_OCTETS", 20_000)
        number = self.start()
        tap = self.tap()
        tap.received(b"x" * 20_000)
        self.patch(recording, "WAITING_OCTETS", 19_999)
        self.assertIsNone(self.recordings.tap("192.0.2.1", 40001, HERE, is_client=True))
        tap.closed()
        self.assertEqual(self.fetched(number)[0][2:], [("lost", b"", "connections 1"), ("closed", b"", "")])

    def test_there_are_only_so_many(self) -> None:
        for _ in range(recording.RECORDINGS):
            self.start()
        with self.assertRaises(NoRoomToRecord):
            self.start()
        for seconds, octets in ((0.0, 1), (recording.SECONDS_MOST + 1, 1), (1.0, 0), (1.0, -1), (float("nan"), 1)):
            with self.assertRaises(ValueError):
                self.recordings.start(ip_network("192.0.2.1"), seconds=seconds, octets=octets, by="test")

    def test_at_the_end_of_the_server_all_end_and_no_timer_stays(self) -> None:
        number = self.start()
        waiting = self.fetch(number)
        self.start()
        self.recordings.shut_down()
        self.assertEqual(self.successResultOf(waiting), ([], "the server stops"))
        self.assertEqual((self.recordings._open, self.clock.getDelayedCalls()), ({}, []))

    def test_a_fault_of_the_recording_is_not_felt_by_the_connection(self) -> None:
        self.start()
        tap = self.tap()
        written: list[bytes] = []

        def fail(octets: bytes) -> bytes:
            raise RuntimeError("a fault")

        self.patch(tap._mask, "client", fail)
        tap.received(b"x")
        tap.writer(written.append)(b"y")
        self.assertEqual((written, len(self.flushLoggedErrors(RuntimeError))), ([b"y"], 1))
