"""How the demands on a connection are carried out with OpenSSL, after STARTTLS (RFC 3207) or from the first octet on.

An opportunistic connection accepts any certificate: whoever could forge one could also strip the offer.  A host whose handshake
fails gets its mail in the clear, at once and for an hour, where the demand allows that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, platformTrust
from zope.interface import implementer

from mailserver.relay.pool import Key
from mailserver.relay.security import Demand, TLSMode
from mailserver.transport.verified import verified

__all__ = ["ClearText", "ClientContexts"]

CLEAR_SECONDS = 3600.0
CLEAR_KEPT = 10_000


class ClearText:
    """Remembers hosts that offer STARTTLS and whose handshake fails."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._until: dict[Key, float] = {}

    def add(self, key: Key) -> None:
        """The handshake failed: use no TLS there for an hour."""
        if len(self._until) >= CLEAR_KEPT:
            self._until = dict(list(self._until.items())[CLEAR_KEPT // 2 :])
        self._until[key] = self._seconds() + CLEAR_SECONDS

    def __contains__(self, key: Key) -> bool:
        until = self._until.get(key)
        if until is None:
            return False
        if self._seconds() < until:
            return True
        del self._until[key]
        return False


class ClientContexts:
    """Makes what `ITransport.startTLS` needs.  One OpenSSL context serves all connections without verification."""

    def __init__(self, trust_root: Any = None) -> None:
        """`trust_root` is Twisted's `IOpenSSLTrustRoot`, the authorities that are believed; None for the system's."""
        self._trust_root = trust_root or platformTrust()
        self._unverified: SSL.Context | None = None

    def creator(self, demand: Demand, host_name: str) -> IOpenSSLClientConnectionCreator:
        """What Twisted needs for one connection to `host_name`."""
        if demand.mode is TLSMode.VERIFIED:
            name = demand.name or host_name
            return verified(name, self._trust_root)
        if self._unverified is None:
            options = CertificateOptions()  # TLS 1.2 at least
            self._unverified = options.getContext()
            self._unverified.set_options(SSL.OP_IGNORE_UNEXPECTED_EOF)  # replies have their ends; see mailserver/tls/contexts.py
        return _Unverified(self._unverified, host_name)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """A connection that accepts any certificate.  It sends the host's name (SNI), so that the peer shows the right one."""

    def __init__(self, context: SSL.Context, host_name: str) -> None:
        self._context = context
        self._host_name = host_name

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See `IOpenSSLClientConnectionCreator`."""
        connection = SSL.Connection(self._context, None)
        if self._host_name and not self._host_name.startswith("[") and not self._host_name.replace(".", "").isdigit():
            if ":" not in self._host_name:
                connection.set_tlsext_host_name(self._host_name.encode("ascii", "replace"))
        return connection
