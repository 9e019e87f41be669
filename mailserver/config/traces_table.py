"""Where the roads of messages go as traces, as the configuration says it."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from mailserver.config.options import Options
from mailserver.config.values import Duration, FilePath

__all__ = ["TracesTable"]


def _collector(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(str(error)) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise ValueError("must be the address of a collector, such as http://127.0.0.1:4318/v1/traces")
    if "@" in parts.netloc:
        raise ValueError("no password here: name a headers_file")
    if not value.isascii() or any(character.isspace() for character in value):
        raise ValueError("has characters that belong into no address")
    return value


class TracesTable(Options):
    """Where `mailserver traces export` brings the roads of messages. The server itself sends nothing there."""

    endpoint: Annotated[str, Field(max_length=2_000), AfterValidator(_collector)] | None = None
    """A collector that takes OTLP over HTTP, with the whole path: `http://127.0.0.1:4318/v1/traces`. This needs the extra
    `otel`."""
    detail: Literal["figures", "all"] = "figures"
    """What is told of each step. `figures`: times, sizes, verdicts, codes, and the names of filters: no word of a stranger's, no
    address, no host. `all`: everything that `mailserver explain` shows, as far as `log.addresses` has kept it."""
    headers_file: FilePath | None = None
    """A file with headers for each request, one `Name: value` in a line, such as a token of the collector's."""
    ca_file: FilePath | None = None
    """Roots by which a collector's certificate is verified. Absent: those that come with the extra."""
    timeout: Annotated[Duration, Field(ge=1, le=300)] = 10.0
    """How long the collector has for each batch."""
