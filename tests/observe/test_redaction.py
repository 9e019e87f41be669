from __future__ import annotations

from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.observe.redaction import Redaction

FIELDS: dict[str, Any] = {
    "sender": "alice@example.net",
    "recipients": ["bob@example.org", '"b o"@example.org', "jürgen@[192.0.2.1]"],
    "reply": "550 5.1.1 <bob@example.org>: no such user",
    "login": "carol",
    "size": 4096,
    "tls": True,
    "peer": "192.0.2.1",
    "note": None,
}


def redacted(addresses: Literal["full", "domain", "hash", "none"]) -> dict[str, Any]:
    return dict(Redaction(addresses).fields(FIELDS))


class RedactionTests(SynchronousTestCase):
    def test_full_changes_nothing(self) -> None:
        self.assertEqual(redacted("full"), FIELDS)

    def test_domain_keeps_the_domain_alone(self) -> None:
        self.assertEqual(
            redacted("domain"),
            {
                **FIELDS,
                "sender": "*@example.net",
                "recipients": ["*@example.org", "*@example.org", "*@[192.0.2.1]"],
                "reply": "550 5.1.1 <*@example.org>: no such user",
                "login": "*",
            },
        )

    def test_whatever_a_client_gives_as_its_name_is_redacted_as_a_whole(self) -> None:
        names = {"account": "alice@example.org", "username": "my secret, by mistake@example.org"}
        self.assertEqual(Redaction("domain").fields(names), {"account": "*@example.org", "username": "*"})
        self.assertEqual(Redaction("none").fields(names), {"account": "*", "username": "*"})
        self.assertRegex(str(Redaction("hash").fields(names)["username"]), "^#[0-9a-f]{12}$")

    def test_none_keeps_nothing(self) -> None:
        fields = redacted("none")
        self.assertEqual((fields["sender"], fields["reply"]), ("*", "550 5.1.1 <*>: no such user"))

    def test_hash_gives_one_address_one_word_until_the_next_start(self) -> None:
        redaction = Redaction("hash")
        first = redaction.text("bob@example.org and Bob@Example.org and carol@example.org").split(" and ")
        self.assertEqual(first[0], first[1])
        self.assertNotEqual(first[0], first[2])
        self.assertNotEqual(first[0], Redaction("hash").text("bob@example.org"))
        self.assertNotIn("example", "".join(first))

    def test_an_overlong_local_part_does_not_show_its_beginning(self) -> None:
        self.assertEqual(Redaction("domain").text("see " + "secret" * 100 + "@example.org"), "see *@example.org")

    def test_a_text_made_to_be_slow_is_not(self) -> None:
        text = ("a" * 100_000 + '"' * 5) + "@" + '"' + "\\" * 100_001
        self.assertEqual(Redaction("none").text(text)[:5], "aaaaa")

    @given(st.from_regex(r'[a-z"\\. ]{0,30}', fullmatch=True))
    def test_no_quoted_local_part_shows(self, inner: str) -> None:
        local = "".join("\\" + c if c in '"\\' else c for c in inner)
        self.assertEqual(Redaction("domain").text(f'<"{local}"@example.org>'), "<*@example.org>")
