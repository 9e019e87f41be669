"""Files with a password of ours for somebody else: a smarthost, a directory."""

from __future__ import annotations

__all__ = ["password_of"]


def password_of(path: str) -> str:
    """The first line of the file.  Blocks, for a small local file.  Raises OSError, also where that line is empty."""
    with open(path, encoding="utf-8") as file:
        line = file.readline().rstrip("\r\n")
    if not line:
        raise OSError(f"{path}: the first line is empty")
    return line
