"""``mailserver import dovecot-passwd``: what can be compared is kept, the rest is told."""

from __future__ import annotations

import subprocess
import tomllib

from passlib import hash as hashes

from mailserver.authentication.passwords import verify_password
from mailserver.moving.dovecot_passwd import passwd_lines
from tests.cli.support import CommandCase, Said
from tests.requires import require_tool

KEPT = ("SHA512-CRYPT", "SHA256-CRYPT", "BLF-CRYPT", "SSHA", "SSHA256", "SSHA512", "SSHA256.hex", "SSHA.b64")
UNKNOWN = ("MD5-CRYPT", "PLAIN-MD5", "SHA256", "SMD5", "CRAM-MD5", "PBKDF2", "SCRAM-SHA-256", "LANMAN")


class Passwd(CommandCase):
    def imported(self, text: str, *more: str) -> Said:
        file = self.folder / "passwd"
        file.write_text(text)
        return self.command("import", "dovecot-passwd", str(file), *more)

    def kept(self) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = tomllib.loads(self.accounts.read_text())["account"]
        return found

    def test_hashes_are_kept_and_passwords_in_the_clear_are_hashed(self) -> None:
        sha = hashes.sha512_crypt.using(rounds=1000).hash("secret")
        argon = hashes.argon2.using(rounds=1, memory_cost=64, parallelism=1).hash("secret")
        said = self.imported(
            f"# comment\nalice@example.org:{{SHA512-CRYPT}}{sha}:5000:5000::/home::\nBob@example.org:{sha}::::::\n"
            f"carol@example.org:{{PLAIN}}secret::::::\ndave:{{ARGON2ID}}{argon}\neve@example.org:{{CLEAR}}secret::::::nologin=y\n",
            "--domain",
            "example.org",
        )
        self.assertEqual((said.code, said.err), (0, ""), said.out)
        kept = self.kept()
        self.assertEqual(kept["alice@example.org"], {"password": sha})
        self.assertEqual(list(kept), [f"{name}@example.org" for name in ("alice", "bob", "carol", "dave", "eve")])
        for name in kept:
            self.assertTrue(verify_password("secret", str(kept[name]["password"])), name)
            self.assertFalse(verify_password("wrong", str(kept[name]["password"])), name)
        self.assertIn("scram", kept["carol@example.org"])
        self.assertNotIn("secret", self.accounts.read_text())
        self.assertIs(kept["eve@example.org"]["disabled"], True)

    def test_what_is_not_known_is_told_and_the_account_has_no_password(self) -> None:
        said = self.imported(
            "alice@example.org:{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69\nbob@example.org:{SHA512-CRYPT}$6$broken\n"
            "x@far.example:{PLAIN}x\nno domain:{PLAIN}x\nalice@example.org:{PLAIN}y\ncarol@example.org:\n"
            "dave@example.org:{PLAIN}secret::::::allow_nets=192.0.2.0/24\n"
        )
        self.assertEqual(said.code, 1)
        self.assertEqual({name: sorted(table) for name, table in self.kept().items()}, {
            "alice@example.org": [], "bob@example.org": [], "carol@example.org": [], "dave@example.org": ["password", "scram"],
        })  # fmt: skip
        for words in (
            "line 1: alice@example.org: the scheme PLAIN-MD5 is not known here", "line 2: bob@example.org: the scheme SHA512-CRYPT",
            "line 3: x@far.example: far.example is none of our domains", "line 4: no domain: it has no domain",
            "line 5: alice@example.org: it is there twice", "line 6: carol@example.org: it has no password",
            "line 7: dave@example.org: not carried over: allow_nets=192.0.2.0/24",
        ):  # fmt: skip
            self.assertIn(words, said.out)

    def test_accounts_without_a_password_get_theirs_and_those_that_have_one_keep_it(self) -> None:
        self.accounts.write_text(
            '# mine\n[account."alice@example.org"]   # she\nsenders = ["a@example.org"]\n\n'
            '[account."bob@example.org"]\npassword = "$6$x$yyyyyyyyyyyyyyyy"\n\n[account."carol@example.org"]'
        )
        said = self.imported(
            "".join(f"{name}@example.org:{{PLAIN}}secret\n" for name in ("alice", "bob", "carol", "dave"))
        )
        self.assertIn("1 accounts added, 2 that were there have their password now.", said.out)
        kept = self.kept()
        self.assertEqual(kept["bob@example.org"], {"password": "$6$x$yyyyyyyyyyyyyyyy"})
        self.assertEqual(sorted(kept["alice@example.org"]), ["password", "scram", "senders"])
        self.assertIn('# mine\n[account."alice@example.org"]   # she\npassword', self.accounts.read_text())
        before = self.accounts.read_text()
        self.assertIn("0 accounts added, 0 that", self.imported("alice@example.org:{PLAIN}other\n").out)
        self.assertEqual(self.accounts.read_text(), before)

    def test_what_dovecot_itself_makes_is_understood(self) -> None:
        doveadm = require_tool("doveadm")
        for scheme in (*KEPT, *UNKNOWN):
            made = subprocess.run(
                [doveadm, "-c", "/dev/null", "pw", "-s", scheme, "-p", "secret"],
                capture_output=True,
                text=True,
                check=False,
            ).stdout.strip()
            if not made:
                continue  # this Dovecot lacks it
            (line,) = passwd_lines(f"a@example.org:{made}:1:1::::")
            self.assertEqual(bool(line.hash), scheme in KEPT, made)
            if line.hash:
                self.assertTrue(verify_password("secret", line.hash), made)
