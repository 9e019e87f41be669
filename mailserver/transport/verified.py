"""A TLS client that accepts a certificate of the right name alone."""

from __future__ import annotations

import ipaddress
from typing import Any

from OpenSSL import SSL
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import optionsForClientTLS
from zope.interface import implementer

__all__ = ["verified"]


def verified(host_name: str, trust_root: Any) -> IOpenSSLClientConnectionCreator:
    """For one connection to `host_name`; `trust_root` is Twisted's `IOpenSSLTrustRoot`: who vouches for certificates."""
    return _Verified(optionsForClientTLS(host_name, trustRoot=trust_root), host_name)


@implementer(IOpenSSLClientConnectionCreator)
class _Verified:
    """A connection that wants a certificate with the host's name, and breaks off for every other one.

    Twisted's own check lets a certificate without a subjectAltName pass: what service_identity raises for it is logged and no
    more.  Here whatever the check raises ends the handshake.
    """

    def __init__(self, creator: Any, host_name: str) -> None:
        self._creator = creator
        self._host_name = host_name

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """As Twisted wants it."""
        connection: SSL.Connection = self._creator.clientConnectionForTLS(protocol)
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._accepts)
        return connection

    def _accepts(self, connection: Any, certificate: Any, error: int, depth: int, is_vouched_for: int) -> bool:
        if not is_vouched_for or depth:
            return bool(is_vouched_for)
        try:
            leaf = certificate.to_cryptography()
            if is_ip_address(self._host_name):
                verify_certificate_ip_address(leaf, self._host_name)
            else:
                verify_certificate_hostname(leaf, self._host_name)
        except Exception:  # noqa: BLE001  # an odd certificate is not the one that we want
            return False
        return True


def is_ip_address(text: str) -> bool:
    """The text is a numeric address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
