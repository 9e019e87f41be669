"""The https client for names that strangers choose: policies, keys, reports of a domain that somebody has put into the DNS.

Whoever names a host may name one in our own network, one that drips for hours, one that never stops, one that sends us on.  So:

* https alone, port 443 alone, no user in the URL; redirects are answers like any other
* the name is looked up once, by our own resolver; addresses that are not public are left out (`mail.networks.is_public`), and the
  connection goes to an address that was looked at: what the DNS says a moment later does not count
* the certificate is verified for the name by the system's authorities
* 64 KB of content, 32 KB beside it, 60 seconds for all of it, waiting for a turn included
* twenty at once, ten for one component

What an administrator has configured is trusted and does not go through here.
"""

from __future__ import annotations

import io
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.ssl import platformTrust
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer
from twisted.web.http_headers import Headers

from mailserver.fetching.place import HTTPS_PORT, Place, place_of
from mailserver.interfaces import Fetch, IResolver
from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.mail.fetched import Fetched, FetchFailed, Unverified
from mailserver.mail.networks import NO_NETWORKS, Networks, is_public
from mailserver.plugins.awaiting import later, within
from mailserver.transport.bounded import AnswerContent, BoundedEndpoint, OneEndpoint
from mailserver.transport.certificate_faults import words_of
from mailserver.transport.verified import verified

__all__ = ["Fetching"]

BODY_OCTETS_MOST = 65_536
OTHER_OCTETS_MOST = 32_768  # status line, header fields, the frames of chunks
WHOLE_SECONDS = 60.0
CONNECT_SECONDS = 15.0
ADDRESSES_MOST = 4  # that are tried
AT_ONCE = 20
AT_ONCE_FOR_ONE = 10
WAITING_MOST = 200
USER_AGENT = b"mailserver"
OF_TLS = "TLS: "


class Fetching:
    """The client of the whole server; `lend()` makes what one component is lent.

    `allow` are networks that are not public and may be connected to, at any port: for tests.  `trust_root` is Twisted's
    `IOpenSSLTrustRoot`, None for the system's authorities.
    """

    def __init__(
        self, *, reactor: Any, resolver: IResolver, allow: Networks = NO_NETWORKS, trust_root: Any = None
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self.allow = allow
        self._trust_root = trust_root
        self._turns = DeferredSemaphore(AT_ONCE)

    def lend(self) -> Fetch:
        """The client, with turns of the component's own."""
        own = DeferredSemaphore(AT_ONCE_FOR_ONE)

        async def fetch(
            url: str, /, *, body: bytes | None = None, content_type: str = "", accept: str = "*/*"
        ) -> Fetched:
            place = place_of(url)
            fields = _fields(accept, content_type if body is not None else "")
            work = Deferred.fromCoroutine(self._in_turn(own, url, place, fields, body))
            try:
                return await within(WHOLE_SECONDS, work, self._reactor)
            except Late:
                raise FetchFailed(f"{place.host}: no whole answer within {WHOLE_SECONDS:g} seconds") from None

        return fetch

    async def _in_turn(
        self, own: DeferredSemaphore, url: str, place: Place, fields: Headers, body: bytes | None
    ) -> Fetched:
        if len(own.waiting) >= WAITING_MOST:
            raise FetchFailed(f"{place.host}: {WAITING_MOST} others wait already")
        await own.acquire()
        try:
            await self._turns.acquire()
            try:
                return await self._fetch(url, place, fields, body)
            finally:
                self._turns.release()
        finally:
            own.release()

    async def _fetch(self, url: str, place: Place, fields: Headers, body: bytes | None) -> Fetched:
        fault: Exception | None = None
        for address in await self._addresses(place):
            endpoint = self._endpoint(address, place)
            try:
                return await self._ask(endpoint, url, place, fields, body)
            except ConnectError as error:
                fault = error
            except (FetchFailed, CancelledError):
                raise
            except Exception as error:  # of HTTP or TLS: there are many, and all mean that there is no answer
                words = _words(error, endpoint)
                kind = Unverified if words.startswith(OF_TLS) else FetchFailed
                raise kind(f"{place.host}: {words}") from error
            finally:
                endpoint.cut()
        raise FetchFailed(f"{place.host} cannot be reached: {fault}")

    # --- where ---

    async def _addresses(self, place: Place) -> list[str]:
        """Those of the host that may be connected to.  Raises `FetchFailed` where there are none."""
        asked = [later(self._resolver.query(place.host, record_type)) for record_type in ("A", "AAAA")]
        answers: list[Any] = [answer for _, answer in await DeferredList(asked, consumeErrors=True)]
        found = [record for answer in answers if isinstance(answer, Answer) for record in answer.records]
        if not found:
            for answer in answers:
                if isinstance(answer, Failure):
                    answer.trap(LookupFailed)
                    raise FetchFailed(f"{place.host}: {answer.getErrorMessage()}")
            raise FetchFailed(f"{place.host} has no address")
        good = [record for record in found if self._may_connect(record, place.port)]
        if not good:
            port = "" if place.port == HTTPS_PORT else f" at port {place.port}"
            raise FetchFailed(f"{place.host} leads to {found[0]}{port}, which is not for the public")
        return good[:ADDRESSES_MOST]

    def _may_connect(self, address: str, port: int) -> bool:
        return address in self.allow or (port == HTTPS_PORT and is_public(address))

    def _endpoint(self, address: str, place: Place) -> BoundedEndpoint:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        plain = kind(self._reactor, address, place.port, timeout=CONNECT_SECONDS)
        if self._trust_root is None:
            self._trust_root = platformTrust()
        secured = wrapClientTLS(verified(place.host, self._trust_root), plain)
        return BoundedEndpoint(secured, BODY_OCTETS_MOST + OTHER_OCTETS_MOST)

    # --- question and answer ---

    async def _ask(
        self, endpoint: BoundedEndpoint, url: str, place: Place, fields: Headers, body: bytes | None
    ) -> Fetched:
        agent = Agent.usingEndpointFactory(self._reactor, OneEndpoint(endpoint))
        producer = None if body is None else FileBodyProducer(io.BytesIO(body))
        response = await agent.request(b"GET" if body is None else b"POST", place.url, fields, producer)
        coding = b",".join(response.headers.getRawHeaders(b"content-encoding", ()))
        if coding.strip().lower() not in (b"", b"identity"):
            raise FetchFailed(f"{place.host}: the content is encoded, which nobody has asked for")
        content = Collected()
        response.deliverBody(content)
        octets = await content.whole
        kind = response.headers.getRawHeaders(b"content-type", (b"",))[0].partition(b";")[0].strip().lower()
        return Fetched(url, response.code, kind[:200].decode("ascii", "replace"), octets)


class Collected(AnswerContent):
    """Fails with `FetchFailed` for content that is too large, too."""

    def dataReceived(self, data: bytes) -> None:
        """A piece of it."""
        super().dataReceived(data)
        if len(self.octets) > BODY_OCTETS_MOST and not self.whole.called:
            self.whole.errback(FetchFailed(f"the answer has more than {BODY_OCTETS_MOST} octets"))


def _fields(accept: str, content_type: str) -> Headers:
    fields = {b"User-Agent": [USER_AGENT], b"Accept": [_field(accept)]}
    if content_type:
        fields[b"Content-Type"] = [_field(content_type)]
    return Headers(fields)


def _field(text: str) -> bytes:
    """Raises ValueError for what would end the line."""
    if not text.isascii() or not text.isprintable():
        raise ValueError("a header field is one line of printable ASCII")
    return text.encode("ascii")


def _words(error: Any, endpoint: BoundedEndpoint) -> str:
    """What was wrong, without Twisted's wrappings."""
    if endpoint.is_exceeded:
        return f"the answer has more than {BODY_OCTETS_MOST} octets"
    inner = [reason.value if isinstance(reason, Failure) else reason for reason in getattr(error, "reasons", None) or ()]
    for one in inner:
        if isinstance(one, SSL.Error):
            return f"{OF_TLS}{words_of(one)}"
    return _words(inner[-1], endpoint) if inner else words_of(error)
