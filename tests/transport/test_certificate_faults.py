"""The words for what is wrong with TLS."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mailserver.transport.certificate_faults import words_of


class Words(SynchronousTestCase):
    def test_of_openssls_errors_the_reasons_are_told(self) -> None:
        error = SSL.Error([("SSL routines", "", "certificate verify failed"), (), ("SSL routines", "", "alert")])
        self.assertEqual(words_of(error), "certificate verify failed; alert")

    def test_one_that_gives_no_reason_is_a_tls_error(self) -> None:
        for error in (SSL.Error(), SSL.Error([]), SSL.Error(5, "odd"), SSL.ZeroReturnError()):
            self.assertEqual(words_of(error), "a TLS error")

    def test_any_other_error_says_what_it_says_or_what_it_is(self) -> None:
        self.assertEqual(words_of(ConnectionResetError("the peer has gone")), "the peer has gone")
        self.assertEqual(words_of(ConnectionResetError()), "ConnectionResetError")
