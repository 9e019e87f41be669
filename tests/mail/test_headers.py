from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.headers import HeaderField, Headers

HEAD = (
    b"Received: from a\r\n\tby b;\r\n Mon\r\n"
    b"SUBJECT: one\r\n two\r\n"
    b"subject:\r\n three \r\n"
    b"Old : blank before the colon\r\n"
    b"no colon here\r\n"
    b"two words: no field either\r\n"
    b"X-Raw: caf\xe9\r\n"
    b"Empty:\r\n"
    b"\r\n"
)


class HeadersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.headers = Headers.parse(HEAD)

    def test_get_gives_the_first_value_unfolded_rfc5322_2_2_3(self) -> None:
        self.assertEqual(self.headers.get("Subject"), "one two")
        self.assertEqual(self.headers.get("received"), "from a\tby b; Mon")
        self.assertEqual(self.headers.get("Empty"), "")
        self.assertIsNone(self.headers.get("To"))

    def test_get_all_and_count_keep_the_order(self) -> None:
        self.assertEqual(self.headers.get_all("subject"), ["one two", "three"])
        self.assertEqual(self.headers.count("subject"), 2)
        self.assertEqual(self.headers.get_all("to"), [])
        self.assertIn("SUBJECT", self.headers)
        self.assertNotIn("no colon here", self.headers)

    def test_blanks_before_the_colon_are_no_part_of_the_name_rfc5322_4_5(self) -> None:
        self.assertEqual(self.headers.get("old"), "blank before the colon")

    def test_a_line_that_is_no_field_is_kept_without_a_name(self) -> None:
        fields = list(self.headers)
        self.assertEqual(fields[4], HeaderField(b"", b"no colon here"))
        self.assertEqual(fields[5], HeaderField(b"", b"two words: no field either"))
        self.assertEqual(fields[4].value, "no colon here")
        self.assertEqual(len(self.headers), 8)

    def test_octets_that_are_no_utf8_are_replaced_in_the_value_and_kept_in_raw(self) -> None:
        self.assertEqual(self.headers.get("x-raw"), "caf\ufffd")
        self.assertEqual(list(self.headers)[6].raw, b"X-Raw: caf\xe9")

    def test_without_takes_out_every_field_of_the_name_and_nothing_else(self) -> None:
        rest = self.headers.without(frozenset({"subject", "empty"}))
        self.assertEqual(
            rest, HEAD.replace(b"SUBJECT: one\r\n two\r\nsubject:\r\n three \r\n", b"").replace(b"Empty:\r\n\r\n", b"")
        )

    def test_no_header_at_all(self) -> None:
        for head in (b"", b"\r\n"):
            self.assertEqual(list(Headers.parse(head)), [])

    @given(
        st.lists(
            st.sampled_from([b"A: b", b"\r\n", b" ", b"\t", b"\r", b"\n", b":", b"Subject:", b"x" * 40, b"\xff", b"\0"])
        )
    )
    def test_no_octet_is_lost(self, pieces: list[bytes]) -> None:
        head = b"".join(pieces)
        fields = b"\r\n".join(field.raw for field in Headers.parse(head))
        self.assertEqual(fields, head[: len(fields)])
        self.assertEqual(head[len(fields) :].strip(b"\r\n"), b"")
