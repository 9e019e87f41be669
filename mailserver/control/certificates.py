"""The commands about the certificates that come from a CA."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late

from mailserver.control.certificate_facts import REASONS, described
from mailserver.control.parts import RunningServer
from mailserver.control.server import CommandRefused
from mailserver.plugins.awaiting import later, within

__all__ = ["CertificateCommands"]

ANSWER_SECONDS = 240.0  # who asks is hung up on when nothing was said for 300


class CertificateCommands:
    """``certificate.list``, ``.renew``, ``.rollover``, ``.revoke``."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server

    def commands(self) -> Mapping[str, Any]:
        """Name and function."""
        return {
            "certificate.list": self.list,
            "certificate.renew": self.renew,
            "certificate.rollover": self.roll_over,
            "certificate.revoke": self.revoke,
        }

    async def list(self, _: dict[str, Any]) -> dict[str, Any]:
        """The `certificates`, as they were found at the last look."""
        return {"certificates": [described(one) for one in self._server.acme.last.values()]}

    async def renew(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`name`, `by`: the `certificate` that was got just now."""
        return await self._done("renewed", arguments, self._server.acme.renew(_name(arguments)))

    async def roll_over(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`name`, `by`: the `certificate`, by the next key where that could be used at once."""
        return await self._done("key_rolled", arguments, self._server.acme.roll_over(_name(arguments)))

    async def revoke(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`name`, `reason`, `by`: the `certificate` that has followed it."""
        reason = REASONS.get(str(arguments.get("reason", "")))
        if reason is None:
            raise CommandRefused(f"a reason is one of {', '.join(REASONS)}")
        return await self._done("revoked", arguments, self._server.acme.revoke(_name(arguments), reason))

    async def _done(self, what: str, arguments: Mapping[str, Any], doing: Awaitable[Any]) -> dict[str, Any]:
        server = self._server
        try:
            found = described(await within(ANSWER_SECONDS, _kept_going(doing), server.reactor))
        except Late:
            raise CommandRefused("the CA keeps us waiting; it goes on all the same: mailserver certificate list") from None
        except Exception as error:
            if not isinstance(error, server.acme.REFUSALS):
                raise
            raise CommandRefused(str(error)) from error
        server.steps.note(server.ids.next(), "certificate", name=_name(arguments), what=what, by=str(arguments.get("by", "")))
        return {"certificate": found}


def _kept_going(doing: Awaitable[Any]) -> Deferred[Any]:
    """What comes of it.  Cancelling that ends the waiting alone: a CA that has issued a certificate has issued it."""
    answer: Deferred[Any] = Deferred()

    def told(result: Any) -> None:
        if not answer.called:
            answer.callback(result)

    later(doing).addBoth(told)
    return answer


def _name(arguments: Mapping[str, Any]) -> str:
    return str(arguments.get("name") or "mail")
