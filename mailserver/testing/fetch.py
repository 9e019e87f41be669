"""A `Fetch` without a network."""

from __future__ import annotations

from mailserver.mail.fetched import Fetched, FetchFailed

__all__ = ["FakeFetch"]


class FakeFetch:
    """Answers with `pages`, by URL: a `Fetched`, or the content of an answer 200.  All else fails with `FetchFailed`.

    `asked` has the URLs, `sent` what was sent with them.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Fetched | bytes] = {}
        self.asked: list[str] = []
        self.sent: list[bytes] = []

    async def __call__(
        self, url: str, /, *, body: bytes | None = None, content_type: str = "", accept: str = "*/*"
    ) -> Fetched:
        """As the server's."""
        self.asked.append(url)
        if body is not None:
            self.sent.append(body)
        page = self.pages.get(url)
        if page is None:
            raise FetchFailed(f"{url}: the test has no such page")
        return Fetched(url, 200, "text/plain", page) if isinstance(page, bytes) else page
