"""How the relay logs in to a smarthost (RFC 4954): with a password, or with a token of OAuth."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from mailserver.relay.token_keeper import TokenKeeper
from mailserver.sasl.client import CLIENT_MECHANISMS, Credentials
from mailserver.sasl.oauth import TOKEN_MECHANISMS, TokenCredentials, TokenExchange
from mailserver.sasl.steps import ChannelBindings
from mailserver.smtp.client.auth import AuthExchange

__all__ = ["PasswordLogin", "RelayLogin", "TokenLogin"]


class RelayLogin(Protocol):
    """How to log in."""

    def exchange(
        self, offered: Collection[str], bindings: ChannelBindings
    ) -> AuthExchange | Deferred[AuthExchange | None] | None:
        """An exchange with the best of the mechanisms offered; None where none of them is known.

        `bindings` are those of the connection.  Raises OSError where the password cannot be read, ValueError for credentials
        that no mechanism can carry, `TokenFailed` where there is no token; the Deferred fails with the same.
        """

    def accepted(self, exchange: AuthExchange) -> None:
        """The host has let us in."""

    def refused(self, exchange: AuthExchange, why: str) -> None:
        """It has not, for good, as far as it goes."""


class PasswordLogin:
    """The credentials for a smarthost.

    `read_password` is called at each login, so that a new password needs no restart.  `among` are the mechanisms that may be
    used.
    """

    def __init__(
        self, username: str, read_password: Callable[[], str], among: Collection[str] = CLIENT_MECHANISMS
    ) -> None:
        self._username = username
        self._read_password = read_password
        self._among = among
        self._credentials: Credentials | None = None

    def exchange(self, offered: Collection[str], bindings: ChannelBindings) -> AuthExchange | None:
        """As `RelayLogin`."""
        password = self._read_password()
        if self._credentials is None or self._credentials.password != password:
            self._credentials = Credentials(self._username, password)
        return self._credentials.exchange(offered, self._among, bindings)

    def accepted(self, exchange: AuthExchange) -> None:
        """As `RelayLogin`."""

    def refused(self, exchange: AuthExchange, why: str) -> None:
        """As `RelayLogin`: the password is read again for the next one."""


class TokenLogin:
    """A user's name and the tokens for it.  `host` ("" for an address) and `port` are told to the host (RFC 7628 section 3.1)."""

    def __init__(
        self, username: str, keeper: TokenKeeper, *, host: str, port: int, among: Collection[str] = TOKEN_MECHANISMS
    ) -> None:
        self.keeper = keeper
        self._username = username
        self._host = host
        self._port = port
        self._among = among

    def exchange(
        self, offered: Collection[str], bindings: ChannelBindings
    ) -> AuthExchange | Deferred[AuthExchange | None] | None:
        """As `RelayLogin`."""
        token = self.keeper.token()
        if isinstance(token, Deferred):
            made: Deferred[Any] = token.addCallback(self._exchange, offered)
            return made
        return self._exchange(token, offered)

    def _exchange(self, token: str, offered: Collection[str]) -> AuthExchange | None:
        return TokenCredentials(self._username, token, self._host, self._port).exchange(offered, self._among)

    def accepted(self, exchange: AuthExchange) -> None:
        """As `RelayLogin`."""
        if isinstance(exchange, TokenExchange):
            self.keeper.accepted(exchange.credentials.token)

    def refused(self, exchange: AuthExchange, why: str) -> None:
        """As `RelayLogin`: the token may have been revoked."""
        if isinstance(exchange, TokenExchange):
            self.keeper.rejected(exchange.credentials.token, why)
