"""DANE: records and the certificates that match them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.dns_records import TLSA
from mailserver.trust import dane
from mailserver.trust.chain import covers, key_octets, names_of
from mailserver.trust.dane import DaneFault, DaneMatch, DaneMismatch, TLSAAnswer, TLSAState, in_words, is_usable, match
from tests.any_octets import any_octets
from tests.trust.chains import KINDS, NOW, Link, chain_of, self_signed, tlsa

NAME = "mx.example.org"


def asked(links: Sequence[Link], *records: TLSA, names: Sequence[str] = (NAME,), now: float = NOW) -> DaneMatch | DaneMismatch:
    answer = TLSAAnswer(TLSAState.USABLE, tuple(records), NAME, tuple(names))
    return match(answer, [link.der for link in links], now)


class HostsOwn(SynchronousTestCase):
    """Usage 3."""

    def test_each_selector_and_matching_type_with_each_kind_of_key(self) -> None:
        for kind in KINDS:
            host, other = self_signed(kind), chain_of(("ecdsa",))[0]
            for selector in (0, 1):
                for matching_type in (0, 1, 2):
                    record = tlsa(host, 3, selector, matching_type)
                    found = asked([host], record)
                    self.assertEqual(found, DaneMatch(record, 0, f"{in_words(record)} is the host's certificate"))
                    if kind != "ecdsa" or selector == 0:
                        self.assertIsInstance(asked([other], record), DaneMismatch)

    def test_neither_the_name_nor_the_dates_count(self) -> None:
        (host,) = chain_of(("ecdsa",), ("other.example",), leaf_days=(-20, -10))
        self.assertIsInstance(asked([host], tlsa(host, 3, 1, 1)), DaneMatch)

    def test_an_authority_of_the_chain_is_not_the_host(self) -> None:
        chain = chain_of()
        found = asked(chain, tlsa(chain[1], 3, 1, 1))
        assert isinstance(found, DaneMismatch)
        self.assertEqual(found.fault, DaneFault.NO_MATCH)
        self.assertIn("TLSA 3 1 1 ", found.why)

    def test_the_key_is_taken_as_it_stands_whatever_kind_it_is(self) -> None:
        octets = bytearray(self_signed().der)
        at = octets.index(bytes.fromhex("2a8648ce3d0201"))  # id-ecPublicKey
        octets[at + 6] = 0x7F  # a kind of key that nobody knows
        key = key_octets(bytes(octets))
        assert key is not None
        self.assertIn(bytes.fromhex("2a8648ce3d027f"), key)
        record = TLSA(3, 1, 1, hashlib.sha256(key).digest())
        answer = TLSAAnswer(TLSAState.USABLE, (record,), NAME, (NAME,))
        self.assertIsInstance(match(answer, [bytes(octets)], NOW), DaneMatch)


class TrustAnchor(SynchronousTestCase):
    """Usage 2."""

    def test_each_certificate_above_the_host_in_each_form(self) -> None:
        for kinds in (("ecdsa", "rsa", "ed25519"), ("rsa", "ed25519", "ecdsa"), ("ed25519", "ecdsa", "rsa")):
            chain = chain_of(kinds)
            for depth in (1, 2):
                for selector in (0, 1):
                    for matching_type in (0, 1, 2):
                        record = tlsa(chain[depth], 2, selector, matching_type)
                        found = asked(chain, record)
                        self.assertEqual((type(found), getattr(found, "depth", found)), (DaneMatch, depth), in_words(record))

    def test_the_order_of_what_lies_above_is_free_and_strangers_may_stand_among_it(self) -> None:
        chain = chain_of(("ecdsa", "ecdsa", "ecdsa", "ecdsa"))
        mixed = [chain[0], self_signed(), chain[3], chain[1], chain[2]]
        self.assertEqual(getattr(asked(mixed, tlsa(chain[3], 2, 0, 1)), "depth", None), 3)

    def test_the_hosts_own_certificate_is_no_anchor(self) -> None:
        chain = chain_of()
        for record in (tlsa(chain[0], 2, 0, 1), tlsa(chain[0], 2, 1, 1), tlsa(chain[0], 2, 0, 0)):
            self.assertIsInstance(asked([chain[0], chain[0], *chain[1:]], record), DaneMismatch)

    def test_an_anchor_that_the_host_leaves_out_is_none_unless_the_record_has_it_in_full(self) -> None:
        chain = chain_of()
        for selector in (0, 1):
            self.assertIsInstance(asked(chain[:2], tlsa(chain[2], 2, selector, 1)), DaneMismatch)
            self.assertIsInstance(asked(chain[:2], tlsa(chain[2], 2, selector, 0)), DaneMatch, selector)
        for kind in KINDS:
            chain = chain_of(("ecdsa", kind))
            self.assertIsInstance(asked(chain[:1], tlsa(chain[1], 2, 1, 0)), DaneMatch, kind)
            stranger = chain_of(("ecdsa", "ecdsa", kind))[2] if kind != "ecdsa" else self_signed("rsa")
            self.assertIsInstance(asked(chain[:1], tlsa(stranger, 2, 1, 0)), DaneMismatch, kind)

    def test_a_chain_that_does_not_lead_there_is_none_although_the_anchor_is_shown(self) -> None:
        chain, other = chain_of(), chain_of(("ecdsa", "rsa", "rsa"))
        found = asked([chain[0], other[1], other[2]], tlsa(other[2], 2, 0, 1))
        self.assertEqual(getattr(found, "fault", None), DaneFault.BROKEN_CHAIN)

    def test_who_is_no_authority_signs_nothing(self) -> None:
        chain = chain_of(authority=False)
        found = asked(chain, tlsa(chain[2], 2, 0, 1))
        self.assertEqual(getattr(found, "fault", None), DaneFault.BROKEN_CHAIN)

    def test_the_dates_of_the_host_and_of_the_authorities_count(self) -> None:
        for days in ({"leaf_days": (-20, -10)}, {"leaf_days": (10, 20)}, {"authority_days": (-400, -1)}):
            chain = chain_of(**days)  # type: ignore[arg-type]
            found = asked(chain, tlsa(chain[2], 2, 0, 1))
            self.assertEqual(getattr(found, "fault", None), DaneFault.EXPIRED, days)

    def test_a_certificate_for_clients_only_is_none_for_a_host(self) -> None:
        chain = chain_of(client_only=True)
        self.assertEqual(getattr(asked(chain, tlsa(chain[1], 2, 0, 1)), "fault", None), DaneFault.BROKEN_CHAIN)

    def test_one_of_the_names_has_to_be_the_certificates(self) -> None:
        for own, wanted, good in (
            (("mx.example.org",), ("mx.example.org",), True),
            (("MX.Example.ORG",), ("mx.example.org",), True),
            (("example.org",), ("mx.example.org", "example.org"), True),
            (("*.example.org",), ("mx.example.org",), True),
            (("*.example.org",), ("a.mx.example.org", "example.org"), False),
            (("m*.example.org",), ("mx.example.org",), False),
            (("*.org",), ("example.org",), False),
            (("other.example",), ("mx.example.org",), False),
            ((), ("mx.example.org",), False),
        ):
            chain = chain_of(names=own)
            found = asked(chain, tlsa(chain[2], 2, 1, 1), names=wanted)
            self.assertEqual(isinstance(found, DaneMatch), good, (own, wanted))
            if isinstance(found, DaneMismatch):
                self.assertEqual(found.fault, DaneFault.NAME_MISMATCH)

    def test_the_common_name_counts_where_there_is_no_other(self) -> None:
        chain = chain_of(names=(), subject=NAME)
        self.assertIsInstance(asked(chain, tlsa(chain[2], 2, 1, 1)), DaneMatch)
        chain = chain_of(names=("other.example",), subject=NAME)
        self.assertEqual(names_of(chain[0].certificate), ["other.example"])
        self.assertIsInstance(asked(chain, tlsa(chain[2], 2, 1, 1)), DaneMismatch)


class SeveralRecords(SynchronousTestCase):
    def test_one_of_two_is_enough_while_keys_are_rolled_over(self) -> None:
        old, new = self_signed("ecdsa"), self_signed("rsa")
        records = tlsa(old, 3, 1, 1), tlsa(new, 3, 1, 1)
        self.assertEqual(getattr(asked([old], *records), "record", None), records[0])
        self.assertEqual(getattr(asked([new], *records), "record", None), records[1])

    def test_sha_256_does_not_count_beside_sha_512_for_the_same_purpose(self) -> None:
        old, new, chain = self_signed("ecdsa"), self_signed("rsa"), chain_of()
        self.assertIsInstance(asked([old], tlsa(old, 3, 1, 1), tlsa(new, 3, 1, 2)), DaneMismatch)
        self.assertIsInstance(asked([old], tlsa(old, 3, 1, 1), tlsa(new, 3, 0, 2)), DaneMatch)
        self.assertIsInstance(asked([old], tlsa(old, 3, 1, 0), tlsa(new, 3, 1, 2)), DaneMatch)
        self.assertIsInstance(asked([old], tlsa(old, 3, 1, 1), tlsa(chain[1], 2, 1, 2)), DaneMatch)
        self.assertIsInstance(asked([old], tlsa(old, 3, 1, 1), TLSA(3, 1, 2, b"short")), DaneMatch)

    def test_what_came_nearest_is_told(self) -> None:
        chain = chain_of(names=("other.example",))
        found = asked(chain, tlsa(self_signed("rsa"), 3, 1, 1), tlsa(chain[2], 2, 0, 1), tlsa(self_signed(), 2, 1, 2))
        assert isinstance(found, DaneMismatch)
        self.assertEqual((found.fault, "other.example" in found.why), (DaneFault.NAME_MISMATCH, True))

    def test_hundreds_of_anchors_in_full_are_no_work_for_seconds(self) -> None:
        chain, checks = chain_of(), []
        keys = [ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(200)]
        spki = [one.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo) for one in keys]
        self.patch(dane, "is_signed_by", lambda certificate, key: checks.append(key))
        strangers = [TLSA(2, 1, 0, one) for one in spki]
        self.assertIsInstance(asked([chain[0], *chain * 6], *strangers), DaneMismatch)
        self.assertLessEqual(len(checks), dane.FULL_ANCHORS_MOST * dane.CHAIN_MOST)
        self.assertIsInstance(asked(chain, *strangers, tlsa(chain[0], 3, 1, 1)), DaneMatch)

    def test_without_a_certificate_or_a_usable_record_nothing_matches(self) -> None:
        host = self_signed()
        self.assertIsInstance(asked([], tlsa(host, 3, 1, 1)), DaneMismatch)
        for records in ((), (tlsa(host, 1, 1, 1),), (TLSA(3, 1, 1, b""),)):
            self.assertIsInstance(asked([host], *records), DaneMismatch)


class Usable(SynchronousTestCase):
    def test_what_smtp_knows(self) -> None:
        host = self_signed()
        for usage in range(5):
            for selector in range(3):
                for matching_type in range(3):
                    octets = tlsa(host, usage, min(selector, 1), matching_type).data
                    record = TLSA(usage, selector, matching_type, octets)
                    self.assertEqual(is_usable(record), usage in (2, 3) and selector in (0, 1), record)

    def test_what_is_malformed_is_not_usable(self) -> None:
        host = self_signed()
        for record in (
            TLSA(3, 1, 1, b""), TLSA(3, 1, 1, bytes(31)), TLSA(3, 1, 1, bytes(64)), TLSA(3, 1, 2, bytes(32)), TLSA(3, 1, 3, bytes(32)),
            TLSA(3, 0, 0, host.public_key), TLSA(2, 1, 0, host.der), TLSA(2, 0, 0, host.der[:-1]), TLSA(3, 0, 0, b""),
        ):  # fmt: skip
            self.assertFalse(is_usable(record), record)


class AnyOctets(SynchronousTestCase):
    CHAIN = chain_of()

    @given(st.integers(0, 255), st.integers(0, 2), st.integers(0, 3), any_octets(max_size=80), st.integers(0, 3))
    @settings(max_examples=100)
    def test_no_record_and_no_certificate_makes_trouble(self, usage: int, selector: int, kind: int, octets: bytes, at: int) -> None:
        shown = [link.der for link in self.CHAIN]
        shown[at % 3 : at % 3 + 1] = [octets, shown[at % 3][: len(octets)]]
        for record in (TLSA(usage, selector, kind, octets), TLSA(2, selector, kind, octets)):
            self.assertIsInstance(is_usable(record), bool)
            answer = TLSAAnswer(TLSAState.USABLE, (record, tlsa(self.CHAIN[2], 2, 0, 1)), NAME, (NAME,))
            found = match(answer, shown, NOW)
            if isinstance(found, DaneMatch):
                self.assertEqual((found.record.usage, at % 3), (2, 1), "the host's own and the anchor are as they were")

    @given(st.data())
    @settings(max_examples=100)
    def test_a_changed_octet_of_the_hosts_certificate_never_matches_its_whole(self, data: st.DataObject) -> None:
        octets = bytearray(self.CHAIN[0].der)
        octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
        answer = TLSAAnswer(TLSAState.USABLE, (tlsa(self.CHAIN[0], 3, 0, 1), tlsa(self.CHAIN[2], 2, 0, 1)), NAME, (NAME,))
        changed = bytes(octets)
        found = match(answer, [changed, self.CHAIN[1].der, self.CHAIN[2].der], NOW)
        self.assertIsInstance(found, DaneMismatch)

    @given(any_octets(max_size=60))
    def test_a_key_is_found_or_it_is_not(self, octets: bytes) -> None:
        self.assertIsInstance(key_octets(octets), bytes | None)

    def test_the_key_is_the_one_that_the_certificate_has(self) -> None:
        for kind in KINDS:
            link = self_signed(kind)
            self.assertEqual(key_octets(link.der), link.public_key)

    def test_a_name_with_a_final_dot_is_the_same(self) -> None:
        self.assertTrue(covers("mx.example.org", "mx.example.org."))
