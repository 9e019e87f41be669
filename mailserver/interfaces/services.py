"""What the core lends to a component."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, TypeVarTuple

from twisted.internet.defer import Deferred
from zope.interface import Interface

from mailserver.mail.address import Address
from mailserver.mail.dns_records import Answer
from mailserver.mail.fetched import Fetched
from mailserver.mail.held_copy import HeldCopy

__all__ = [
    "Clock",
    "ComparesPasswords",
    "ComponentMetrics",
    "ComponentThreads",
    "Fetch",
    "IQuarantine",
    "IRecords",
    "IResolver",
    "IStateStore",
    "IWaitingMail",
    "InReactor",
    "KeepProcess",
    "NewThreads",
    "RunInProcess",
    "RunInThread",
    "Send",
    "Services",
    "Timer",
]

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Timer(Protocol):
    """Twisted's `IDelayedCall`, as far as a component needs it."""

    def cancel(self) -> None: ...

    def active(self) -> bool: ...


class Clock(Protocol):
    """Twisted's `IReactorTime`, as far as a component needs it."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, f: Callable[..., object], /, *args: Any, **kwargs: Any) -> Timer: ...


class RunInThread(Protocol):
    """Calls a function that may block, in a thread of the component's own.

    There are eight of them, and a thousand calls may wait.  Fails at once, with an OSError, where so many wait or each thread
    hangs.  A call that is cancelled before its turn is never made; one that runs goes on in its thread, and nobody hears of it.
    """

    def __call__(self, function: Callable[[*Arguments], T], /, *arguments: *Arguments) -> Deferred[T]: ...


class RunInProcess(Protocol):
    """Calls a function in another process: heavy work, which would hold the server, and may be killed.

    `function` is one of a module's, which the process imports by its name.  An argument is a `Content`, which takes its octets
    along or the path of its file, or is made of plain values: None, numbers, texts, octets, tuples, lists, sets, dictionaries.
    So is the result, which has 8 MiB at most, as JSON.

    A component has two such processes, begun with the first call and ended after five minutes without one; a hundred calls may
    wait.  They have the server's identity, ``limits.process_memory_bytes`` of memory, none of the server's descriptors, and
    what they print goes nowhere.  After `seconds` (counted from its turn, an hour at most) a call has failed and its process is
    killed; so it is where the call is cancelled.

    Fails with `ProcessFailed`; with TypeError or ValueError for what cannot be asked; with an OSError at once where too many
    calls wait, or no process can be begun.
    """

    def __call__(
        self, function: Callable[[*Arguments], T], /, *arguments: *Arguments, seconds: float = 60.0
    ) -> Deferred[T]: ...


class ComparesPasswords(Protocol):
    """Compares a password with a hash, in one of a few threads."""

    def __call__(self, password: str, hash: str | None, /) -> Awaitable[bool]: ...


class ComponentThreads(Protocol):
    """Threads of a component's own (`mailserver.plugins.threads.Threads`)."""

    def run(self, function: Callable[..., T], /, *arguments: Any) -> Deferred[T]: ...

    def stop(self) -> None: ...


class NewThreads(Protocol):
    """Makes a component threads of its own: at most `most`, begun when they are needed."""

    def __call__(self, name: str, most: int, /) -> ComponentThreads: ...


class InReactor(Protocol):
    """Calls a function in the reactor's thread, from any thread.

    The answer is a Future of what the function returns or of what its Deferred or coroutine comes to: ``.result(timeout=5)``
    waits for it in the thread.  When the server stops, it fails.
    """

    def __call__(self, function: Callable[[*Arguments], Awaitable[T] | T], /, *arguments: *Arguments) -> Future[T]: ...


class ComponentMetrics(Protocol):
    """What a component counts, by short names such as ``lookups``; from any thread.

    Labels are for few values (a result, a stage), never for addresses or domains: beyond 200 series all others become one with
    the label values ``other``.  A wrong name or value raises ValueError or TypeError.
    """

    def count(self, name: str, /, by: float = 1, **labels: str) -> None:
        """Add to a counter."""

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Put a value, in seconds, into a histogram."""


class KeepProcess(Protocol):
    """Starts one of the server's own small processes (`mailserver.processes`) and replaces it when it dies."""

    def __call__(self, kind: str, start: Any, /, *, privileged: bool = True) -> Any: ...


class TapsConnections(Protocol):
    """Says of a connection that begins what takes its octets, None where nobody records it (`mailserver.transport`)."""

    def tap(self, peer: str, port: int, ours: object, /, *, is_client: bool) -> Any: ...


class SharesTLSResults(Protocol):
    """Takes what the relay has seen of TLS with other hosts to those who count it (`mailserver.trust.tls_result.TLSResult`)."""

    def tell(self, result: object, /) -> None: ...

    def listen(self, name: str, heard: Callable[[object], None], /) -> None: ...

    def unlisten(self, name: str, heard: Callable[[object], None], /) -> None: ...


class Fetch(Protocol):
    """Fetches one https URL that a stranger may have chosen, within narrow bounds: for policies, keys, reports."""

    def __call__(
        self, url: str, /, *, body: bytes | None = None, content_type: str = "", accept: str = "*/*"
    ) -> Awaitable[Fetched]:
        """The answer to GET, or to POST where there is a `body` (of this `content_type`).

        Raises `FetchFailed` where there is none: another scheme or port than https and 443, a host without a public address, a
        certificate of another name, more than 65,536 octets, more than 60 seconds.  Redirects are not followed: their status is
        the answer.
        """


class Send(Protocol):
    """Puts a message of the component's own into the queue: a report, a digest."""

    def __call__(
        self, content: bytes, /, *, sender: Address | None, recipients: Sequence[Address], reports: bool = True
    ) -> Awaitable[str]:
        """The id of the message, when it is durable.

        `content` is a header section in ASCII with a From field, and a body; Date and Message-ID are added where there are none.
        10 MiB and 100 recipients at most.  `sender` None is the null reverse-path: it hears of no failure.  Without `reports`
        nobody does, postmaster neither (RFC 3461, NOTIFY=NEVER).  It goes where the recipients' addresses lead, is signed as the
        mail of users is, and is judged by nobody.  TypeError and ValueError for what is no message, ValueError too where no
        recipient leads anywhere; `CannotTell` and the faults of the storage (`StorageFull` among them): later again.  After
        `CannotTell` it may have been taken all the same.
        """


_NOT_LENT: Any = None  # a component that is built without a server gets fewer services


@dataclass(frozen=True, slots=True)
class Services:
    """What the core lends to a component.

    * `clock`: the wall clock and delayed calls
    * `run_in_thread(function, *args)`: an Awaitable of what the function returns, in a thread of the component's own
    * `run_in_process(function, *args, seconds=60)`: the same in a process of its own, for heavy work
    * `state`: an `IStateStore` of the component's own, which outlives a restart
    * `records`: an `IRecords` of the component's own: what must not be lost
    * `quarantine`: an `IQuarantine`: what a filter holds.  Others are lent one in which nothing is
    * `waiting_mail`: an `IWaitingMail`: what accounts have handed in and waits in the queue
    * `resolver`: an `IResolver`
    * `fetch(url)`: an Awaitable of the `Fetched` answer of a web server whose name a stranger may have chosen
    * `send(content, sender=…, recipients=…)`: an Awaitable of the id of a message of the component's own, which is in the queue
    * `is_own_domain(domain)`: whether mail for it is delivered here, by the configuration in force
    * `hostname`: the server's own name
    * `configuration_directory`, `data_directory`, `keys_directory`: absolute paths; the last need not exist
    * `check_password(password, hash)`: an Awaitable of whether they match.  Passwords are compared in a few threads; one that
      matched a moment ago is quick.  With None for the hash the answer is False and takes as long as for a real one
    * `recordings`: whether a connection is recorded for somebody who looks on; the core's own
    * `tls_results`: how TLS with other hosts came out; the core's own
    * `keep_process(kind, start)`: starts one of the server's own small processes and replaces it when it dies
    * `new_threads(name, most)`: threads of the component's own for calls that may hang (`mailserver.plugins.threads.Threads`)
    * `in_reactor(function, *args)`: from a thread, a Future of what the function returns in the reactor's thread
    * `metrics`: counters, gauges and histograms that `mailserver plugins` shows
    * `room_for(octets)`: whether the disk of the data has room for them beside `limits.minimum_free_bytes`; they count as taken
      for a second.  In the reactor's thread
    * `steady_seconds()`: a clock that nobody sets, for times that a component keeps in memory
    * `name`: what the configuration calls the component: its table's `name`, else what its `use` says
    """

    clock: Clock
    run_in_thread: RunInThread
    state: IStateStore
    resolver: IResolver
    hostname: str
    configuration_directory: str
    data_directory: str
    check_password: ComparesPasswords = _NOT_LENT
    keep_process: KeepProcess | None = None
    recordings: TapsConnections | None = None
    tls_results: SharesTLSResults | None = None
    keys_directory: str = ""
    new_threads: NewThreads = _NOT_LENT
    room_for: Callable[[int], bool] = _NOT_LENT
    steady_seconds: Callable[[], float] = time.monotonic
    name: str = ""
    in_reactor: InReactor = _NOT_LENT
    metrics: ComponentMetrics = _NOT_LENT
    records: IRecords = _NOT_LENT
    fetch: Fetch = _NOT_LENT
    send: Send = _NOT_LENT
    run_in_process: RunInProcess = _NOT_LENT
    quarantine: IQuarantine = _NOT_LENT
    is_own_domain: Callable[[str], bool] = _NOT_LENT
    waiting_mail: IWaitingMail = _NOT_LENT


class IStateStore(Interface):
    """Small facts that expire: greylists, rates, reputation.  A power loss may cost seconds of them.

    The facts are the component's own: nobody else reads or changes them.  They outlive reloads, restarts and upgrades, under the
    component's kind and `Services.name`.  An answer from memory is there at once; another may take seconds, and fails with
    `StorageBroken` where the file cannot be read.  Each verb is atomic, however many calls are under way.

    A key has at most 2,048 octets, a value 65,536, and a lifetime is ten years at most.  A space has a million facts; beyond
    that, those that expire first leave.  TypeError and ValueError for what cannot be kept.  Lifetimes go by a clock that nobody
    sets.
    """

    def get(key: str) -> Awaitable[bytes | None]:
        """The value, None where there is none or it has expired."""

    def put(key: str, value: bytes, lifetime: float) -> Awaitable[None]:
        """Keep the value for `lifetime` seconds; it reaches the disk within seconds.  None or fewer is a `drop`."""

    def drop(key: str) -> Awaitable[None]:
        """Forget it."""

    def add(key: str, n: int, lifetime: float) -> Awaitable[int]:
        """Add to a counter, which begins with 0, and return its sum.

        A counter that begins now ends after `lifetime` seconds; what is added later does not prolong it.
        """

    def put_if_absent(key: str, value: bytes, lifetime: float) -> Awaitable[bool]:
        """Keep the value where there is none.  Whether that was so."""

    def compare_and_put(key: str, old: bytes | None, new: bytes | None, lifetime: float) -> Awaitable[bool]:
        """Put `new` in the place of `old`; None is "no value".  Whether `old` was there."""

    def take(key: str) -> Awaitable[bytes | None]:
        """The value, which is forgotten by that: of several who ask at once, one hears it."""

    def items(first: str = "", before: str | None = None, most: int = 1000) -> Awaitable[Sequence[tuple[str, bytes, float]]]:
        """Key, value and end (seconds since the epoch) of what has not expired, by key, at most 10,000 of them.

        From `first` on, up to but without `before`.  The next page begins with the last key and a NUL.
        """


class IRecords(Interface):
    """Durable facts of people: lists, contacts, keys' metadata, suppressions.  They expire only when somebody drops them.

    The records are the component's own, as the facts of its `IStateStore` are, and under the same name.  What a verb has said is
    done has been synced: it outlives a power loss.  Each verb is atomic.  They are in `mailserver backup` and `mailserver records
    export`.  `StorageFull`, `StorageBroken` and `StorageDamaged` (mailserver.mail.faults) where that cannot be: after a time-out
    nobody knows whether it was written.  Keys and values as in `IStateStore`; TypeError and ValueError for what cannot be kept.
    """

    def get(key: str) -> Awaitable[bytes | None]:
        """The value, None where there is none."""

    def put(key: str, value: bytes) -> Awaitable[None]:
        """Keep the value."""

    def drop(key: str) -> Awaitable[None]:
        """Take it away for good."""

    def put_if_absent(key: str, value: bytes) -> Awaitable[bool]:
        """Keep the value where there is none.  Whether that was so."""

    def compare_and_put(key: str, old: bytes | None, new: bytes | None) -> Awaitable[bool]:
        """Put `new` in the place of `old`; None is "no value".  Whether `old` was there."""

    def items(first: str = "", before: str | None = None, most: int = 1000) -> Awaitable[Sequence[tuple[str, bytes]]]:
        """Key and value by key, from `first` on, up to but without `before`; at most 10,000 of them."""


class IQuarantine(Interface):
    """The copies that a filter holds (`Quarantine` with ``hold=True``, or where `policy.quarantine` says so): to look after them.

    A filter sees what it holds itself, or has found something about, and changes only what it holds itself.  `by` says who has
    decided: it stands on the message's road.  What is not there any more, or is not the filter's, is passed over: each verb
    returns the ids that it was done for, synced.  ValueError for what is no id; `StorageFault` where the store fails, and those
    before it are done.
    """

    def held(
        recipient: str = "", finding: str = "", sender: str = "", after: str = "", most: int = 100
    ) -> Awaitable[Sequence[HeldCopy]]:
        """The copies, the oldest message first, at most 1,000; the next ones come `after` the last one's id.

        `recipient` and `sender` are patterns with ``*`` and ``?`` ("<>" for the null reverse-path), `finding` is one of a
        finding's name, or of ``filter/name``; "" is any.
        """

    def release(ids: Sequence[str], by: str = "") -> Awaitable[Sequence[str]]:
        """Let them go.  The filters for a recipient's copy judge it again, but for this one; what others hold stays held.

        An id is a copy's, or a message's for all its copies.
        """

    def to_junk(ids: Sequence[str], by: str = "") -> Awaitable[Sequence[str]]:
        """Deliver them into the Junk folders.  A copy for another host stays as it is."""

    def drop(ids: Sequence[str], by: str = "") -> Awaitable[Sequence[str]]:
        """Throw them away; nobody is told."""


class IWaitingMail(Interface):
    """The messages that an account has handed in and that wait in the queue: to hold them, and to let them go again.

    A message that is held stays in the queue until it is released, here or by a person (`mailserver queue`); it does not expire.
    Nothing that a verdict or a person holds is touched.  With `since` or `before` only messages are meant that were received from
    then on, or before then, seconds since the epoch: a login may have been another user's.  ValueError where `login` is empty.
    `StorageFault` where the store fails: what was done before stays done, and the same call goes on with the rest.
    """

    def hold(
        login: str, why: str, *, since: float | None = None, before: float | None = None
    ) -> Awaitable[tuple[int, int]]:
        """Hold what waits, for all its recipients.  `why` stands on each message's road.

        How many messages are held by this call, and how many could not be since they are being delivered at this moment.
        """

    def release(
        login: str, by: str = "", *, since: float | None = None, before: float | None = None
    ) -> Awaitable[tuple[int, int]]:
        """Let go what this component has held, and only that: it is delivered at once.

        How many messages, and how many could not be at this moment.  `by` says who has decided.
        """


class IResolver(Interface):
    """Asks the DNS.  A time-out or SERVFAIL is an error, never "no such record"."""

    def query(name: str, record_type: str) -> Awaitable[Answer]:
        """Return an `Answer`: records, time to live, authenticated-data bit.

        `record_type` is A, AAAA, MX, TXT, PTR, TLSA, NS or CNAME.  Raises `LookupFailed` where nobody can tell.
        """
