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
    '"Alice <alice@example.org>" <alice@example.org>': ["alice@example.org"],
    '"<alice@example.org> <ceo@bank.example>" <alice@example.org>': None,
    '"<ceo@bank.example<alice@example.org>>" <alice@example.org>': None,
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
    def test_one_that_is_very_long_is_refused_unread(self) -> None:
        error = self.assertRaises(OriginatorError, mailboxes, f'"{"x" * 10_000}" <alice@example.org>')
        self.assertIn("is too long", str(error))

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
            ours = [address.path for address in mailboxes(text)]
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


MENDED = {
    "Müller, Hans <alice@example.org>": '"Müller, Hans" <alice@example.org>',
    "Clark, Alice B. (the one) <alice@example.org>": '"Clark, Alice B. (the one)" <alice@example.org>',
    "alice@example.org <alice@example.org>": '"alice@example.org" <alice@example.org>',
    "ceo@bank.example <alice@example.org>": '"ceo@bank.example" <alice@example.org>',
    "Alice, alice@example.org <alice@example.org>": '"Alice, alice@example.org" <alice@example.org>',
    'Alice "the one" Clark, Dr. <alice@example.org>': '"Alice the one Clark, Dr." <alice@example.org>',
    '"unterminated <alice@example.org>': '"\\"unterminated" <alice@example.org>',
    "a)b  [c]: d <alice@example.org>": '"a)b [c]: d" <alice@example.org>',
    "I <3 you <alice@example.org>": '"I <3 you" <alice@example.org>',
    "< alice@example.org >": "<alice@example.org>",
    "=?utf-8?Q?M=C3=BCller?=, Hans <alice@example.org>": "=?utf-8?q?M=C3=BCller=2C_Hans?= <alice@example.org>",
    "=?utf-8?Q?Clark?=, Alice <alice@example.org>": '"Clark, Alice" <alice@example.org>',
    "alice@example.org,": "alice@example.org",
    "A <alice@example.org> , ,": "A <alice@example.org>",
    "a@example.org, B <b@example.org>,": "a@example.org, B <b@example.org>",
    "Clark, Alice <alice@example.org>,": '"Clark, Alice" <alice@example.org>',
    "=?utf-8?Q?Alice_=3Calice=40example=2Eorg=3E?=": '"Alice" <alice@example.org>',
    "=?utf-8?Q?M=C3=BCller=2C_Hans?= =?utf-8?Q?_=3Calice=40example=2Eorg=3E?=": "=?utf-8?q?M=C3=BCller=2C_Hans?= <alice@example.org>",
    "=?us-ascii?B?YWxpY2VAZXhhbXBsZS5vcmc=?=": "alice@example.org",
}
NOT_MENDED = (
    "ceo@bank.example, Alice X, <alice@example.org>",
    "ceo@bank.example Boss, Alice <alice@example.org>",
    "ceo@bank.example; Alice <alice@example.org>",
    "a@b.example, c@d.example <alice@example.org>",
    "<ceo@bank.example> <alice@example.org>",
    "ceo <ceo@bank.example> alice <alice@example.org>",
    "=?utf-8?Q?a=40b=2Eexample=2C_c=40d=2Eexample?=",
    "=?utf-8?Q?=3Cceo=40bank=2Eexample=3E_=3Calice=40example=2Eorg=3E?=",
    "=?utf-8?Q?a=00b_=3Calice=40example=2Eorg=3E?=",
    "=?x-unknown?Q?Alice_=3Calice=40example=2Eorg=3E?=",
    "=?x-unknown?Q?Alice?=, Clark <alice@example.org>",
    "Clark, Alice <alice@example.org> x",
    "group: alice@example.org;",
    "Clark, Alice <not an address>",
    "Clark, Alice",
    ",",
    "",
)


class Mended(SynchronousTestCase):
    def field(self, text: str) -> bytes:
        found = originators(f"From: {text}\r\n\r\n".encode())
        self.assertEqual([str(one) for one in found.authors][-1].rpartition("@")[2], "example.org")
        return found.mended["From"]

    def test_what_can_be_meant_in_one_way_only_is_written_so(self) -> None:
        for text, expected in MENDED.items():
            self.assertEqual(self.field(text).decode().replace("\r\n", ""), expected, text)
            self.assertTrue(mailboxes(expected))

    def test_what_may_be_a_list_or_deceive_is_refused(self) -> None:
        for text in NOT_MENDED:
            self.assertRaises(OriginatorError, originators, f"From: {text}\r\n\r\n".encode())

    def test_two_authors_stay_two(self) -> None:
        found = originators(b"From: a@b.example, c@d.example\r\n\r\n")
        self.assertEqual([str(one) for one in found.authors], ["a@b.example", "c@d.example"])
        self.assertEqual(found.mended, {})

    def test_octets_that_are_no_utf_8_stay_as_they_are(self) -> None:
        found = originators(b"From: M\xfcller, Hans\r\n <alice@example.org>\r\n\r\n")
        self.assertEqual(found.mended, {"From": b'"M\xfcller, Hans" <alice@example.org>'})

    def test_a_long_one_is_folded_before_its_address_and_has_a_bound(self) -> None:
        value = self.field("x" * 80 + ", y <alice@example.org>")
        self.assertEqual(value, b'"' + b"x" * 80 + b', y"\r\n <alice@example.org>')
        self.assertRaises(OriginatorError, originators, b"From: " + b"x" * 1000 + b", y <alice@example.org>\r\n\r\n")

    def test_the_sender_field_is_mended_too(self) -> None:
        found = originators(b"From: a@example.org\r\nSender: Clark, Alice <b@example.org>,\r\n\r\n")
        self.assertEqual((str(found.sender), found.mended), ("b@example.org", {"Sender": b'"Clark, Alice" <b@example.org>'}))

    @given(st.text(alphabet='ab<>@.,;:"\\() =?[]\té', max_size=30))
    def test_a_mended_field_is_understood_and_names_one_who_stood_there(self, text: str) -> None:
        try:
            found = originators(b"From: " + text.encode() + b"\r\n\r\n")
        except OriginatorError:
            return
        if "From" in found.mended:
            again = originators(b"From: " + found.mended["From"] + b"\r\n\r\n")
            self.assertEqual((again.authors, again.mended), (found.authors, {}))
            for address in found.authors:
                self.assertIn(address.domain, text)

    def test_addresses_of_other_domains_in_names_are_found(self) -> None:
        for text, foreign in {
            '"ceo@bank.example" <alice@example.org>': ("ceo@bank.example",),
            "ceo@bank.example <alice@example.org>": ("ceo@bank.example",),
            '"The CEO (ceo\\@bank.example)" <alice@example.org>': ("ceo@bank.example",),
            "=?utf-8?Q?ceo=40bank=2Eexample?= <alice@example.org>": ("ceo@bank.example",),
            "=?utf-8?Q?ceo=40ba?= =?utf-8?Q?nk=2Eexample?= <alice@example.org>": ("ceo@bank.example",),
            "alice@example.org (ceo@bank.example)": ("ceo@bank.example",),
            '"bob@Example.ORG" <alice@example.org>': (),
            '"a@club.example" <alice@example.org>, x@club.example': (),
            "Alice <alice@example.org>": (),
            '"I @ home" <alice@example.org>': (),
        }.items():
            self.assertEqual(originators(f"From: {text}\r\n\r\n".encode()).foreign, foreign, text)


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
