"""Mail that programs of this host hand over through the drop folder.

Each file becomes a transaction as a connection has one: the same router, the same filters (those of `submission`), the same
commit; only then is the file removed.  Where it is refused the sender gets a report, since nobody waits for a reply; where it
cannot be taken now it is tried again.

A crash between the commit and the removal leaves a file whose name is the id of a message that the queue has: it is removed.
Twice comes only what was committed and had left the queue again when the crash came, and of a message that had to go in several
transactions (more recipients than the limit, or filters that judge for each recipient) what was committed before the crash.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.mail.answers import Local, Remote
from mailserver.mail.content import Content
from mailserver.mail.dropped import DropFault
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.headers import Headers
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.mail.report import Original, RecipientReport, failure_report, parameters_for, wants
from mailserver.receive.drop_folder import PIECE_OCTETS, DropFolder, Opened
from mailserver.receive.profile import Profile
from mailserver.receive.spooling import Spooling
from mailserver.receive.transaction import Transaction
from mailserver.smtp.data import ChunkReader

__all__ = ["Drop"]

LOOK_SECONDS = 1.0
SETTLED_SECONDS = 2.0  # a change this young may be followed by another within the same tick of the file system's clock
AT_ONCE = 20
AGAIN_SECONDS = 30.0
ANOTHER_TRANSACTION = "4.5.3"  # too many recipients for one
ALREADY = Reply.of(250, "2.0.0", "The queue has it")
HEADER_OCTETS = 32_768  # of a refused message, in the report


class NotNow(Exception):
    """The message can be taken later; the words say why not now."""


class Drop:
    """Watches a folder and brings its files into the queue.

    `profile()` is the present profile of `submission`; `next_id()` gives message ids; `is_stored(id)` fires with whether the
    queue has a message.
    """

    log = Logger()

    def __init__(
        self,
        *,
        folder: DropFolder,
        clock: Clock,
        run_in_thread: Callable[..., Deferred[Any]],
        profile: Callable[[], Profile],
        next_id: Callable[[], str],
        is_stored: Callable[[str], Deferred[bool]],
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._profile = profile
        self._next_id = next_id
        self._is_stored = is_stored
        self._timer: Any = None
        self._seen = 0.0
        self._waiting: dict[str, float] = {}  # taken files: when each is tried again
        self._done: dict[str, set[Recipient]] = {}  # of files that need several transactions: who has it
        self._again: set[str] = set()  # taken before, perhaps committed
        self._is_working = False
        self._ended: Deferred[None] | None = None
        self._once_more = False
        self._stopped = True

    # --- life ---

    async def start(self) -> None:
        """Make the folder and take up what an earlier run left.  Raises OSError where it cannot be made."""
        await self._run_in_thread(self._folder.make)
        for name in await self._run_in_thread(self._folder.left_over):
            self._again.add(name)
            self._waiting[name] = 0.0
        self._stopped = False
        self.look()
        self._timer = self._clock.callLater(LOOK_SECONDS, self._tick)

    async def stop(self) -> None:
        """Bring what is under way to its end; the rest stays in the folder."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_working:
            self._ended = Deferred()
            await self._ended

    def look(self) -> None:
        """Look for files now: somebody rang."""
        if self._stopped:
            return
        if self._is_working:
            self._once_more = True
            return
        self._is_working = True
        working: Deferred[None] = Deferred.fromCoroutine(self._work())
        working.addErrback(self._stumbled).addCallback(self._worked)

    async def sweep(self) -> None:
        """Once a day: remove what was begun and never completed."""
        await self._run_in_thread(self._folder.sweep, self._clock.seconds())

    def _tick(self) -> None:
        self._timer = self._clock.callLater(LOOK_SECONDS, self._tick)
        try:
            changed_at = self._folder.changed_at()
        except OSError as error:
            if self._seen >= 0:
                self.log.error("the drop folder cannot be read: {error}", error=error)
            self._seen = -1.0
            return
        now = self._clock.seconds()
        if (
            changed_at != self._seen
            or now - changed_at < SETTLED_SECONDS
            or min(self._waiting.values(), default=now) < now
        ):
            self._seen = changed_at
            self.look()

    def _stumbled(self, failure: Failure) -> None:
        self._working = None
        self.log.failure("the drop folder cannot be worked on; it is tried again", failure)

    def _worked(self, _: None) -> None:
        self._is_working = False
        if self._ended is not None:
            self._ended.callback(None)

    # --- files ---

    async def _work(self) -> None:
        while True:
            self._once_more = False
            taken, bad = await self._run_in_thread(self._folder.take, self._next_id, AT_ONCE)
            for name in bad:
                self.log.error("{name} in the drop folder is no message; it is in bad/ now", name=name)
            now = self._clock.seconds()
            due = [name for name, again_at in self._waiting.items() if again_at <= now][:AT_ONCE]
            for name in due:
                del self._waiting[name]
            await DeferredList([Deferred.fromCoroutine(self._bring(name)) for name in (*due, *taken)])
            if self._stopped or not (taken or bad or due or self._once_more):
                return

    async def _bring(self, name: str) -> None:
        """Bring one taken file into the queue.  Whatever goes wrong, it stays on the disk."""
        try:
            await self._hand_over(name)
        except NotNow as error:
            self.log.warn("{name} in the drop folder has to wait: {why}", name=name, why=str(error))
        except DropFault as error:
            self.log.error("{name} in the drop folder is now in bad/: {why}", name=name, why=str(error))
            await self._run_in_thread(self._folder.reject, self._folder.taken_path(name))
            self._done.pop(name, None)
            return
        except FileNotFoundError:
            self.log.error("{name} has gone from the drop folder", name=name)
            return
        except Exception:  # noqa: BLE001  whatever it is, the message must not be lost for it
            self.log.failure("{name} in the drop folder has to wait", name=name)
        else:
            await self._run_in_thread(self._folder.remove, name)
            self._done.pop(name, None)
            return
        self._again.add(name)
        self._waiting[name] = self._clock.seconds() + AGAIN_SECONDS

    async def _hand_over(self, name: str) -> None:
        id, _, report_id = name.partition(".")
        has_it = name in self._again and name not in self._done and await self._is_stored(id)
        opened: Opened = await self._run_in_thread(self._folder.open, name)
        try:
            visit = Visit(self._profile(), opened, user_of(opened.uid), self._run_in_thread)
            done = self._done.get(name, set())
            waiting = [one for one in opened.envelope.recipients if one not in done]
            while waiting:
                waiting = await visit.transaction(id, waiting, done, has_it)
                if done:
                    self._done[name] = done
                id, has_it = self._next_id(), False
        finally:
            if not opened.is_whole:
                os.close(opened.descriptor)
        if visit.refused and not (name in self._again and await self._is_stored(report_id)):
            await visit.report(report_id, self._clock.seconds())


class Visit:
    """One file at the door.  `refused` are the recipients who will never get it, with the replies."""

    def __init__(
        self, profile: Profile, opened: Opened, user: str, run_in_thread: Callable[..., Deferred[Any]]
    ) -> None:
        self.refused: list[tuple[Recipient, Reply]] = []
        self._profile = profile
        self._opened = opened
        self._run_in_thread = run_in_thread
        self._peer = Peer("local", 0, "submission", hello=f"userid {opened.uid}", login=user)
        self._id = ""

    async def transaction(
        self, id: str, recipients: Sequence[Recipient], done: set[Recipient], has_it: bool
    ) -> list[Recipient]:
        """Send to as many as go together; the others are returned.  `done` gets those who have it.  Raises `NotNow`.

        `has_it` says that the queue has the message already: then only who is refused is found out.
        """
        profile, envelope = self._profile, self._opened.envelope
        self._id = id
        transaction = Transaction(profile, self._peer, "", id)
        profile.note(id, "handed_over", user=self._peer.login, uid=self._opened.uid)
        reply = await transaction.mail(envelope.sender, envelope.parameters)
        if not self._is_yes(reply):
            self.refused += [(one, reply) for one in recipients]
            return []
        accepted: list[Recipient] = []
        others: list[Recipient] = []
        for one in recipients:
            reply = await transaction.recipient(one.address, one.parameters)
            if accepted and reply.enhanced == ANOTHER_TRANSACTION:
                others.append(one)
            elif self._is_yes(reply):
                accepted.append(one)
            else:
                self.refused.append((one, reply))
        if accepted:
            reply = ALREADY if has_it else await self._content(transaction)
            if self._is_yes(reply):
                done.update(accepted)
            else:
                self.refused += [(one, reply) for one in accepted]
        return others

    def _is_yes(self, reply: Reply) -> bool:
        if 400 <= reply.code < 500:
            raise NotNow(str(reply))
        return reply.code < 400

    async def _content(self, transaction: Transaction) -> Reply:
        """Give the message to a transaction; the reply after the data."""
        profile, opened = self._profile, self._opened
        flow = Flow()
        spooling = Spooling(
            path=profile.store.spool_path(transaction.id), spool=profile.spool, pause=flow.pause, resume=flow.resume
        )
        reply = transaction.data(spooling)
        if reply.code >= 400:
            return reply
        reader = ChunkReader(profile.session_limits, converts=False, is_binary=False)
        try:
            spooling.write(reader.read(opened.start, is_last=opened.is_whole))
            at = 0 if opened.is_whole else os.lseek(opened.descriptor, 0, os.SEEK_CUR)
            is_last = opened.is_whole
            while not is_last:
                piece = await self._run_in_thread(os.pread, opened.descriptor, PIECE_OCTETS, at)
                at, is_last = at + len(piece), not piece
                spooling.write(reader.read(piece, is_last=is_last))
                await flow.goes_on()
        except BaseException:
            transaction.abandon()
            raise
        (reply, *_) = await transaction.end_of_data(reader.fault)
        return reply

    async def report(self, id: str, now: float) -> None:
        """Tell the sender of the refused recipients.  Raises `DropFault` where nobody can be told, `NotNow`."""
        profile, sender = self._profile, self._opened.envelope.sender
        told = [(one, reply) for one, reply in self.refused if wants(one, "FAILURE")]
        if sender is None or not told:
            return
        original = Original(self._envelope(now), self._head(), False)
        reports = [RecipientReport(one, reply, tried_at=now) for one, reply in told]
        octets = failure_report(original, reports, id=id, hostname=profile.hostname, made_at=now)
        recipient = Recipient(sender)
        routes = await profile.router.route(sender)
        places = [one for one in routes if isinstance(one, Local) or (isinstance(one, Remote) and profile.relays)]
        if not places:
            raise DropFault(f"refused ({told[0][1]}), and its sender {sender} cannot be told")
        peer = Peer("127.0.0.1", 0, "report", profile.hostname)
        envelope = Envelope(id, peer, None, (recipient,), now, parameters_for(octets, sender))
        destinations = tuple([Destination(n, recipient, place) for n, place in enumerate(places)])
        await profile.store.commit(envelope, Content.of(octets), destinations)
        profile.note(self._id, "reported", condition="failure", report=id, recipient=str(sender))
        profile.note(id, "accepted", sender="", recipients=[str(sender)], size=len(octets), about=self._id)

    def _envelope(self, now: float) -> Envelope:
        envelope = self._opened.envelope
        return Envelope(self._id, self._peer, envelope.sender, envelope.recipients, now, envelope.parameters)

    def _head(self) -> bytes:
        head = self._opened.start[:HEADER_OCTETS].partition(b"\r\n\r\n")[0]
        return Headers.parse(head).without(frozenset())


class Flow:
    """The disk's back pressure."""

    def __init__(self) -> None:
        self._paused: Deferred[None] | None = None

    def pause(self) -> None:
        if self._paused is None:
            self._paused = Deferred()

    def resume(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.callback(None)

    async def goes_on(self) -> None:
        """Return when more may come."""
        if self._paused is not None:
            await self._paused


def user_of(uid: int) -> str:
    """A user's name, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
