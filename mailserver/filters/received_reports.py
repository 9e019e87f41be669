"""The reports of others about our domains, as they are kept: DMARC's and TLS's.

A report is one record with its first rows, and one for each further portion of rows; the first is written last, so that what is
there is whole.  The same report a second time takes the place of the first.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, cast

from mailserver.api import IRecords, IStateStore, StorageFull

__all__ = ["Keepable", "KeptReport", "ReceivedReports"]

KEPT_MOST = 20_000  # records: reports with up to a few hundred rows have one
KEPT_OF_ONE_MOST = 4_000  # of one reporter, so that he leaves room to the others
PORTION = 200  # rows
VALUE_OCTETS = 60_000  # that leaves room in a record for what is said about the report
PAGE = 50
KEY = re.compile(r"in/[^/]+/\d{12}/[0-9a-f]{20}/\d{4}")
SPAN_SECONDS = 100 * 86_400  # longer than any report's: what begins before that ends before, too
END = "\U0010ffff"


class ReportTooLarge(ValueError):
    """A row of the report does not fit into a record: it is not kept."""


class Keepable(Protocol):
    """A frozen dataclass.  `domain` is what it is about; `rows` are dataclasses; `begin` and `end` seconds since the epoch."""

    @property
    def id(self) -> str: ...

    @property
    def domain(self) -> str: ...

    @property
    def begin(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def rows(self) -> Sequence[Any]: ...

    def plain(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=Keepable)


@dataclass(frozen=True, slots=True)
class KeptReport(Generic[R]):
    """A report, and who has sent it: `reporter` is the domain that DMARC has shown.  `id` is that of the message."""

    report: R
    reporter: str
    id: str
    at: float


class ReceivedReports(Generic[R]):
    """All of them, by the domain that they are about and their time.

    `of` makes one of plain values, `row_of` a row; ValueError, TypeError, LookupError or AttributeError for what is none.
    `state` remembers for `retention_seconds` which are young: its time is one that nobody sets, so a clock that jumps ahead takes
    nothing away.
    """

    def __init__(
        self,
        records: IRecords,
        state: IStateStore,
        retention_seconds: float,
        *,
        of: Callable[[Mapping[str, Any]], R],
        row_of: Callable[[Mapping[str, Any]], Any],
    ) -> None:
        self._of = of
        self._row_of = row_of
        self._records = records
        self._state = state
        self._retention_seconds = retention_seconds
        self._counts: Counter[str] | None = None  # records by reporter

    async def keep(self, report: R, *, reporter: str, id: str, at: float) -> None:
        """Keep it.  Raises `ReportTooLarge` and `StorageFault`; `StorageFull` also where too many are kept."""
        portions = _portions(report.rows)
        if self._counts is None:
            self._counts = await self._counted()
        count = self._counts.total()
        if count + len(portions) > KEPT_MOST:
            raise StorageFull(f"{count} records of reports are kept, and no more than {KEPT_MOST} are")
        if self._counts[reporter] + len(portions) > KEPT_OF_ONE_MOST:
            raise StorageFull(f"of {reporter} {self._counts[reporter]} records are kept, and no more than {KEPT_OF_ONE_MOST} are")
        digest = hashlib.sha256(f"{reporter}\0{report.id}".encode("utf-8", "surrogatepass")).hexdigest()[:20]
        place = f"in/{report.domain}/{report.begin:012d}/{digest}/"
        await self._state.put(f"young/{place}", b"", self._retention_seconds)
        head: Any = replace(cast(Any, report), rows=())
        about = [head.plain(), reporter, id, at, len(portions)]
        for n, portion in reversed(list(enumerate(portions))):
            value = [about, portion] if n == 0 else [None, portion]
            if await self._records.get(f"{place}{n:04d}") is None:
                self._counts[reporter] += 1
            await self._records.put(f"{place}{n:04d}", _packed(value))

    async def all(self, domain: str = "", since: float = 0.0) -> AsyncIterator[KeptReport[R]]:
        """Those about this domain, "" for all, that end after this time; by domain and time."""
        rows: list[Any] = []
        kept: list[Any] | None = None
        async for _, value in self._items(f"in/{domain}/" if domain else "in/"):
            about, portion = self._unpacked(value)
            if about is not None:
                if kept is not None:
                    yield self._kept(kept, rows)
                rows = []
                kept = about if about[0]["end"] >= since else None
            if kept is not None:
                rows += portion
        if kept is not None:
            yield self._kept(kept, rows)

    async def forget(self, before: float) -> int:
        """Drop the reports that end before this time, and are not young.  How many records that were."""
        dropped = 0
        old: set[str] = set()
        async for key, value in self._items("in/"):
            place = key.rpartition("/")[0]
            about, _ = self._unpacked(value)
            begin = int(key.split("/")[2])
            if begin < before - SPAN_SECONDS or (about is not None and about[0]["end"] < before):
                old.add(place)
            if place in old and await self._state.get(f"young/{place}/") is None:
                await self._records.drop(key)
                dropped += 1
        self._counts = await self._counted()
        return dropped

    async def _counted(self) -> Counter[str]:
        found: Counter[str] = Counter()
        reporter = ""
        async for _, value in self._items("in/"):
            about, _ = self._unpacked(value)
            reporter = str(about[1]) if about is not None else reporter  # the first record of a report names him
            found[reporter] += 1
        return found

    async def _items(self, first: str) -> AsyncIterator[tuple[str, bytes]]:
        at = first
        while page := await self._records.items(at, first + END, PAGE):
            for key, value in page:
                if KEY.fullmatch(key):  # another one may have been imported
                    yield key, value
            at = page[-1][0] + "\0"

    def _unpacked(self, value: bytes) -> tuple[Any, list[Any]]:
        """What stands in a record; nothing in one that was not written here."""
        try:
            about, portion = json.loads(zlib.decompress(value))
            for one in portion:
                self._row_of(one)
            if about is None:
                return about, portion
            report = self._of({**about[0], "rows": []})
            if all(isinstance(one, int | float) for one in (report.begin, report.end, about[3], about[4])):
                return about, portion
        except (ValueError, TypeError, LookupError, AttributeError, zlib.error):
            pass
        return None, []

    def _kept(self, about: list[Any], rows: Sequence[Any]) -> KeptReport[R]:
        report, reporter, id, at, _ = about
        return KeptReport(self._of({**report, "rows": rows}), reporter, id, at)


def _portions(rows: Sequence[Any]) -> list[list[dict[str, Any]]]:
    """The rows as plain values, in portions that a record can hold.  Raises `ReportTooLarge`."""
    found = []
    for n in range(0, len(rows), PORTION):
        found += _cut([asdict(one) for one in rows[n : n + PORTION]])
    return found


def _cut(portion: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    if len(_packed(portion)) <= VALUE_OCTETS:
        return [portion]
    if len(portion) == 1:
        raise ReportTooLarge(f"one of its rows has more than {VALUE_OCTETS} octets, packed")
    half = len(portion) // 2
    return [*_cut(portion[:half]), *_cut(portion[half:])]


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode())
