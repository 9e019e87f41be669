"""The name given with EHLO or HELO."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.trust.hello import hello_fault

PEER = ipaddress.ip_address("8.4.4.8")
OWN = {"mx.example.org", "example.org"}
NETWORKS = [ipaddress.ip_network("5.9.1.0/28"), ipaddress.ip_network("2a01:4f8::/64")]


class Hello(SynchronousTestCase):
    def test_what_each_name_is(self) -> None:
        for hello, fault in (
            ("mail.example.net", None),
            ("mail.example.net.", None),
            ("my_host.example.net", None),
            ("xn--bcher-kva.example", None),
            ("1and1.example.net", None),
            ("[8.4.4.8]", None),
            ("[IPv6:::ffff:8.4.4.8]", None),
            ("mailhost", "hello_short"),
            ("USER-PC", "hello_short"),
            ("8.4.4.8", "hello_address"),
            ("8.4.4.9", "hello_address"),
            ("2a00:1450::25", "hello_address"),
            ("[8.4.4.9]", "hello_other_address"),
            ("[IPv6:2a00:1450::25]", "hello_other_address"),
            ("mx.example.org", "hello_own"),
            ("EXAMPLE.org.", "hello_own"),
            ("localhost", "hello_own"),
            ("localhost.localdomain", "hello_own"),
            ("127.0.0.1", "hello_own"),
            ("[127.0.0.1]", "hello_own"),
            ("[IPv6:::1]", "hello_own"),
            ("[5.9.1.3]", "hello_own"),
            ("5.9.1.3", "hello_own"),
            ("[IPv6:2a01:4f8::3]", "hello_own"),
            ("sub.mx.example.org", None),
            ("my host", "hello_syntax"),
            ("büro.example", "hello_syntax"),
            ("-a.example", "hello_syntax"),
            ("a..example", "hello_syntax"),
            (".", "hello_syntax"),
            ("1.2.3", "hello_syntax"),
            ("300.1.1.1", "hello_syntax"),
            ("[mail.example.net]", "hello_syntax"),
            ("[8.4.4.8", "hello_syntax"),
            ("[]", "hello_syntax"),
            ("[fe80::1%eth0]", "hello_syntax"),
            ("a" * 64 + ".example", "hello_syntax"),
            ("a." * 127 + "example", "hello_syntax"),
        ):
            found = hello_fault(hello, PEER, own_names=OWN, own_networks=NETWORKS)
            self.assertEqual(None if found is None else found[0], fault, hello)

    @given(st.text(min_size=1, max_size=300))
    def test_anything_has_an_answer(self, hello: str) -> None:
        found = hello_fault(hello, PEER, own_names=OWN, own_networks=NETWORKS)
        self.assertTrue(found is None or found[1])
