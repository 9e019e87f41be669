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

    def test_where_nobody_has_logged_in_there_is_nothing_to_hide(self) -> None:
        for nobody in (None, ""):
            self.assertEqual(dict(Redaction("hash").fields({"login": nobody})), {"login": nobody})

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

    def test_a_quoted_local_part_of_any_length_that_a_command_can_have_is_redacted(self) -> None:
        for octets in (127, 128, 129, 1000, 2000):
            self.assertEqual(Redaction("domain").text(f'<"{"s" * octets}"@example.org>'), "<*@example.org>")

    def test_a_percent_encoded_at_sign_is_one(self) -> None:
        self.assertEqual(Redaction("domain").text("x alice%40example.org y"), "x *@example.org y")
        self.assertEqual(Redaction("none").text("/a/alice%40example.org/b"), "*/b")

    def test_a_path_below_the_mail_says_nothing(self) -> None:
        for form in ("domain", "hash", "none"):
            redaction = Redaction(form, mail_folders=["/srv/mail"])  # type: ignore[arg-type]
            for text in ("/srv/mail/example.org/alice/new/1.x", "'/home/alice/Maildir': no", "/var/mail/alice"):
                self.assertNotIn("alice", redaction.text(text))
                self.assertNotIn("alice", str(redaction.fields({"note": text})))

    def test_the_names_of_a_step_are_in_none_of_its_fields(self) -> None:
        step = {
            "recipient": "Sales+x@example.org",
            "destination": "alice/Private/Letters",
            "note": "/elsewhere/alice/new/1.X",
            "reply": "550 5.1.1 sales: mailbox of Alice is full (sales+x)",
        }
        for form in ("domain", "hash", "none"):
            fields = Redaction(form).fields(step)  # type: ignore[arg-type]
            self.assertNotRegex(str(fields).lower(), "alice|sales|private")
            self.assertIn("is full", fields["reply"])

    def test_the_names_of_all_recipients_are_in_no_field(self) -> None:
        fields = Redaction("none").fields({"recipients": ["sales@example.org", "alice@example.org"], "note": "of alice and sales"})
        self.assertNotRegex(str(fields), "alice|sales")

    def test_a_name_that_was_seen_is_in_no_later_path(self) -> None:
        redaction = Redaction("none")
        redaction.fields({"user": "alice"})
        self.assertEqual(redaction.text("cannot open /elsewhere/alice/tmp: alice"), "cannot open /elsewhere/*/tmp: alice")

    def test_the_values_of_a_log_event_are_redacted_before_they_are_a_sentence(self) -> None:
        event = Redaction("none").event({"log_format": "PAM denies {user}: {words}", "user": "alice", "words": "no"})
        self.assertEqual((event["user"], event["words"]), ("*", "no"))
        whole = {"user": "alice"}
        self.assertIs(Redaction("full").event(whole), whole)
