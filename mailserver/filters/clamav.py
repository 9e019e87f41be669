"""Asks clamd whether a message holds a virus: its INSTREAM command (clamd(8)), over a Unix socket or TCP."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field
from zope.interface import implementer

from mailserver.api import (
    Content,
    Count,
    Duration,
    Envelope,
    Finding,
    IComponentFactory,
    IContentFilter,
    Options,
    Pass,
    Quarantine,
    Refuse,
    RunInThread,
    Services,
    Size,
    Verdict,
)
from mailserver.filters.content_feed import ContentFeed
from mailserver.filters.scanner_client import Larger, ScannerClient, ScannerFailed, not_scanned

__all__ = ["ClamAV", "ClamAVOptions", "factory", "signature_in"]

ANSWER_OCTETS_MOST = 4096
SIGNATURE_CHARACTERS = 100
COMMAND, END = b"zINSTREAM\0", struct.pack("!I", 0)
TOO_LARGE = b"INSTREAM size limit exceeded"
OUTSIDE_A_NAME = re.compile(r"[^!-~]+")


class BeyondStreamLimit(Exception):
    """The message is larger than clamd takes (its StreamMaxLength)."""


class ClamAVOptions(Options):
    """Where clamd is, and what follows from a virus."""

    endpoint: str = "unix:/run/clamav/clamd.ctl"
    """Where clamd is: `unix:/run/clamav/clamd.ctl`, `tcp:127.0.0.1:3310`."""
    verdict: Literal["refuse", "quarantine"] = "refuse"
    """What becomes of a message with a virus. It stands against every Accept."""
    noted: tuple[str, ...] = ()
    """Signatures that are a finding and no more, with `*` and `?`: `["PUA.*", "Heuristics.*"]`."""
    score: Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)] = 5.0
    """The score of the finding `virus`, for who weighs it."""
    size: Size = 25 * 1024 * 1024
    """A larger message is not scanned. Not more than StreamMaxLength of clamd.conf."""
    larger: Larger = "pass"
    """What becomes of a larger one; the finding `not-scanned` is there in any case."""
    connections: Count = 10
    """How many messages are scanned at once; each has a connection of its own. Not more than MaxThreads of clamd.conf."""
    timeout: Annotated[Duration, Field(gt=0)] = 25.0
    """How long a scan may take, with its turn and the connection. Less than the filter's `deadline`."""


@implementer(IContentFilter)
class ClamAV:
    """Hands each message to `client`."""

    hard = True  # nobody's allow list covers a virus
    cost = 100.0

    def __init__(self, options: ClamAVOptions, client: ScannerClient, *, run_in_thread: RunInThread, metrics: Any) -> None:
        self._options = options
        self._client = client
        self._run_in_thread = run_in_thread
        self._metrics = metrics

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """What clamd says.  Raises `ScannerFailed` where it says nothing that is understood."""
        if content.size > self._options.size:
            return self._too_large(content)
        feed = ContentFeed(content, run_in_thread=self._run_in_thread, frame=_chunk)
        answer = await self._client.ask(COMMAND, feed, END, _is_whole)
        try:
            signature = signature_in(answer)
        except BeyondStreamLimit:
            return self._too_large(content)
        if not signature:
            self._count("clean")
            return Pass()
        return self._infected(signature)

    def _infected(self, signature: str) -> Verdict:
        self._count("virus")
        is_noted = any(fnmatchcase(signature, pattern) for pattern in self._options.noted)
        finding = Finding("virus", self._options.score, signature, {"signature": signature, "noted": is_noted})
        if is_noted:
            return Pass(findings=(finding,))
        kind = Refuse if self._options.verdict == "refuse" else Quarantine
        return kind(f"virus: {signature}", findings=(finding,))

    def _too_large(self, content: Content) -> Verdict:
        self._count("not-scanned")
        return not_scanned("for viruses", content, self._options.larger)

    def _count(self, result: str) -> None:
        self._metrics.count("scans", result=result)


def signature_in(answer: bytes) -> str:
    """The name of the signature that was found, "" where none was.  Raises `BeyondStreamLimit`, and `ScannerFailed` for all else.

    ``stream: OK``, ``stream: Win.Test.EICAR_HDB-1 FOUND``, ``INSTREAM size limit exceeded. ERROR``; with a zero at the end.
    """
    if answer.startswith(TOO_LARGE):
        raise BeyondStreamLimit
    _, colon, result = answer.rstrip(b"\0").partition(b": ")
    if colon and result == b"OK":
        return ""
    if colon and result.endswith(b" FOUND"):
        name = OUTSIDE_A_NAME.sub("?", result[: -len(b" FOUND")].decode("utf-8", "replace").strip())
        return name[:SIGNATURE_CHARACTERS] or "?"
    raise ScannerFailed(f"clamd answers {OUTSIDE_A_NAME.sub(' ', answer[:200].decode('utf-8', 'replace')).strip()!r}")


def _is_whole(answer: bytes) -> bool:
    return answer.endswith(b"\0")


def _chunk(piece: bytes) -> Sequence[bytes]:
    return struct.pack("!I", len(piece)), piece


@implementer(IComponentFactory)
class ClamAVFactory:
    """Makes the filter for ``[[filter]] use = "clamav"``."""

    name = "clamav"
    summary = "Has messages scanned for viruses by ClamAV's clamd."
    api_version = "1.0"
    provides = IContentFilter
    options = ClamAVOptions

    def build(self, options: Any, services: Services) -> ClamAV:
        """Return the filter.  Raises ValueError for an endpoint that is none."""
        client = ScannerClient.of(options, services, ANSWER_OCTETS_MOST)
        return ClamAV(options, client, run_in_thread=services.run_in_thread, metrics=services.metrics)


factory = ClamAVFactory()
