"""Dynamic updates of a real primary server: ours go in, those of others stay, and what has changed meanwhile is not lost."""

from __future__ import annotations

import dns.message
from twisted.trial.unittest import SynchronousTestCase

from mailserver.doctor import pushing
from mailserver.doctor.findings import CheckedRecord, RecordVerdict
from mailserver.doctor.pushing import PushFailed, ZoneChange, changes_of, push, read_zone_key
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.mail.dns_records import ServerAddress
from tests.doctor.primary import KEY, SECRET, Primary
from tests.doctor.zones import ZoneTable


class Pushing(SynchronousTestCase):
    program = "knotd"

    def setUp(self) -> None:
        self.primary = Primary(self, self.program)
        self.server, self.texts = self.primary.server, self.primary.texts

    def change(self, name: str, type: str, add: list[str], remove: list[str]) -> ZoneChange:
        put, gone = ([ZoneRecord(name, type, data) for data in records] for records in (add, remove))
        return ZoneChange(name, type, tuple(put), tuple(gone))

    def test_ours_go_in_and_those_of_others_stay(self) -> None:
        long = "v=DKIM1; k=rsa; p=" + "A" * 392
        push(
            "example.org",
            [
                self.change("example.org", "TXT", ["v=spf1 mx ~all"], ["v=spf1 -all"]),
                self.change("mail.example.org", "A", ["192.0.2.1"], []),
                self.change("example.org", "MX", ["10 mail.example.org"], ["10 old.example.net", "20 never.example.net"]),
                self.change("s1._domainkey.example.org", "TXT", [long], []),
            ],
            read_zone_key(KEY),
            self.server,
        )
        self.assertEqual(self.texts("example.org", "TXT"), ['"somebody-verification=1"', '"v=spf1 mx ~all"'])
        self.assertEqual(self.texts("example.org", "MX"), ["10 mail.example.org."])
        self.assertEqual(self.texts("s1._domainkey.example.org", "TXT"), [ZoneRecord("a", "TXT", long).shown_data])

    def test_what_somebody_else_changes_meanwhile_is_seen_and_kept(self) -> None:
        key = read_zone_key(KEY)
        looks = [0]
        real = pushing._present

        def present(change: ZoneChange, server: ServerAddress) -> object:
            found = real(change, server)
            looks[0] += 1
            if looks[0] == 1:
                push("example.org", [self.change("example.org", "TXT", ["another=2"], [])], key, server)
            return found

        self.patch(pushing, "_present", present)
        push("example.org", [self.change("example.org", "TXT", ["v=spf1 mx ~all"], ["v=spf1 -all"])], key, self.server)
        self.assertEqual(self.texts("example.org", "TXT"), ['"another=2"', '"somebody-verification=1"', '"v=spf1 mx ~all"'])
        self.assertEqual(looks, [3])  # the first, that of the other, the second

    def test_another_key_changes_nothing_and_is_told(self) -> None:
        other = read_zone_key(KEY.replace(SECRET, "b3RoZXJvdGhlcm90aGVyb3RoZXI="))
        with self.assertRaises(PushFailed) as caught:
            push("example.org", [self.change("example.org", "MX", [], ["10 old.example.net"])], other, self.server)
        self.assertIn(f"127.0.0.1:{self.server.port} has not changed example.org", str(caught.exception))
        self.assertNotIn("b3Ro", str(caught.exception) + repr(other))
        self.assertEqual(self.texts("example.org", "MX"), ["10 old.example.net."])
        with self.assertRaises(PushFailed):
            push("example.net", [self.change("example.net", "MX", [], [])], read_zone_key(KEY), self.server)
        with self.assertRaises(PushFailed):
            push("example.org", [self.change("example.org", "MX", [], [])], read_zone_key(KEY), ServerAddress("127.0.0.1", 1))


class PushingToBIND(Pushing):
    """The same at another server."""

    program = "named"


class Changes(SynchronousTestCase):
    def checked(self, verdict: RecordVerdict, name: str, to_do: str = "", *, is_advice: bool = False) -> CheckedRecord:
        record = ZoneRecord(name, "TXT", "x")
        return CheckedRecord(
            group="x", name=name, type="TXT", verdict=verdict, why="", fault="x", add=(record,), to_do=to_do, is_advice=is_advice
        )

    def test_only_the_zones_own_records_are_changed_and_advice_only_puts_in(self) -> None:
        found = [
            self.checked(RecordVerdict.MISSING, "a.example.org"),
            self.checked(RecordVerdict.MISSING, "a.example.org"),
            self.checked(RecordVerdict.MISSING, "b.example.org", is_advice=True),
            self.checked(RecordVerdict.MISSING, "c.example.org", "first something else", is_advice=True),
            self.checked(RecordVerdict.WRONG, "d.example.org", is_advice=True),
            self.checked(RecordVerdict.MISSING, "a.example.net"),
            self.checked(RecordVerdict.MISSING, "badexample.org"),
            self.checked(RecordVerdict.MISSING, "a.child.example.org"),
        ]
        seen = ZoneTable((), zones=("child.example.org", "example.org"))
        changes = changes_of(found, seen, "example.org")
        self.assertEqual([(one.name, len(one.add)) for one in changes], [("a.example.org", 1), ("b.example.org", 1)])

    def test_an_answer_that_is_not_signed_is_not_believed(self) -> None:
        def unsigned(*arguments: object, **named: object) -> dns.message.Message:
            return dns.message.from_wire(dns.message.make_response(dns.message.make_query("example.org", "SOA")).to_wire())

        self.patch(pushing.dns.query, "tcp", unsigned)
        with self.assertRaises(PushFailed) as caught:
            push("example.org", [], read_zone_key(KEY), ServerAddress("127.0.0.1", 53))
        self.assertIn("is not signed", str(caught.exception))

    def test_what_is_no_key_is_told_without_its_words(self) -> None:
        for text in ("", "secret", KEY.replace("secret", "geheim"), KEY.replace(SECRET, "===="), KEY + KEY):
            with self.assertRaises(ValueError) as caught:
                read_zone_key(text)
            self.assertNotIn(SECRET, str(caught.exception))
