"""How the demands on a connection are carried out with OpenSSL, after STARTTLS (RFC 3207) or from the first octet on.

A handshake is one `Securing`.  It makes the connection and ends it during the handshake where an authority has to vouch for the
certificate and none does.  DANE is looked at when the handshake is done and before anything is said.  Any other connection
accepts any certificate: whoever could forge one could also strip the offer.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from cryptography import x509
from OpenSSL import SSL, crypto
from OpenSSL.SSL import X509VerificationCodes as Found
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, platformTrust
from zope.interface import implementer

from mailserver.relay.client_certificate import ClientCertificate
from mailserver.relay.conclusions import HandshakeFacts, TLSFault
from mailserver.relay.pool import Key
from mailserver.relay.security import Demand, TLSMode
from mailserver.transport.certificate_faults import FAULTS, UNREADABLE
from mailserver.transport.channel_bindings import group_of
from mailserver.transport.verified import has_name, is_ip_address
from mailserver.trust import dane
from mailserver.trust.dane import DaneFault, DaneMatch

__all__ = ["ClientContexts", "Securing"]

SESSIONS_KEPT = 2_000
SESSION_CHAIN_OCTETS_MOST = 16_384  # of certificates; OpenSSL's session has them once more
CERTIFICATES_KEPT = 500
SESSION_SECONDS = 3600.0  # a certificate is looked at anew at least so often

DANE_FAULTS = {
    DaneFault.NO_MATCH: TLSFault.NO_TLSA_MATCH,
    DaneFault.EXPIRED: TLSFault.EXPIRED,
    DaneFault.NAME_MISMATCH: TLSFault.OTHER_NAME,
    DaneFault.BROKEN_CHAIN: TLSFault.UNTRUSTED,
}
EXPIRED = frozenset({Found.ERR_CERT_HAS_EXPIRED, Found.ERR_CERT_NOT_YET_VALID})


@dataclass(frozen=True, slots=True)
class _KeptSession:
    """A session that the host may resume, and the certificates that it had shown when it began."""

    session: SSL.Session
    chain: tuple[bytes, ...]
    until: float


class ClientContexts:
    """Two OpenSSL contexts serve all connections: one believes the system's authorities, the other looks at nothing.

    Each client certificate has two of its own.

    `trust_root` is Twisted's `IOpenSSLTrustRoot`, the authorities that are believed; None for the system's.  With `resumes` a
    session is resumed where the host allows it, for the very same demand and address and no longer than an hour after the
    certificate was looked at.  `seconds` is a monotonic clock.
    """

    def __init__(self, trust_root: Any = None, *, resumes: bool = False, seconds: Callable[[], float] | None = None) -> None:
        self._trust_root = trust_root or platformTrust()
        self.resumes = resumes
        self._seconds = seconds or (lambda: 0.0)
        self._contexts: dict[bool, SSL.Context] = {}
        self._showing: WeakKeyDictionary[ClientCertificate, dict[bool, SSL.Context]] = WeakKeyDictionary()
        self._sessions: dict[Key, _KeptSession] = {}

    def securing(
        self,
        demand: Demand,
        host_name: str,
        *,
        key: Key | None = None,
        is_small: bool = False,
        certificate: ClientCertificate | None = None,
    ) -> Securing:
        """One handshake with `host_name`.

        `key` names the connections among which sessions are shared.  `is_small`: TLS 1.2, whose hello fits one packet.
        `certificate` is shown to a host that asks for one; raises ValueError where it cannot be read.
        """
        context = self._context(demand.looks_at_authorities, certificate)
        kept = None
        if key is not None and self.resumes and not is_small:
            kept = self._sessions.get(key)
            if kept is not None and self._seconds() >= kept.until:
                del self._sessions[key]
                kept = None
        return Securing(context, demand, demand.name or host_name, kept, is_small)

    def keep_session(self, key: Key, connection: SSL.Connection, facts: HandshakeFacts, demand: Demand) -> None:
        """The connection is what was demanded: the next one to the same place may resume its session."""
        if not self.resumes or demand.is_tested:  # what is wrong would not be seen again
            return
        session = connection.get_session()
        if session is None:
            return
        if sum(map(len, facts.chain)) > SESSION_CHAIN_OCTETS_MOST:  # strangers do not fill our memory with their certificates
            return
        before = self._sessions.pop(key, None)
        until = self._seconds() + SESSION_SECONDS
        if before is not None and before.chain == facts.chain:  # resumed, it may be: its hour is not begun anew
            until = before.until
        if len(self._sessions) >= SESSIONS_KEPT:
            self._sessions = dict(list(self._sessions.items())[SESSIONS_KEPT // 2 :])
        self._sessions[key] = _KeptSession(session, facts.chain, until)

    def forget_session(self, key: Key) -> None:
        """The handshake failed: the next one is a full one."""
        self._sessions.pop(key, None)

    def _context(self, believes: bool, certificate: ClientCertificate | None) -> SSL.Context:
        if certificate is None:
            context = self._contexts.get(believes)
            if context is None:
                context = self._contexts[believes] = self._made(believes)
            return context
        contexts = self._showing.setdefault(certificate, {})  # it goes with the certificate
        if believes not in contexts:
            context = self._made(believes)
            certificate.show_in(context)
            contexts[believes] = context
        return contexts[believes]

    def _made(self, believes: bool) -> SSL.Context:
        options = CertificateOptions(trustRoot=self._trust_root) if believes else CertificateOptions()  # TLS 1.2 at least
        context = options.getContext()
        context.set_options(SSL.OP_IGNORE_UNEXPECTED_EOF)  # replies have their ends; see mailserver/tls/contexts.py
        return context


@implementer(IOpenSSLClientConnectionCreator)
class Securing:
    """One handshake.  `name` is said (SNI), so that the host shows the right certificate; never a number."""

    def __init__(
        self, context: SSL.Context, demand: Demand, name: str, kept: _KeptSession | None = None, is_small: bool = False
    ) -> None:
        self._context = context
        self._demand = demand
        self._name = name
        self._kept = kept
        self._is_small = is_small
        self._fault = TLSFault.NONE
        self._detail = ""
        self._certificate: Any = None  # the one that is at fault

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See `IOpenSSLClientConnectionCreator`."""
        connection = SSL.Connection(self._context, None)
        name = self._name
        if name and not name.startswith("[") and not is_ip_address(name):
            connection.set_tlsext_host_name(name.encode("ascii", "replace"))
        if self._demand.looks_at_authorities:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._accepts)
        if self._is_small:
            connection.set_options(SSL.OP_NO_TLSv1_3)
        if self._kept is not None:
            connection.set_session(self._kept.session)
        return connection

    def _accepts(self, connection: Any, certificate: Any, error: int, depth: int, is_vouched_for: int) -> bool:
        """OpenSSL asks for each certificate of the chain, from the authority's down to the host's own."""
        if not is_vouched_for:
            fault = TLSFault.EXPIRED if error in EXPIRED else TLSFault.UNTRUSTED
            self._blame(fault, FAULTS.get(error, f"fault {error}"), certificate)
        elif depth == 0 and not has_name(certificate, self._name):
            self._blame(TLSFault.OTHER_NAME, f"it is not for {self._name}", certificate)
        else:
            return True
        return self._demand.mode is not TLSMode.VERIFIED  # where a policy is only tested it goes on

    def _blame(self, fault: TLSFault, detail: str, certificate: Any) -> None:
        if self._fault is TLSFault.NONE:
            self._fault = fault
            self._certificate = certificate
            self._detail = detail

    def completed(self, connection: SSL.Connection | None, now: float) -> HandshakeFacts:
        """What was found.  `now` is Unix time, for the certificates that DANE looks at.

        Raises ValueError where a certificate is to be looked at and the transport shows none.
        """
        demand = self._demand
        if connection is None:  # a transport that is no socket
            if demand.tlsa is not None or demand.looks_at_authorities:
                raise ValueError("a transport whose certificates cannot be seen")
            return HandshakeFacts("TLS")
        match, fault, detail = "", self._fault, self._detail
        chain = _chain(connection) or (() if self._kept is None else self._kept.chain)
        if demand.looks_at_authorities and fault is TLSFault.NONE:
            match = "WebPKI"
        if demand.tlsa is not None and fault is TLSFault.NONE:
            found = dane.match(demand.tlsa, chain, now)
            if isinstance(found, DaneMatch):
                one = found.record
                said = f"DANE {one.usage} {one.selector} {one.matching_type}"
                match = f"{match}, {said}" if match else said
            else:
                match, fault, detail = "", DANE_FAULTS[found.fault], found.why
        if fault is not TLSFault.NONE and chain:
            detail = f"{detail}; {described(chain[0])}"
        return HandshakeFacts(
            connection.get_protocol_version_name(),
            connection.get_cipher_name() or "",
            group_of(connection),
            chain,
            match,
            fault,
            detail,
            summary_of(chain[0]) if chain else "",
        )

    def failed(self, words: str) -> HandshakeFacts:
        """The handshake has failed; `words` are those of the library, or of the peer."""
        if self._fault is TLSFault.NONE:
            return HandshakeFacts(fault=TLSFault.HANDSHAKE, detail=words)
        octets = _octets([self._certificate])
        detail = f"{self._detail}; {described(octets[0])}" if octets else self._detail
        return HandshakeFacts(chain=octets, fault=self._fault, detail=detail)


def described(octets: bytes) -> str:
    """A certificate (DER) in a few words, with its SHA-256, by which an administrator may trust it."""
    return f"{summary_of(octets)}, SHA-256 {hashlib.sha256(octets).hexdigest()}"


@functools.lru_cache(CERTIFICATES_KEPT)  # a host shows the same one on each connection
def summary_of(octets: bytes) -> str:
    """Whose certificate (DER) it is, from whom, and until when."""
    try:
        certificate = x509.load_der_x509_certificate(octets)
        subject, issuer = _name_of(certificate.subject), _name_of(certificate.issuer)
        return f"certificate of {subject} from {issuer} until {certificate.not_valid_after_utc:%Y-%m-%d}"
    except UNREADABLE:
        return "a certificate that cannot be read"


def _name_of(name: x509.Name) -> str:
    text = name.rfc4514_string()
    return "".join(one if one.isprintable() else "?" for one in text)[:100] or "nobody"


def _chain(connection: SSL.Connection) -> tuple[bytes, ...]:
    return _octets(connection.get_peer_cert_chain() or ())


def _octets(certificates: Sequence[Any]) -> tuple[bytes, ...]:
    """As the host has sent them: DANE compares octets, also of certificates that nobody here can read."""
    return tuple([crypto.dump_certificate(crypto.FILETYPE_ASN1, one) for one in certificates if one is not None])
