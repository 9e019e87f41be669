"""What mail programs of Apple read of an address: a configuration profile (payload ``com.apple.mail.managed``), signed by CMS."""

from __future__ import annotations

import plistlib
import uuid

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from mailserver.web.content import ClientSettings, WebCertificate

__all__ = ["mobileconfig", "signed"]

NAMES = uuid.UUID("5a1b5d5e-7d0c-4c9e-8f5d-3f1f6a0f9c11")  # of our profiles: the same address has the same one, which it replaces
ACCOUNT_TYPES = {"imap": "EmailTypeIMAP", "pop3": "EmailTypePOP"}


def mobileconfig(address: str, settings: ClientSettings) -> bytes:
    """The profile for an address, of the best incoming and the best outgoing service.  The user name is the address."""
    domain = address.rpartition("@")[2]
    incoming, outgoing = settings.incoming[0], settings.outgoing[0]
    reverse = ".".join(reversed(domain.split(".")))
    payload = {
        "PayloadType": "com.apple.mail.managed",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{reverse}.mail.account",
        "PayloadUUID": str(uuid.uuid5(NAMES, f"account {address}")).upper(),
        "PayloadDisplayName": address,
        "EmailAccountDescription": address,
        "EmailAccountType": ACCOUNT_TYPES[incoming.protocol],
        "EmailAddress": address,
        "IncomingMailServerAuthentication": "EmailAuthPassword",
        "IncomingMailServerHostName": incoming.host,
        "IncomingMailServerPortNumber": incoming.port,
        "IncomingMailServerUseSSL": True,  # STARTTLS, too
        "IncomingMailServerUsername": address,
        "OutgoingMailServerAuthentication": "EmailAuthPassword",
        "OutgoingMailServerHostName": outgoing.host,
        "OutgoingMailServerPortNumber": outgoing.port,
        "OutgoingMailServerUseSSL": True,
        "OutgoingMailServerUsername": address,
        "OutgoingPasswordSameAsIncomingPassword": True,
    }
    profile = {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{reverse}.mail",
        "PayloadUUID": str(uuid.uuid5(NAMES, f"profile {address}")).upper(),
        "PayloadDisplayName": f"Mail: {address}",
        "PayloadOrganization": domain,
        "PayloadContent": [payload],
    }
    return plistlib.dumps(profile, sort_keys=False)


def signed(profile: bytes, certificate: WebCertificate) -> bytes:
    """The profile within its signature, DER; as it is where the key is of a kind that CMS has no place for here."""
    try:
        chain = x509.load_pem_x509_certificates(certificate.chain_pem.encode("ascii"))
        key = serialization.load_pem_private_key(certificate.key_pem.encode("ascii"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return profile
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return profile
    builder = pkcs7.PKCS7SignatureBuilder().set_data(profile).add_signer(chain[0], key, hashes.SHA256())
    for one in chain[1:]:
        builder = builder.add_certificate(one)
    return builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
