"""Who may log in, by one password."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from mailserver.interfaces import Denial, Denied, IAuthenticator, ILogin, LoggedIn
from mailserver.mail.address import Address, AddressError, normal_names
from mailserver.mail.envelope import Peer
from mailserver.sasl.steps import ChannelBindings

__all__ = ["PASSWORD", "MemoryAuthenticator"]

PASSWORD = "password"  # noqa: S105  # of everybody in a test


@implementer(ILogin)
class MemoryLogin:
    """AUTH PLAIN with the one password."""

    def __init__(self, directory: Any) -> None:
        self._directory = directory

    async def respond(self, data: bytes | None) -> LoggedIn | Denied:
        """The initial response has it all (RFC 4616)."""
        try:
            _, name, password = (data or b"").decode().split("\0")
            found = await self._directory.find(*normal_names(Address.parse(name, utf8=True)))
        except (ValueError, AddressError) as error:
            return Denied(Denial.MALFORMED, str(error))
        if found is None or password != PASSWORD:
            return Denied(Denial.CREDENTIALS, "another password", name)
        return LoggedIn(f"{found.user}@{found.domain}", "PLAIN")

    def cancel(self) -> None:
        """Nothing waits."""


@implementer(IAuthenticator)
class MemoryAuthenticator:
    """Lets in every account with `PASSWORD`, in the clear too: there is no wire."""

    def __init__(self, directory: Any) -> None:
        self._directory = directory

    def mechanisms(self, peer: Peer) -> Sequence[str]:
        """PLAIN."""
        return ("PLAIN",)

    def begin(self, mechanism: str, peer: Peer, bindings: ChannelBindings) -> MemoryLogin:
        """Begin it."""
        return MemoryLogin(self._directory)

    async def granted_senders(self, account: str) -> Sequence[str]:
        """None beside the account's own."""
        return ()
