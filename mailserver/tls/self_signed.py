"""A self-signed certificate where none is configured.  Clients cannot verify it, but it keeps passive listeners out."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailserver.mail.durable import replace_file
from mailserver.tls.identity import IdentityError, Pair, key_pem, read_identity

__all__ = ["self_signed_pair"]

VALID_DAYS = 825  # the longest that Apple's mail programs accept
RENEW_DAYS = 30
COMMON_NAME_CHARACTERS = 64
CERTIFICATE, KEY = "self-signed.pem", "self-signed.key"


def self_signed_pair(directory: str, hostname: str, addresses: Sequence[str] = ()) -> Pair:
    """The pair in `directory`.  It is made where it is missing, expires soon or is for another name.  Blocks.

    It is also for `addresses`, which are numeric.  Raises OSError.
    """
    pair = Pair(os.path.join(directory, CERTIFICATE), os.path.join(directory, KEY))
    if not _is_good(pair, hostname):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        certificate, key = _make(hostname, addresses)
        replace_file(pair.key, key, lambda fd: os.fchmod(fd, 0o600))
        replace_file(pair.certificate, certificate, lambda fd: os.fchmod(fd, 0o644))
    return pair


def _is_good(pair: Pair, hostname: str) -> bool:
    try:
        identity = read_identity(pair)
    except IdentityError:
        return False
    renew = identity.expires - datetime.timedelta(days=RENEW_DAYS)
    return hostname.lower() in identity.names and datetime.datetime.now(datetime.UTC) < renew


def _make(hostname: str, addresses: Sequence[str]) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:COMMON_NAME_CHARACTERS])])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(one) for one in dict.fromkeys((hostname, "localhost"))]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"), key_pem(key)
