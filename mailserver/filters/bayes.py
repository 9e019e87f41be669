"""Judges messages by what was learnt of others, per site and per user: a small score for who has no larger program.

What it learns comes from `mailserver learn`, and from what users move into Junk and out of it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Address,
    AddressError,
    ComponentCommand,
    Content,
    Count,
    Duration,
    Envelope,
    Finding,
    IAccountFollower,
    ICommands,
    IComponent,
    IComponentFactory,
    ICounting,
    IPeriodic,
    IRecipientContentFilter,
    Options,
    Pass,
    Recipient,
    Services,
    StorageFault,
    Verdict,
    normal_names,
)
from mailserver.config.values import absolute_path
from mailserver.filters.followed_names import FollowedNames
from mailserver.filters.followed_records import Stage
from mailserver.filters.learnt import Learnt, file_of
from mailserver.filters.learnt_commands import commands_of
from mailserver.filters.moved_mail import MailboxPaths
from mailserver.filters.moved_mail_sweep import MovedMailSweep
from mailserver.filters.opinions import Opinion
from mailserver.filters.token_memory import SubjectMessage
from mailserver.trust.bayes import score_of

__all__ = ["Bayes", "BayesOptions", "factory"]

MESSAGES_MOST = 64  # whose tokens are kept until all their recipients' copies are judged
HOUR_SECONDS = 3600.0
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class BayesOptions(Options):
    """What follows from what was learnt, and where it is learnt from."""

    minimum: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """So many messages of spam, and as many of ham, are learnt before anything is said."""
    spam: Score = 6.5
    """The score of what is spam for sure."""
    ham: Score = -2.0
    """The score of what is none for sure."""
    own_weight: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 10.0
    """How much more a message that the user has learnt himself weighs than one of the site's."""
    words: bool = True
    """Whether the finding names the ten tokens that said the most, which stand in the log and in `explain` then."""
    maildirs: str = "{data}/mail/{domain}/{user}"
    """Where the Maildirs are, as in `[delivery] path`: what users move into Junk and out of it is learnt. Empty: it is not."""
    junk: Annotated[str, Field(pattern=r"^[^/\x00.]{1,100}$")] = "Junk"
    """The folder for spam."""
    trash: tuple[str, ...] = ("Trash", "Deleted Messages", "Deleted Items")
    """Folders that say nothing: what is moved there is not learnt."""
    every: Annotated[Duration, Field(ge=1, le=86_400)] = 60.0
    """How long after one look into the Maildirs the next one comes."""
    separator: str = Field(default="+", max_length=1)
    """What divides a user's name from a detail: mail for `alice+shop@example.org` is judged by what alice has learnt. Empty:
    none."""
    vocabulary: Annotated[int, Field(ge=1000, le=10_000_000)] = 200_000
    """How many tokens a user knows, and the site: beyond that the rare ones leave, then those that were learnt longest ago."""
    expire: Annotated[Duration, Field(ge=86_400)] = 365 * 86_400.0
    """How long a token or a message is known since it was learnt last: time in which the server runs."""
    moves: Count = 200
    """How many moved messages are learnt at one look; the others at the next one."""

    @field_validator("maildirs")
    @classmethod
    def _is_path_of_users(cls, value: str, info: ValidationInfo) -> str:
        if not value or value.startswith("{home}"):
            return value
        if "{user}" not in value:
            raise ValueError("the path of a user's Maildir has {user}")
        return absolute_path(value, info)


@implementer(IRecipientContentFilter, IComponent, IPeriodic, ICommands, ICounting, IAccountFollower)
class Bayes:
    """Asks `learnt` about each recipient's copy; `sweep` looks for what users have moved."""

    cost = 10.0
    skippable = True
    deadline_seconds = 300.0
    log = Logger()

    def __init__(self, options: BayesOptions, learnt: Learnt, sweep: MovedMailSweep | None, services: Services) -> None:
        self.interval_seconds = options.every
        self._options = options
        self._learnt = learnt
        self._sweep = sweep
        self._services = services
        self._messages: OrderedDict[str, SubjectMessage] = OrderedDict()
        self._has_plain_owners = sweep is not None and not sweep.paths.has_domain
        self._next_hour = services.steady_seconds() + HOUR_SECONDS
        self._expires = False

    # --- Life. ---

    async def start(self) -> None:
        """Open what was learnt.  What cannot be opened is told, and the server starts without it."""
        if self._options.maildirs.startswith("{home}"):
            self.log.warn(
                "what users move into Junk is not learnt: their homes are theirs alone; root's `mailserver learn` can read them"
            )
        await self._learnt.look()

    async def stop(self) -> None:
        """Close it."""
        if self._sweep is not None:
            self._sweep.stop()
        await self._learnt.close()

    async def run_periodically(self) -> None:
        """Look whether the file is in order, for what was moved, and for what nobody has learnt for long."""
        await self._learnt.look()
        if self._learnt.fault:
            return
        try:
            if self._sweep is not None:
                await self._sweep.run()
            if self._services.steady_seconds() >= self._next_hour:
                self._next_hour += HOUR_SECONDS
                self._expires = True
                await self._learnt.grow_older()
            if self._expires:
                self._expires = bool(await self._learnt.expire(self._options.expire))
        except StorageFault:
            return  # `learnt` has told it

    def commands(self) -> Sequence[ComponentCommand]:
        """``learn``, ``show``, ``forget``."""
        return commands_of(self._learnt)

    def counts(self) -> dict[str, int]:
        """Whether it can be read, what was judged in a process of its own, and learnt of moved mail, since the start."""
        moved = {} if self._sweep is None else {"moved_spam": self._sweep.spam, "moved_ham": self._sweep.ham}
        in_process = 0 if self._learnt.beside is None else self._learnt.beside.done
        return {"readable": int(not self._learnt.fault), "judged_in_process": in_process, **moved}

    # --- Renamed and removed users. ---

    async def accounts_renamed(self, accounts: Mapping[str, str], stage: Stage) -> None:
        """What they have learnt."""
        if self._learnt.is_there:
            await self._learnt.follow(self._names(accounts), stage)

    async def account_removed(self, account: str) -> None:
        """Forget what he has learnt."""
        if self._learnt.is_there:
            await self._learnt.drop_owners(self._names({account: account}))

    async def kept_of_account(self, account: str) -> int:
        """Of how many messages."""
        if not self._learnt.is_there:
            return 0
        name_of = self._names({account: account})
        found = [one for one in await self._learnt.owners() if one["owner"] != "site" and name_of(one["owner"]) is not None]
        return sum([int(one["spam"] + one["ham"]) for one in found])

    def _names(self, accounts: Mapping[str, str]) -> Callable[[str], str | None]:
        """What an owner is called then, None where it is nobody of these."""
        names = FollowedNames(accounts, self._options.separator)
        has_plain = self._has_plain_owners

        def after(owner: str) -> str | None:
            return names.after(owner) if "@" in owner else names.locals_after(owner) if has_plain else None

        return after

    # --- Judging. ---

    async def judge_content_for(self, envelope: Envelope, content: Content, recipient: Recipient) -> Verdict:
        """A finding, where enough was learnt.  Where nothing can be read there is one without a score."""
        if envelope.peer.login:
            return Pass()
        begun = time.perf_counter()
        try:
            opinion = await self._learnt.opinion(self._subject(envelope, content), self._owners(recipient.address))
        except StorageFault as fault:
            return Pass(findings=(Finding("bayes", 0.0, f"nothing can be said: {fault}"[:1000], {"result": "temperror"}),))
        self._services.metrics.observe("judgement_seconds", time.perf_counter() - begun)
        if opinion is None:
            return Pass()
        finding = self._finding(opinion)
        self._services.metrics.count("judged", result=str(finding.properties["result"]))
        return Pass(findings=(finding,))

    def _subject(self, envelope: Envelope, content: Content) -> SubjectMessage:
        """One for all recipients of a message."""
        found = self._messages.pop(envelope.id, None)
        if found is None or found.content is not content:
            found = SubjectMessage(content)
        self._messages[envelope.id] = found
        while len(self._messages) > MESSAGES_MOST:
            self._messages.popitem(last=False)
        return found

    def _owners(self, address: Address) -> list[str]:
        """Whose learning may count for a recipient, the nearest first."""
        try:
            local, domain = normal_names(address)
        except AddressError:
            return []
        if not domain:  # <postmaster>
            return []
        base = local.partition(self._options.separator)[0] if self._options.separator else ""
        users = [local, *([base] if base and base != local else [])]
        return [*[f"{one}@{domain}" for one in users], *(users if self._has_plain_owners else [])]

    def _finding(self, opinion: Opinion) -> Finding:
        score = score_of(opinion.probability, spam=self._options.spam, ham=self._options.ham)
        result = "unsure" if not score else "spam" if opinion.probability > 0.5 else "ham"
        whose = f"{opinion.owner} and the site" if opinion.owner else "the site"
        words = f"{opinion.probability:.3f} by {opinion.spam} spam and {opinion.ham} ham of {whose}"
        if self._options.words and opinion.words:
            words += f"; most of {opinion.counted}: {opinion.words}"
        return Finding("bayes", score, words[:1000], {
            "result": result,
            "probability": round(opinion.probability, 4),
            "spam": opinion.spam,
            "ham": opinion.ham,
            "counted": opinion.counted,
            "of": "user" if opinion.owner else "site",
        })  # fmt: skip


@implementer(IComponentFactory)
class BayesFactory:
    """Makes the filter for ``[[filter]] use = "bayes"``."""

    name = "bayes"
    summary = "Scores messages by what the site and each user have learnt of others (Bayes)."
    api_version = "1.0"
    provides = IRecipientContentFilter
    options = BayesOptions

    def build(self, options: Any, services: Services) -> Bayes:
        """Return the filter."""
        learnt = Learnt(
            path=file_of(services.data_directory, services.name),
            keys_directory=services.keys_directory,
            hostname=services.hostname,
            new_threads=services.new_threads,
            room_for=services.room_for,
            clock=services.clock,
            run_in_process=services.run_in_process,
            steady_seconds=services.steady_seconds,
            vocabulary_most=options.vocabulary,
            minimum=options.minimum,
            own_weight=options.own_weight,
        )
        sweep = None
        if options.maildirs and not options.maildirs.startswith("{home}"):
            sweep = MovedMailSweep(
                learnt,
                paths=MailboxPaths(options.maildirs, services.data_directory),
                junk=options.junk,
                trash=options.trash,
                most=options.moves,
                seconds=services.clock.seconds,
                steady_seconds=services.steady_seconds,
                run_in_thread=services.run_in_thread,
            )
        return Bayes(options, learnt, sweep, services)


factory = BayesFactory()
