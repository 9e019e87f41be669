"""Delivery to a command: the message on its standard input, the outcome in its exit code.

The command runs in a child of the launcher (`launcher`), which keeps the privileges that the server gives up.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, gatherResults
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.config import Count, Duration, FilePath, Options
from mailserver.delivery import errno_outcomes, launcher, sysexits
from mailserver.delivery.command_template import CommandTemplate
from mailserver.delivery.launcher import Launch
from mailserver.delivery.launcher_client import hand_over, outcome_of_answer, prefix_fits
from mailserver.delivery.maildir_format import delivery_fields, local_form
from mailserver.interfaces import (
    Clock,
    IComponent,
    IComponentFactory,
    IConcurrentDelivery,
    IMayBeMissing,
    IPrivilegedComponent,
    Services,
)
from mailserver.mail.answers import Delayed, Local, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination, one_for_each
from mailserver.mail.tags import for_final_delivery
from mailserver.plugins.threads import Threads
from mailserver.processes.answer import PendingAnswer
from mailserver.processes.kept import KeptProcess
from mailserver.processes.privileged import RequestError
from mailserver.processes.small import keep_here

__all__ = ["PipeDelivery", "PipeFactory", "PipeOptions", "launch_of"]

HANDING_OVER = 4  # messages at once: a launcher that takes nothing, or a temporary folder that hangs, keeps these threads alone
OF_THE_ADDRESS = ("{folder}", "{recipient}", "{local_part}", "{original_recipient}")  # what differs between alice and alice+x
GRACE_SECONDS = 15.0  # the launcher ends a command that has no time left; this long we wait for it to say so


@implementer(IConcurrentDelivery, IComponent, IPrivilegedComponent, IMayBeMissing)
class PipeDelivery:
    """Runs a command for each destination.  What it took is its own matter, so `flush` has nothing to do.

    `user` is "" for the server's own identity, a name, or ``{user}`` for the mailbox's.  `command`, `user`, `group`, `uid_min`,
    `directory` and `environment` are as in `Launch`; a command may take `time_limit_seconds`, `concurrency` run at once.
    """

    stores = True
    log = Logger()

    def __init__(
        self,
        *,
        command: Sequence[str],
        user: str,
        group: str,
        uid_min: int,
        directory: str,
        environment: Mapping[str, str],
        header_fields: bool,
        null_sender: str,
        time_limit_seconds: float,
        concurrency: int,
        hostname: str,
        clock: Clock,
        run_in_thread: Callable[..., Awaitable[Any]],
        reactor: Any,
        keep: Callable[..., KeptProcess] = keep_here,
    ) -> None:
        CommandTemplate(command)
        self.knows_folders = any("{folder}" in word for word in command)
        self._tells_addresses_apart = any(one in word for word in command for one in OF_THE_ADDRESS)
        self._launch = Launch(
            command=tuple(command),
            user=user,
            group=group,
            uid_min=uid_min,
            directory=directory,
            environment=dict(environment),
            seconds=time_limit_seconds,
            at_once=_children(concurrency),
        )
        self._header_fields = header_fields
        self._null_sender = null_sender
        self._hostname = hostname
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._reactor = reactor
        self._keep = keep
        self._process: KeptProcess | None = None
        self._slots = DeferredSemaphore(concurrency)
        self.calls_at_once = concurrency
        self.deadline_seconds = 2 * time_limit_seconds + 60.0
        self._last_start_seconds = self.deadline_seconds - time_limit_seconds - 2 * GRACE_SECONDS

    # --- life ---

    def start_privileged(self) -> None:
        """Start the launcher while the server may still be root, where a user is named.  Raises OSError."""
        if not self._launch.user:
            return
        self._check_user()
        self._process = self._keep("launcher", self._launch.start())

    async def start(self) -> None:
        """Start the launcher with the server's own identity, where `start_privileged` has not.  Raises OSError."""
        if self._process is not None:
            return
        if not self._launch.user:
            if os.geteuid() == 0:
                raise OSError('pipe: the server runs as root and no command may: set "user"')
            try:
                own = pwd.getpwuid(os.geteuid()).pw_name
            except KeyError:
                raise OSError("pipe: the server's user has no name: set \"user\"") from None
            self._launch = replace(self._launch, user=own)
        self._check_user()
        self._process = self._keep("launcher", self._launch.start(), privileged=False)

    async def stop(self) -> None:
        """End the launcher.  A command whose outcome nobody waits for any more is ended, too."""
        if self._process is not None:
            await self._run_in_thread(self._process.close)

    def missing(self) -> str:
        """Of the launcher."""
        return "it was not started" if self._process is None else self._process.missing

    def _check_user(self) -> None:
        """What the launcher would refuse for every message is a fault of the configuration.  Raises OSError."""
        user, own = self._launch.user, os.geteuid()
        try:
            needs_root = user == launcher.EACH_ITS_USER or pwd.getpwnam(user).pw_uid != own
        except KeyError:
            needs_root = False  # nobody could
        if own != 0 and needs_root:
            raise OSError(
                f"pipe: to run commands as {user} the server needs root at the start: "
                "give root up with twistd --uid and --gid (etc/system-users.conf)"
            )
        if user != launcher.EACH_ITS_USER:
            try:
                launcher.account_for(self._launch, user, pwd.getpwnam)
            except RequestError as error:
                raise OSError(f"pipe: user {user!r}: {error}") from None

    # --- delivering ---

    async def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Mapping[int, Outcome]:
        """Run the command for each mailbox and folder, side by side as far as `concurrency` allows.

        For one that hears only of the mailbox all its folders are one place: it would be told the same twice.
        """
        last_start = self._clock.seconds() + self._last_start_seconds
        groups = one_for_each(destinations, self._place_of)
        outcomes = await gatherResults(
            [Deferred.fromCoroutine(self._deliver_to(envelope, content, first, last_start)) for first, *_ in groups]
        )
        return {one.index: outcome for group, outcome in zip(groups, outcomes, strict=True) for one in group}

    def _place_of(self, destination: Destination) -> Hashable:
        route = destination.route
        if self._tells_addresses_apart or not isinstance(route, Local):
            return destination.place
        return route.mailbox.user, route.mailbox.domain

    async def flush(self) -> None:
        """The command has answered for what it took."""

    async def _deliver_to(
        self, envelope: Envelope, content: Content, destination: Destination, last_start: float
    ) -> Outcome:
        route = destination.route
        if self._launch.user == launcher.EACH_ITS_USER and not (isinstance(route, Local) and route.mailbox.system):
            return Delayed(errno_outcomes.CONFIGURATION, "user = \"{user}\" serves the host's own users only")
        try:
            slot = self._slots.acquire()
            try:
                await slot.addTimeout(max(0.0, last_start - self._clock.seconds()), self._clock)  # type: ignore[arg-type]
            except Late:
                return Delayed(sysexits.NO_TIME_LEFT, "other messages kept the command busy")
            try:
                if self._header_fields:  # with a Return-Path, the only one
                    content = for_final_delivery(content)
                return await self._run(self._request_of(envelope, content, destination), content)
            finally:
                self._slots.release()
        except CancelledError:
            return errno_outcomes.deferred("the server did not wait any longer")
        except Exception as error:  # noqa: BLE001  # one destination's failure must not undo what the others were told
            self.log.failure("a message could not be given to the command")
            return errno_outcomes.deferred(f"{type(error).__name__}: {error}")

    async def _run(self, request: bytes, content: Content) -> Outcome:
        """Have the command run once.

        The launcher's own time limit is shorter than our wait: as a rule it is the launcher that ends a command, and it says
        so.  Where we stop waiting first, closing our end of the reply tells its child, which kills the command.  One that ends
        with 0 at that very moment has taken the message, and gets it again: no protocol with a command excludes that.
        """
        process = self._process
        if process is None:
            return errno_outcomes.deferred("the launcher was not started")
        ours, theirs = socket.socketpair()
        answer = PendingAnswer(self._reactor, ours)
        try:
            try:
                await self._run_in_thread(hand_over, process, request, content, theirs)
            except OSError as error:
                return errno_outcomes.deferred(f"the launcher: {error}")
            octets = await answer.within(self._launch.seconds + GRACE_SECONDS, self._clock)
        except Late:
            return Delayed(sysexits.TIMED_OUT, "the launcher did not answer in time")
        finally:
            answer.close()
        return outcome_of_answer(octets)

    def _request_of(self, envelope: Envelope, content: Content, destination: Destination) -> bytes:
        in_request = prefix_fits(content)
        fields = b""
        if self._header_fields:
            fields = delivery_fields(
                *(envelope.sender, destination.route.address, destination.recipient.address),
                binary=content.binary,
                lines=destination.lines,
            )
        if in_request:
            fields += content.prefix if content.binary else b"".join(local_form([content.prefix]))
        in_file = content.path is not None and in_request
        members = {
            "values": self._values(envelope, content, destination),
            "fields": fields.decode("latin-1"),
            "skip": content.skip if in_file else 0,
            "size": content.stored_size if in_file else content.size - (len(content.prefix) if in_request else 0),
            "binary": content.binary,
        }
        return json.dumps(members, ensure_ascii=True).encode("ascii")

    def _values(self, envelope: Envelope, content: Content, destination: Destination) -> dict[str, str]:
        route = destination.route
        box = route.mailbox if isinstance(route, Local) else None
        return {
            "sender": self._null_sender if envelope.sender is None else str(envelope.sender),
            "recipient": str(route.address),
            "original_recipient": str(destination.recipient.address),
            "local_part": route.address.local,
            "domain": route.address.domain if box is None else box.domain,
            "user": "" if box is None else box.user,
            "folder": "" if box is None else ".".join(box.place),
            "hostname": self._hostname,
            "id": envelope.id,
            "size": str(content.size),
            "client_address": envelope.peer.address,
            "client_name": envelope.peer.hello,
        }


def _usable(words: tuple[str, ...]) -> tuple[str, ...]:
    CommandTemplate(words)
    return words


def _whole_path(path: str) -> str:
    if path != "{home}" and not path.startswith("/"):
        raise ValueError('must be an absolute path or "{home}"')
    return path


class PipeOptions(Options):
    """Mail to a command."""

    command: Annotated[tuple[str, ...], AfterValidator(_usable)]
    """The program and its arguments, with placeholders: `["/usr/bin/program", "-f", "{sender}", "--", "{recipient}"]`."""
    user: str = ""
    """Whom the command runs as; `{user}`: the mailbox's own user of the host; empty: the server's user."""
    group: str = ""
    """The group it runs with; empty: its user's groups."""
    uid_min: Count = 1000
    """With `user = "{user}"`: users below this number get no mail."""
    directory: Annotated[FilePath, AfterValidator(_whole_path)] = "/"
    """Where it runs; `{home}`: in the home of its user."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables that it gets beside PATH, LANG, SHELL, HOME, USER and LOGNAME."""
    header_fields: bool = True
    """Put Return-Path, Delivered-To and, behind an alias, X-Original-To in front of the message."""
    null_sender: str = ""
    """What `{sender}` is for a report, which has no sender."""
    time_limit: Annotated[Duration, Field(gt=0)] = 300.0
    """How long it may take; then it is killed, and the message tried again later."""
    concurrency: Annotated[Count, Field(le=1000)] = 10
    """How many run at once."""


@implementer(IComponentFactory)
class PipeFactory:
    """Makes the delivery for ``[delivery] use = "pipe"``."""

    name = "pipe"
    summary = "Gives each message to a command"
    api_version = "1.0"
    provides = IConcurrentDelivery
    options = PipeOptions

    def build(self, options: PipeOptions, services: Services) -> PipeDelivery:
        """No errors: the options were checked."""
        from twisted.internet import reactor

        threads = Threads("pipe", HANDING_OVER, call_from_thread=reactor.callFromThread)  # type: ignore[attr-defined]

        return PipeDelivery(
            command=options.command,
            user=options.user,
            group=options.group,
            uid_min=options.uid_min,
            directory=options.directory,
            environment=options.environment,
            header_fields=options.header_fields,
            null_sender=options.null_sender,
            time_limit_seconds=options.time_limit,
            concurrency=options.concurrency,
            hostname=services.hostname,
            clock=services.clock,
            run_in_thread=threads.run,
            reactor=reactor,
            keep=services.keep_process or keep_here,
        )


def launch_of(options: PipeOptions) -> Launch:
    """What the launcher is started for, where the options name a user."""
    return Launch(
        command=options.command,
        user=options.user,
        group=options.group,
        uid_min=options.uid_min,
        directory=options.directory,
        environment=options.environment,
        seconds=options.time_limit,
        at_once=_children(options.concurrency),
    )


def _children(concurrency: int) -> int:
    return 2 * concurrency + 2  # those that have answered take a moment to end
