"""A folder for a test's certificates, keys and lists."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

__all__ = ["FolderCase"]


class FolderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)

    def write(self, name: str, octets: bytes) -> str:
        """Return the file's path."""
        path = os.path.join(self.directory, name)
        Path(path).write_bytes(octets)
        return path
