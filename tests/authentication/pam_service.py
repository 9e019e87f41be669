"""A PAM service of the test's own, whose passwords stand in a file that only root may read."""

from __future__ import annotations

import secrets
from pathlib import Path

from twisted.trial.unittest import FailTest

from tests.requires import require_root

__all__ = ["PamService"]


class PamService:
    """`name` is the service's; `remove` it at the end."""

    def __init__(self, folder: Path, passwords: dict[str, str]) -> None:
        require_root("a PAM service")
        self.name = f"mailserver-test-{secrets.token_hex(4)}"
        self._path = Path("/etc/pam.d") / self.name
        table = folder / "passwords"
        table.write_text("".join(f"{user}:{password}:{self.name}\n" for user, password in passwords.items()))
        table.chmod(0o600)
        modules = list(Path("/usr/lib").glob("*/pam_wrapper/pam_matrix.so"))
        if not modules:
            raise FailTest("libpam-wrapper is not installed; .ci/run has to install it")
        self.write(f"auth required {modules[0]} passdb={table}\naccount required pam_permit.so\n")

    def write(self, rules: str) -> None:
        """Give it other rules."""
        self._path.write_text(rules)

    def remove(self) -> None:
        """Take it away."""
        self._path.unlink(missing_ok=True)
