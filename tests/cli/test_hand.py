"""Root's hand on files of the server's user."""

from __future__ import annotations

import os
import pwd

from tests.cli.support import CONFIGURATION, CommandCase
from tests.requires import require_root

NOBODY = pwd.getpwnam("nobody")
ALICE = "alice@example.org"
FILES = ("explain.db", "state.db", "accounts.key", "queue.db")


class RootsHand(CommandCase):
    """Whoever has the server's user could else have root write, or make, any file of the host."""

    def setUp(self) -> None:
        require_root("a folder of somebody else")
        super().setUp()
        self.folder.chmod(0o711)
        os.chown(self.data, NOBODY.pw_uid, NOBODY.pw_gid)
        self.secret = self.folder / "secret"
        self.secret.mkdir(mode=0o700)

    def use(self, accounts: str) -> None:
        self.configure(CONFIGURATION.replace('"accounts.toml"', f'"{accounts}"\nrecoverable = true'))

    def test_links_of_the_servers_user_lead_it_nowhere(self) -> None:
        self.use("accounts.toml")
        self.accounts.write_text(f'[account."{ALICE}"]\n')
        for is_there in (False, True):
            for name in FILES:
                if is_there:
                    (self.secret / name).touch()
                (self.data / name).unlink(missing_ok=True)
                (self.data / name).symlink_to(self.secret / name)
            before = sorted(os.listdir(self.secret))
            for words in (
                "queue list", "queue hold --all", "lockouts list", "lockouts clear --all", "explain 1K17B500JKDZ3GAN",
                f"user app-password list {ALICE}", f"user password {ALICE} --password-stdin",
            ):  # fmt: skip
                self.command(*words.split(), stdin="correct horse battery staple\n")
                self.assertEqual(sorted(os.listdir(self.secret)), before, words)
                self.assertEqual({path.stat().st_size for path in self.secret.iterdir()} - {0}, set(), words)

    def test_what_it_makes_there_is_the_servers(self) -> None:
        self.use("data/accounts.toml")
        made = self.command("user", "add", ALICE, "--password-stdin", stdin="correct horse battery staple\n")
        self.assertEqual(made.code, 0, made.err)
        self.assertEqual(self.command("lockouts", "list").code, 0)
        self.assertEqual({path.stat().st_uid for path in self.data.iterdir()}, {NOBODY.pw_uid})
        self.assertEqual((os.geteuid(), os.getegid()), (0, 0))

    def test_an_accounts_file_elsewhere_is_roots_to_write(self) -> None:
        self.use("accounts.toml")
        made = self.command("user", "add", ALICE, "--password-stdin", stdin="correct horse battery staple\n")
        self.assertEqual(made.code, 0, made.err)
        self.assertIn(ALICE, self.accounts.read_text())
        keys = self.data.parent / f"{self.data.name}-keys"
        self.assertEqual({path.stat().st_uid for path in (keys, keys / "accounts.key")}, {NOBODY.pw_uid})
