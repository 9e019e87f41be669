"""Secrets with which this host tries a log-in of its own: each for one account, one log-in, one place, and a minute.

They are made over the control socket, where whoever may ask may do anything to the server already.  None is written anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from mailserver.interfaces import Clock

__all__ = ["NOTE", "OneTimeLogins"]

SECONDS = 60.0
MOST = 16  # at once; the oldest goes
NOTE = "selftest"


@dataclass(frozen=True, slots=True)
class _Given:
    account: str
    peer_address: str
    digest: bytes
    until: float


class OneTimeLogins:
    """Those that have been given and not been used."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._given: list[_Given] = []

    def give(self, account: str, peer_address: str) -> str:
        """A secret for a log-in to `account` (an address in normal form) from the numeric address `peer_address`."""
        secret = secrets.token_urlsafe(32)
        self._given = [*self._living(), _Given(account, peer_address, _digest(secret), self._clock.seconds() + SECONDS)][-MOST:]
        return secret

    def take(self, account: str, secret: str, peer_address: str) -> bool:
        """Whether this is one of them.  It is none afterwards."""
        if not self._given:  # as nearly always
            return False
        digest = _digest(secret)
        for one in self._living():
            if hmac.compare_digest(one.digest, digest):
                self._given.remove(one)
                return (one.account, one.peer_address) == (account, peer_address)
        return False

    def _living(self) -> list[_Given]:
        now = self._clock.seconds()
        self._given = [one for one in self._given if now < one.until]
        return self._given[:]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
