r"""The words of others on a terminal: what is not printable becomes an escape such as ``\x1b`` or ``\u202e``."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """One line that changes neither the terminal nor the direction of writing, and can be encoded in UTF-8."""
    if text.isprintable():  # false for controls, line ends, direction marks and lone surrogates
        return text
    return "".join([one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text])
