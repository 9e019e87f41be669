"""The certificate by which tls-alpn-01 shows that a name is ours (RFC 8737 section 3)."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mailserver.tls.identity import key_pem
from mailserver.web.content import AlpnCertificate

__all__ = ["alpn_certificate"]

ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
OCTET_STRING_OF_32 = b"\x04\x20"
DAYS = datetime.timedelta(days=7)


def alpn_certificate(host: str, digest: bytes, now: datetime.datetime) -> AlpnCertificate:
    """A self-signed certificate for `host` with the SHA-256 of the key authorization, and its key, made for it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    nobody = x509.Name([])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(nobody)
        .issuer_name(nobody)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAYS)
        .not_valid_after(now + DAYS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
        .add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, OCTET_STRING_OF_32 + digest), critical=True)
        .sign(key, hashes.SHA256())
    )
    return AlpnCertificate(certificate.public_bytes(serialization.Encoding.DER), key_pem(key))
