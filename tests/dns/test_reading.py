"""What a message means: an answer, an alias, or a server that cannot tell."""

from __future__ import annotations

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from mailserver.dns.reading import Alias, ServerFailure, read_message, reverse_name
from mailserver.dns.wire import TYPES, decode, encode_name, encode_query, encode_question
from mailserver.mail.dns_records import MX, TLSA
from tests.dns.messages import mx, record, reply, soa, txt

NAME = "example.org"


class ReadingCase(SynchronousTestCase):
    def read(self, type, *answers, name=NAME, trusted=False, **more):
        question = encode_question(encode_name(name), TYPES[type])
        data = reply(encode_query(b"ab", question), *answers, **more)
        return read_message(decode(data, question, name), name, TYPES[type], trusted=trusted)


class Types(ReadingCase):
    def test_addresses(self) -> None:
        self.assertEqual(self.read("A", record(NAME, "A", "192.0.2.255")).records, ("192.0.2.255",))
        self.assertEqual(self.read("AAAA", record(NAME, "AAAA", "2001:DB8::1")).records, ("2001:db8::1",))

    def test_exchanges_keep_the_order_of_the_answer(self) -> None:
        found = self.read("MX", mx(NAME, 20, "B.Example"), mx(NAME, 10, "a.example"))
        self.assertEqual(found.records, ("20 b.example", "10 a.example"))
        self.assertEqual(sorted(found.exchanges), [MX(10, "a.example"), MX(20, "b.example")])

    def test_the_null_mx_rfc_7505(self) -> None:
        self.assertEqual(self.read("MX", mx(NAME, 0, "")).exchanges, (MX(0, "."),))

    def test_the_strings_of_a_text_are_joined_and_keep_every_octet(self) -> None:
        found = self.read("TXT", txt(NAME, b"v=spf1 ", b"include:x -all"), txt(NAME, b'\xff\x00"; '))
        self.assertEqual(found.texts, (b"v=spf1 include:x -all", b'\xff\x00"; '))
        self.assertEqual(found.records[0], "v=spf1 include:x -all")

    def test_associations(self) -> None:
        found = self.read("TLSA", record(NAME, "TLSA", b"\x03\x01\x01" + b"\xab" * 32))
        self.assertEqual(found.records, ("3 1 1 " + "ab" * 32,))
        self.assertEqual(found.associations, (TLSA(3, 1, 1, b"\xab" * 32),))

    def test_pointers(self) -> None:
        self.assertEqual(self.read("PTR", record(NAME, "PTR", "Host.Example")).records, ("host.example",))

    def test_a_record_of_a_wrong_length_spoils_the_answer(self) -> None:
        bad = {
            "A": (b"\1\2\3", b"\1\2\3\4\5"),
            "AAAA": (b"\0" * 15,),
            "MX": (b"", b"\0", b"\0\1", b"\0\1\1aa\0", b"\0\1\1a"),
            "TXT": (b"", b"\5abc"),
            "TLSA": (b"\3\1",),
            "PTR": (b"", b"\1a\0\0", b"\1a"),
        }
        for type, values in bad.items():
            for value in values:
                with self.subTest(type=type, value=value), self.assertRaises(ServerFailure):
                    self.read(type, record(NAME, type, value))

    def test_a_record_that_comes_twice_counts_once(self) -> None:
        self.assertEqual(len(self.read("A", record(NAME, "A", "192.0.2.1"), record(NAME, "A", "192.0.2.1")).records), 1)

    def test_records_of_other_names_and_types_do_not_count(self) -> None:
        found = self.read("A", record("example.net", "A", "192.0.2.9"), record(NAME, "RRSIG", b"\0" * 30), ra=True)
        self.assertEqual((found.records, found.name_exists), ((), True))

    def test_the_shortest_time_to_live_counts(self) -> None:
        found = self.read("A", record(NAME, "A", "192.0.2.1", 300), record(NAME, "A", "192.0.2.2", 60))
        self.assertEqual(found.ttl_seconds, 60)


class NothingThere(ReadingCase):
    def test_no_such_name_and_no_such_type_are_two_things(self) -> None:
        absent = self.read("MX", rcode=3, authority=[soa(NAME, 600)])
        empty = self.read("MX", authority=[soa(NAME, 600)])
        self.assertEqual((absent.records, absent.name_exists), ((), False))
        self.assertEqual((empty.records, empty.name_exists), ((), True))

    def test_it_is_kept_as_long_as_the_soa_says_rfc_2308(self) -> None:
        for ttl, minimum, kept in ((3600, 600, 600), (300, 600, 300), (86400, 86400, 3600)):
            self.assertEqual(self.read("MX", rcode=3, authority=[soa(NAME, minimum, ttl)]).ttl_seconds, kept)

    def test_without_an_soa_it_is_not_kept(self) -> None:
        self.assertEqual(self.read("MX", rcode=3).ttl_seconds, 0)
        self.assertEqual(self.read("MX").ttl_seconds, 0)

    def test_it_can_be_authenticated(self) -> None:
        self.assertTrue(self.read("TLSA", rcode=3, authority=[soa(NAME, 600)], ad=True, trusted=True).authenticated)

    def test_a_broken_soa_spoils_it(self) -> None:
        with self.assertRaises(ServerFailure):
            self.read("MX", rcode=3, authority=[record(NAME, "SOA", b"\0\0\0\0")])


class CannotTell(ReadingCase):
    def test_every_other_return_code_is_a_failure(self) -> None:
        for rcode, word in ((1, "FORMERR"), (2, "SERVFAIL"), (4, "NOTIMP"), (5, "REFUSED"), (9, "return code 9")):
            with self.assertRaisesRegex(ServerFailure, word) as caught:
                self.read("MX", mx(NAME, 10, "mx.example"), rcode=rcode)
            self.assertEqual(caught.exception.rcode, rcode)

    def test_a_referral_is_no_answer(self) -> None:
        up = [record("org", "NS", "ns.example")]
        with self.assertRaisesRegex(ServerFailure, "referral"):
            self.read("MX", authority=up, ra=False)
        self.assertEqual(self.read("MX", authority=up, ra=True).records, ())


class Authenticated(ReadingCase):
    def test_the_ad_bit_counts_from_a_trusted_server_only(self) -> None:
        address = record(NAME, "A", "192.0.2.1")
        self.assertTrue(self.read("A", address, ad=True, trusted=True).authenticated)
        self.assertFalse(self.read("A", address, ad=True, trusted=False).authenticated)
        self.assertFalse(self.read("A", address, ad=False, trusted=True).authenticated)


class Aliases(ReadingCase):
    def test_a_chain_is_followed_to_its_end(self) -> None:
        chain = [record(NAME, "CNAME", "B.example", 100), record("b.example", "CNAME", "c.example", 50)]
        found = self.read("A", record("C.example", "A", "192.0.2.3"), *chain)
        self.assertEqual((found.records, found.canonical_name, found.ttl_seconds), (("192.0.2.3",), "c.example", 50))

    def test_the_alias_itself_can_be_asked_for(self) -> None:
        found = self.read("CNAME", record(NAME, "CNAME", "b.example"), record("b.example", "CNAME", "c.example"))
        self.assertEqual((found.records, found.canonical_name), (("b.example",), ""))

    def test_a_chain_that_leads_out_of_the_message_has_to_be_asked_on(self) -> None:
        found = self.read("A", record(NAME, "CNAME", "b.example", 100), ad=True, trusted=True)
        self.assertEqual(found, Alias("b.example", 1, 100, True))

    def test_a_chain_to_nothing_is_nothing(self) -> None:
        chain = record(NAME, "CNAME", "b.example", 100)
        absent = self.read("A", chain, rcode=3, authority=[soa("example", 600)])
        empty = self.read("A", chain, authority=[soa("example", 600)])
        self.assertEqual((absent.name_exists, absent.canonical_name, absent.ttl_seconds), (False, "b.example", 100))
        self.assertEqual((empty.name_exists, empty.canonical_name, empty.records), (True, "b.example", ()))

    def test_a_circle_is_a_failure(self) -> None:
        with self.assertRaisesRegex(ServerFailure, "without end"):
            self.read("A", record(NAME, "CNAME", "b.example"), record("b.example", "CNAME", NAME))

    def test_eight_aliases_are_followed_and_nine_are_not(self) -> None:
        names = [NAME, *(f"n{n}.example" for n in range(9))]
        chain = [record(a, "CNAME", b) for a, b in pairwise(names)]
        last = [record(name, "A", "192.0.2.1") for name in names]
        self.assertEqual(self.read("A", *chain[:8], last[8]).canonical_name, "n7.example")
        with self.assertRaises(ServerFailure):
            self.read("A", *chain, last[9])


class Reverse(SynchronousTestCase):
    def test_both_families(self) -> None:
        self.assertEqual(reverse_name("192.0.2.1"), "1.2.0.192.in-addr.arpa")
        self.assertTrue(reverse_name("2001:db8::1").endswith(".8.b.d.0.1.0.0.2.ip6.arpa"))
        self.assertRaises(ValueError, reverse_name, "example.org")
