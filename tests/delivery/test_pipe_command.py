"""What a message may put into a command's arguments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.command_template import PLACEHOLDERS, CommandError, CommandTemplate, UnsafeValue

VALUES = {name: f"the-{name}" for name in PLACEHOLDERS}


def values(**changed: str) -> dict[str, str]:
    return {**VALUES, **changed}


class Words(SynchronousTestCase):
    def test_each_placeholder_is_filled_in(self) -> None:
        template = CommandTemplate(["/bin/x", *(f"a{{{name}}}z" for name in PLACEHOLDERS)])
        self.assertEqual(template.arguments(VALUES), ["/bin/x", *(f"athe-{name}z" for name in PLACEHOLDERS)])

    def test_a_value_stays_one_argument_whatever_is_in_it(self) -> None:
        nasty = "a b\t\"c' $(d) `e`\n;f * {sender} \\"
        self.assertEqual(CommandTemplate(["/bin/x", "{user}"]).arguments(values(user=nasty)), ["/bin/x", nasty])

    def test_an_empty_value_is_an_empty_argument(self) -> None:
        self.assertEqual(CommandTemplate(["/bin/x", "{sender}"]).arguments(values(sender="")), ["/bin/x", ""])

    @given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50))
    def test_no_value_adds_an_argument_or_makes_an_option(self, text: str) -> None:
        template = CommandTemplate(["/bin/x", "-f", "{sender}", "pre{user}", "{user}{sender}"])
        try:
            found = template.arguments(values(sender=text, user=text))
        except UnsafeValue:
            self.assertTrue(text.startswith("-"))
            return
        self.assertEqual(found, ["/bin/x", "-f", text, "pre" + text, text + text])
        self.assertFalse(any(word.startswith("-") for word in found[2:]))

    def test_a_value_that_would_be_an_option_is_refused_and_named(self) -> None:
        template = CommandTemplate(["/bin/x", "{user}", "{sender}"])
        refused = self.assertRaises(UnsafeValue, template.arguments, values(sender="-oQ/tmp@example.org"))
        self.assertEqual(refused.placeholder, "sender")

    def test_an_empty_value_in_front_does_not_hide_one_that_begins_with_a_dash(self) -> None:
        template = CommandTemplate(["/bin/x", "{folder}{user}"])
        self.assertRaises(UnsafeValue, template.arguments, values(folder="", user="-rf"))

    def test_behind_two_dashes_a_dash_means_nothing(self) -> None:
        template = CommandTemplate(["/bin/x", "--", "{user}"])
        self.assertEqual(template.arguments(values(user="-rf")), ["/bin/x", "--", "-rf"])

    def test_a_dash_that_the_administrator_wrote_is_meant(self) -> None:
        self.assertEqual(CommandTemplate(["/bin/x", "-f{user}"]).arguments(values(user="-a")), ["/bin/x", "-f-a"])

    def test_what_no_argument_can_hold_is_refused(self) -> None:
        template = CommandTemplate(["/bin/x", "{user}"])
        for text in ("a\0b", "a\ud800", "x" * 5000):
            self.assertRaises(UnsafeValue, template.arguments, values(user=text))


class Faults(SynchronousTestCase):
    def test_a_command_begins_with_the_path_of_a_program_that_no_message_chooses(self) -> None:
        for words in ([], ["x"], ["bin/x"], ["{user}"], ["/bin/{user}"]):
            self.assertRaises(CommandError, CommandTemplate, words)

    def test_an_unknown_placeholder_is_named_beside_those_that_are_known(self) -> None:
        fault = self.assertRaises(CommandError, CommandTemplate, ["/bin/x", "{recipent}"])
        self.assertIn("{recipent} is none of {sender}, {recipient}", str(fault))

    def test_other_braces_stay(self) -> None:
        words = ["/bin/sh", "-c", '{ a; } > "${B}"; echo {} {1}']
        self.assertEqual(CommandTemplate(words).arguments(VALUES), words)

    def test_a_placeholder_in_a_shells_script_is_an_injection_and_refused(self) -> None:
        for words in (
            ["/bin/sh", "-c", "cat > /tmp/{user}"],
            ["/bin/bash", "-ec", "x {sender}"],
            ["/usr/bin/zsh", "-e", "-c", "--", "x {sender}"],
        ):
            self.assertRaises(CommandError, CommandTemplate, words)
        script = ["/bin/sh", "-c", 'exec x "$1"', "sh", "a{user}"]
        self.assertEqual(CommandTemplate(script).arguments(VALUES)[-1], "athe-user")
