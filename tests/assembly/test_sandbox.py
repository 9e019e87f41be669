"""The folder of a sandbox."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly import sandbox


class Folder(SynchronousTestCase):
    def test_password_accounts_and_configuration_are_for_its_owner_alone(self) -> None:
        folder = Path(self.mktemp()).absolute()
        before = os.umask(0)
        try:
            sandbox.prepare(str(folder))
        finally:
            os.umask(before)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        self.assertEqual(modes, dict.fromkeys(("accounts.toml", "mailserver.toml", "password.txt"), 0o600))
        self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
