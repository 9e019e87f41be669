"""Asks rspamd: its HTTP command checkv2.  Its action becomes a verdict, its symbols findings, its milter headers edits.

rspamd closes the connection after each answer, so each scan has one of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from zope.interface import implementer

from mailserver.api import (
    CannotDo,
    ComponentCommand,
    Content,
    Count,
    Defer,
    Discard,
    Duration,
    Edit,
    Envelope,
    FilePath,
    Finding,
    ICommands,
    IComponentFactory,
    IContentFilter,
    IModifier,
    LookupFailed,
    Options,
    Pass,
    Quarantine,
    Refuse,
    Services,
    Size,
    Verdict,
)
from mailserver.config.password_file import password_of
from mailserver.filters.content_feed import ContentFeed
from mailserver.filters.rspamd_answer import RspamdAnswer, edits_of, is_whole, read_answer, read_learnt
from mailserver.filters.scanner_client import Larger, ScannerClient, not_scanned
from mailserver.filters.taught import commands_that_teach

__all__ = ["Rspamd", "RspamdOptions", "factory", "request_for"]

ANSWER_OCTETS_MOST = 524_288
MESSAGES_MOST = 1000  # whose edits wait for their turn
RECIPIENTS_OCTETS_MOST = 49_152  # rspamd cuts the connection at 80 KiB of header fields
Means = Literal["pass", "quarantine", "defer", "refuse", "discard"]
VERDICTS: dict[str, Any] = {"quarantine": Quarantine, "defer": Defer, "refuse": Refuse, "discard": Discard}


class RspamdOptions(Options):
    """Where rspamd is, and what follows from its actions."""

    endpoint: str = "tcp:127.0.0.1:11333"
    """Where its normal worker is: `tcp:127.0.0.1:11333`, `unix:/run/rspamd/worker.sock`."""
    reject: Means = "refuse"
    """What its action `reject` means."""
    soft_reject: Means = "defer"
    """What `soft reject` means: rspamd's own greylist and rate limits."""
    rewrite_subject: Means = "quarantine"
    """What `rewrite subject` means. The subject is changed in any case."""
    add_header: Means = "quarantine"
    """What `add header` means."""
    greylist: Means = "pass"
    """What `greylist` means. rspamd's module of that name makes a `soft reject` of it; without the module it would never end."""
    no_action: Means = "pass"
    """What `no action` means, and an action of the administrator's own. `quarantine` and `discard` mean what they say."""
    symbols: Annotated[int, Field(ge=0, le=99)] = 50
    """How many symbols become findings: those with the greatest scores, either way."""
    edits: bool = True
    """Whether its milter headers and its subject change the message."""
    client_names: bool = True
    """Whether the client's confirmed name is looked up first (`Hostname`)."""
    size: Size = 50 * 1024 * 1024
    """A larger message is not scanned. Not more than rspamd's `max_message`."""
    larger: Larger = "pass"
    """What becomes of a larger one; the finding `not-scanned` is there in any case."""
    connections: Count = 20
    """How many messages are scanned at once."""
    timeout: Annotated[Duration, Field(gt=0)] = 25.0
    """How long a scan may take, with its turn and the connection. Less than the filter's `deadline`."""
    controller: str = "tcp:127.0.0.1:11334"
    """Where its controller is, to which `mailserver learn --filter rspamd` hands messages."""
    password_file: FilePath | None = None
    """A file with the controller's password; absent: the controller trusts this host (`secure_ip`)."""


@implementer(IContentFilter, IModifier, ICommands)
class Rspamd:
    """Hands each message to `client`, once: what is to be changed waits until the modifiers are asked."""

    cost = 50.0

    def __init__(
        self, options: RspamdOptions, client: ScannerClient, services: Services, controller: ScannerClient | None = None
    ) -> None:
        self._options = options
        self._client = client
        self._controller = controller
        self._services = services
        self._means: dict[str, str] = {
            "reject": options.reject,
            "soft reject": options.soft_reject,
            "rewrite subject": options.rewrite_subject,
            "add header": options.add_header,
            "greylist": options.greylist,
            "quarantine": "quarantine",
            "discard": "discard",
        }
        self._answers: OrderedDict[str, RspamdAnswer] = OrderedDict()  # by the message's id

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """What rspamd says.  Raises `ScannerFailed` where it says nothing that is understood."""
        if content.size > self._options.size:
            return self._too_large(content)
        names = await _names(envelope) if self._options.client_names else ()
        request = request_for(envelope, content.size, names, self._services.hostname)
        feed = ContentFeed(content, run_in_thread=self._services.run_in_thread)
        answer = read_answer(await self._client.ask(request, feed, b"", is_whole))
        self._services.metrics.count("scans", action=answer.action)
        means = self._means.get(answer.action, self._options.no_action)
        if self._options.edits and means in ("pass", "quarantine") and (answer.added or answer.removed or answer.subject):
            self._answers[envelope.id] = answer
            while len(self._answers) > MESSAGES_MOST:  # of messages that others have refused
                self._answers.popitem(last=False)
        findings = self._findings(answer)
        if means == "pass":
            return Pass(findings=findings)
        why = f"rspamd: {answer.action}, score {answer.score:g}"
        verdict: Verdict = VERDICTS[means](f"{why}: {answer.message}" if answer.message else why, findings=findings)
        return verdict

    async def edits(self, envelope: Envelope, content: Content) -> Sequence[Edit]:
        """What it wants to have changed."""
        answer = self._answers.pop(envelope.id, None)
        return () if answer is None else edits_of(answer, content.headers, utf8=envelope.parameters.smtputf8)

    def commands(self) -> Sequence[ComponentCommand]:
        """``teach``."""
        return commands_that_teach(self._teach, octets_most=self._options.size)

    async def _teach(self, kind: str, content: Content) -> str:
        if kind == "forget" or self._controller is None:
            raise CannotDo("rspamd forgets nothing: what was learnt wrongly is learnt as the other kind")
        password = await self._services.run_in_thread(_password_in, self._options.password_file)
        said = f"Password: {password}\r\n" if password else ""
        request = f"POST /learn{kind} HTTP/1.0\r\nContent-Length: {content.size}\r\n{said}\r\n".encode()
        feed = ContentFeed(content, run_in_thread=self._services.run_in_thread)
        return read_learnt(await self._controller.ask(request, feed, b"", is_whole))

    def _findings(self, answer: RspamdAnswer) -> tuple[Finding, ...]:
        """The sum has the score; the symbols have it as a property, so that nobody adds it up twice."""
        properties: dict[str, str | float] = {"action": answer.action, "required": answer.required}
        words = answer.action if not answer.message else f"{answer.action}: {answer.message}"
        return (
            Finding("rspamd", answer.score, words, properties),
            *[
                Finding(f"rspamd.{symbol.name[:90]}", 0.0, f"{symbol.score:g} {symbol.words}".rstrip(), {"score": symbol.score})
                for symbol in answer.symbols[: self._options.symbols]
            ],
        )

    def _too_large(self, content: Content) -> Verdict:
        self._services.metrics.count("scans", action="not-scanned")
        return not_scanned("by rspamd", content, self._options.larger)


def _password_in(path: str | None) -> str:
    """The password, "" without a file.  Raises CannotDo where no field of HTTP can have it, or the file cannot be read."""
    if path is None:
        return ""
    try:
        password = password_of(path)
    except (OSError, ValueError) as error:
        raise CannotDo(str(error)) from error
    if not password.isascii() or not password.isprintable():
        raise CannotDo(f"{path}: no password that rspamd's controller could hear")
    return password


async def _names(envelope: Envelope) -> tuple[str, ...]:
    try:
        return await envelope.peer.names()
    except LookupFailed:
        return ()


def request_for(envelope: Envelope, octets: int, names: Sequence[str], hostname: str) -> bytes:
    """The request up to the message, which has so many octets.  What is not known is left out."""
    peer, tls = envelope.peer, envelope.peer.tls
    fields = [
        ("Content-Length", str(octets)),
        ("IP", "" if peer.ip is None else str(peer.ip)),
        ("Helo", peer.hello),
        ("Hostname", names[0] if names else ""),
        ("From", f"<{envelope.sender or ''}>"),
        *[("Rcpt", address) for address in _told(envelope)],
        ("User", peer.login),
        ("Queue-Id", envelope.id),
        ("MTA-Name", hostname),
        ("TLS-Version", "" if tls is None else tls.version),
        ("TLS-Cipher", "" if tls is None else tls.cipher),
    ]
    lines = ["POST /checkv2 HTTP/1.0", *[f"{name}: {_plain(value)}" for name, value in fields if value]]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


def _told(envelope: Envelope) -> list[str]:
    """The recipients, or as many of the first as rspamd takes."""
    told: list[str] = []
    octets = 0
    for recipient in envelope.recipients:
        address = f"<{recipient.address}>"
        octets += len("Rcpt: \r\n") + len(address.encode("utf-8", "replace"))
        if octets > RECIPIENTS_OCTETS_MOST:
            break
        told.append(address)
    return told


def _plain(value: str) -> str:
    """Nothing of a peer's may end a line."""
    return "".join([character if character.isprintable() else "?" for character in value])


@implementer(IComponentFactory)
class RspamdFactory:
    """Makes the filter for ``[[filter]] use = "rspamd"``."""

    name = "rspamd"
    summary = "Has messages judged by rspamd."
    api_version = "1.0"
    provides = (IContentFilter, IModifier)
    options = RspamdOptions

    def build(self, options: Any, services: Services) -> Rspamd:
        """Return the filter.  Raises ValueError for an endpoint that is none."""
        client = ScannerClient.of(options, services, ANSWER_OCTETS_MOST)
        controller = ScannerClient.of(options, services, ANSWER_OCTETS_MOST, endpoint=options.controller)
        return Rspamd(options, client, services, controller)


factory = RspamdFactory()
