"""The channel bindings of a TLS connection: what both its ends can compute, and nobody in the middle."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from mailserver.sasl.steps import ChannelBindings

__all__ = ["bindings_of", "connection_of", "end_point_of", "group_of"]

EXPORTER_LABEL = b"EXPORTER-Channel-Binding"  # RFC 9266 section 2
EXPORTER_OCTETS = 32


def connection_of(transport: Any) -> SSL.Connection | None:
    """OpenSSL's connection below a Twisted transport; None without TLS."""
    handle = getattr(transport, "getHandle", lambda: None)()
    return handle if isinstance(handle, SSL.Connection) else None


def group_of(connection: SSL.Connection) -> str:
    """The group of the key exchange, in OpenSSL's words ("X25519MLKEM768"); "" where it cannot be told."""
    try:
        return connection.get_group_name() or ""
    except NotImplementedError:  # OpenSSL before 3.2
        return ""


def bindings_of(transport: Any, *, is_client: bool = False) -> ChannelBindings:
    """Those that the RFCs define for this connection; `is_client`: we are the one that has opened it."""
    connection = connection_of(transport)
    if connection is None:
        return ChannelBindings()
    data: dict[str, bytes] = {}
    if connection.get_protocol_version_name() == "TLSv1.3":  # before it, only with extended master secrets (RFC 9266 section 4.2)
        data["tls-exporter"] = connection.export_keying_material(EXPORTER_LABEL, EXPORTER_OCTETS, b"")
    if is_client:
        certificate = connection.get_peer_certificate(as_cryptography=True)
    else:
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
