"""What is kept of a password for SCRAM, and the preparation of names and passwords."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl.saslprep import saslprep
from mailserver.sasl.scram_keys import decode_scram_keys, derive_scram_keys, encode_scram_keys, false_scram_keys
from mailserver.sasl.steps import ScramKeys
from tests.any_octets import any_octets

# RFC 5803 has no example for SHA-256; these are PostgreSQL's words for the password "pencil" with the salt of RFC 7677.
TEXT = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="


class Keys(SynchronousTestCase):
    def test_the_text_is_what_postgresql_keeps(self) -> None:
        keys = decode_scram_keys(TEXT)
        self.assertEqual(keys, derive_scram_keys("pencil", salt=keys.salt, iterations=4096))
        self.assertEqual(encode_scram_keys(keys), TEXT)

    @given(st.builds(ScramKeys, st.integers(1, 999_999), any_octets(min_size=1), *[any_octets(min_size=32, max_size=32)] * 2))
    def test_text_and_keys_are_the_same(self, keys: ScramKeys) -> None:
        self.assertEqual(decode_scram_keys(encode_scram_keys(keys)), keys)

    def test_anything_else_is_no_key(self) -> None:
        for text in ("", TEXT + "x", TEXT.replace("256", "1"), TEXT.replace("4096", "0"), TEXT.replace("4096", "٤٠٩٦"), TEXT[:-5]):
            self.assertRaises(ValueError, decode_scram_keys, text)
        self.assertRaises(ValueError, decode_scram_keys, TEXT.replace("4096", "1000001"))

    def test_false_keys_are_stable_for_a_name_and_differ_between_names(self) -> None:
        one = false_scram_keys("nobody", b"secret")
        self.assertEqual(one, false_scram_keys("nobody", b"secret"))
        self.assertNotEqual(one.salt, false_scram_keys("nobody", b"other").salt)
        self.assertNotEqual(one.salt, false_scram_keys("somebody", b"secret").salt)
        self.assertTrue(one.is_false)
        real = derive_scram_keys("x", salt=b"s" * 16)
        self.assertEqual((one.iterations, len(one.salt)), (real.iterations, len(real.salt)))

    def test_keys_are_not_shown(self) -> None:
        shown = repr(decode_scram_keys(TEXT))
        self.assertNotIn("stored_key", shown)
        self.assertNotIn("server_key", shown)


class Prepared(SynchronousTestCase):
    def test_the_examples_of_the_rfc(self) -> None:
        # RFC 4013 section 3
        self.assertEqual(saslprep("I\u00adX"), "IX")
        self.assertEqual(saslprep("user"), "user")
        self.assertEqual(saslprep("USER"), "USER")
        self.assertEqual(saslprep("\u00aa"), "a")
        self.assertEqual(saslprep("\u2168"), "IX")
        self.assertRaises(ValueError, saslprep, "\u0007")
        self.assertRaises(ValueError, saslprep, "\u0627\u0031")

    def test_right_to_left_from_end_to_end(self) -> None:
        self.assertEqual(saslprep("\u0627\u0031\u0628"), "\u0627\u0031\u0628")
        self.assertRaises(ValueError, saslprep, "\u0627a\u0628")

    def test_other_spaces_are_spaces(self) -> None:
        self.assertEqual(saslprep("a\u00a0b"), "a b")

    def test_code_points_that_are_not_assigned_are_for_queries_only(self) -> None:
        self.assertEqual(saslprep("a\u0221"), "a\u0221")
        self.assertRaises(ValueError, saslprep, "a\u0221", stored=True)

    @given(st.text())
    def test_what_is_prepared_stays_as_it_is(self, text: str) -> None:
        try:
            prepared = saslprep(text)
        except ValueError:
            return
        self.assertEqual(saslprep(prepared), prepared)
