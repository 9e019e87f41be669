"""How the relay logs in to a smarthost (RFC 4954)."""

from __future__ import annotations

from collections.abc import Callable, Collection

from mailserver.sasl.client import CLIENT_MECHANISMS, ClientExchange, Credentials

__all__ = ["RelayLogin"]


class RelayLogin:
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

    def exchange(self, offered: Collection[str]) -> ClientExchange | None:
        """An exchange with the best of the mechanisms offered; None where none of them is known.

        Raises OSError where the password cannot be read, and ValueError for credentials that no mechanism can carry.
        """
        password = self._read_password()
        if self._credentials is None or self._credentials.password != password:
            self._credentials = Credentials(self._username, password)
        return self._credentials.exchange(offered, self._among)
