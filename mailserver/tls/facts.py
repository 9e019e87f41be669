"""What is known of a connection after its handshake, and why one has failed."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.python.failure import Failure

from mailserver.mail.envelope import TLSFacts
from mailserver.tls.contexts import Verification
from mailserver.tls.identity import extension_of
from mailserver.transport.certificate_faults import UNREADABLE, words_of
from mailserver.transport.channel_bindings import connection_of, group_of

__all__ = ["facts_of", "fault_of"]

EMAILS = 10
NO_CERTIFICATE = "peer did not return a certificate"


def facts_of(transport: Any, verification: Verification) -> TLSFacts:
    """What the handshake has shown.  Raises ValueError for a transport without TLS."""
    connection = connection_of(transport)
    if connection is None:
        raise ValueError("not a TLS connection")
    server_name = (connection.get_servername() or b"").decode("ascii", "replace")
    version, cipher = connection.get_protocol_version_name(), connection.get_cipher_name() or ""
    certificate = connection.get_peer_certificate()
    if certificate is None:
        return TLSFacts(version, cipher, server_name, group=group_of(connection))
    fault = verification.fault(connection)
    fingerprint = certificate.digest("sha256").decode("ascii").replace(":", "").lower()
    return TLSFacts(version, cipher, server_name, fingerprint, not fault, fault, emails_of(certificate), group_of(connection))


def emails_of(certificate: X509) -> tuple[str, ...]:
    """The addresses in a certificate (subjectAltName, rfc822Name); () also where the client's certificate is malformed."""
    try:
        alternatives = extension_of(certificate.to_cryptography(), x509.SubjectAlternativeName)
    except UNREADABLE:
        return ()
    return () if alternatives is None else tuple(alternatives.get_values_for_type(x509.RFC822Name)[:EMAILS])


def fault_of(transport: Any, reason: Failure, verification: Verification) -> str:
    """Why a handshake has failed, for the log."""
    connection = connection_of(transport)
    fault = "" if connection is None else verification.fault(connection)
    if fault:
        return f"client certificate: {fault}"
    error = reason.value
    if isinstance(error, SSL.Error):
        words = words_of(error)
        return "no client certificate" if NO_CERTIFICATE in words else words
    return "the client went away"
