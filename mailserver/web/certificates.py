"""TLS of the web process: the certificate of its names, and the one that a CA wants to see which asks for ``acme-tls/1``."""

# mypy: disallow-untyped-calls=False
# (Twisted's protocols have no annotations)

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, ITCPTransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from mailserver.web.content import WebContent
from mailserver.web.hello import HELLO_OCTETS, offered_protocols

__all__ = ["ACME_TLS", "WebCertificates", "WebTLSFactory"]

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2 (RFC 9325); TLS 1.3 has its own, all of this kind
ACME_TLS, HTTP = b"acme-tls/1", b"http/1.1"


@implementer(IOpenSSLServerConnectionCreator)
class WebCertificates:
    """OpenSSL's contexts for what was handed over last.  A connection keeps those with which it began."""

    def __init__(self) -> None:
        self._context: SSL.Context | None = None
        self._for_authorities: dict[bytes, SSL.Context] = {}

    @property
    def is_there(self) -> bool:
        """There is a certificate, so that TLS can be spoken at all."""
        return self._context is not None

    def take_up(self, content: WebContent) -> None:
        """Use these from now on.  Raises ValueError or `OpenSSL.SSL.Error`, and changes nothing, where one cannot be used."""
        context = None
        if content.certificate is not None:
            chain = x509.load_pem_x509_certificates(content.certificate.chain_pem.encode("ascii"))
            context = _context(chain, content.certificate.key_pem)
            context.set_tlsext_servername_callback(self._choose)
            context.set_alpn_select_callback(lambda _, offered: HTTP if HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS)
        for_authorities = {}
        for host, one in content.alpn.items():
            its = _context([x509.load_der_x509_certificate(one.certificate_der)], one.key_pem)
            its.set_alpn_select_callback(lambda *_: ACME_TLS)
            for_authorities[host.encode("ascii")] = its
        self._context, self._for_authorities = context, for_authorities

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """As Twisted wants it."""
        if self._context is None:  # `WebTLSFactory` has looked
            raise SSL.Error("there is no certificate")
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        return connection

    def _choose(self, connection: SSL.Connection) -> None:
        """A CA offers that one protocol, and names the host (RFC 8737 section 3)."""
        its = self._for_authorities.get((connection.get_servername() or b"").lower())
        protocol = connection.get_app_data()
        if its is not None and isinstance(protocol, _Protocol) and offered_protocols(protocol.hello) == (ACME_TLS,):
            connection.set_context(its)


def _context(chain: list[x509.Certificate], key_pem: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_SINGLE_ECDH_USE)
    # Each answer says its length: an end without close_notify cuts nothing off.
    context.set_options(SSL.OP_IGNORE_UNEXPECTED_EOF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(CIPHERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    key: Any = serialization.load_pem_private_key(key_pem.encode("ascii"), password=None)
    context.use_certificate(chain[0])
    for one in chain[1:]:
        context.add_extra_chain_cert(one)
    context.use_privatekey(key)
    context.check_privatekey()
    return context


class _Protocol(TLSMemoryBIOProtocol):
    """Keeps what has come until the handshake is over, for its ClientHello to be read."""

    hello = b""
    _keeps = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """A Unix socket has none."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(enabled)

    def dataReceived(self, data: bytes) -> None:
        """As its own."""
        if self._keeps:
            self.hello += data
            self._keeps = len(self.hello) < HELLO_OCTETS
        super().dataReceived(data)
        if self._handshakeDone:
            self._keeps, self.hello = False, b""


class WebTLSFactory(TLSMemoryBIOFactory):
    """TLS around the connections of another factory."""

    noisy = False
    protocol = _Protocol

    def __init__(self, certificates: WebCertificates, inner: Any, clock: Any) -> None:
        super().__init__(certificates, False, inner, clock)
        self._certificates = certificates

    def buildProtocol(self, addr: Any) -> Any:
        """None, which closes it, where no certificate has been handed over."""
        return super().buildProtocol(addr) if self._certificates.is_there else None
