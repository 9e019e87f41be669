"""What a listener knows of TLS: how it encrypts, what a handshake has shown, whose certificate may relay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.python.failure import Failure

from mailserver.mail.envelope import Peer, TLSFacts
from mailserver.sasl.steps import ChannelBindings

__all__ = ["Encryption", "has_certificate_of"]

NEVER_RELAYS = frozenset({"expired", "revoked", "not yet valid"})  # however well its fingerprint is known


@dataclass(frozen=True, slots=True)
class Encryption:
    """How the connections of one listener are encrypted: at once (`implicit`, RFC 8314), or after STARTTLS (RFC 3207).

    `creator` is Twisted's `IOpenSSLServerConnectionCreator`.  `facts` and `bindings` tell what a transport knows after the
    handshake, `fault` why one has failed.  A handshake has `handshake_seconds`.
    """

    implicit: bool
    creator: Any
    facts: Callable[[Any], TLSFacts]
    bindings: Callable[[Any], ChannelBindings]
    fault: Callable[[Any, Failure], str]
    handshake_seconds: float = 30.0


def has_certificate_of(peer: Peer, fingerprints: frozenset[str]) -> bool:
    """The peer has shown the client certificate of one of these fingerprints, and it is valid now."""
    tls = peer.tls
    return tls is not None and tls.client_certificate in fingerprints and tls.client_fault not in NEVER_RELAYS
