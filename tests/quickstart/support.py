"""``mailserver quickstart`` in a folder, as an ordinary user, on a host without a network; keys come from a cupboard, as they take their time."""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.table import AccountsFile, key_of
from mailserver.authentication import passwords
from mailserver.cli import dns
from mailserver.doctor.seen import ZoneSeen
from mailserver.quickstart import plan
from mailserver.quickstart.eyes import Eyes, NameTold
from mailserver.quickstart.plan import QuickHost
from mailserver.trust.dkim_key import PrivateKey
from tests.cli.support import Said, run

__all__ = ["Blind", "HouseCase", "seen_of"]

ADDRESS = "you@example.org"


class Blind(Eyes):
    """Sees nothing: no name server, no other host."""

    def __init__(self) -> None:
        super().__init__(())

    def ask(self, name: str, type: str, *, checking_disabled: bool = False) -> NameTold:
        return NameTold(failure="no name server")

    def greeting(self, host: str, port: int) -> str:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    def fetch(self, url: str, octets_most: int) -> bytes:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    def why_not_listen(self, port: int) -> str:
        return ""

    def clock_offset(self, host: str) -> float:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")


class NoZone:
    """No name server tells of any zone."""

    def zone(self, name: str) -> ZoneSeen:
        return ZoneSeen("", why="nobody tells")


@functools.cache
def cupboard() -> dict[str, list[PrivateKey]]:
    return {kind: [PrivateKey.generate(kind) for _ in range(2)] for kind in ("rsa", "ed25519")}


def generate() -> object:
    """Keys in the place of new ones: two of each kind, by turns."""
    turns = {kind: itertools.cycle(keys) for kind, keys in cupboard().items()}
    return lambda kind: next(turns[kind])


def seen_of(folder: Path) -> dict[str, tuple[str, int, int]]:
    """All that is in a folder: octets, modes, times of change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        octets = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (octets, status.st_mode, status.st_mtime_ns)
    return found


class HouseCase(SynchronousTestCase):
    """`self.folder` is empty at first; `self.quickstart` runs the command for a configuration in it."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.config = self.folder / "etc" / "mailserver.toml"
        self.data = self.folder / "lib" / "data"
        self.ran: list[Sequence[str]] = []
        self.host = QuickHost(
            uid=1000, home=str(self.folder), twistd="/opt/mailserver/bin/twistd", program="mailserver", has_systemd=False,
            systemd_runs=False, has_ipv6=True, run=self.ran.append, unit_places=(str(self.folder / "systemd"),),
        )  # fmt: skip
        for target, name, value in (
            (plan, "this_host", lambda: self.host),
            (PrivateKey, "generate", staticmethod(generate())),
            (dns, "_seen", lambda *_: NoZone()),
        ):
            self.patch(target, name, value)
        self.patch(passwords, "ARGON2_KIBIBYTES", 64)  # what a hash costs is of no matter here, and each test makes some
        passwords._context.cache_clear()
        self.addCleanup(passwords._context.cache_clear)
        patcher = mock.patch("mailserver.quickstart.preflight.look", lambda *_: [])
        patcher.start()
        self.addCleanup(patcher.stop)

    def quickstart(self, *words: str, stdin: str = "") -> Said:
        return run("quickstart", *words, "--config", str(self.config), stdin=stdin)

    def made(self, *words: str, stdin: str = "") -> Said:
        """It has to work."""
        said = self.quickstart(ADDRESS, "--data", str(self.data), "--hostname", "mail.example.org", "--yes", *words, stdin=stdin)
        self.assertEqual((said.code, said.err), (0, ""))
        return said

    def undone(self) -> Said:
        said = self.quickstart("--undo", "--yes")
        self.assertEqual(said.code, 0, said.err + said.out)
        return said

    def password_of(self, said: Said) -> str:
        lines = said.out.splitlines()
        at = next(n for n, line in enumerate(lines) if line.startswith(f"The password of {ADDRESS}, which"))
        return lines[at + 2].strip()

    def kept_hash(self) -> str | None:
        return AccountsFile(os.path.join(self.data, "accounts.toml")).read()[key_of(ADDRESS)].password
