"""What is known of a connection after its handshake, and why one has failed."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.python.failure import Failure

from mailserver.mail.envelope import TLSFacts
from mailserver.sasl.steps import ChannelBindings
from mailserver.tls.contexts import Verification
from mailserver.tls.identity import extension_of
from mailserver.transport.certificate_faults import UNREADABLE, words_of

__all__ = ["bindings_of", "connection_of", "facts_of", "fault_of"]

EXPORTER_LABEL = b"EXPORTER-Channel-Binding"  # RFC 9266 section 2
EXPORTER_OCTETS = 32
EMAILS = 10
NO_CERTIFICATE = "peer did not return a certificate"


def connection_of(transport: Any) -> SSL.Connection | None:
    """OpenSSL's connection below a Twisted transport; None without TLS."""
    handle = getattr(transport, "getHandle", lambda: None)()
    return handle if isinstance(handle, SSL.Connection) else None


def facts_of(transport: Any, verification: Verification) -> TLSFacts:
    """What the handshake has shown.  Raises ValueError for a transport without TLS."""
    connection = connection_of(transport)
    if connection is None:
        raise ValueError("not a TLS connection")
    server_name = (connection.get_servername() or b"").decode("ascii", "replace")
    version, cipher = connection.get_protocol_version_name(), connection.get_cipher_name() or ""
    certificate = connection.get_peer_certificate()
    if certificate is None:
        return TLSFacts(version, cipher, server_name)
    fault = verification.fault(connection)
    fingerprint = certificate.digest("sha256").decode("ascii").replace(":", "").lower()
    return TLSFacts(version, cipher, server_name, fingerprint, not fault, fault, emails_of(certificate))


def emails_of(certificate: X509) -> tuple[str, ...]:
    """The addresses in a certificate (subjectAltName, rfc822Name); () also where the client's certificate is malformed."""
    try:
        alternatives = extension_of(certificate.to_cryptography(), x509.SubjectAlternativeName)
    except UNREADABLE:
        return ()
    return () if alternatives is None else tuple(alternatives.get_values_for_type(x509.RFC822Name)[:EMAILS])


def bindings_of(transport: Any) -> ChannelBindings:
    """The channel bindings that both ends can compute."""
    connection = connection_of(transport)
    if connection is None:
        return ChannelBindings()
    data: dict[str, bytes] = {}
    if connection.get_protocol_version_name() == "TLSv1.3":  # before it, only with extended master secrets (RFC 9266 section 4.2)
        data["tls-exporter"] = connection.export_keying_material(EXPORTER_LABEL, EXPORTER_OCTETS, b"")
    certificate = connection.get_certificate(as_cryptography=True)
    if certificate is not None:
        end_point = end_point_of(certificate)
        if end_point is not None:
            data["tls-server-end-point"] = end_point
    return ChannelBindings(data)


def end_point_of(certificate: x509.Certificate) -> bytes | None:
    """The tls-server-end-point binding (RFC 5929 section 4.1): a digest of the certificate.

    It uses the hash of the certificate's signature, and SHA-256 in place of MD5 and SHA-1.  None where the signature has no hash
    (Ed25519), which the RFC does not define, or an unknown one.
    """
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:
        return None
    weak = isinstance(algorithm, hashes.MD5 | hashes.SHA1)
    return certificate.fingerprint(hashes.SHA256() if weak else algorithm)


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
