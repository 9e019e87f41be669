"""Who shows challenges for us: the web listener, in its own process, is one; it is given what it shows, and nothing else."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

__all__ = ["IChallengeServer"]


class IChallengeServer(Protocol):
    """The web listener, as far as certificates need it.  A Deferred fires when its process has what was handed over."""

    def publish_challenge(self, host: str, token: str, key_authorization: str) -> Deferred[None]:
        """Show it at ``http://HOST/.well-known/acme-challenge/TOKEN`` (RFC 8555 section 8.3).  Errs where nobody can."""

    def withdraw_challenge(self, host: str, token: str) -> Deferred[None]:
        """Show it no more."""

    def change_certificate(self, chain_pem: str, key_pem: str) -> Deferred[None]:
        """The certificate of the https names, and its key."""

    def change_alpn(self, host: str, certificate_der: bytes, key_pem: str) -> Deferred[None]:
        """Show this certificate to who asks for ``acme-tls/1`` (RFC 8737)."""

    def withdraw_alpn(self, host: str) -> Deferred[None]:
        """Show it no more."""
