"""What was fetched from a web server."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FetchFailed", "Fetched"]


class FetchFailed(OSError):
    """Nothing was fetched: no such host, no answer in time, a wrong certificate, too much.

    Whether the host has what was wanted, nobody knows then.
    """


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer.  `status` is any of HTTP's, those of refusals and of redirects among them, which nobody follows.

    `content_type` is in lower case, without parameters, "" where there was none.
    """

    url: str
    status: int
    content_type: str = ""
    body: bytes = b""
