"""Our own listeners for the time of an order, where no web listener has the port: http-01 and tls-alpn-01.  In the reactor.

They are made of the web process's parts, show what the CA looks for and nothing else, and are closed when it has looked.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from mailserver.acme.alpn_certificate import alpn_certificate
from mailserver.acme.challenge import ShownChallenge
from mailserver.interfaces import Clock
from mailserver.web.answers import CHALLENGE_PATH, READ, WebAnswer, WebRequest
from mailserver.web.certificates import WebCertificates, WebTLSFactory
from mailserver.web.channel import HTTPFactory, WebRoom
from mailserver.web.content import WebCertificate, WebContent

__all__ = ["HTTPListener", "Listen", "TLSListener"]

Listen = Callable[[str, Any], Awaitable[Any]]
CONNECTIONS_MOST = 100


class _Listener:
    """Opens the first of the endpoints that can be opened.  `listen(endpoint, factory)` gives a port, or raises OSError."""

    log = Logger()

    def __init__(self, endpoints: Sequence[str], listen: Listen, clock: Clock) -> None:
        self._endpoints = endpoints
        self._listen = listen
        self._clock = clock
        self._port: Any = None
        self._room = WebRoom(connections=CONNECTIONS_MOST, connections_per_network=CONNECTIONS_MOST)
        self._shown: dict[str, bytes] = {}

    def factory(self) -> Any:
        """Of a listener without TLS."""
        return HTTPFactory(
            room=self._room,
            clock=self._clock,
            answering=self._answer,
            tell=lambda step, **fields: None,
            failed=lambda: self.log.failure("a CA's request could not be answered"),
            https_port=None,
        )

    def _answer(self, request: WebRequest) -> WebAnswer:
        """For any host: a CA may have been sent here by another one (RFC 8555 section 8.3)."""
        found = self._shown.get(request.target.partition("?")[0]) if request.method in READ else None
        headers = (("Cache-Control", "no-store"),)
        if found is None:
            return WebAnswer(status=404, body=b"There is nothing here.\n", headers=headers)
        return WebAnswer(status=200, body=found, media_type="application/octet-stream", headers=headers)

    async def open(self) -> None:
        """Raises OSError where none of them can be listened on."""
        if self._port is not None:
            return
        faults = []
        for endpoint in self._endpoints:
            try:
                self._port = await self._listen(endpoint, self.factory())
                return
            except Exception as error:  # noqa: BLE001  # CannotListenError and OSError, by any way
                faults.append(f"cannot listen on {endpoint}: {error}")
        raise OSError("; ".join(faults))

    async def close(self) -> None:
        """And end the connections."""
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        self._room.end()


class HTTPListener(_Listener):
    """http-01 (RFC 8555 section 8.3)."""

    kind = "http-01"

    async def show(self, challenges: Sequence[ShownChallenge]) -> None:
        """Raises OSError."""
        for one in challenges:
            self._shown[CHALLENGE_PATH + one.token] = one.key_authorization.encode("ascii")
        await self.open()

    async def withdraw(self, challenges: Sequence[ShownChallenge]) -> None:
        """The port is closed with the last."""
        for one in challenges:
            self._shown.pop(CHALLENGE_PATH + one.token, None)
        if not self._shown:
            await self.close()


class TLSListener(_Listener):
    """tls-alpn-01 (RFC 8737).  Who asks for anything else sees a certificate that is nobody's."""

    kind = "tls-alpn-01"

    def __init__(self, endpoints: Sequence[str], listen: Listen, clock: Clock) -> None:
        super().__init__(endpoints, listen, clock)
        self._certificates = WebCertificates()
        self._content = WebContent()

    async def show(self, challenges: Sequence[ShownChallenge]) -> None:
        """Raises OSError."""
        now = datetime.datetime.now(datetime.UTC)
        if self._content.certificate is None:
            nobodys = alpn_certificate("invalid", bytes(32), now)
            chain = ssl.DER_cert_to_PEM_cert(nobodys.certificate_der)
            self._content = WebContent(certificate=WebCertificate(chain, nobodys.key_pem))
        made = {one.host: alpn_certificate(one.host, one.digest, now) for one in challenges}
        self._content = replace(self._content, alpn={**self._content.alpn, **made})
        self._certificates.take_up(self._content)
        await self.open()

    async def withdraw(self, challenges: Sequence[ShownChallenge]) -> None:
        """The port is closed with the last."""
        gone = {one.host for one in challenges}
        left = {host: its for host, its in self._content.alpn.items() if host not in gone}
        self._content = replace(self._content, alpn=left)
        self._certificates.take_up(self._content)
        if not left:
            await self.close()

    def factory(self) -> Any:
        """See above."""
        return WebTLSFactory(self._certificates, super().factory(), self._clock)
