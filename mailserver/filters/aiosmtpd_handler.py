"""Asks a handler that was written for aiosmtpd, such as ``mypackage.handlers:Quiet``.

Its ``handle_EHLO`` (or ``handle_HELO``), ``handle_MAIL``, ``handle_RCPT`` and ``handle_DATA`` are asked at the stages of those
names, with a `Session` and an `Envelope` of aiosmtpd that live as long as the connection and the transaction.  The status that it
returns becomes a verdict.  It needs asyncio's loop: ``twistd --reactor=asyncio``.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
from argparse import ArgumentParser
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Content,
    Defer,
    Disconnect,
    Envelope,
    IComponent,
    IComponentFactory,
    IContentFilter,
    IPeerFilter,
    IRecipientFilter,
    ISenderFilter,
    Options,
    Pass,
    Peer,
    Recipient,
    Refuse,
    Services,
    Size,
    Verdict,
)
from mailserver.plugins.asyncio_world import NO_LOOP, in_asyncio
from mailserver.plugins.life import StartError

__all__ = ["AiosmtpdHandler", "AiosmtpdOptions", "factory"]

STATUS = re.compile(r"([2-5][0-9][0-9])(?:[ -]+([245]\.[0-9]{1,3}\.[0-9]{1,3})(?=\s|$))?(?:[\s-]+(.*))?", re.DOTALL)
NEVER_CALLED = (
    "handle_AUTH", "handle_STARTTLS", "handle_NOOP", "handle_RSET", "handle_QUIT", "handle_VRFY", "handle_HELP", "handle_PROXY",
    "handle_exception",
)  # fmt: skip
MAY_HANG_UP = frozenset({"handle_EHLO", "handle_HELO", "handle_MAIL"})
WORDS_CHARACTERS = 500
log = Logger()


class AiosmtpdOptions(Options):
    """Which handler, and what it is made with."""

    handler: str
    """The class: `package.module:Class`."""
    arguments: tuple[str, ...] = ()
    """What it is made with: the arguments of its `from_cli`, where it has one, else of the class itself."""
    content_bytes: Size = 32 << 20
    """The largest message that it is given, which is in memory then; it fails at a larger one."""


class WhatTheServerIs:
    """In place of aiosmtpd's `SMTP`, which a handler gets as `server`: what they commonly look at."""

    def __init__(self, handler: Any, hostname: str, session: Any, envelope: Any) -> None:
        self.event_handler = handler
        self.hostname = hostname
        self.session = session
        self.envelope = envelope
        self.loop = session.loop
        self.transport = None


@implementer(IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter, IComponent)
class AiosmtpdHandler:
    """`types` are aiosmtpd's classes `Session` and `Envelope`; `name` is the filter's."""

    def __init__(
        self, handler: Any, options: AiosmtpdOptions, services: Services, types: tuple[Callable[..., Any], Callable[..., Any]]
    ) -> None:
        self._handler = handler
        self._most = options.content_bytes
        self._services = services
        self._name = services.name
        self._session_type, self._envelope_type = types

    async def start(self) -> None:
        """Raises `StartError` where the reactor is not asyncio's."""
        import asyncio

        turn: Deferred[None] = Deferred()
        self._services.clock.callLater(0, turn.callback, None)
        await turn  # before the first turn no loop runs
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise StartError(f"the filter {self._name}: {NO_LOOP}") from None
        never = [name for name in NEVER_CALLED if callable(getattr(self._handler, name, None))]
        if never:
            log.warn("the filter {name}: its handler's {hooks} are not called here", name=self._name, hooks=", ".join(never))

    async def stop(self) -> None:
        """Nothing to end: a handler has no life of its own."""

    async def judge_peer(self, peer: Peer) -> Verdict:
        """At connect there is a session; after EHLO and HELO the handler is asked."""
        session = self._session(peer)
        notes = {"session": session}
        if not peer.hello:
            return Pass(notes=notes)
        session.extended_smtp = peer.hello_verb != "HELO"
        hook = "handle_EHLO" if session.extended_smtp and hasattr(self._handler, "handle_EHLO") else "handle_HELO"
        arguments: list[Any] = [peer.hello]
        if hook == "handle_EHLO" and len(inspect.signature(self._handler.handle_EHLO).parameters) > 4:
            arguments.append([])  # the lines that it could add to: what is offered is the server's matter
        verdict = await self._ask(hook, session, self._envelope_type(), *arguments)
        session.host_name = peer.hello
        return Pass(notes=notes) if isinstance(verdict, Pass) else verdict

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """A new envelope."""
        session, theirs = self._session(envelope.peer), self._envelope_type()
        theirs.smtp_utf8 = envelope.parameters.smtputf8
        theirs.mail_options = _mail_options(envelope)
        sender = "" if envelope.sender is None else str(envelope.sender)
        verdict = await self._ask("handle_MAIL", session, theirs, sender, list(theirs.mail_options))
        theirs.mail_from = sender
        notes = {"session": session, "envelope": theirs, "id": envelope.id}
        return Pass(notes=notes) if isinstance(verdict, Pass) else verdict

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """One after the other, as they come."""
        theirs = self._envelope(envelope)
        return await self._ask("handle_RCPT", self._session(envelope.peer), theirs, str(recipient.address), [])

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """The message as it came, whole."""
        if content.size > self._most:
            raise ValueError(f"a message of {content.size} octets; the handler gets {self._most} at most (content_bytes)")
        if content.path is None:
            octets = b"".join(content.chunks())
        else:
            octets = await self._services.run_in_thread(lambda: b"".join(content.chunks()))
        theirs = self._envelope(envelope)
        theirs.content = theirs.original_content = octets
        theirs.rcpt_tos = [str(one.address) for one in envelope.recipients]
        theirs.rcpt_options = []
        verdict = await self._ask("handle_DATA", self._session(envelope.peer), theirs)
        changed = theirs.content is not octets and theirs.content != octets
        theirs.content = theirs.original_content = None  # the connection may be open for long
        if changed and isinstance(verdict, Pass):
            raise ValueError("the handler has changed the content, which only a modifier may (IModifier)")
        return verdict

    def _session(self, peer: Peer) -> Any:
        """That of the connection; a program's message without one has a session of its own."""
        import asyncio

        session: Any = peer.notes.get(self._name, {}).get("session")
        if session is None:
            session = self._session_type(asyncio.get_running_loop())
            session.host_name, session.extended_smtp = peer.hello or None, peer.hello_verb != "HELO"
        session.peer = peer.address, peer.port
        session.ssl = None if peer.tls is None else {"cipher": (peer.tls.cipher, peer.tls.version, 0), "peercert": None}
        session.authenticated, session.auth_data = bool(peer.login), peer.login or None
        return session

    def _envelope(self, envelope: Envelope) -> Any:
        """That of the transaction."""
        notes = envelope.peer.notes.get(self._name, {})
        if notes.get("id") == envelope.id:
            return notes["envelope"]
        theirs = self._envelope_type()
        theirs.smtp_utf8, theirs.mail_options = envelope.parameters.smtputf8, _mail_options(envelope)
        theirs.mail_from = "" if envelope.sender is None else str(envelope.sender)
        return theirs

    async def _ask(self, hook: str, session: Any, theirs: Any, *arguments: Any) -> Verdict:
        method = getattr(self._handler, hook, None)
        if method is None:
            return Pass()
        server = WhatTheServerIs(self._handler, self._services.hostname, session, theirs)
        status = await in_asyncio(_awaited(method(server, session, theirs, *arguments)))
        if isinstance(status, list) and hook == "handle_EHLO":  # its reply, line by line
            status = status[-1] if status else "250 OK"
        return _verdict(hook, status)


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def _verdict(hook: str, status: Any) -> Verdict:
    """What an SMTP status says.  Raises `ValueError` for what is none."""
    match = STATUS.fullmatch(status) if isinstance(status, str) else None
    if match is None or match[1][0] == "3":
        raise ValueError(f"{hook} has returned {repr(status)[:80]}, no status such as '250 OK'")
    code, enhanced, words = match.groups()
    why = (words or "").strip()[:WORDS_CHARACTERS] or f"{hook}: {code}"
    if code == "421" and hook in MAY_HANG_UP:
        return Disconnect(why)
    match code[0]:
        case "4":
            return Defer(why, enhanced) if enhanced and enhanced[0] == "4" else Defer(why)
        case "5":
            return Refuse(why, enhanced) if enhanced and enhanced[0] == "5" else Refuse(why)
        case _:
            return Pass()


def _mail_options(envelope: Envelope) -> list[str]:
    """The parameters of MAIL, as aiosmtpd gives them."""
    parameters = envelope.parameters
    found = [] if parameters.size is None else [f"SIZE={parameters.size}"]
    if parameters.body != "7BIT":
        found.append(f"BODY={parameters.body}")
    return [*found, "SMTPUTF8"] if parameters.smtputf8 else found


class CommandLine(ArgumentParser):
    """What a handler's `from_cli` complains to."""

    def error(self, message: str) -> NoReturn:
        """Raises ValueError."""
        raise ValueError(message)


@implementer(IComponentFactory)
class AiosmtpdFactory:
    """Makes the filter for ``[[filter]] use = "aiosmtpd"``."""

    name = "aiosmtpd"
    summary = "Asks a handler that was written for aiosmtpd (needs twistd --reactor=asyncio)."
    api_version = "1.0"
    provides = (IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter)
    options = AiosmtpdOptions

    def build(self, options: Any, services: Services) -> AiosmtpdHandler:
        """Return the filter.  Raises what the import or the handler itself raises."""
        from aiosmtpd.smtp import Envelope as TheirEnvelope
        from aiosmtpd.smtp import Session as TheirSession

        kind = pkgutil.resolve_name(options.handler)
        if hasattr(kind, "from_cli"):
            handler = kind.from_cli(CommandLine(prog=options.handler), *options.arguments)
        else:
            handler = kind(*options.arguments)
        return AiosmtpdHandler(handler, options, services, (TheirSession, TheirEnvelope))


factory = AiosmtpdFactory()
