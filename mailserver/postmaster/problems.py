"""What is wrong with this server now, as far as a postmaster can do something about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from mailserver.interfaces import Clock
from mailserver.mail.address import Address
from mailserver.mail.faults import StorageFault
from mailserver.mail.trace import date_time
from mailserver.postmaster.notes import Problem
from mailserver.queue.entry import DestinationSummary, EntrySummary, number_of
from mailserver.queue.queue import Queue
from mailserver.relay.heard_meanings import HeardMeaning

__all__ = ["Problems"]

MISSING_SECONDS = 60.0  # a process that is started again at once is no problem
NAMED = 20  # messages in one note


class Problems:
    """Finds the problems, in the reactor's thread.

    `missing()` says why each small process does not run ("" where it does).  `doubts()` are the doubts about certificates.
    `relay_doubts()` are those about the log-in at a smarthost, `meanings_heard()` what large operators have said since the last
    look, `others()` what somebody else has found.
    `is_own(id)` says whether a message is a note itself.  `names`: whether notes may contain mail addresses.
    `domain_table(domain)` is the configuration's table that holds for a domain: all below ``*.example.org`` are one.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        queue: Queue,
        missing: Callable[[], Mapping[str, str]],
        doubts: Callable[[], Sequence[str]],
        relay_doubts: Callable[[], Sequence[str]] = tuple,
        meanings_heard: Callable[[], Sequence[HeardMeaning]] = tuple,
        others: Callable[[], Sequence[Problem]] = tuple,
        is_own: Callable[[str], Awaitable[bool]],
        names: bool,
        domain_table: Callable[[str], str] = str,
    ) -> None:
        self._domain_table = domain_table
        self._clock = clock
        self._queue = queue
        self._missing = missing
        self._doubts = doubts
        self._relay_doubts = relay_doubts
        self._meanings_heard = meanings_heard
        self._others = others
        self._is_own = is_own
        self._names = names
        self._missing_since: dict[str, float] = {}
        self._full_at: float | None = None

    async def __call__(self) -> list[Problem]:
        """All present problems."""
        found = [*self._of_disk(), *self._of_store(), *self._of_processes(), *self._of_certificates(), *self._of_login()]
        found += [*self._of_replies(), *self._others()]
        try:
            return [*found, *await self._of_failures()]
        except StorageFault:  # its own problem
            return found

    def _of_disk(self) -> list[Problem]:
        self._queue.room_for(0)  # also where nobody sends
        full_at, before = self._queue.room.full_at, self._full_at
        if full_at is None or full_at == before:
            return []
        self._full_at = full_at
        words = (
            f"On {date_time(int(full_at))} the disk of the queue had no room beside limits.minimum_free_bytes:",
            self._queue.data_directory,
            "",
            "While that is so, mail is put off with 452 4.3.1. This note was written when there was room again.",
        )
        return [Problem("disk", "", "the disk of the queue was full", words)]

    def _of_store(self) -> list[Problem]:
        if self._queue.writable:
            return []
        when = date_time(int(self._clock.seconds()))
        words = (f"On {when} the store of the queue could not be written to, and no mail was accepted; the log says why.",)
        return [Problem("store", "", "the store of the queue was broken", words)]

    def _of_processes(self) -> list[Problem]:
        now = self._clock.seconds()
        missing = {name: why for name, why in self._missing().items() if why}
        self._missing_since = {name: min(now, self._missing_since.get(name, now)) for name in missing}
        return [
            Problem(
                "process",
                name,
                f"the process {name} is missing",
                (
                    f"The process {name} does not run, and what it serves is put off: {missing[name]}",
                    "",
                    "Restart the server." if name == "root" else "It is started again and again; `mailserver status` tells.",
                ),
            )
            for name, since in self._missing_since.items()
            if now - since >= MISSING_SECONDS
        ]

    def _of_certificates(self) -> list[Problem]:
        return [
            Problem(
                "certificate",
                doubt,
                "a certificate needs attention",
                (doubt, "", "Changed files are taken up as they are."),
            )
            for doubt in self._doubts()
        ]

    def _of_login(self) -> list[Problem]:
        return [
            Problem(
                "login",
                "",
                "the log-in at the smarthost needs attention",
                (doubt, "", "`mailserver smarthost status` tells more; `mailserver smarthost login` gets a new token."),
            )
            for doubt in self._relay_doubts()
        ]

    def _of_replies(self) -> list[Problem]:
        return [
            Problem(
                "reply",
                one.meaning.key,
                f"{one.meaning.operator or one.host} refuses or delays mail",
                (
                    one.meaning.means,
                    "",
                    *((f"{one.host} has said:", f"    {one.reply}", "") if self._names else ()),
                    one.meaning.do,
                    "",
                    "`mailserver queue destinations` shows how mail goes there, `mailserver explain ID` each message's replies.",
                ),
            )
            for one in self._meanings_heard()
        ]

    async def _of_failures(self) -> list[Problem]:
        numbers = list(self._queue.undeliverable.untold)
        if not numbers:
            return []
        entries: Sequence[EntrySummary] = await self._queue.summaries(numbers)
        failed = [one for one in entries if one.state == "failed" and not await self._is_own(one.id)]
        self._queue.undeliverable.told({*numbers} - {number_of(one.id) for one in failed})
        forwards = forwards_by_table(failed, self._domain_table)
        of_forwards = {number_of(one.id) for group in forwards.values() for one, _ in group}
        problems = [self._of_forwards(table, group) for table, group in forwards.items()]
        return [*self._without_sender([one for one in failed if number_of(one.id) not in of_forwards]), *problems]

    def _without_sender(self, failed: Sequence[EntrySummary]) -> list[Problem]:
        if not failed:
            return []

        def told() -> None:
            self._queue.undeliverable.told([number_of(one.id) for one in failed])

        words = ["These messages could not be delivered, and they have no sender who can be told, as a bounce has none:", ""]
        for entry in failed[:NAMED]:
            words += [entry.id, *(self._named(entry) if self._names else ())]
        if len(failed) > NAMED:
            words.append(f"... and {len(failed) - NAMED} more")
        words += ["", "`mailserver queue show ID` says all of one, `mailserver queue list --state failed` names them all."]
        return [
            Problem(
                "failure", "", f"{len(failed)} undeliverable without a sender who could be told", tuple(words), told
            )
        ]

    def _of_forwards(self, table: str, group: Sequence[tuple[EntrySummary, DestinationSummary]]) -> Problem:
        """Refused by the next host, and their senders have not been told; whose alias it is shall know."""

        def told() -> None:
            self._queue.undeliverable.told({number_of(entry.id) for entry, _ in group})

        words = [
            f"The next host has refused mail that aliases of {table or 'this host'} send on. Its senders were not told: neither",
            "SPF nor DMARC has shown that they had sent it, and a report would have gone to whoever was named.",
            "",
        ]
        for entry, one in group[:NAMED]:
            words += [entry.id, *([f"    {one.recipient} to {one.destination}: {one.reply or one.note}"] if self._names else [])]
        if len(group) > NAMED:
            words.append(f"... and {len(group) - NAMED} more")
        words += ["", "`mailserver queue show ID` says all of one. Where much of this is spam, the filters let too much through."]
        title = f"{len(group)} forwarded messages were refused" if len(group) > 1 else "a forwarded message was refused"
        to = Address("postmaster", domain_of(group[0][1]) if table else "")
        return Problem("forward", table, title, tuple(words), told, to)

    def _named(self, entry: EntrySummary) -> list[str]:
        return [f"    {one.recipient}: {one.reply or one.note}" for one in entry.destinations if one.state == "failed"][:1]


def forwards_by_table(
    entries: Sequence[EntrySummary], table_of: Callable[[str], str]
) -> dict[str, list[tuple[EntrySummary, DestinationSummary]]]:
    """What was refused behind aliases, and no sender is told of, by the table of the alias's domain."""
    found: dict[str, list[tuple[EntrySummary, DestinationSummary]]] = {}
    for entry in entries:
        for one in entry.destinations:
            if one.quiet and one.state == "failed":
                domain = domain_of(one)
                found.setdefault(table_of(domain) if domain else "", []).append((entry, one))
    return found


def domain_of(one: DestinationSummary) -> str:
    """The alias's domain; "" where it has none, or a number."""
    domain = one.recipient.rpartition("@")[2].lower() if "@" in one.recipient else ""
    return "" if domain.startswith("[") else domain
