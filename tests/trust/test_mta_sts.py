"""MTA-STS: the TXT record, the policy's text, and which hosts it lets in (RFC 8461)."""

from __future__ import annotations

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from mailserver.trust.mta_sts import STSFault, STSMode, STSPolicy, find_id, parse_policy
from tests.any_octets import any_octets

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mx1.example.org\r\nmx: *.Example.NET\r\nmax_age: 604800\r\n"


class TheRecord(SynchronousTestCase):
    """``_mta-sts.DOMAIN`` (section 3.1)."""

    def test_its_id_is_found_among_other_records(self) -> None:
        self.assertEqual("abc123", find_id([b"v=spf1 -all", b"v=STSv1; id=abc123;"]))
        self.assertEqual("a", find_id([b"v=STSv1;id=a"]))
        self.assertEqual("a", find_id([b"v=STSv1 ; x-y.z=1:2 ; id = a ;"]))

    def test_what_is_no_record_or_more_than_one_announces_nothing(self) -> None:
        for texts in (
            [], [b""], [b"v=STSv1"], [b"v=STSv1;"], [b"v=STSv1; id=;"], [b"v=STSv1; id=a-b;"], [b"v=STSv1; id=" + b"a" * 33],
            [b"v=STSv2; id=a;"], [b"V=STSv1; id=a"], [b" v=STSv1; id=a"], [b"v=STSv1; id=a; id=b"], [b"v=STSv1; ID=a"],
            [b"v=STSv1; id=a;", b"v=STSv1; id=a;"], [b"v=STSv1; id=a; x"], [b"v=STSv1; id=a;;"], [b"v=STSv1; id=\xff"],
            [b"v=STSv1; id=a; x=" + b"a" * 5000],
        ):  # fmt: skip
            self.assertEqual("", find_id(texts), texts)

    @given(any_octets(200))
    def test_any_octets_are_read_without_an_error(self, octets: bytes) -> None:
        find_id([b"v=STSv1;" + octets])


class ThePolicy(SynchronousTestCase):
    """The text at the policy host (section 3.2)."""

    def test_its_fields_are_read_whatever_ends_the_lines(self) -> None:
        policy = parse_policy(GOOD, id="a1")
        self.assertEqual(("a1", STSMode.ENFORCE, 604800), (policy.id, policy.mode, policy.max_age_seconds))
        self.assertEqual(("mx1.example.org", "*.example.net"), policy.mx)
        self.assertEqual("version: STSv1", policy.lines[0])
        bare = parse_policy(GOOD.replace(b"\r\n", b"\n").rstrip(), id="a1")
        self.assertEqual((policy.mx, policy.lines), (bare.mx, bare.lines))

    def test_unknown_fields_are_ignored_and_the_first_of_two_counts(self) -> None:
        policy = parse_policy(GOOD + b"mode: none\nx_new: a:b\n")
        self.assertEqual(STSMode.ENFORCE, policy.mode)

    def test_an_age_beyond_a_year_is_a_year(self) -> None:
        self.assertEqual(31_557_600, parse_policy(GOOD.replace(b"604800", b"9999999999")).max_age_seconds)

    def test_mode_none_names_no_hosts(self) -> None:
        policy = parse_policy(b"version: STSv1\nmode: none\nmax_age: 86400\n")
        self.assertEqual((STSMode.NONE, ()), (policy.mode, policy.mx))

    def test_what_is_no_policy_is_a_fault(self) -> None:
        for octets in (
            b"", b"<html>", GOOD.replace(b"STSv1", b"STSv2"), GOOD.replace(b"enforce", b"Enforce"), GOOD.replace(b"604800", b"-1"),
            GOOD.replace(b"604800", b"1 day"), GOOD.replace(b"max_age", b"maxage"), GOOD + b"mx: *\n", GOOD + b"mx: a..b\n",
            GOOD + b"mx: *.*.example.org\n", GOOD + b"mx:\n", GOOD + b"\xff\xfe: 1\n", GOOD + b"mx: mx.ex\xc3\xa4mple.org\n",
            b"version: STSv1\nmode: testing\nmax_age: 1\n", GOOD + b"x: " + b"a" * 65_536,
        ):  # fmt: skip
            self.assertRaises(STSFault, parse_policy, octets)

    @given(any_octets(300))
    def test_any_octets_are_a_policy_or_a_fault(self, octets: bytes) -> None:
        for text in (octets, GOOD + octets):
            try:
                parse_policy(text)
            except STSFault as fault:
                self.assertTrue(str(fault).isprintable())


class WhichHosts(SynchronousTestCase):
    """Section 4.1."""

    def test_a_star_stands_for_one_label_exactly(self) -> None:
        policy = STSPolicy("a", STSMode.ENFORCE, ("mx1.example.org", "*.example.net"), 60)
        for name in ("mx1.example.org", "MX1.Example.Org.", "a.example.net", "A.example.net."):
            self.assertTrue(policy.matches(name), name)
        for name in ("mx2.example.org", "example.net", "a.b.example.net", ".example.net", ".example.net.x", "xexample.net", "net", "", "*."):
            self.assertFalse(policy.matches(name), name)
