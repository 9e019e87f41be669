"""What a CA asks us to show (RFC 8555 section 8), and who shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["ChallengeAnswers", "ShownChallenge"]


@dataclass(frozen=True, slots=True)
class ShownChallenge:
    """What has to be shown for a name, and what shows it: `digest` is the key authorization's SHA-256."""

    kind: str
    host: str
    token: str
    key_authorization: str

    @property
    def digest(self) -> bytes:
        """For tls-alpn-01 and dns-01."""
        return hashlib.sha256(self.key_authorization.encode("ascii")).digest()


class ChallengeAnswers(Protocol):
    """Who shows it, in this thread; `kind` is the one way that it knows.  Raises OSError with a sentence."""

    kind: str

    def show(self, challenges: Sequence[ShownChallenge]) -> None:
        """Show all of them; when it returns, the CA may look."""

    def withdraw(self, challenges: Sequence[ShownChallenge]) -> None:
        """Show them no more.  Never raises."""
