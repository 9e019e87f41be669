"""What a peer offers with EHLO."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.client.offer import Offer
from mailserver.smtp.server.extensions import Extensions


def offer(*lines: str) -> Offer:
    return Offer.parse(("mx.example.org greets you", *lines))


class OfferTests(SynchronousTestCase):
    def test_the_first_line_is_a_name_and_never_an_extension(self):
        self.assertEqual(Offer.parse(("PIPELINING",)), Offer(host="PIPELINING", extended=True))
        self.assertEqual(Offer.parse(("",)), Offer(extended=True))

    def test_each_keyword(self):
        for keyword, field in (
            ("PIPELINING", "pipelining"),
            ("SIZE", "size"),
            ("8BITMIME", "eightbitmime"),
            ("SMTPUTF8", "smtputf8"),
            ("CHUNKING", "chunking"),
            ("DSN", "dsn"),
            ("STARTTLS", "starttls"),
            ("REQUIRETLS", "requiretls"),
            ("ENHANCEDSTATUSCODES", "enhancedstatuscodes"),
        ):
            for form in (keyword, keyword.lower(), f"{keyword} and more", f"  {keyword}"):
                self.assertEqual(offer(form), Offer(host="mx.example.org", extended=True, **{field: True}), form)
            self.assertEqual(offer(f"X{keyword}", f"{keyword}X"), Offer(host="mx.example.org", extended=True))

    def test_binarymime_is_of_no_use_without_chunking(self):
        # RFC 3030 section 3.
        self.assertFalse(offer("BINARYMIME").binarymime)
        self.assertTrue(offer("BINARYMIME", "CHUNKING").binarymime)

    def test_the_greatest_size(self):
        # RFC 1870 section 4: without a number, or with 0, there is none that is known.
        for line, most in (("SIZE", 0), ("SIZE 0", 0), ("SIZE 10240000", 10240000), ("SIZE x", 0), ("SIZE -1", 0), ("SIZE " + "9" * 21, 0)):
            self.assertEqual((offer(line).size, offer(line).size_max), (True, most), line)

    def test_limits(self):
        # RFC 9422 section 3.
        found = offer("LIMITS MAILMAX=20 rcptmax=100 RCPTDOMAINMAX=1 NEW=x RCPTMAX")
        self.assertEqual((found.mail_max, found.recipients_max, found.recipient_domains_max), (20, 100, 1))
        found = offer("LIMITS MAILMAX=-1 RCPTMAX=many")
        self.assertEqual((found.mail_max, found.recipients_max), (0, 0))

    def test_mechanisms(self):
        self.assertEqual(offer("AUTH PLAIN login SCRAM-SHA-256 PLAIN b\u00e4d", "AUTH=CRAM-MD5 LOGIN").auth, ("PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5"))
        self.assertEqual(offer("AUTH " + " ".join(f"M{n}" for n in range(500))).auth[-1], "M62")

    def test_what_our_server_announces_is_understood(self):
        extensions = Extensions(size=1000, starttls=True, auth=("PLAIN",), recipients_max=3, mail_max=2)
        self.assertEqual(
            offer(*extensions.lines),
            Offer(
                host="mx.example.org", extended=True, pipelining=True, size=True, size_max=1000, eightbitmime=True, smtputf8=True,
                chunking=True, binarymime=True, dsn=True, starttls=True, enhancedstatuscodes=True, auth=("PLAIN",), recipients_max=3, mail_max=2,
            ),
        )  # fmt: skip

    @given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
    def test_anything_is_an_offer(self, lines):
        self.assertTrue(Offer.parse(lines).extended)
