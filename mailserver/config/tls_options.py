"""`[tls]`: keys and certificates of the listeners."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mailserver.config.options import Options
from mailserver.config.values import AddressOrDomain, DomainKey, FilePath

__all__ = ["NamedCertificate", "TLSTable"]


class NamedCertificate(Options):
    """The certificate for clients that ask for this name (SNI). `[tls.name."*.example.org"]` stands for one label below."""

    certificate: FilePath
    """The certificate with its chain, PEM."""
    key: FilePath
    """Its private key, PEM."""


class TLSTable(Options):
    """Keys and certificates of the listeners. Changed files are taken up within seconds, and with SIGHUP; what is faulty then
    replaces nothing."""

    certificate: FilePath | None = None
    """The certificate with its chain, PEM. Absent: the server makes one of its own, which nobody vouches for."""
    key: FilePath | None = None
    """Its private key, PEM."""
    acme: bool = False
    """The certificate comes from a CA by ACME (RFC 8555), and is renewed by itself; `[acme]` says more. Until it is there, the
    server makes one of its own."""
    name: dict[DomainKey, NamedCertificate] = Field(default_factory=dict)
    """Certificates for further names."""
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    """The oldest version of TLS that is spoken."""
    ciphers: str = ""
    """Ciphers for TLS 1.2, as OpenSSL writes them. Empty: those with forward secrecy and authenticated encryption."""
    client_authorities: FilePath | None = None
    """The authorities whose client certificates are believed, PEM."""
    client_revocations: FilePath | None = None
    """Their lists of revoked certificates (CRL), PEM."""
    required_from: tuple[AddressOrDomain, ...] = ()
    """Senders (addresses, domains, `*.` and a domain) whose mail is taken over encrypted connections alone: else 530 at MAIL."""
    required_for: tuple[AddressOrDomain, ...] = ()
    """Recipients for whom mail is taken over encrypted connections alone: else 530 at RCPT."""

    @model_validator(mode="after")
    def _fit_together(self) -> TLSTable:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if self.acme and self.certificate is not None:
            raise ValueError("acme or certificate: one of them")
        if self.client_revocations is not None and self.client_authorities is None:
            raise ValueError("client_revocations needs client_authorities")
        return self
