"""Addresses of name servers; an answer's records as values."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.dns_records import MX, TLSA, Answer, ServerAddress


class Servers(SynchronousTestCase):
    def test_both_families_with_and_without_a_port(self) -> None:
        for text, host, port in (
            ("127.0.0.1", "127.0.0.1", 53),
            ("127.0.0.1:5353", "127.0.0.1", 5353),
            ("::1", "::1", 53),
            ("[::1]", "::1", 53),
            ("[2001:DB8::53]:5353", "2001:db8::53", 5353),
            ("fe80::1%eth0", "fe80::1%eth0", 53),
        ):
            self.assertEqual(ServerAddress.parse(text), ServerAddress(host, port), text)

    def test_the_text_form_can_be_parsed(self) -> None:
        for text in ("127.0.0.1", "127.0.0.1:5353", "[::1]", "[::1]:5353"):
            self.assertEqual(str(ServerAddress.parse(text)), text)

    def test_names_and_impossible_ports_are_refused(self) -> None:
        for text in (
            "", "dns.example.org", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:+5", "[::1", "[::1]5", "[::1]:",
            "[::1]:x", "1.2.3", "127.0.0.1:123456", "127.0.0.1:５３",
        ):  # fmt: skip
            with self.subTest(text), self.assertRaises(ValueError):
                ServerAddress.parse(text)

    def test_loopback_is_known_in_both_families(self) -> None:
        self.assertTrue(all(ServerAddress(host).is_loopback for host in ("127.0.0.53", "::1")))
        self.assertFalse(any(ServerAddress(host).is_loopback for host in ("192.0.2.53", "2001:db8::1")))


class Records(SynchronousTestCase):
    def test_nothing_is_authenticated_of_which_nobody_says_so(self) -> None:
        self.assertIs(Answer((), 60).authenticated, False)

    def test_exchanges_sort_by_preference(self) -> None:
        answer = Answer(("20 b.example", "5 a.example", "0 ."))
        self.assertEqual(sorted(answer.exchanges), [MX(0, "."), MX(5, "a.example"), MX(20, "b.example")])

    def test_associations_may_be_empty(self) -> None:
        self.assertEqual(Answer(("3 1 1 0aff", "2 0 0 ")).associations, (TLSA(3, 1, 1, b"\x0a\xff"), TLSA(2, 0, 0, b"")))
