"""All that the web process knows.  The server hands it over; the process can ask for nothing else.

Host and domain names are A-labels in lower case, without a final dot.  A domain ``*.example.org`` stands for every name below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["AlpnCertificate", "ClientSettings", "MailAccess", "WebCertificate", "WebContent"]


@dataclass(frozen=True, slots=True)
class MailAccess:
    """A service that a mail program is to use.  `tls` is from the first octet on, or by STARTTLS."""

    protocol: Literal["imap", "pop3", "smtp"]
    host: str
    port: int
    tls: Literal["implicit", "starttls"] = "implicit"


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What mail programs of a domain's users are told: the best service of a kind first.  The user name is the address."""

    incoming: tuple[MailAccess, ...] = ()
    outgoing: tuple[MailAccess, ...] = ()


@dataclass(frozen=True, slots=True)
class WebCertificate:
    """The certificate of the https names with its chain, and its key, both PEM.  Never those of the mail host."""

    chain_pem: str
    key_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AlpnCertificate:
    """What answers ``acme-tls/1`` for a host (RFC 8737)."""

    certificate_der: bytes
    key_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebContent:
    """The whole.

    `policies` are the texts of MTA-STS by domain (RFC 8461); `clients` the settings by domain.  `challenges` are the key
    authorizations of http-01 by host and token (RFC 8555 section 8.3), `alpn` the certificates of tls-alpn-01 by host.
    `not_ready` says why the server takes no mail now; empty where it does, None where it has not said so yet.
    """

    hostname: str = ""
    policies: Mapping[str, str] = field(default_factory=dict)
    clients: Mapping[str, ClientSettings] = field(default_factory=dict)
    challenges: Mapping[tuple[str, str], str] = field(default_factory=dict)
    alpn: Mapping[str, AlpnCertificate] = field(default_factory=dict)
    certificate: WebCertificate | None = None
    not_ready: tuple[str, ...] | None = None
