"""Errors of a caller that misuses an exchange."""

from __future__ import annotations

__all__ = ["LocalSASLError"]


class LocalSASLError(Exception):
    """A response was fed while a question was open, an answer given where none was, or the exchange is over."""
