from __future__ import annotations

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address, AddressError, normal_domain, normal_name, normal_names, parse_domain

LABEL_63 = "a" * 63


class ParseTests(SynchronousTestCase):
    def test_the_plain_case(self) -> None:
        self.assertEqual(Address.parse("alice.b+x@Mail.Example.ORG"), Address("alice.b+x", "Mail.Example.ORG"))

    def test_two_spellings_of_one_local_part_are_equal_rfc5321_4_1_2(self) -> None:
        for spelling in ('"alice"@x.example', r'"\a\l\i\c\e"@x.example'):
            self.assertEqual(Address.parse(spelling), Address.parse("alice@x.example"))
            self.assertEqual(hash(Address.parse(spelling)), hash(Address.parse("alice@x.example")))

    def test_a_quoted_local_part_may_hold_what_an_atom_cannot(self) -> None:
        for text, local in (
            ('"a b"@x.example', "a b"),
            ('"a@b"@x.example', "a@b"),
            (r'"a\"b"@x.example', 'a"b'),
            (r'"a\\b"@x.example', "a\\b"),
            ('""@x.example', ""),
            ('".."@x.example', ".."),
            ('"<>(),:;"@x.example', "<>(),:;"),
        ):
            address = Address.parse(text)
            self.assertEqual(address.local, local)
            self.assertEqual(str(address), text)

    def test_what_is_no_address_is_refused(self) -> None:
        for text in (
            "",
            "@",
            "a",
            "a@",
            "@x",
            "a b@x",
            "a@b@c",
            '"a@x',
            'a"b@x',
            '"a"b@x',
            '"a""b"@x',
            "a@-x",
            "a@x-",
            "a@x..y",
            "a@.x",
            "a@x.",
            "a@x_y",
            "a@x y",
            "a(c)@x",
            "a,b@x",
            "<a@x>",
            "a@x ",
            " a@x",
            "@relay:a@x",
            r'"a\"@x',
        ):
            self.assertRaises(AddressError, Address.parse, text)
            self.assertRaises(AddressError, Address.parse, text, utf8=True)

    def test_odd_dots_are_taken_and_quoted_where_we_write(self) -> None:
        for local in ("a..b", ".a", "a.", "..", ".", "...a"):
            bare, quoted = Address.parse(f"{local}@x.example"), Address.parse(f'"{local}"@x.example')
            self.assertEqual((bare.local, bare.bare, quoted.bare), (local, True, False))
            self.assertEqual((bare, hash(bare)), (quoted, hash(quoted)))
            self.assertEqual((str(bare), bare.path, quoted.path), (f'"{local}"@x.example', f"{local}@x.example", str(bare)))
            self.assertTrue(bare.has_odd_dots and quoted.has_odd_dots)
        plain = Address.parse("a.b@x.example")
        self.assertEqual((plain.bare, plain.path, plain.has_odd_dots), (False, "a.b@x.example", False))
        self.assertEqual(Address.parse("é..b@x.example", utf8=True).path, "é..b@x.example")
        self.assertRaises(AddressError, Address.parse, "é..b@x.example")
        self.assertRaises(AddressError, Address.parse, "." * 65 + "@x.example")
        self.assertEqual(Address("a> <b", "x.example", bare=True).path, '"a> <b"@x.example')  # whoever made that one up

    def test_no_control_character_passes(self) -> None:
        for control in [*map(chr, range(32)), "\x7f"]:
            for text in (f"a{control}b@x", f"a@x{control}", f'"a{control}b"@x', f'"a\\{control}b"@x', f"a@[{control}]"):
                self.assertRaises(AddressError, Address.parse, text)
                self.assertRaises(AddressError, Address.parse, text, utf8=True)
        for control in [*map(chr, range(0x80, 0xA0)), "\u2028", "\u202e", "\u2066", "\ud800", "\udcff", "\ufeff"]:
            for text in (f"a{control}b@x", f'"a{control}b"@x', f"a@x{control}", f"a@[x:{control}]"):
                self.assertRaises(AddressError, Address.parse, text, utf8=True)

    def test_the_local_part_has_64_octets_at_most_rfc5321_4_5_3_1_1(self) -> None:
        Address.parse("a" * 64 + "@x.example")
        self.assertRaises(AddressError, Address.parse, "a" * 65 + "@x.example")
        Address.parse('"' + " " * 62 + '"@x.example')
        self.assertRaises(AddressError, Address.parse, '"' + " " * 63 + '"@x.example')
        Address.parse("é" * 32 + "@x.example", utf8=True)
        self.assertRaises(AddressError, Address.parse, "é" * 33 + "@x.example", utf8=True)

    def test_a_path_has_256_octets_with_its_brackets_at_most_rfc5321_4_5_3_1_3(self) -> None:
        domain = ".".join([LABEL_63, LABEL_63, LABEL_63, "b" * 60])
        self.assertEqual(len("a@" + domain), 254)
        Address.parse("a@" + domain)
        self.assertRaises(AddressError, Address.parse, "aa@" + domain)

    def test_a_domain_has_255_octets_at_most_rfc5321_4_5_3_1_2(self) -> None:
        parse_domain(".".join([LABEL_63] * 4))
        self.assertRaises(AddressError, parse_domain, ".".join([LABEL_63] * 4) + ".b")

    def test_a_label_has_63_octets_at_most(self) -> None:
        Address.parse(f"a@{LABEL_63}.example")
        self.assertRaises(AddressError, Address.parse, f"a@{LABEL_63}a.example")


class LiteralTests(SynchronousTestCase):
    def test_address_literals_rfc5321_4_1_3(self) -> None:
        for literal in (
            "[192.0.2.1]",
            "[IPv6:2001:db8::1]",
            "[ipv6:::1]",
            "[IPv6:::ffff:192.0.2.1]",
            "[Tag-1:some.thing!x]",
        ):
            address = Address.parse("a@" + literal)
            self.assertTrue(address.is_literal)
            self.assertEqual(str(address), "a@" + literal)

    def test_what_is_no_literal_is_refused(self) -> None:
        for literal in (
            "[",
            "[]",
            "[192.0.2]",
            "[192.0.2.256]",
            "[192.0.02.1]",
            "[192.0.2.1",
            "[192.0.2.1]x",
            "[2001:db8::1 ]",
            "[::1]",
            "[IPv6:fe80::1%eth0]",
            "[IPv6:1]",
            "[IPv6:]",
            "[tag:]",
            "[tag-:x]",
            "[tag:a]b]",
            "[tag:a\\]",
            "[é:x]",
        ):
            self.assertRaises(AddressError, parse_domain, literal, utf8=True)

    def test_look_ups_see_one_spelling_of_an_ipv6_literal(self) -> None:
        self.assertEqual(normal_domain("[IPv6:2001:DB8:0:0::1]"), normal_domain("[ipv6:2001:db8::1]"))


class InternationalTests(SynchronousTestCase):
    def test_non_ascii_needs_smtputf8_rfc6531_3_3(self) -> None:
        for text in ("jürgen@x.example", "a@bücher.example", '"jürgen b"@x.example'):
            self.assertRaises(AddressError, Address.parse, text)
            address = Address.parse(text, utf8=True)
            self.assertEqual(str(address), text)
            self.assertFalse(address.is_ascii)

    def test_a_u_label_and_its_a_label_are_one_name_rfc5890(self) -> None:
        for domain in ("bücher.example", "BÜCHER.example", "xn--bcher-kva.Example", "bücher。example"):
            self.assertEqual(normal_domain(domain), "xn--bcher-kva.example")

    def test_an_address_has_one_name_for_look_ups_however_it_is_written(self) -> None:
        for text in ("jürgen@bücher.example", "JÜRGEN@BÜCHER.example", "ju\u0308rgen@xn--bcher-kva.Example"):
            address = Address.parse(text, utf8=True)
            self.assertEqual(normal_name(address), "jürgen@xn--bcher-kva.example")
            self.assertEqual(normal_names(address), ("jürgen", "xn--bcher-kva.example"))
        self.assertRaises(AddressError, normal_name, Address("a", "☃.example"))
        self.assertRaises(AddressError, normal_names, Address("a", "☃.example"))

    def test_sharp_s_is_a_letter_of_its_own_idna_2008(self) -> None:
        self.assertEqual(normal_domain("faß.example"), "xn--fa-hia.example")

    def test_impossible_labels_are_refused(self) -> None:
        for domain in (
            "☃.example",
            "a\u200db.example",
            "℀.example",
            "-é.example",
            "é.",
            "é..x",
            "é" * 64 + ".example",
            "é x",
        ):
            self.assertRaises(AddressError, parse_domain, domain, utf8=True)


local_parts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
wide_local_parts = st.text(
    st.characters(min_codepoint=0x20, exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf", "Cn")), max_size=15
)
domains = st.sampled_from(["x", "x.example", "[192.0.2.1]", "[IPv6:::1]", "Mixed.Case.example"])


class RoundTripTests(SynchronousTestCase):
    @given(local_parts, domains)
    @example('"\\', "x")
    def test_str_and_parse_are_inverse(self, local: str, domain: str) -> None:
        address = Address(local, domain)
        if len(str(address).rpartition("@")[0]) <= 64:
            self.assertEqual(Address.parse(str(address)), address)

    @given(wide_local_parts, st.sampled_from(["x", "bücher.example"]))
    def test_str_and_parse_are_inverse_with_smtputf8(self, local: str, domain: str) -> None:
        local = unicodedata.normalize("NFC", local)
        address = Address(local, domain)
        if len(str(address).rpartition("@")[0].encode()) <= 64:
            self.assertEqual(Address.parse(str(address), utf8=True), address)

    @given(st.text(max_size=300), st.booleans())
    def test_any_text_is_an_address_or_an_address_error(self, text: str, utf8: bool) -> None:
        try:
            address = Address.parse(text, utf8)
        except AddressError:
            return
        self.assertEqual(Address.parse(str(address), utf8), address)
