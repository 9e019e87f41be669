"""``mailserver tls-override`` without a server: in the records themselves."""

from tests.cli.support import CommandCase

PIN = "AB:" * 31 + "AB"


class Overrides(CommandCase):
    def test_it_is_added_shown_and_removed(self):
        said = self.command("tls-override", "add", "Partner.example", "--trust", PIN, "--for", "7d", "--why", "their CA is private")
        self.assertIn("partner.example: only the certificate", self.lines(said)[0])
        (row,) = self.command("tls-override", "list", "--json").json
        self.assertEqual((row["domain"], row["kind"], row["fingerprint"], row["is_over"]), ("partner.example", "trust", "ab" * 32, False))
        self.assertEqual(row["why"], "their CA is private")
        self.assertTrue(row["by"])
        self.assertIn("their CA is private", self.command("tls-override", "list").out)
        self.assertEqual(self.command("tls-override", "remove", "partner.example").code, 0)
        self.assertEqual(self.lines(self.command("tls-override", "list")), ["There are none."])

    def test_who_only_looks_makes_no_file(self):
        self.command("tls-override", "list")
        self.assertFalse((self.data / "records.db").exists())

    def test_what_is_wrong_is_told(self):
        for words, code, arguments in (
            ("64 hexadecimal", 1, ("add", "a.example", "--trust", "abcd", "--for", "1d")),
            ("--for", 2, ("add", "a.example", "--require")),
            ("--for", 2, ("add", "a.example", "--require", "--for", "soon")),
            ("one of the arguments", 2, ("add", "a.example", "--for", "1d")),
            ("has an end", 1, ("add", "a.example", "--allow", "--for", "500d")),
            ("is no domain", 1, ("add", "a example", "--allow", "--for", "1d")),
            ("no override for", 1, ("remove", "a.example")),
        ):
            said = self.command("tls-override", *arguments)
            self.assertEqual(said.code, code, (arguments, said))
            self.assertIn(words, said.err, arguments)

    def test_words_of_others_cannot_change_the_terminal(self):
        self.command("tls-override", "add", "a.example", "--require", "--for", "1d", "--why", "\x1b[31mred")
        self.assertNotIn("\x1b", self.command("tls-override", "list").out)
