"""Which URLs may be fetched, and where they lead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.fetching.place import Place, place_of
from mailserver.mail.fetched import FetchFailed
from mailserver.mail.networks import is_public


class Places(SynchronousTestCase):
    def test_an_https_url_leads_to_its_host(self) -> None:
        for url, host, port, asked in (
            ("https://a.example/x?y=z#part", "a.example", 443, b"https://a.example/x?y=z"),
            ("HTTPS://A.Example.", "a.example", 443, b"https://a.example/"),
            ("https://a.example:8443?q", "a.example", 8443, b"https://a.example:8443/?q"),
            ("https://bücher.example/", "xn--bcher-kva.example", 443, b"https://xn--bcher-kva.example/"),
            ("https://_x.a.example", "_x.a.example", 443, b"https://_x.a.example/"),
        ):
            self.assertEqual(place_of(url), Place(host, port, asked))

    def test_all_else_is_refused(self) -> None:
        for url in (
            "", "http://a.example/", "ftp://a.example/", "//a.example/", "https:a.example", "https:///x", "https://", "https://a.example" + "x" * 2048,
            "https://user@a.example/", "https://a.example@b.example/", "https://127.0.0.1/", "https://127.1/", "https://[::1]/", "https://0x7f.1/",
            "https://2130706433/", "https://localhost/", "https://a..example/", "https://-a.example/", "https://a.example:0x50/", "https://a.example:99999/",
            "https://a.example/ x", "https://a.example/\r\nHost: b", "https://a.exa\tmple/", "https://a.example/\x00", "https://a.example/ü", "https://a\\@b.example/",
            "https://a.example\\.b.example/", "https://a.1/", "https://a%2eexample/", "file:///etc/passwd", "https://" + "a." * 130 + "example/",
        ):  # fmt: skip
            with self.assertRaises(FetchFailed, msg=url):
                place_of(url)

    def test_a_url_may_be_2048_characters_long(self) -> None:
        url = "https://a.example/".ljust(2048, "x")
        self.assertEqual(place_of(url).url, url.encode())
        self.assertRaises(FetchFailed, place_of, url + "x")

    @given(st.text() | st.text().map("https://".__add__) | st.text().map(lambda text: f"https://a.example{text}"))
    def test_whatever_it_is_it_is_a_place_or_refused(self, url: str) -> None:
        try:
            place = place_of(url)
        except FetchFailed:
            return
        self.assertRegex(place.url, rb"\Ahttps://[!-~]+\Z")
        self.assertTrue(place.url.startswith(b"https://" + place.host.encode()))


class PublicAddresses(SynchronousTestCase):
    def test_those_of_others_are_public_and_none_else(self) -> None:
        for address in ("8.8.8.8", "1.1.1.1", "192.0.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2001:200::1"):
            self.assertTrue(is_public(address), address)
        for address in (
            "", "unix", "0.0.0.0", "10.1.2.3", "100.127.255.255", "127.0.0.1", "169.254.1.1", "172.31.0.1", "192.0.0.1", "192.0.2.1", "192.88.99.1",
            "192.168.0.1", "198.19.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::8.8.8.8",
            "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::808:808", "100::1", "2001::1", "2001:db8::1", "2002:808:808::1", "3fff::1", "4000::1",
            "fc00::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
        ):  # fmt: skip
            self.assertFalse(is_public(address), address)
