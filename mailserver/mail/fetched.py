"""What was fetched from a web server."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FetchFailed", "Fetched", "Unverified"]


class FetchFailed(OSError):
    """Nothing was fetched: no such host, no answer in time, a wrong certificate, too much.

    Whether the host has what was wanted, nobody knows then.
    """


class Unverified(FetchFailed):
    """The host's certificate is none of its name, or none that an authority vouches for, or there was no TLS at all."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer.  `status` is any of HTTP's, those of refusals and of redirects among them, which nobody follows.

    `content_type` is in lower case, without parameters, "" where there was none.
    """

    url: str
    status: int
    content_type: str = ""
    body: bytes = b""
