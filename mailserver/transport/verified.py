"""A TLS client that accepts only a certificate with the right name."""

from __future__ import annotations

import ipaddress
from typing import Any

from OpenSSL import SSL
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import optionsForClientTLS
from zope.interface import implementer

__all__ = ["has_name", "is_ip_address", "verified"]


def verified(host_name: str, trust_root: Any) -> IOpenSSLClientConnectionCreator:
    """What Twisted needs for one verified connection to `host_name`, a DNS name or a numeric address.

    `trust_root` is Twisted's `IOpenSSLTrustRoot`: the authorities that are believed.
    """
    return _Verified(optionsForClientTLS(host_name, trustRoot=trust_root), host_name)


@implementer(IOpenSSLClientConnectionCreator)
class _Verified:
    """A connection that requires a certificate with the host's name and ends the handshake for any other.

    Twisted's own check lets a certificate without a subjectAltName pass: it only logs what service_identity raises.  Here any
    error of the check ends the handshake.
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
        return has_name(certificate, self._host_name)


def has_name(certificate: Any, host_name: str) -> bool:
    """Whether a certificate (pyOpenSSL's) is for this host, a DNS name or a numeric address."""
    try:
        leaf = certificate.to_cryptography()
        if is_ip_address(host_name):
            verify_certificate_ip_address(leaf, host_name)
        else:
            verify_certificate_hostname(leaf, host_name)
    except Exception:  # noqa: BLE001  # an odd certificate is not the one that we want
        return False
    return True


def is_ip_address(text: str) -> bool:
    """Whether the text is a numeric IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
