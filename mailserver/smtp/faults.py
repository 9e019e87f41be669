"""Errors of a caller on our own side of a session."""

from __future__ import annotations

__all__ = ["LocalProtocolError"]


class LocalProtocolError(Exception):
    """The caller has misused the session: an answer without a question, or something that cannot be said here."""
