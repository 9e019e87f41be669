"""The version of the program on the disk now.

After an upgrade under a running server the next process would be of another version than the server that talks to it.  A version
number would not show that (a checkout keeps it over many changes), so this is a digest of the source.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import mailserver

__all__ = ["VERSION_OCTETS", "version"]

VERSION_OCTETS = 64


def version() -> bytes:
    """A digest over our modules, `VERSION_OCTETS` long.  Takes some 20 ms.  Raises OSError."""
    top = Path(os.path.abspath(mailserver.__file__)).parent
    digest = hashlib.sha256()
    for path in sorted(top.rglob("*.py")):
        digest.update(b"%s\0%s\0" % (os.fsencode(path.relative_to(top)), hashlib.sha256(path.read_bytes()).digest()))
    return digest.hexdigest().encode("ascii")
