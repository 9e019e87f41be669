"""docs/accounts.md: its examples load, its tables say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from passlib import hash as hashes
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.table import parse_accounts
from mailserver.authentication.app_passwords import SCOPES, normal_app_password, scope_of
from mailserver.authentication.passwords import SCHEMES, is_hash, needs_update, verify_password
from mailserver.config import load
from mailserver.plugins.catalogue import discover
from mailserver.sasl.exchanges import MECHANISMS
from tests.cli.support import CommandCase
from tests.documents import blocks, page_text

PAGE = page_text("accounts.md")
TOP = 'hostname = "mail.example.org"\ndata = "data"\n[[listen]]\nservice = "mx"\nendpoint = "tcp:2525"\n'
QUICK = {"argon2": {"time_cost": 1, "memory_cost": 8, "parallelism": 1}, "scrypt": {"rounds": 1}}
ROUNDS = {"bcrypt": 4, "bcrypt_sha256": 4, "ldap_bcrypt": 4}


def table(first_cell: str) -> list[list[str]]:
    rows = PAGE.partition(f"| {first_cell} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def quick_hash(scheme: str) -> str:
    kind = getattr(hashes, scheme)
    settings = QUICK.get(scheme)
    if settings is None:
        settings = {"rounds": ROUNDS.get(scheme, 1000)} if "rounds" in kind.setting_kwds else {}
    return str(kind.using(**settings).hash("secret"))


class Page(SynchronousTestCase):
    def test_every_example_is_a_configuration(self) -> None:
        examples = blocks(PAGE, "toml")
        self.assertEqual(len(examples), 9)
        for example in examples:
            path = self.mktemp()
            Path(path).write_text(TOP + example)
            load(path, discover().options_of)

    def test_the_accounts_of_the_example_are_those_that_its_comments_speak_of(self) -> None:
        [text] = blocks(PAGE, "accounts")
        accounts = parse_accounts(text.replace("d2c1…", "d2" * 32), "docs/accounts.md")
        alice, printer = accounts["alice", "example.org"], accounts["printer", "example.org"]
        [phone] = alice.app_passwords
        self.assertEqual((phone.name, phone.scopes, str(phone.expires)), ("phone", ("smtp", "imap"), "2027-01-01"))
        self.assertEqual(alice.senders, ("info@example.org", "@example.net"))
        self.assertEqual(alice.certificates, ("alice@people.example", "d2" * 32))
        self.assertFalse(needs_update(str(alice.password)))
        self.assertIsNone(printer.password)

    def test_every_mechanism_is_explained_in_the_order_in_which_it_is_offered(self) -> None:
        explained = [name for row in table("mechanism") for name in re.findall(r"`(.*?)`", row[0])]
        self.assertEqual(explained, list(MECHANISMS))
        columns = re.findall(r"`([A-Z0-9-]+)`", PAGE.partition("| accounts |")[2].partition("\n")[0])
        self.assertEqual({"SCRAM-SHA-256-PLUS" if name == "-PLUS" else name for name in columns}, set(MECHANISMS))

    def test_every_scheme_looks_as_the_table_says_and_no_form_is_told_that_there_is_not(self) -> None:
        forms = [form.rstrip("…") for row in table("scheme") for form in re.findall(r"`(.*?)`", row[1])]
        seen: set[str] = set()
        for scheme in SCHEMES:
            hash = quick_hash(scheme)
            self.assertTrue(is_hash(hash) and verify_password("secret", hash) and not verify_password("Secret", hash), scheme)
            self.assertTrue(needs_update(hash), scheme)
            fits = [form for form in forms if hash.startswith(form)]
            self.assertEqual(len(fits), 1, hash)
            seen.add(fits[0])
        self.assertEqual(seen, set(forms) - {"$argon2i$"})
        self.assertTrue(verify_password("secret", str(hashes.argon2.using(type="I", **QUICK["argon2"]).hash("secret"))))

    def test_what_is_not_understood_lets_nobody_in(self) -> None:
        for hash in ("secret", "{PLAIN}secret", "{CLEARTEXT}secret", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "", "$1$abcdefgh$x", "{MD5}x"):
            self.assertFalse(verify_password("secret", hash), hash)
        self.assertFalse(verify_password("secret", str(hashes.md5_crypt.hash("secret"))))
        self.assertFalse(verify_password("secret", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="))

    def test_bcrypt_takes_no_longer_password_for_the_one_that_it_begins_with(self) -> None:
        hash = str(hashes.bcrypt.using(rounds=4).hash("s" * 72))
        self.assertTrue(verify_password("s" * 72, hash))
        self.assertFalse(verify_password("s" * 73, hash))

    def test_every_scope_and_its_listeners_are_in_the_table(self) -> None:
        rows = {row[0].strip("`"): re.findall(r"`(.*?)`", row[1]) for row in table("scope")}
        self.assertEqual(tuple(rows), SCOPES)
        for scope, services in rows.items():
            self.assertEqual({scope_of(service) for service in services}, {scope})

    def test_the_app_password_on_the_page_has_the_form_of_one(self) -> None:
        [shown] = re.findall(r"\(`([a-z0-9-]+)`, 20 letters", PAGE)
        for typed in (shown, shown.upper(), shown.replace("-", " "), shown.replace("-", "")):
            self.assertEqual(normal_app_password(typed), shown.replace("-", ""))


class Commands(CommandCase):
    def test_every_command_on_the_page_does_what_it_says(self) -> None:
        lines = re.findall(r"(?m)^    mailserver (user .*?)(?: +#.*)?$", PAGE)
        self.assertGreaterEqual(len(lines), 10)
        for line in lines:
            words = line.partition("<")[0].replace("d2:c1:…", ":".join(["D2"] * 32)).split()
            asks = words[1] in ("add", "password") and "--password-stdin" not in words
            said = self.command(*words, *(["--password-stdin"] if asks else []), stdin="correct horse\n")
            self.assertEqual((line, said.code, said.err), (line, 0, ""))

    def test_a_certificate_that_stands_for_another_account_is_refused_in_words(self) -> None:
        for name in ("alice", "bob"):
            self.command("user", "add", f"{name}@example.org", "--no-password")
        before = self.command("user", "certificate", "add", "alice@example.org", "a@people.example")
        said = self.command("user", "certificate", "add", "bob@example.org", "A@People.example")
        self.assertEqual((before.code, said.code), (0, 1))
        self.assertIn("stands for alice@example.org already", said.err)
        self.assertEqual(self.command("user", "certificate", "add", "alice@example.org", "a@people.example").code, 0)
