"""The certificate that a host shows, as a client sees it over TLS of the standard library, and what is wrong with it."""

from __future__ import annotations

import enum
import ssl
import time
from dataclasses import dataclass

from cryptography import x509

__all__ = [
    "CertificateFault", "CertificateSeen", "certificate_of", "clean_words", "fault_of_verification", "tls_words",
    "unverifying_context",
]  # fmt: skip

WORDS_MOST = 300
LEFT_SHARE = 5  # a certificate that has less than a fifth of its life left has not been renewed in time


class CertificateFault(enum.Enum):
    """Why nobody believes a certificate."""

    NAME = "it is for other names"
    EXPIRED = "it has expired"
    EARLY = "it is not valid yet"
    UNTRUSTED = "no CA that is trusted has made it"


# X509_V_ERR_*  of OpenSSL
VERIFICATION = {
    62: CertificateFault.NAME, 64: CertificateFault.NAME, 10: CertificateFault.EXPIRED, 9: CertificateFault.EARLY
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CertificateSeen:
    """A certificate as a client sees it; `fault` in the words of OpenSSL is `why`.  Times in seconds since the epoch."""

    names: tuple[str, ...]
    begins: float
    ends: float
    fault: CertificateFault | None = None
    why: str = ""

    @property
    def words(self) -> str:
        """For whom it is."""
        return ", ".join(self.names[:5]) or "nobody"

    @property
    def last_day(self) -> str:
        """The day on which it ends, in UTC."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.ends))

    def is_soon_over(self, now: float) -> bool:
        """Whether it should have been renewed by now."""
        return self.ends - now < (self.ends - self.begins) / LEFT_SHARE


def certificate_of(secured: ssl.SSLSocket, fault: CertificateFault | None = None, why: str = "") -> CertificateSeen:
    """The certificate of the other side."""
    try:
        found = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
        begins, ends = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    except ValueError:
        return CertificateSeen((), 0.0, 0.0, fault or CertificateFault.UNTRUSTED, why or "it cannot be read")
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(extension.value.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, ValueError):
        names = ()
    names = tuple([clean_words(one) for one in names])
    return CertificateSeen(names, begins, ends, fault, why)


def fault_of_verification(error: ssl.SSLCertVerificationError) -> tuple[CertificateFault, str]:
    """Which fault it is, and OpenSSL's words."""
    return VERIFICATION.get(error.verify_code, CertificateFault.UNTRUSTED), str(error.verify_message)[:WORDS_MOST]


def unverifying_context() -> ssl.SSLContext:
    """For a look at a certificate that nobody believes, and for what comes behind it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def tls_words(error: Exception) -> str:
    """What was wrong with a connection: of an error of OpenSSL's the reason alone."""
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLError) and isinstance(reason, str):
        return reason.lower().replace("_", " ")
    return clean_words(str(getattr(error, "strerror", None) or str(error) or type(error).__name__))


def clean_words(text: str) -> str:
    """Fit for a terminal, and not too many."""
    return "".join([one if one.isprintable() else "?" for one in text[:WORDS_MOST]])
