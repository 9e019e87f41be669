"""Spans to a collector, by OTLP over HTTP (opentelemetry.io/docs/specs/otlp), with OpenTelemetry's own exporter.

It is imported only where something is exported: it needs the extra ``otel``.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from mailserver.traces.export import Answer, Away, Refused, SpansTaken
from mailserver.traces.spans import TraceSpan

__all__ = ["Collector"]

SCOPE = InstrumentationScope("mailserver.road")
SAMPLED = TraceFlags(TraceFlags.SAMPLED)
REFUSALS = frozenset({400, 413, 422})  # of this batch; any other code is a trouble of the collector's, or of its address
OK = 200
MEDIA_TYPES = ("application/x-protobuf", "application/json", "")
WORDS_MOST, CONTENT_MOST = 300, 10_000
GRACE_SECONDS = 2.0  # beyond the exporter's own time


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere: what the headers let in is for the collector that was named, and for no other host."""


class Collector:
    """One that stands at `endpoint`.  `ca_file`: roots for its certificate, "" for those of certifi."""

    def __init__(
        self, *, endpoint: str, hostname: str, version: str, headers: Mapping[str, str], ca_file: str, timeout_seconds: float
    ) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we say it ourselves
        self._timeout_seconds = timeout_seconds
        self._status = 0
        self._content = b""
        self._media_type = ""
        self._trouble = ""
        session = _Session()
        session.trust_env = False  # neither proxies nor passwords of whoever calls
        session.hooks["response"].append(self._heard)
        self._resource = Resource(
            {"service.name": "mailserver", "service.version": version, "service.instance.id": hostname, "host.name": hostname}
        )
        self._exporter = OTLPSpanExporter(
            endpoint=endpoint,
            certificate_file=ca_file or None,
            headers=dict(headers),
            timeout=timeout_seconds,
            compression=Compression.Gzip,
            session=session,
        )

    def send(self, spans: Sequence[TraceSpan]) -> Answer:
        """Bring them there.  Blocks, for at most the time-out and a little."""
        self._status, self._content, self._media_type, self._trouble = 0, b"", "", ""
        try:
            with self._within(self._timeout_seconds + GRACE_SECONDS):
                result = self._exporter.export([self._readable(span) for span in spans])
        except TimeoutError:
            result = SpanExportResult.FAILURE
        if self._trouble or not self._status:
            return Away(self._trouble or "it does not answer")
        words = f"it answers {self._status}: {_text(self._content)}".rstrip(": ")
        if result is not SpanExportResult.SUCCESS:
            return Refused(words) if self._status in REFUSALS else Away(words)
        if self._status != OK or self._media_type not in MEDIA_TYPES:  # to the exporter a page that is moved is a success, too
            return Away(f"{words}, as no collector does")
        return SpansTaken(*_rejected(self._content))

    def close(self) -> None:
        """Close its connections."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _heard(self, response: requests.Response, *_: Any, **__: Any) -> None:
        self._status, self._content = response.status_code, (response.content or b"")[:CONTENT_MOST]
        self._media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """The exporter's time is for each piece that arrives: one that drips would hold it for ever."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def over(*_: object) -> None:
            self._trouble = f"it has not answered within {seconds:g} seconds"
            raise TimeoutError(self._trouble)

        before = signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _readable(self, span: TraceSpan) -> ReadableSpan:
        parent = None if not span.parent else _context(span.trace, span.parent)
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace, span.span),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind.INTERNAL if span.parent else SpanKind.SERVER,
            status=Status(StatusCode.ERROR if span.is_error else StatusCode.UNSET),
            start_time=span.begin,
            end_time=span.end,
            instrumentation_scope=SCOPE,
        )


def _context(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=False, trace_flags=SAMPLED)


def _rejected(content: bytes) -> tuple[int, str]:
    """How many spans the collector has turned away, and why."""
    response: Any = ExportTraceServiceResponse()
    try:
        response.ParseFromString(content)
    except Exception:  # noqa: BLE001  protobuf has an exception for each of its implementations; what is no answer rejects none
        return 0, ""
    partial = response.partial_success
    return int(partial.rejected_spans), str(partial.error_message)[:WORDS_MOST]


def _text(content: bytes) -> str:
    return content[:WORDS_MOST].decode("utf-8", "replace").strip()
