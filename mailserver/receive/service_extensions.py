"""What plugins add to SMTP (`IExtension`): who is offered it, and how their commands are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import TimeoutError as Late

from mailserver.interfaces import Clock, IExtension
from mailserver.mail.envelope import Envelope, Peer
from mailserver.mail.reply import Reply
from mailserver.plugins.awaiting import FAULTS, later, within
from mailserver.plugins.failure_log import FailureLog, Fault, place_of
from mailserver.receive.judging import BoundFilter
from mailserver.smtp import replies
from mailserver.smtp.server.additions import SMTPExtension, clashes

__all__ = ["ExtensionClash", "ServiceExtensions"]


class ExtensionClash(ValueError):
    """What components add does not fit together, or is no `SMTPExtension`; the words name them."""


class ServiceExtensions:
    """Those of one service, in the order of the configuration.  Raises `ExtensionClash`."""

    __slots__ = ("_added", "_clock", "_note")

    def __init__(
        self, filters: Sequence[BoundFilter], *, service: str, clock: Clock, note: Callable[..., None]
    ) -> None:
        mine = [bound for bound in filters if bound.services is None or service in bound.services]
        failures = FailureLog(clock.seconds)
        self._added = [_Added(bound, failures) for bound in mine if IExtension.providedBy(bound.component)]
        if twice := clashes(one.extension for one in self._added):
            raise ExtensionClash("; ".join(twice))
        self._clock = clock
        self._note = note

    def __bool__(self) -> bool:
        return bool(self._added)

    def offered_to(self, peer: Peer) -> tuple[SMTPExtension, ...]:
        """After EHLO or LHLO; HELO offers nothing.  Never raises."""
        if peer.hello_verb not in ("EHLO", "LHLO"):
            return ()
        return tuple(one.extension for one in self._added if one.offers(peer))

    async def command(self, id: str, verb: str, argument: str, peer: Peer, envelope: Envelope | None) -> Reply:
        """The reply to a command, within the component's deadline.  `id` is whose road it is noted on.  Never raises."""
        added = _first(one for one in self._added if any(command.verb == verb for command in one.extension.commands))
        if added is None:  # a reload has taken away what EHLO had announced
            return replies.COMMAND_NOT_OFFERED
        began, error = self._clock.seconds(), ""
        reply = replies.LOCAL_ERROR
        try:
            answer = await within(
                added.bound.deadline_seconds, later(added.component.command(verb, argument, peer, envelope)), self._clock
            )
            found = added.extension.replies.get(answer) if isinstance(answer, str) else None
            if found is None:
                error = f"no reply of the extension {added.extension.keyword} has this name: {type(answer).__name__}"
            else:
                reply = found
        except Late:
            error = f"DeadlineExceeded: no answer within {added.bound.deadline_seconds:g} s"
        except FAULTS as fault:
            added.tell(fault)
            error = type(fault).__name__
        self._note(
            id,
            "command",
            filter=added.bound.name,
            command=verb,
            peer=peer.address,
            reply=str(reply),
            ms=round((self._clock.seconds() - began) * 1000, 1),
            error=error,
        )
        return reply


class _Added:
    """One component's extension."""

    __slots__ = ("_failures", "bound", "component", "extension")

    def __init__(self, bound: BoundFilter, failures: FailureLog) -> None:
        self._failures = failures
        self.bound = bound
        component: Any = bound.component
        try:
            extension = component.extension
        except FAULTS as error:
            raise ExtensionClash(f"{bound.name}: its extension cannot be read: {type(error).__name__}") from error
        if not isinstance(extension, SMTPExtension):
            raise ExtensionClash(f"{bound.name}: its extension is no SMTPExtension but {type(extension).__name__}")
        self.component = component
        self.extension = extension

    def offers(self, peer: Peer) -> bool:
        try:
            return self.component.offers(peer) is True
        except FAULTS as error:
            self.tell(error)
            return False

    def tell(self, error: Fault) -> None:
        """In the log."""
        self._failures.tell(f"the filter {self.bound.name} (extension)", error, place_of(error, self.component))


def _first(added: Iterable[_Added]) -> _Added | None:
    return next(iter(added), None)
