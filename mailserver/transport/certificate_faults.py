"""What can be wrong with a certificate, and the words for it: of our own, of a client, of a host that we connect to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cryptography import x509
from OpenSSL import SSL

__all__ = ["FAULTS", "UNREADABLE", "words_of"]

# What OpenSSL finds wrong with a certificate, by its X509_V_ERR numbers, in our words; the gravest stands first.
FAULTS: Mapping[int, str] = MappingProxyType(
    {
        23: "revoked",
        10: "expired",
        9: "not yet valid",
        26: "wrong purpose",
        7: "bad signature",
        18: "self-signed",
        19: "unknown authority",
        20: "unknown authority",
        21: "unknown authority",
        2: "unknown authority",
        22: "unknown authority",
        24: "unknown authority",
        3: "no list of revoked certificates of its authority",
        12: "the list of revoked certificates has expired",
    }
)

# What `cryptography` raises for a certificate that only OpenSSL accepts, and for a missing extension.
UNREADABLE = (
    ValueError,
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
