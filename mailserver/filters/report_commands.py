"""What the commands of the filters of reports share (``dmarc_reports``, ``tls_reports``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from mailserver.api import Argument, CannotDo, Clock, ComponentCommand, normal_domain
from mailserver.filters.report_days import DAY_SECONDS, DAYS, day_of, start_of
from mailserver.filters.report_inbox import ReportInbox
from mailserver.filters.report_sending import ReportSending

__all__ = ["SHOWN_MOST", "ReportOrders", "by_day", "domain_of", "shortened"]

SHOWN_MOST = 500  # rows
DOCUMENT_CHARACTERS = 400_000
SINCE = Argument("since", "in seconds: what reports say about this time until now", kind="number", required=False)
DAY = Argument("day", "the day in UTC: 2026-11-30; absent: today", required=False)


Sending = TypeVar("Sending", bound=ReportSending[Any])


class ReportOrders(Generic[Sending]):
    """``show``, ``list``, ``unread``, ``reports``, ``send``, ``preview``.  `sending` is None where none are sent."""

    def __init__(self, inbox: ReportInbox, sending: Sending | None, clock: Clock) -> None:
        self._inbox = inbox
        self._sending = sending
        self._clock = clock

    def commands(self, shows: str) -> Sequence[ComponentCommand]:
        """`shows` says what the first of them does."""
        domain = Argument("domain", "a domain of ours")
        return (
            ComponentCommand("show", shows, self.show, (domain, SINCE)),
            ComponentCommand("list", "the reports of others", self.listed, (
                Argument("domain", "about this domain; absent: about all", required=False), SINCE,
            )),
            ComponentCommand("unread", "mail for the address of reports that was not read, and why", self.unread, (SINCE,)),
            ComponentCommand("reports", "the reports that were sent, and those that will be", self.reports),
            ComponentCommand("send", "send the reports that are due, without waiting", self.send, deadline_seconds=300.0),
            ComponentCommand("preview", "a report as it would be sent now; nothing is sent", self.preview, (
                Argument("domain", "the domain that it is about"), DAY,
            )),
        )  # fmt: skip

    async def show(self, domain: str, since: float | None = None) -> dict[str, Any]:
        """What reports of others say about the domain, in sums."""
        raise NotImplementedError

    async def listed(self, domain: str | None = None, since: float | None = None) -> list[dict[str, Any]]:
        """The reports of others, the latest first."""
        raise NotImplementedError

    async def reports(self) -> list[dict[str, Any]]:
        """A row for each report of ours, the latest first."""
        raise NotImplementedError

    async def preview(self, domain: str, day: str | None = None) -> Any:
        """What would be sent about the domain and that day."""
        raise NotImplementedError

    async def unread(self, since: float | None = None) -> list[dict[str, Any]]:
        """What was not read, the latest first."""
        return await self._inbox.unread(self._from(since))

    async def send(self) -> str:
        """How many."""
        return f"{await self._needed().run()} reports were due"

    def _needed(self) -> Sending:
        if self._sending is None:
            raise CannotDo("no reports are sent: the filter has no `sender`")
        return self._sending

    async def _sent(self, counted: str) -> list[dict[str, Any]]:
        """A row for each report of the last month that was sent; `counted` names what it is about: messages, sessions."""
        return [
            {
                "day": one.day, "domain": one.domain, "state": "sent" if one.is_done else "being sent", "due": one.at,
                counted: one.count, "to": one.to, "report": one.id,
            }
            for one in await self._needed().sent.all(day_of(self._clock.seconds() - 30 * DAY_SECONDS))
        ]  # fmt: skip

    def _days(self) -> Sequence[tuple[str, str]]:
        """The days whose reports may wait, and what becomes of these."""
        today = start_of(day_of(self._clock.seconds()))
        words = ["collecting", *["waiting"] * DAYS, "given up"]
        return [(day_of(today - n * DAY_SECONDS), state) for n, state in enumerate(words)]

    def _from(self, since: float | None) -> float:
        return 0.0 if since is None else self._clock.seconds() - since

    def _day(self, day: str | None) -> str:
        """The day that is meant, today where none is named."""
        try:
            return day_of(self._clock.seconds()) if day is None else day_of(start_of(day))
        except ValueError as error:
            raise CannotDo(f"{day!r} is no day such as 2026-11-30") from error


def by_day(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The latest first, as many as are shown."""
    return sorted(rows, key=lambda one: (one["day"], one["domain"]), reverse=True)[:SHOWN_MOST]


def shortened(document: str) -> str:
    """As much of it as is shown."""
    if len(document) <= DOCUMENT_CHARACTERS:
        return document
    return f"{document[:DOCUMENT_CHARACTERS]}\n… and {len(document) - DOCUMENT_CHARACTERS} characters more"


def domain_of(text: str) -> str:
    """As reports name it."""
    return normal_domain(text).removesuffix(".")
