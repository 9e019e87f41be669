"""``mailserver replay --since``: what was found of recent mail, weighed anew under another configuration.

A filter that stands in both configurations alike has said what it would say.  What is new, or stands there otherwise, is asked
where the message's text is still there, and what the DNS had said; else it cannot tell.  Who weighs is always asked, with what is
known.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mailserver.assembly.rehearsal import Rehearsal
from mailserver.cli.kept_text import KeptTexts
from mailserver.cli.output import EX_IOERR, Unable, as_json, moment, plain, say, table
from mailserver.cli.road_mail import AnswersOfThen, mail_of_road, service_of
from mailserver.cli.verdicts import Explained, explained
from mailserver.cli.without_server import NotNow, finished
from mailserver.config import Configuration, load
from mailserver.config.filter_order import filter_names
from mailserver.mail.address import Address, AddressError
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.faults import StorageFault
from mailserver.observe.judged import about, filter_steps, recipients_of
from mailserver.observe.roads import DnsOfThen, RoadsUnreadable, Step, roads_since
from mailserver.plugins.catalogue import Catalogue, PluginError, discover
from mailserver.plugins.life import StartError
from mailserver.processes.identity import as_owner_of
from mailserver.trust.weighing import IN_WORDS

__all__ = ["reweigh"]

ROADS = "explain.db"
OURS = "mailserver"  # what the core itself has found
LISTED = 200
JUDGED_SECONDS = 60.0
ENDS = ("refuse", "discard", "disconnect")
NOBODY = Address("nobody", "invalid")


@dataclass(slots=True)
class Tables:
    """How the filters of two configurations stand to each other, by name."""

    kept: dict[str, Any]
    changed: set[str]

    @classmethod
    def of(cls, old: Configuration, new: Configuration) -> Tables:
        """`changed` are those that are new, or have another `use`, other options or services."""
        before, now = _tables(old), _tables(new)
        changed = {name for name, one in now.items() if name not in before or _says(before[name]) != _says(one)}
        return cls({name: one for name, one in now.items() if name not in changed}, changed)


@dataclass(slots=True)
class Found:
    """What came of all of them."""

    messages: int = 0
    recipients: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    not_told: int = 0


def reweigh(options: argparse.Namespace) -> int:
    """Print whose fate would be another.  Return 1 where there is one."""
    catalogue = discover()
    new = load(options.config, catalogue.options_of, catalogue.useless_keys)
    old = new if not options.against else load(options.against, catalogue.options_of, catalogue.useless_keys)
    try:
        with as_owner_of(old.data):
            found = _all(options, old, new, catalogue)
    except RoadsUnreadable as error:
        raise Unable(str(error), EX_IOERR) from error
    except (PluginError, StartError, StorageFault, OSError) as error:
        raise Unable(str(error), EX_IOERR) from error
    _tell(options, found)
    return 1 if found.rows else 0


def _all(options: argparse.Namespace, old: Configuration, new: Configuration, catalogue: Catalogue) -> Found:
    from twisted.internet import reactor

    roads = os.path.join(old.data, ROADS)
    written = DnsOfThen(roads)
    dns = AnswersOfThen(written)
    new = new.model_copy(update={"data": old.data})  # what lists and users have set is where the mail came in
    rehearsal = Rehearsal(new, catalogue, reactor=reactor, resolver=dns)
    work = _Work(rehearsal, dns, Tables.of(old, new), KeptTexts(old), new)
    finished(rehearsal.start())
    try:
        for id, steps in roads_since(roads, options.since):
            work.take(id, steps)
    finally:
        written.close()
        finished(rehearsal.stop())
    return work.found


class _Work:
    """Message after message."""

    def __init__(
        self, rehearsal: Rehearsal, dns: AnswersOfThen, tables: Tables, texts: KeptTexts, configuration: Configuration
    ) -> None:
        self.found = Found()
        self._rehearsal, self._dns, self._tables, self._texts = rehearsal, dns, tables, texts
        self._services = {name: frozenset(one.services) for name, one in _tables(configuration).items()}
        self._asked = {one.name for one in rehearsal.configuration.filter}
        self._judges = (self._asked - rehearsal.scorers) | set(rehearsal.left_out)  # who weighs is always asked

    def take(self, id: str, steps: Sequence[Step]) -> None:
        """Weigh one message, and note whose fate is another."""
        people = recipients_of(steps)
        if not people or (all(people.values()) and not filter_steps(steps)):
            return  # refused for another reason than a filter's
        before = {one.recipient: one for one in explained(steps)}
        service = service_of(steps)
        kept = self._kept(steps)
        unknown = {one for one in self._tables.changed & self._judges if service in self._services[one]}
        if unknown:
            unknown -= self._asked_anew(id, steps, unknown, kept)
        after = finished(self._weighed(id, kept, people, service), JUDGED_SECONDS)
        self.found.messages += 1
        self.found.recipients += len(people)
        for recipient in people:
            was, becomes = _outcome(before.get(recipient)), _outcome(after.get(recipient))
            gone = _ended_by(before.get(recipient))
            not_asked = {f"whoever comes after {gone}"} if gone and becomes not in ENDS else set()
            cannot_tell = sorted(unknown | not_asked)
            self.found.unknown.update(cannot_tell)
            self.found.not_told += bool(cannot_tell)
            if was != becomes:
                self._note(id, steps, recipient, was, becomes, after.get(recipient), cannot_tell)

    def _kept(self, steps: Iterable[Step]) -> list[Step]:
        """What still holds.  Who weighs is asked again."""
        kept: list[Step] = []
        for step in steps:
            if step.step != "filter":
                kept.append(step)
                continue
            table = self._tables.kept.get(str(step.fields.get("filter")))
            if step.fields.get("stage") == "score" or (table is None and step.fields.get("filter") != OURS):
                continue
            shadow = table is not None and table.mode == "shadow"
            kept.append(replace(step, fields={**step.fields, "shadow": shadow}))
        friends = {(one.recipient or "") for one in filter_steps(kept) if one.verdict == "Accept" and one.counts}
        return [
            replace(one, fields={**one.fields, "overruled": False})
            if one.fields.get("overruled") and not friends & {"", str(one.fields.get("recipient", ""))}
            else one
            for one in kept
        ]

    def _asked_anew(self, id: str, steps: Sequence[Step], unknown: set[str], kept: list[Step]) -> set[str]:
        """Those of the unknown that could be asked now; what they have said is added to `kept`."""
        wanted = unknown & self._asked
        mail = mail_of_road(id, steps, self._texts) if wanted else None
        if mail is None:
            return set()
        self._dns.at(id, steps)
        try:
            rehearsed = finished(self._rehearsal.judge(mail), JUDGED_SECONDS)
        except (NotNow, OSError):
            return set()
        if self._dns.has_missed:
            return set()
        kept += [one for one in rehearsed.steps if one.step == "filter" and one.fields.get("filter") in wanted
                 and one.fields.get("stage") != "score"]  # fmt: skip
        return wanted

    async def _weighed(self, id: str, kept: list[Step], people: dict[str, bool], service: str) -> dict[str, Explained]:
        steps = list(kept)
        answers = filter_steps(kept)
        for recipient, at_rcpt in people.items():
            mine = about(answers, recipient, at_rcpt=at_rcpt)
            findings = tuple([it for one in mine if one.counts for it in one.findings])
            if not findings or at_rcpt:
                continue
            try:
                address = Address.parse(recipient, utf8=True) if recipient else NOBODY
            except AddressError:  # redacted
                address = NOBODY
            envelope = Envelope(id, Peer("", 0, service), None, (Recipient(address),), 0.0, findings=findings)
            said = await self._rehearsal.weigh(envelope, Recipient(address))
            steps += [replace(one, fields={**one.fields, "recipient": recipient}) for one in said]
        return {one.recipient: one for one in explained(steps)}

    def _note(
        self, id: str, steps: Sequence[Step], recipient: str, was: str, becomes: str, after: Explained | None, unknown: list[str]
    ) -> None:
        sender = next((one.fields["sender"] for one in steps if isinstance(one.fields.get("sender"), str)), "")
        begin = next((one.time for one in steps if one.id == id), 0.0)
        row = {"id": id, "time": begin, "sender": sender, "recipient": recipient, "before": IN_WORDS[was]}
        total = None if after is None else after.sum
        self.found.rows.append(row | {"after": IN_WORDS[becomes], "sum": total, "cannot_tell": unknown})


def _outcome(one: Explained | None) -> str:
    return "" if one is None else one.outcome


def _ended_by(one: Explained | None) -> str:
    """Whose refusal had kept others from being asked, "" where nobody's."""
    if one is None:
        return ""
    return next((it.filter for it in one.answers if it.counts and it.outcome in ENDS and it.stage != "score"), "")


def _tables(configuration: Configuration) -> dict[str, Any]:
    names = filter_names([(table.use, table.name) for table in configuration.filter])
    return dict(zip(names, configuration.filter, strict=True))


def _says(table: Any) -> tuple[Any, ...]:
    return table.use, table.options, frozenset(table.services), table.hard, table.skippable


def _tell(options: argparse.Namespace, found: Found) -> None:
    if options.json:
        as_json(
            {
                "messages": found.messages,
                "recipients": found.recipients,
                "changes": found.rows,
                "cannot_tell": dict(found.unknown.most_common()),
            }
        )
        return
    rows = [
        (one["id"], moment(one["time"]), one["sender"] or "<>", one["recipient"], one["before"], one["after"],
         "" if one["sum"] is None else f"{one['sum']:g}", ", ".join(one["cannot_tell"]))
        for one in found.rows[:LISTED]
    ]  # fmt: skip
    if rows:
        table(("ID", "TIME", "SENDER", "RECIPIENT", "WAS", "WOULD BE", " SUM", "CANNOT TELL"), rows)
    if len(found.rows) > LISTED:
        say(f"… and {len(found.rows) - LISTED} more")
    say(f"{found.messages} messages, {found.recipients} copies weighed; {len(found.rows)} would have another fate.")
    for name, count in found.unknown.most_common():
        say(f"cannot tell: {plain(name)}, of {count} copies")
