"""What the web process is handed, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailserver.web.content import AlpnCertificate, WebCertificate, WebContent
from mailserver.web.hand_over import HandOver
from mailserver.web.wire import members_of

__all__ = ["WebHandOver"]


class WebHandOver:
    """What is told of certificates and their challenges, to one web process after the other.

    Each Deferred fires when the process has taken that up, so that who asks it gets the new answer.  It fails with
    `web.hand_over.NoWebProcess` where there is none, or it dies before; a certificate is then handed to the next one, and a
    challenge is not.
    """

    def __init__(self, hand_over: HandOver) -> None:
        self._hand_over = hand_over
        self._content = WebContent()

    def publish_challenge(self, host: str, token: str, key_authorization: str) -> Deferred[None]:
        """Answer http-01 for this host (RFC 8555 section 8.3)."""
        self._content = replace(
            self._content, challenges={**self._content.challenges, (host.lower(), token): key_authorization}
        )
        return self._say("challenges").addErrback(self._not_published, host, token)

    def withdraw_challenge(self, host: str, token: str) -> Deferred[None]:
        """Answer it no longer."""
        challenges = dict(self._content.challenges)
        challenges.pop((host.lower(), token), None)
        self._content = replace(self._content, challenges=challenges)
        return self._say("challenges")

    def change_certificate(self, chain_pem: str, key_pem: str) -> Deferred[None]:
        """The certificate of the https names: for connections that begin from now on."""
        self._content = replace(self._content, certificate=WebCertificate(chain_pem, key_pem))
        return self._say("certificate")

    def change_alpn(self, host: str, certificate_der: bytes, key_pem: str) -> Deferred[None]:
        """Answer tls-alpn-01 for this host (RFC 8737)."""
        found = AlpnCertificate(bytes(certificate_der), key_pem)
        self._content = replace(self._content, alpn={**self._content.alpn, host.lower(): found})
        return self._say("alpn").addErrback(self._no_alpn, host)

    def withdraw_alpn(self, host: str) -> Deferred[None]:
        """Answer it no longer."""
        self._content = replace(self._content, alpn={one: its for one, its in self._content.alpn.items() if one != host.lower()})
        return self._say("alpn")

    def _say(self, *names: str) -> Deferred[None]:
        members = members_of(self._content)
        return self._hand_over.put(**{name: members[name] for name in names})

    def _not_published(self, failure: Failure, host: str, token: str) -> Any:
        self.withdraw_challenge(host, token).addErrback(lambda _: None)
        return failure

    def _no_alpn(self, failure: Failure, host: str) -> Any:
        self.withdraw_alpn(host).addErrback(lambda _: None)
        return failure
