"""Hashes of passwords."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.authentication.passwords import PASSWORD_OCTETS, PasswordError, hash_password, is_hash, verify_password


class Passwords(SynchronousTestCase):
    def test_a_new_hash_is_argon2id_with_19_mib_and_two_passes(self) -> None:
        hash = hash_password("correct horse")
        self.assertIn("$argon2id$v=19$m=19456,t=2,p=1$", hash)
        self.assertTrue(verify_password("correct horse", hash))
        self.assertFalse(verify_password("correct horse ", hash))

    def test_rfc_8265_4_2_a_password_is_the_same_from_every_keyboard(self) -> None:
        hash = hash_password("schön\u00a0er")
        self.assertTrue(verify_password("scho\u0308n er", hash))

    def test_hashes_of_older_servers_are_understood(self) -> None:
        for hash in (
            "$5$rounds=1000$saltsalt$DKmGiurWgRH0x47dWsmDgCZgU0jnGQ75IGiP6KbKWj5",
            "$2b$04$5lIeglYhRZFsTCeWyzrAqOEGiwVMQ8KAoIK3RkTzNEo.Eod2Oz9pC",
        ):
            self.assertTrue(is_hash(hash))
            self.assertFalse(verify_password("something else", hash))

    def test_what_cannot_be_compared_is_wrong_and_no_error(self) -> None:
        for hash in ("", "plain", "$unknown$x", "$argon2id$broken", "$2b$04$short"):
            self.assertFalse(verify_password("x" * 80, hash))
        self.assertFalse(verify_password("", hash_password("x")))

    def test_what_can_be_no_password_is_refused_with_a_reason(self) -> None:
        for text in ("", "a\0b", "a\nb", "x" * (PASSWORD_OCTETS + 1)):
            self.assertRaises(PasswordError, hash_password, text)

    def test_a_typed_password_is_not_taken_for_a_hash(self) -> None:
        self.assertFalse(is_hash("secret"))
        self.assertFalse(is_hash("$ecret"))
        self.assertTrue(is_hash("{SSHA}abcdefghijkl"))
