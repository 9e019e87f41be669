"""OpenSSL's contexts for one set of certificates: one for each name and each mode of asking clients for certificates.

A connection begins with the context of the default certificate; the name that the client asks for (SNI, RFC 6066 section 3) picks
another one.  The floor is TLS 1.2 (RFC 5246; 1.3 is RFC 8446) with forward secrecy and authenticated encryption (RFC 9325).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags

from mailserver.tls.identity import Identity
from mailserver.transport.certificate_faults import FAULTS

__all__ = ["ClientCertificates", "ServerContexts", "CertificateParts", "Verification"]

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2; TLS 1.3 has its own, all of this kind
VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
SESSION_SECONDS = 7200
VERIFY_DEPTH = 8

GRAVITY = tuple(dict.fromkeys(FAULTS.values()))


class ClientCertificates(enum.Enum):
    """How a listener asks its clients for certificates."""

    IGNORE = "ignore"
    REQUEST = "request"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class CertificateParts:
    """What contexts are made of."""

    default: Identity
    by_name: Mapping[str, Identity]  # exact names and "*.domain"
    authorities: Sequence[x509.Certificate] = ()
    revocations: Sequence[x509.CertificateRevocationList] = ()
    minimum_version: str = "1.2"
    ciphers: str = ""


class Verification:
    """The faults found in client certificates, by connection."""

    def __init__(self) -> None:
        self._faults: WeakKeyDictionary[SSL.Connection, set[str]] = WeakKeyDictionary()

    def fault(self, connection: SSL.Connection) -> str:
        """The gravest fault; "" where none was found."""
        faults = self._faults.get(connection, ())
        return min(faults, key=lambda fault: GRAVITY.index(fault) if fault in GRAVITY else len(GRAVITY), default="")

    def found(self, connection: SSL.Connection, error: int) -> None:
        """Note an error of OpenSSL's verification, by its X509_V_ERR number."""
        self._faults.setdefault(connection, set()).add(FAULTS.get(error, f"not valid (OpenSSL's error {error})"))


class ServerContexts:
    """Makes connections.  Raises `OpenSSL.SSL.Error` or ValueError for ciphers that OpenSSL does not know."""

    def __init__(self, parts: CertificateParts, verification: Verification) -> None:
        self._parts = parts
        self._verification = verification
        self._by_name: dict[tuple[ClientCertificates, str], SSL.Context] = {}
        self._default = {policy: self._made(parts.default, policy) for policy in ClientCertificates}
        for name, identity in parts.by_name.items():
            for policy in ClientCertificates:
                self._by_name[policy, name] = self._made(identity, policy)

    def connection(self, policy: ClientCertificates) -> SSL.Connection:
        """An OpenSSL connection for one client."""
        return SSL.Connection(self._default[policy], None)

    def _made(self, identity: Identity, policy: ClientCertificates) -> SSL.Context:
        parts = self._parts
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(VERSIONS[parts.minimum_version])
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_SINGLE_ECDH_USE)
        # A peer may end without close_notify: SMTP itself says where a message ends, so truncation is seen.  As an error, each
        # such end would stay in memory, with all that OpenSSL holds for it, in a failure that refers to itself.
        context.set_options(SSL.OP_IGNORE_UNEXPECTED_EOF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle connection keeps no record buffers
        context.set_cipher_list((parts.ciphers or CIPHERS).encode("ascii"))
        # Sessions are resumed by tickets, which the server need not remember.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_timeout(SESSION_SECONDS)
        context.use_certificate(identity.leaf)
        for certificate in identity.chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(identity.key)
        context.check_privatekey()
        if policy is not ClientCertificates.IGNORE:
            self._ask_clients(context, policy)
        context.set_tlsext_servername_callback(lambda connection: self._choose(connection, policy))
        return context

    def _ask_clients(self, context: SSL.Context, policy: ClientCertificates) -> None:
        parts, required = self._parts, policy is ClientCertificates.REQUIRE
        # A resumed session would not be verified again, even if its certificate was revoked since.
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_id(b"mailserver")
        store = context.get_cert_store()
        for certificate in parts.authorities:
            context.add_client_ca(certificate)
            if store is not None:
                store.add_cert(X509.from_cryptography(certificate))
        if parts.revocations and store is not None:
            for one in parts.revocations:  # RFC 5280 section 6.3, for the client's own certificate
                store.add_crl(one)
            store.set_flags(X509StoreFlags.CRL_CHECK)
        context.set_verify_depth(VERIFY_DEPTH)
        mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0)
        verification = self._verification

        def accepts(connection: SSL.Connection, certificate: Any, error: int, depth: int, ok: int) -> bool:
            if not ok:
                verification.found(connection, error)
            return bool(ok) or not required

        context.set_verify(mode, accepts)

    def _choose(self, connection: SSL.Connection, policy: ClientCertificates) -> None:
        """Choose the certificate for the name that the client asks for (SNI); the default one for an unknown name."""
        asked = connection.get_servername()
        if not asked or not self._by_name:
            return
        name = asked.decode("ascii", "replace").lower().rstrip(".")
        context = self._by_name.get((policy, name)) or self._by_name.get((policy, "*." + name.partition(".")[2]))
        if context is not None:
            connection.set_context(context)
