"""Rules for addresses by convention."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.routing.patterns import Pattern, PatternError, folder_parts


class Matching(SynchronousTestCase):
    def match(self, rule: str, local: str, domain: str = "example.org") -> dict[str, str] | None:
        names = [name for name in ("user", "tag", "x") if f"{{{name}}}" in rule]
        return Pattern(rule, user=f"{{{names[0]}}}").match(local, domain)

    def test_a_name_ends_where_the_next_text_first_appears(self) -> None:
        self.assertEqual(self.match("{user}.{tag}", "alice.lists.python"), {"user": "alice", "tag": "lists.python"})
        self.assertEqual(self.match("{tag}--{user}", "a-b--carol"), {"tag": "a-b", "user": "carol"})

    def test_text_at_the_end_is_looked_for_at_the_end(self) -> None:
        self.assertEqual(self.match("{user}-box", "a-box-box"), {"user": "a-box"})
        self.assertIsNone(self.match("{user}-box", "a-boxes"))

    def test_a_name_is_never_empty(self) -> None:
        self.assertIsNone(self.match("{user}.{tag}", ".x"))
        self.assertIsNone(self.match("{user}.{tag}", "x."))
        self.assertIsNone(self.match("{user}", ""))

    def test_the_rule_fits_the_whole_local_part(self) -> None:
        self.assertIsNone(self.match("x-{user}", "ax-b"))
        self.assertIsNone(self.match("{user}.x.{tag}", "a.b"))
        self.assertIsNone(self.match("abc{user}c", "abc"))

    def test_in_the_domain_a_name_is_one_label(self) -> None:
        rule = "{tag}@{user}.example.org"
        self.assertEqual(self.match(rule, "t", "alice.example.org"), {"tag": "t", "user": "alice"})
        self.assertIsNone(self.match(rule, "t", "a.b.example.org"))
        self.assertIsNone(self.match(rule, "t", "example.org"))
        self.assertIsNone(self.match(rule, "t", ".example.org"))

    def test_an_at_sign_in_the_local_part_stays_there(self) -> None:
        self.assertEqual(
            self.match("{tag}@{user}.example.org", "a@b", "c.example.org"), {"tag": "a@b", "user": "c"}
        )

    def test_an_alternative_without_names_is_plain_text(self) -> None:
        self.assertEqual(Pattern("office", user="alice").match("office", "d"), {})
        self.assertIsNone(Pattern("office", user="alice").match("officer", "d"))

    @given(user=st.text("ab-", min_size=1, max_size=6), tag=st.text("ab.-", min_size=1, max_size=6))
    def test_what_matches_is_what_the_address_was_made_of(self, user: str, tag: str) -> None:
        local = f"{user}.{tag}"
        values = self.match("{user}.{tag}", local)
        self.assertEqual(values, {"user": user, "tag": tag})

    @given(st.text("ab.+@{}", max_size=12))
    def test_values_put_back_into_the_rule_give_the_address(self, local: str) -> None:
        values = self.match("x{user}.{tag}+a", "x" + local)
        if values is not None:
            self.assertEqual("x{user}.{tag}+a".format(**values), "x" + local)


class Targets(SynchronousTestCase):
    def test_the_folder_is_named_by_the_address_or_by_the_rule(self) -> None:
        pattern = Pattern("{user}.{tag}", folder="{tag}")
        self.assertEqual(pattern.target({"user": "a", "tag": "x.y"}), ("a", ("x", "y"), True))
        self.assertEqual(Pattern("{user}-todo", folder="Todo").target({"user": "a"}), ("a", ("Todo",), False))
        self.assertEqual(Pattern("{user}").target({"user": "a"}), ("a", (), False))

    def test_a_value_with_braces_is_only_text(self) -> None:
        pattern = Pattern("{tag}-{user}", user="{user}@example.org", folder="{tag}")
        self.assertEqual(pattern.target({"user": "u", "tag": "{user}"}), ("u@example.org", ("{user}",), True))

    def test_impossible_folders_are_the_inbox(self) -> None:
        self.assertEqual(folder_parts("a..b"), ())
        self.assertEqual(folder_parts(""), ())
        self.assertEqual(folder_parts(".".join("abcdefghi")), ())


class Faults(SynchronousTestCase):
    def test_each_fault_is_said_when_the_rule_is_made(self) -> None:
        for arguments, reason in (
            (("{user}{tag}",), "nothing stands between {user} and {tag}"),
            (("{user}.{user}",), "{user} stands twice"),
            (("{user",), "a brace without its counterpart"),
            (("user}",), "a brace without its counterpart"),
            (("{User!r}.x",), "is not a name"),
            (("{}",), "is not a name"),
            (("{tag}",), "{user} in '{user}' has no counterpart"),
            (("{user}", "{user}", "{folder}"), "has no counterpart"),
            (("@example.org", "x"), "leads to no user"),
        ):
            error = self.assertRaises(PatternError, Pattern, *arguments)
            self.assertIn(reason, str(error))
