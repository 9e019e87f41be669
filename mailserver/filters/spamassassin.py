"""Asks SpamAssassin's spamd for its score and the rules that matched: SYMBOLS of its protocol (spamd's PROTOCOL, version 1.5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from zope.interface import implementer

from mailserver.api import (
    ComponentCommand,
    Content,
    Count,
    Duration,
    Envelope,
    Finding,
    ICommands,
    IComponentFactory,
    IContentFilter,
    Options,
    Pass,
    Services,
    Size,
    Verdict,
)
from mailserver.filters.content_feed import ContentFeed
from mailserver.filters.scanner_client import Larger, ScannerClient, ScannerFailed, not_scanned
from mailserver.filters.taught import commands_that_teach
from mailserver.mail.trace import received

__all__ = ["SpamAssassin", "SpamAssassinOptions", "SpamReport", "factory", "read_report"]

ANSWER_OCTETS_MOST = 131_072
STATUS = re.compile(rb"SPAMD/[0-9]{1,2}\.[0-9]{1,2} ([0-9]{1,4}) ([^\r\n]{0,1000})\r\n")
LENGTH = re.compile(rb"\r\nContent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
NUMBER = rb"[ \t]*(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)[ \t]*"
SUM = re.compile(rb"\r\nSpam:[ \t]*(True|False|Yes|No)[ \t]*;" + NUMBER + b"/" + NUMBER + rb"\r\n", re.IGNORECASE)
RULE = re.compile(r"[A-Za-z0-9_]{1,80}")


class SpamAssassinOptions(Options):
    """Where spamd is.  What follows from its score, `use = "scores"` decides."""

    endpoint: str = "tcp:127.0.0.1:783"
    """Where spamd is: `tcp:127.0.0.1:783`, `unix:/run/spamd.sock`."""
    user: Annotated[str, Field(pattern=r"^[!-~]{0,255}$")] = ""
    """Whose preferences and whose Bayes data count; empty: those of spamd's own user."""
    rules: Annotated[int, Field(ge=0, le=98)] = 50
    """How many of the rules that matched become findings."""
    size: Size = 512 * 1024
    """A larger message is not scanned: a large one takes spamd long. `spamc` has the same bound."""
    larger: Larger = "pass"
    """What becomes of a larger one; the finding `not-scanned` is there in any case."""
    connections: Count = 5
    """How many messages are scanned at once. Not more than spamd's `--max-children`."""
    timeout: Annotated[Duration, Field(gt=0)] = 25.0
    """How long a scan may take, with its turn and the connection. Less than the filter's `deadline`."""


@dataclass(frozen=True, slots=True)
class SpamReport:
    """What spamd says: the score, the one from which on it calls a message spam, and the names of the rules that matched."""

    is_spam: bool
    score: float
    required: float
    rules: tuple[str, ...]


@implementer(IContentFilter, ICommands)
class SpamAssassin:
    """Hands each message to `client`."""

    cost = 80.0

    def __init__(self, options: SpamAssassinOptions, client: ScannerClient, services: Services) -> None:
        self._options = options
        self._client = client
        self._services = services

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """What spamd has found.  Raises `ScannerFailed` where it says nothing that is understood."""
        if content.size > self._options.size:
            return self._too_large(content)
        user = f"User: {self._options.user}\r\n" if self._options.user else ""
        trace = trace_for(envelope, self._services.hostname)
        request = f"SYMBOLS SPAMC/1.5\r\nContent-length: {len(trace) + content.size}\r\n{user}\r\n".encode() + trace
        feed = ContentFeed(content, run_in_thread=self._services.run_in_thread)
        report = read_report(await self._client.ask(request, feed, b"", _is_whole))
        self._services.metrics.count("scans", result="spam" if report.is_spam else "ham")
        return Pass(findings=self._findings(report))

    def commands(self) -> Sequence[ComponentCommand]:
        """``teach``; spamd needs ``--allow-tell`` for it."""
        return commands_that_teach(self._teach, octets_most=self._options.size)

    async def _teach(self, kind: str, content: Content) -> str:
        order = "Remove: local\r\n" if kind == "forget" else f"Message-class: {kind}\r\nSet: local\r\n"
        user = f"User: {self._options.user}\r\n" if self._options.user else ""
        request = f"TELL SPAMC/1.5\r\nContent-length: {content.size}\r\n{order}{user}\r\n".encode()
        feed = ContentFeed(content, run_in_thread=self._services.run_in_thread)
        return read_told(await self._client.ask(request, feed, b"", _is_told), kind)

    def _findings(self, report: SpamReport) -> tuple[Finding, ...]:
        """The sum has the score: spamd does not say what each rule has added to it."""
        properties: dict[str, str | float | bool] = {"required": report.required, "spam": report.is_spam}
        words = f"{report.score:g} of {report.required:g}: {', '.join(report.rules)}"
        rules = [Finding(f"spamassassin.{rule}") for rule in report.rules[: self._options.rules]]
        return (Finding("spamassassin", report.score, words[:1000], properties), *rules)

    def _too_large(self, content: Content) -> Verdict:
        self._services.metrics.count("scans", result="not-scanned")
        return not_scanned("by SpamAssassin", content, self._options.larger)


def trace_for(envelope: Envelope, hostname: str) -> bytes:
    """What the message does not have yet: its rules about networks and senders read the peer and the sender from these fields."""
    sender = "".join([one if one.isprintable() else "?" for one in str(envelope.sender or "")])
    return f"Return-Path: <{sender}>\r\n".encode("utf-8", "replace") + received(envelope, hostname=hostname)


def read_report(octets: bytes) -> SpamReport:
    """The report in spamd's answer.  Raises `ScannerFailed` for what is none."""
    status = STATUS.match(octets)
    if status is None:
        raise ScannerFailed("the answer of spamd is none of its protocol")
    if int(status[1]) != 0:
        words = "".join([one if " " <= one <= "~" else "?" for one in status[2].decode("latin-1")[:200]])
        raise ScannerFailed(f"spamd answers {int(status[1])} {words}")
    head, end, body = octets.partition(b"\r\n\r\n")
    length, found = LENGTH.search(head + b"\r\n"), SUM.search(head + b"\r\n")
    if not end or length is None or found is None or len(body) < int(length[1]):
        raise ScannerFailed("the answer of spamd has no score")
    names = body[: int(length[1])].decode("latin-1").split(",")
    return SpamReport(
        is_spam=found[1].lower() in (b"true", b"yes"),
        score=float(found[2]),
        required=float(found[3]),
        rules=tuple([name.strip() for name in names if RULE.fullmatch(name.strip())]),
    )


def read_told(octets: bytes, kind: str) -> str:
    """What spamd has made of TELL: ``new`` or ``known``, ``forgotten`` or ``unknown``.  Raises `ScannerFailed` for a no."""
    status = STATUS.match(octets)
    if status is None or int(status[1]) != 0:
        words = "nothing of its protocol" if status is None else f"{int(status[1])} {status[2].decode('latin-1')[:200]}"
        raise ScannerFailed(f"spamd answers {words}; it learns with --allow-tell alone")
    has_done = re.search(rb"\r\nDid(?:Set|Remove):[ \t]*local", octets, re.IGNORECASE) is not None
    if kind == "forget":
        return "forgotten" if has_done else "unknown"
    return "new" if has_done else "known"


def _is_told(octets: bytes) -> bool:
    """Its head is there: the answer to TELL has no body that would say more."""
    return b"\r\n\r\n" in octets or (STATUS.match(octets) is None and b"\n" in octets)


def _is_whole(octets: bytes) -> bool:
    """All of the answer is there, or enough to see that it is none."""
    status = STATUS.match(octets)
    if status is None:
        return b"\n" in octets
    if int(status[1]) != 0:
        return True
    head, end, body = octets.partition(b"\r\n\r\n")
    length = LENGTH.search(head + b"\r\n")
    return bool(end) and (length is None or len(body) >= int(length[1]))


@implementer(IComponentFactory)
class SpamAssassinFactory:
    """Makes the filter for ``[[filter]] use = "spamassassin"``."""

    name = "spamassassin"
    summary = "Has messages judged by SpamAssassin's spamd."
    api_version = "1.0"
    provides = IContentFilter
    options = SpamAssassinOptions

    def build(self, options: Any, services: Services) -> SpamAssassin:
        """Return the filter.  Raises ValueError for an endpoint that is none."""
        client = ScannerClient.of(options, services, ANSWER_OCTETS_MOST)
        return SpamAssassin(options, client, services)


factory = SpamAssassinFactory()
