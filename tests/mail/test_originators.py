"""Who a message says that it is from."""

from __future__ import annotations

import base64
from email.utils import formataddr, getaddresses

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.originators import OriginatorError, mailboxes, originators

UNDERSTOOD = {
    "alice@example.org": ["alice@example.org"],
    " <alice@example.org> ": ["alice@example.org"],
    "Alice <alice@example.org>": ["alice@example.org"],
    "Alice B. Clark<alice@example.org>": ["alice@example.org"],
    '"Clark, Alice (the \\"one\\")" <alice@example.org>': ["alice@example.org"],
    '"alice@example.org" <alice@example.org>': ["alice@example.org"],
    "=?utf-8?Q?M=C3=BCller?= =?utf-8?B?SGFucw==?= <alice@example.org>": ["alice@example.org"],
    "=?iso-2022-jp?B?GyRCOzNFREJATzobKEI=?= <alice@example.org>": ["alice@example.org"],
    "Müller Hans <müller@bücher.example>": ["müller@bücher.example"],
    "alice@example.org (Alice (the one))": ["alice@example.org"],
    "(who) Alice (the one) <alice@example.org> (indeed)": ["alice@example.org"],
    '"a b"@example.org, <"c>d"@example.org>': ['"a b"@example.org', '"c>d"@example.org'],
    "A <a@example.org>,\tb@[192.0.2.1]": ["a@example.org", "b@[192.0.2.1]"],
    "I <3 You": None,
    "Foo &lt;3 <a@example.org>": None,
    '"I <3 you" <a@example.org>': ["a@example.org"],
    # What a careless program could read in another way.
    "": None,
    "alice": None,
    "alice@example.org <ceo@bank.example>": None,
    "ceo@bank.example <alice@example.org>": None,
    "<ceo@bank.example> <alice@example.org>": None,
    "ceo@bank.example alice@example.org": None,
    '"<ceo@bank.example>" <alice@example.org>': None,
    '"\\<ceo\\@bank.example>" <alice@example.org>': None,
    "(<ceo@bank.example>) alice@example.org": None,
    "alice@example.org (<ceo@bank.example>)": None,
    "=?utf-8?Q?=3Cceo=40bank.example=3E?= <alice@example.org>": None,
    "=?utf-8?Q?=3Cceo?= =?utf-8?Q?=40bank.example=3E?= <alice@example.org>": None,
    f"=?utf-16?B?{base64.b64encode(b'<ceo@bank.example>').decode()}?= <alice@example.org>": None,
    "=?utf-8?Q?ceo=00?= <alice@example.org>": None,
    "=?utf-8?Q?ceo=0A?= <alice@example.org>": None,
    "alice+=?utf-8?Q?=00?=@example.org": None,
    "alice@example.org,": None,
    ",alice@example.org": None,
    "a@example.org;b@example.org": None,
    "group: alice@example.org;": None,
    "undisclosed:;": None,
    "<@relay.example:alice@example.org>": None,
    "<alice (the one)@example.org>": None,
    "< alice@example.org>": None,
    "alice @example.org": None,
    "alice@example.org>": None,
    "<<alice@example.org>>": None,
    "<>": None,
    "Müller, Hans <alice@example.org>": None,
    '"unterminated <alice@example.org>': None,
    "(unterminated alice@example.org": None,
    "a)b <alice@example.org>": None,
    "Alice\x00 <alice@example.org>": None,
    "Alice\x1b <alice@example.org>": None,
    "(" * 11 + ")" * 11 + "alice@example.org": None,
    ",".join(["a@example.org"] * 21): None,
    "x" * 10_001: None,
}


class Mailboxes(SynchronousTestCase):
    def test_what_is_plain_is_understood_and_nothing_that_could_be_read_in_two_ways(self) -> None:
        found = {}
        for text in UNDERSTOOD:
            try:
                found[text] = [str(address) for address in mailboxes(text)]
            except OriginatorError:
                found[text] = None
        self.assertEqual(found, UNDERSTOOD)

    @given(st.text(max_size=60) | st.text(alphabet='ab<>@.,;:"\\() =?[]\t\x00é', max_size=40))
    def test_any_text_is_understood_or_refused(self, text: str) -> None:
        try:
            self.assertTrue(mailboxes(text))
        except OriginatorError:
            pass

    @given(st.text(alphabet='ab<>@.,"\\() \té', max_size=40))
    def test_the_standard_library_reads_the_same_where_it_reads_anything(self, text: str) -> None:
        try:
            ours = [str(address) for address in mailboxes(text)]
        except OriginatorError:
            return
        theirs = [address for _, address in getaddresses([text])]
        self.assertTrue(theirs == ours or '"' in text or "" in theirs, (ours, theirs))

    @given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="<"), max_size=40))
    def test_any_name_that_the_standard_library_writes_is_read(self, name: str) -> None:
        (address,) = mailboxes(formataddr((name, "alice@example.org")))
        self.assertEqual(str(address), "alice@example.org")

    def test_hostile_lengths_take_no_time_to_speak_of(self) -> None:
        for text in ("(" * 9_999, '"' * 9_999, "a." * 4_999, "<" * 9_999, "=?" * 4_999, '"\\' * 4_999, "a@" * 4_999, "a," * 4_999):
            self.assertRaises(OriginatorError, mailboxes, text)


class Fields(SynchronousTestCase):
    def refused(self, head: bytes) -> str:
        return str(self.assertRaises(OriginatorError, originators, head + b"\r\n"))

    def test_authors_and_sender_are_found(self) -> None:
        found = originators(b"Subject: x\r\nfrom : a@example.org,\r\n\tB <b@example.org>\r\nSENDER: c@example.org\r\n\r\n")
        self.assertEqual([str(one) for one in found.authors], ["a@example.org", "b@example.org"])
        self.assertEqual(str(found.sender), "c@example.org")

    def test_a_header_without_from_has_no_authors(self) -> None:
        found = originators(b"Subject: x\r\nResent-From: a@example.org\r\n\r\n")
        self.assertEqual((found.authors, found.sender), ((), None))
        self.assertEqual(originators(b"\r\n").authors, ())

    def test_two_fields_of_a_name_are_refused(self) -> None:
        self.assertEqual(self.refused(b"From: a@example.org\r\nfrom: b@example.org\r\n"), "There is more than one From field")
        self.assertEqual(self.refused(b"Sender: a@x.org\r\nSender : b@x.org\r\n"), "There is more than one Sender field")
        self.assertEqual(self.refused(b"Sender: a@x.org, b@x.org\r\n"), "The Sender field names more than one")

    def test_a_line_that_is_no_field_is_refused(self) -> None:
        for line in (b"nonsense", b" From: ceo@bank.example", b"Fr om: ceo@bank.example", b"\x0bFrom: x@y", b"From\xc2\xa0: x@y"):
            words = self.refused(line + b"\r\nFrom: a@example.org\r\n")
            self.assertEqual(words, "The header section has a line that is no field")

    def test_a_line_end_that_is_none_is_refused(self) -> None:
        for end in (b"\n", b"\r"):
            words = self.refused(b"Subject: x" + end + b"From: ceo@bank.example\r\nFrom: a@example.org\r\n")
            self.assertIn("not part of CRLF", words)

    def test_a_field_that_is_not_understood_is_named(self) -> None:
        self.assertEqual(self.refused(b"From: \r\n"), "The From field cannot be understood")
        self.assertEqual(self.refused(b"From: a@b@c\r\n"), "The From field cannot be understood")
        self.assertEqual(self.refused(b"From: <a@-b>\r\n"), "The From field holds what is no address")
