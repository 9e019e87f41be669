"""DNS lists: names, codes and answers."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.trust.dns_lists import V4_POINTS, V6_POINTS, CodeSet, ListAnswer, address_name, read_answer

REFUSED = (CodeSet.parse("127.255.255.0/24"), CodeSet.parse("127.0.0.1"))


class Names(SynchronousTestCase):
    def test_an_address_is_written_backwards(self) -> None:
        self.assertEqual(address_name(ipaddress.ip_address("192.0.2.99")), "99.2.0.192")
        self.assertEqual(
            address_name(ipaddress.ip_address("2001:db8:1:2:3:4:567:89ab")),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2",  # RFC 5782 section 2.4
        )

    def test_the_test_points_are_those_of_the_standard(self) -> None:
        for points, listed, unlisted in (
            (V4_POINTS, "127.0.0.2", "127.0.0.1"),
            (V6_POINTS, "::FFFF:7F00:2", "::FFFF:7F00:1"),
        ):
            self.assertEqual(points.listed, address_name(ipaddress.ip_address(listed)))
            self.assertEqual(points.unlisted, address_name(ipaddress.ip_address(unlisted)))


class Codes(SynchronousTestCase):
    def test_one_a_range_a_network_and_several(self) -> None:
        for text, inside, outside in (
            ("127.0.0.2", ["127.0.0.2"], ["127.0.0.3", "127.0.1.2"]),
            ("127.0.0.4-127.0.0.7", ["127.0.0.4", "127.0.0.7"], ["127.0.0.3", "127.0.0.8"]),
            ("127.0.1.0/24", ["127.0.1.0", "127.0.1.255"], ["127.0.2.0"]),
            ("127.0.0.2, 127.0.0.9", ["127.0.0.2", "127.0.0.9"], ["127.0.0.3"]),
        ):
            codes = CodeSet.parse(text)
            for code in inside:
                self.assertIn(int(ipaddress.IPv4Address(code)), codes, text)
            for code in outside:
                self.assertNotIn(int(ipaddress.IPv4Address(code)), codes, text)

    def test_what_is_none_is_said(self) -> None:
        for text in ("", "127.0.0", "listed", "127.0.0.7-127.0.0.4", "192.0.2.1", "126.0.0.0/7", "::1", "127.0.0.2,", "1-2", "127.0.0.2-127.0.0.4-127.0.0.6"):
            with self.assertRaises(ValueError, msg=text):
                CodeSet.parse(text)


class Answers(SynchronousTestCase):
    def test_what_each_answer_says(self) -> None:
        for records, says, codes in (
            ([], "unlisted", ()),
            (["127.0.0.2"], "listed", ("127.0.0.2",)),
            (["127.0.0.4", "127.0.0.2"], "listed", ("127.0.0.4", "127.0.0.2")),
            (["127.255.255.254"], "refused", ("127.255.255.254",)),
            (["127.0.0.1"], "refused", ("127.0.0.1",)),
            (["127.0.0.2", "127.255.255.252"], "refused", ("127.255.255.252",)),
            (["203.0.113.80"], "odd", ("203.0.113.80",)),
            (["127.0.0.2", "203.0.113.80"], "odd", ("203.0.113.80",)),
            (["nonsense"], "odd", ("nonsense",)),
        ):
            self.assertEqual(read_answer(records, REFUSED), ListAnswer(says, codes), records)  # type: ignore[arg-type]

    @given(st.lists(st.ip_addresses(v=4).map(str) | st.text(max_size=12), max_size=5))
    def test_only_codes_of_127_are_ever_a_listing(self, records: list[str]) -> None:
        answer = read_answer(records, REFUSED)
        if answer.says == "listed":
            self.assertTrue(all(code.startswith("127.") for code in answer.codes))
