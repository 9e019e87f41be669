"""What can be wrong with a certificate, and the words for it: of our own, of a client, of a host that we connect to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL
from OpenSSL.SSL import X509VerificationCodes as Found

__all__ = ["FAULTS", "UNREADABLE", "words_of"]

# What OpenSSL finds wrong with a certificate, by its X509_V_ERR numbers, in our words; the gravest stands first.
FAULTS: Mapping[int, str] = MappingProxyType(
    {
        Found.ERR_CERT_REVOKED: "revoked",
        Found.ERR_CERT_HAS_EXPIRED: "expired",
        Found.ERR_CERT_NOT_YET_VALID: "not yet valid",
        Found.ERR_INVALID_PURPOSE: "wrong purpose",
        Found.ERR_CERT_SIGNATURE_FAILURE: "bad signature",
        Found.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "self-signed",
        Found.ERR_SELF_SIGNED_CERT_IN_CHAIN: "unknown authority",
        Found.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "unknown authority",
        Found.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "unknown authority",
        Found.ERR_UNABLE_TO_GET_ISSUER_CERT: "unknown authority",
        Found.ERR_CERT_CHAIN_TOO_LONG: "unknown authority",
        Found.ERR_INVALID_CA: "unknown authority",
        Found.ERR_UNABLE_TO_GET_CRL: "no list of revoked certificates of its authority",
        Found.ERR_CRL_HAS_EXPIRED: "the list of revoked certificates has expired",
    }
)

# What `cryptography` raises for a certificate that only OpenSSL accepts, and for a missing extension.
UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def words_of(error: BaseException) -> str:
    """The message of an error.  OpenSSL's errors also name places in the library; of these only the reasons are given."""
    if isinstance(error, SSL.Error):
        reasons = error.args[0] if error.args and isinstance(error.args[0], list | tuple) else ()
        return "; ".join(str(reason[-1]) for reason in reasons if reason) or "a TLS error"
    return str(error) or type(error).__name__
