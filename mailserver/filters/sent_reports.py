"""What has become of the reports that we send, in the records: a report is sent and then recorded, address by address.

Who is killed between the two sends that one again, with the same id and the same file name, so that whoever gets both knows
(RFC 9990, "Email"; RFC 8460 section 5.1).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from mailserver.api import CannotTell, IRecords, LookupFailed, StorageFault
from mailserver.filters.report_days import day_of

__all__ = ["SentReport", "SentReports"]

PAGE = 500


@dataclass(slots=True)
class SentReport:
    """What has become of a report about so many `count` messages or sessions, with so many rows.

    `to` has for each address the id of the message, or why there is none.
    """

    id: str
    day: str
    domain: str
    count: int
    rows: int
    at: float
    to: dict[str, str] = field(default_factory=dict)
    is_done: bool = False

    def octets(self) -> bytes:
        """For the records."""
        return json.dumps([self.id, self.day, self.domain, self.count, self.rows, self.at, self.to, self.is_done]).encode()

    @classmethod
    def read(cls, octets: bytes) -> SentReport | None:
        """What `octets` has made; None for what it has not."""
        try:
            return cls(*json.loads(octets))
        except (ValueError, TypeError):
            return None


class SentReports:
    """By day and what they are about (`path`)."""

    def __init__(self, records: IRecords) -> None:
        self._records = records

    async def get(self, path: str) -> SentReport | None:
        """What is known of one."""
        kept = await self._records.get(f"sent/{path}")
        return SentReport.read(kept) if kept is not None else None

    async def to_all(
        self, path: str, sent: SentReport, to: Iterable[str], send: Callable[[str], Awaitable[str]]
    ) -> None:
        """Send it to each of `to` who has not had it.  `send` returns what is to be recorded; where it raises, the others are
        served all the same, and then its error is raised: who has had it will not get it again.
        """
        fault: Exception | None = None
        for one in to:
            if one in sent.to:
                continue
            try:
                sent.to[one] = await send(one)
            except (CannotTell, LookupFailed, StorageFault) as error:
                fault = error
                continue
            await self._records.put(f"sent/{path}", sent.octets())
        if fault is not None:
            raise fault
        sent.is_done = True
        await self._records.put(f"sent/{path}", sent.octets())

    async def all(self, first: str = "") -> list[SentReport]:
        """What has been sent, from the first day on."""
        found: list[SentReport] = []
        at = f"sent/{first}"
        while page := await self._records.items(at, "sent/\U0010ffff", PAGE):
            found += [one for _, value in page if (one := SentReport.read(value)) is not None]
            at = page[-1][0] + "\0"
        return found

    async def forget(self, before: float) -> None:
        """Drop what is known of reports on days that ended before then."""
        for key, _ in await self._records.items("sent/", f"sent/{day_of(before)}", PAGE):
            await self._records.drop(key)
