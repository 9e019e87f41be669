"""What a message says of its encryption itself."""

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer
from mailserver.relay.wishes import NO_WISHES, TLSWishes, wishes_of
from tests.any_octets import any_octets

NOT_REQUIRED, REQUIRED = TLSWishes(tls_not_required=True), TLSWishes(requires_tls=True)
PIECES = st.sampled_from(
    [b"TLS-Required: No\r\n", b"tls-REQUIRED:no", b"\r\n", b"\n", b"x: y\r\n", b"TLS-Required: Yes\r\n", b"TLS-", b"Required: No\r\n"]
)
LARGE = b"X-Large: " + b"x" * 9000 + b"\r\n"


def wishes(head, *, prefix=b"", sender="a@example.net", **parameters):
    sent_by = Address.parse(sender) if sender else None
    envelope = Envelope("id", Peer("192.0.2.1", 1, "mx"), sent_by, (), 0.0, MailParameters(**parameters))
    return wishes_of(envelope, Content.of(head + b"\r\nbody\r\n", prefix=prefix))


class Wishes(SynchronousTestCase):
    def test_one_field_that_says_no_asks_for_delivery_without_tls(self):
        # RFC 8689 section 3.
        for before, after in ((b"", b""), (b"Subject: x\r\n", b""), (LARGE, b""), (b"", LARGE), (b"X: y\r\n", b"Z: w\r\n")):
            for field in (b"TLS-Required: No", b"tls-required:no", b"TLS-REQUIRED:\r\n\tNO", b"TLS-Required : No "):
                self.assertEqual(wishes(before + field + b"\r\n" + after), NOT_REQUIRED, repr((before[:20], field)))
        self.assertEqual(wishes(b"Subject: x\r\n", prefix=b"TLS-Required: No\r\n"), NOT_REQUIRED)

    def test_whatever_else_is_there_asks_for_nothing(self):
        for head in (
            b"", b"Subject: TLS-Required: No\r\n", b"X-TLS-Required: No\r\n", b"TLS-Required: Yes\r\n", b"TLS-Required:\r\n",
            b"TLS-Required: No, really\r\n", b"TLS-Required: No\r\nTLS-Required: No\r\n", b"TLS-Required-Not: No\r\n",
            b"TLS-Required: No (x)\r\nTLS-Required: No\r\n", b"TLS-Required: No\r\nTLS-Required: yes, please\r\n",
            b"Subject: x\r\n\r\nTLS-Required: No\r\n", b"\r\nTLS-Required: No\r\n",
        ):  # fmt: skip
            self.assertEqual(wishes(head), NO_WISHES, repr(head))

    def test_requiretls_goes_before_the_field_and_a_report_asks_for_nothing(self):
        self.assertEqual(wishes(b"TLS-Required: No\r\n", requiretls=True), REQUIRED)
        self.assertEqual(wishes(b"", requiretls=True, sender=""), NO_WISHES)

    @given(st.lists(PIECES, max_size=8), st.lists(PIECES, max_size=3))
    def test_what_is_found_without_a_copy_of_the_header_is_what_is_found_with_one(self, pieces, above):
        prefix = b"".join(piece.strip(b"\r\n") + b"\r\n" for piece in above if piece.strip(b"\r\n"))
        whole = prefix + b"".join(pieces) + b"\r\nbody\r\n"
        head = b"" if whole.startswith(b"\r\n") else whole.partition(b"\r\n\r\n")[0] + b"\r\n"
        fields = re.findall(rb"(?im)^tls-required[ \t]*:([^\r\n]*)", re.sub(rb"\r\n(?=[ \t])", b"", head))
        says_no = [field.strip().lower() for field in fields] == [b"no"]
        self.assertEqual(wishes(b"".join(pieces), prefix=prefix), NOT_REQUIRED if says_no else NO_WISHES)

    @given(any_octets(max_size=200))
    def test_no_octets_raise(self, octets):
        self.assertIn(wishes(b"TLS-Required: No\r\n" + octets), (NOT_REQUIRED, NO_WISHES))
