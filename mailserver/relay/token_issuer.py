"""Asks an issuer of tokens, over https: for its metadata, a token, the next token, a code for a person.

The administrator has configured the issuer, so it may be in any network.  It is not believed in what it sends: the certificate is
verified, an answer has its bounds in octets and time, and nobody is sent on (a redirect is no answer).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.ssl import platformTrust
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer
from twisted.web.http_headers import Headers

from mailserver.config.password_file import password_of
from mailserver.plugins.awaiting import within
from mailserver.relay.token_answers import (
    DeviceCode,
    IssuedTokens,
    Issuer,
    TokenFailed,
    device_code_of,
    issuer_of,
    tokens_of,
)
from mailserver.transport.bounded import AnswerContent, BoundedEndpoint, OneEndpoint
from mailserver.transport.verified import verified

__all__ = ["Client", "TokenIssuer"]

ANSWER_OCTETS_MOST = 131_072
ASK_SECONDS = 10.0  # metadata and token one after the other: a connection that waits to log in has 25 seconds
CONNECT_SECONDS = 8.0
WELL_KNOWN = "/.well-known/openid-configuration"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"  # RFC 8628 section 3.4


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: our id at the issuer, the file with our secret there (None for none), and what the token shall be good for.

    With `is_itself` the token is the client's own (RFC 6749 section 4.4), else a person's who has agreed once.
    """

    id: str
    secret_file: str | None
    scopes: tuple[str, ...]
    is_itself: bool = False


class TokenIssuer:
    """The issuer with this URL.  `seconds()` is the wall clock; `trust_root` is Twisted's, None for the system's authorities."""

    def __init__(
        self, url: str, client: Client, *, reactor: Any, seconds: Callable[[], float], trust_root: Any = None
    ) -> None:
        self.url = url
        self.client = client
        self._reactor = reactor
        self._seconds = seconds
        self._trust_root = trust_root
        self._metadata: Issuer | None = None

    async def renewed(self, before: IssuedTokens | None) -> IssuedTokens:
        """The next token.  Raises `TokenFailed`."""
        if self.client.is_itself:
            form = {"grant_type": "client_credentials", "scope": " ".join(self.client.scopes)}
            return await self._tokens(form)
        if before is None or not before.refresh:
            raise TokenFailed("nobody has agreed to it: `mailserver smarthost login`", is_refused=True)
        return await self._tokens({"grant_type": "refresh_token", "refresh_token": before.refresh}, before)

    async def device_code(self) -> DeviceCode:
        """A code for a person.  Raises `TokenFailed`."""
        issuer = await self.metadata()
        if not issuer.device_endpoint:
            raise TokenFailed('the issuer has no device code flow: try oauth_flow = "code"', is_refused=True)
        form = {"scope": " ".join(self.client.scopes)}
        return device_code_of(*await self._post(issuer, issuer.device_endpoint, form), self._secrets(form))

    async def of_device(self, code: DeviceCode) -> IssuedTokens:
        """What came of it.  Raises `TokenFailed`: `authorization_pending` and `slow_down` mean later again (section 3.5)."""
        return await self._tokens({"grant_type": DEVICE_GRANT, "device_code": code.code})

    async def of_code(self, code: str, verifier: str, redirect: str) -> IssuedTokens:
        """For the code that a person's browser was sent back with (RFC 6749 section 4.1.3, RFC 7636).  Raises `TokenFailed`."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
        return await self._tokens(form)

    async def metadata(self) -> Issuer:
        """What the issuer says of itself, asked for once.  Raises `TokenFailed`."""
        if self._metadata is None:
            status, octets = await self._ask(self.url.rstrip("/") + WELL_KNOWN, {}, None)
            self._metadata = issuer_of(status, octets, self.url)
        return self._metadata

    async def _tokens(self, form: Mapping[str, str], before: IssuedTokens | None = None) -> IssuedTokens:
        issuer = await self.metadata()
        try:
            status, octets = await self._post(issuer, issuer.token_endpoint, form)
            return tokens_of(status, octets, self._secrets(form), self._seconds(), before)
        except TokenFailed as fault:
            if not fault.error:
                self._metadata = None  # it may have moved
            raise

    async def _post(self, issuer: Issuer, url: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        fields, secret = {"client_id": self.client.id, **form}, self._secret()
        headers = {b"Content-Type": b"application/x-www-form-urlencoded"}
        if secret and issuer.posts_secret:
            fields["client_secret"] = secret
        elif secret:  # RFC 6749 section 2.3.1
            del fields["client_id"]
            pair = f"{quote_plus(self.client.id)}:{quote_plus(secret)}".encode("ascii")
            headers[b"Authorization"] = b"Basic " + base64.b64encode(pair)
        return await self._ask(url, headers, urlencode(fields).encode("ascii"))

    def _secret(self) -> str:
        """Read each time, so that a new one needs no restart.  Raises `TokenFailed`."""
        path = self.client.secret_file
        if path is None:
            return ""
        try:
            return password_of(path)
        except (OSError, UnicodeDecodeError) as error:
            raise TokenFailed(f"the client's secret cannot be read: {error}") from None

    def _secrets(self, form: Mapping[str, str]) -> list[str]:
        names = ("refresh_token", "device_code", "code", "code_verifier")
        return [self._secret(), *[form[name] for name in names if name in form]]

    async def _ask(self, url: str, headers: Mapping[bytes, bytes], body: bytes | None) -> tuple[int, bytes]:
        """Status and content.  Raises `TokenFailed`."""
        host = urlsplit(url).hostname or ""
        endpoint = BoundedEndpoint(self._endpoint(url), ANSWER_OCTETS_MOST)
        try:
            asked = Deferred.fromCoroutine(self._exchange(endpoint, url, headers, body))
            return await within(ASK_SECONDS, asked, self._reactor)
        except Late:
            raise TokenFailed(f"{host} gives no answer within {ASK_SECONDS:g} seconds") from None
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  of HTTP, TLS, the network: there are many, and all mean that there is no answer
            words = f"more than {ANSWER_OCTETS_MOST} octets" if endpoint.is_exceeded else _words(error)
            raise TokenFailed(f"{host} gives no answer: {words}") from None  # what was raised may hold the request
        finally:
            endpoint.cut()

    async def _exchange(
        self, endpoint: BoundedEndpoint, url: str, headers: Mapping[bytes, bytes], body: bytes | None
    ) -> tuple[int, bytes]:
        agent = Agent.usingEndpointFactory(self._reactor, OneEndpoint(endpoint))
        fields = Headers({b"User-Agent": [b"mailserver"], b"Accept": [b"application/json"]})
        for name, value in headers.items():
            fields.addRawHeader(name, value)
        producer = None if body is None else FileBodyProducer(io.BytesIO(body))
        response = await agent.request(b"GET" if body is None else b"POST", url.encode("ascii"), fields, producer)
        content = AnswerContent()
        response.deliverBody(content)
        return response.code, await content.whole

    def _endpoint(self, url: str) -> Any:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_secured = parts.scheme == "https"
        plain = HostnameEndpoint(self._reactor, host, parts.port or (443 if is_secured else 80), timeout=CONNECT_SECONDS)
        if not is_secured:
            return plain
        if self._trust_root is None:
            self._trust_root = platformTrust()
        return wrapClientTLS(verified(host, self._trust_root), plain)


def _words(error: Any) -> str:
    """What was wrong, without Twisted's wrappings."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        last = reasons[-1]
        return _words(last.value if isinstance(last, Failure) else last)
    return f"{type(error).__name__}: {error}"[:200]
