"""Everything that a plugin author implements, and nothing else.

A component is built by an `IComponentFactory`, which is found by its name: an object in a module of `twisted.plugins`, or
behind an entry point of the group ``mailserver.plugins``.  Every method typed ``Awaitable`` may be an ``async def`` or may
return a Deferred.  The core gives each call a deadline; a call that fails or takes too long counts as the configured
`on_error`, which is *defer* unless the administrator says otherwise: a broken plugin never loses and never lets through.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, TypeVarTuple

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mailserver.mail.address import Address
from mailserver.mail.answers import Mailbox, Outcome, Route, Verdict
from mailserver.mail.content import Content
from mailserver.mail.edits import Edit
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.parcel import Destination, Parcel
from mailserver.sasl.scram_keys import ScramForm
from mailserver.sasl.steps import Challenge, ChannelBindings, ScramKeys

__all__ = [
    "Candidate",
    "CannotTell",
    "Clock",
    "ComparesPasswords",
    "ComponentThreads",
    "Denial",
    "Denied",
    "IAccountList",
    "IAuthenticator",
    "IBatchDelivery",
    "ICertificateAccounts",
    "IComponent",
    "IComponentFactory",
    "IConcurrentDelivery",
    "IContentFilter",
    "ICounting",
    "IDelivery",
    "IDirectory",
    "IForgiving",
    "IHostAccounts",
    "IHostFinder",
    "ILogin",
    "IMayBeMissing",
    "IModifier",
    "IObserver",
    "IPeerFilter",
    "IPreparing",
    "IPrivilegedComponent",
    "IRecipientContentFilter",
    "IRecipientFilter",
    "IResolver",
    "IRouter",
    "IScramAccounts",
    "ISecretAccounts",
    "ISenderFilter",
    "ISenderGrants",
    "IStateStore",
    "ISweeping",
    "IUsualScramForm",
    "KeepProcess",
    "LoggedIn",
    "NewThreads",
    "RunInThread",
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
    """Calls a function that may block, in a thread."""

    def __call__(self, function: Callable[[*Arguments], T], /, *arguments: *Arguments) -> Deferred[T]: ...


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


class KeepProcess(Protocol):
    """Starts one of the server's own small processes (`mailserver.processes`) and replaces it when it dies."""

    def __call__(self, kind: str, start: Any, /, *, privileged: bool = True) -> Any: ...


_NOT_LENT: Any = None  # a component that is built without a server gets fewer services


@dataclass(frozen=True, slots=True)
class Services:
    """What the core lends to a component.

    * `clock`: the wall clock and delayed calls
    * `run_in_thread(function, *args)`: an Awaitable of what the function returns
    * `state`: an `IStateStore`, which outlives a restart
    * `resolver`: an `IResolver`
    * `hostname`: the server's own name
    * `configuration_directory`, `data_directory`, `keys_directory`: absolute paths; the last need not exist
    * `check_password(password, hash)`: an Awaitable of whether they match.  Passwords are compared in a few threads; one that
      matched a moment ago is quick.  With None for the hash the answer is False and takes as long as for a real one
    * `keep_process(kind, start)`: starts one of the server's own small processes and replaces it when it dies
    * `new_threads(name, most)`: threads of the component's own for calls that may hang (`mailserver.plugins.threads.Threads`)
    * `room_for(octets)`: whether the disk of the data has room for them beside `limits.minimum_free_bytes`; they count as taken
      for a second.  In the reactor's thread
    * `steady_seconds()`: a clock that nobody sets, for times that a component keeps in memory
    * `name`: what the configuration calls the component: its table's `name`, else what its `use` says
    """

    clock: Clock
    run_in_thread: RunInThread
    state: Any
    resolver: IResolver
    hostname: str
    configuration_directory: str
    data_directory: str
    check_password: ComparesPasswords = _NOT_LENT
    keep_process: KeepProcess | None = None
    keys_directory: str = ""
    new_threads: NewThreads = _NOT_LENT
    room_for: Callable[[int], bool] = _NOT_LENT
    steady_seconds: Callable[[], float] = time.monotonic
    name: str = ""


class IComponentFactory(Interface):
    """Makes a component from its options.  Cheap: no I/O, neither at import nor in `build`."""

    name = Attribute("The name that the configuration uses, such as 'denylist'.  Unique for each interface provided.")
    summary = Attribute("One line for `mailserver plugins`.")
    provides = Attribute("The interface of this module that the component provides, or a tuple of several.")
    options = Attribute("A subclass of `mailserver.config.Options` (pydantic): names, types, defaults and help of the options.")

    def build(options: Any, services: Services) -> Any:
        """Return the component.  `options` is a checked instance of the class `options`."""


class IComponent(Interface):
    """Optional: a component that has a life."""

    def start() -> Awaitable[None]:
        """Called once before the first listener opens.  An error stops the start, and so does one that takes two minutes."""

    def stop() -> Awaitable[None]:
        """Called once: when the server stops, or after a reload that has replaced the component.

        First the messages, logins and judgements that began with it come to their end, within `limits.shutdown_seconds`.  The
        call itself is waited for twenty seconds.
        """


class IPrivilegedComponent(Interface):
    """Optional: a component that needs, for a moment, the identity that the server was started with."""

    def start_privileged() -> None:
        """Called once, before the privileges are dropped and before `start`.  No reactor runs yet."""


class IMayBeMissing(Interface):
    """Optional, beside `IDelivery`: a delivery that depends on something that may be gone for a while."""

    def missing() -> str:
        """Why it cannot deliver now, "" where it can.  Asked for each recipient that it would serve, who is deferred (451)."""


class IPreparing(Interface):
    """Optional, beside `IDelivery`: a delivery whose mailboxes can be made before the first message."""

    def prepare(mailboxes: Sequence[Mailbox]) -> Awaitable[None]:
        """Make those that are missing, so that a mail program finds them.  One that cannot be made is not an error here."""


class ISweeping(Interface):
    """Optional: a component that leaves something behind when it is cut off."""

    def sweep() -> Awaitable[int]:
        """Called once a day.  Remove what is left behind; return how many things that were."""


class IPeerFilter(Interface):
    """Judges who connects."""

    def judge_peer(peer: Peer) -> Awaitable[Verdict]:
        """Called at connect (`peer.hello` is empty) and again after EHLO, HELO or LHLO.

        A `Quarantine` holds for every message of the connection.
        """


class ISenderFilter(Interface):
    """Judges a reverse-path at MAIL."""

    def judge_sender(envelope: Envelope) -> Awaitable[Verdict]:
        """`envelope.sender` may be None, the null reverse-path; there are no recipients yet."""


class IRecipientFilter(Interface):
    """Judges one forward-path at RCPT."""

    def judge_recipient(envelope: Envelope, recipient: Recipient) -> Awaitable[Verdict]:
        """`envelope.recipients` holds those accepted before this one.  A `Quarantine` is for this recipient alone."""


class IContentFilter(Interface):
    """Judges a message after its data, once for all its recipients."""

    def judge_content(envelope: Envelope, content: Content) -> Awaitable[Verdict]:
        """The verdict holds for every recipient.  `content` is the whole message."""


class IRecipientContentFilter(Interface):
    """Judges a message after its data for one recipient at a time."""

    def judge_content_for(envelope: Envelope, content: Content, recipient: Recipient) -> Awaitable[Verdict]:
        """The verdict holds for this recipient alone."""


class IModifier(Interface):
    """Changes a message; the core applies and records the edits."""

    def edits(envelope: Envelope, content: Content) -> Awaitable[Sequence[Edit]]:
        """Return the edits in the order in which they are to be applied."""


class IObserver(Interface):
    """Is told what happens; can neither decide nor delay."""

    def observe(step: Mapping[str, Any]) -> None:
        """One step of one message's or connection's road: `time`, `id`, `step` and the step's own fields."""


class CannotTell(OSError):
    """What a directory or a checker raises that cannot be asked now: a database that is gone, an answer that never came.

    It is neither yes nor no.  A recipient is deferred, a login hears a temporary failure, and where the start needs the answer,
    the server does not start.  Any other error of theirs means the same; this one says so.
    """


class IDirectory(Interface):
    """Knows who exists."""

    def find(local_part: str, domain: str) -> Awaitable[Mailbox | None]:
        """Return the mailbox of the account with exactly this name (domain in lower case), None where there is none.

        `CannotTell`, like any other error: the recipient is deferred, never refused.
        """


class IHostAccounts(Interface):
    """Optional marker, beside `IAccountList`: the accounts are the users of the host, so the first of them is anybody."""


class IAccountList(Interface):
    """Optional, beside `IDirectory`: a directory that can say who exists."""

    def accounts() -> Awaitable[Sequence[str]]:
        """The accounts' addresses; the first is taken for the postmaster's where none is configured."""


# --- Who may log in.  Passwords are checked by `twisted.cred.checkers.ICredentialsChecker`s for `IUsernamePassword`: what
# `[accounts] use` names, where it provides that interface, and strcred's.  `UnauthorizedLogin` is their no; where they cannot
# be asked, they raise `CannotTell`. ---


class IScramAccounts(Interface):
    """Optional, beside `IDirectory`: accounts that can log in with SCRAM-SHA-256."""

    def scram_keys(account: str) -> Awaitable[ScramKeys | None]:
        """What is kept of the account's password (RFC 5803), None where there is no such account or it has no keys."""


class IUsualScramForm(Interface):
    """Optional, beside `IScramAccounts`: whose keys were not all made by this server."""

    def usual_scram_form() -> Awaitable[ScramForm | None]:
        """The form that most accounts' keys have, so that the keys shown for an unknown name do not differ from it.

        None where it is not known: then it is the form of keys made here.
        """


class ISecretAccounts(Interface):
    """Optional, beside `IDirectory`: accounts whose passwords can be read, which CRAM-MD5 needs."""

    serves_secrets = Attribute("Whether any account has a readable password: only then is CRAM-MD5 offered.")

    def secret(account: str) -> Awaitable[bytes | None]:
        """The password in UTF-8, None where it cannot be read."""


class ICertificateAccounts(Interface):
    """Optional, beside `IDirectory`: accounts that a TLS client certificate may stand for."""

    def account_of_certificate(fingerprint: str, emails: Sequence[str]) -> Awaitable[str | None]:
        """The account, None where there is none.  `fingerprint` is SHA-256 in lower-case hex.

        `emails` are the certificate's addresses where one of our authorities vouches for it, else empty.
        """


class ISenderGrants(Interface):
    """Optional, beside `IDirectory`: accounts that may send as others than themselves."""

    def granted_senders(account: str) -> Awaitable[Sequence[str]]:
        """Addresses, or ``@`` and a domain; the account's own address and its aliases need not be among them."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The client is this account (an address).

    `method` is the mechanism, `note` for the log, such as the app password's name.
    """

    account: str
    method: str
    note: str = ""


class Denial(enum.Enum):
    """Why a login is refused, as far as the client may know."""

    CREDENTIALS = "the credentials are wrong, or there is no such account"
    MALFORMED = "the response is not well formed"
    WEAK = "this mechanism is too weak for this account"
    UNAVAILABLE = "the accounts cannot be asked now"
    SLOW_DOWN = "too many failures from there: later"


@dataclass(frozen=True, slots=True)
class Denied:
    """No.  `why` and `username` are for the log alone."""

    denial: Denial
    why: str
    username: str = ""


class ILogin(Interface):
    """One SASL exchange that is under way (RFC 4422), with all that the accounts and the lockout have to say."""

    def respond(data: bytes | None) -> Awaitable[Challenge | LoggedIn | Denied]:
        """Feed the client's response, None for "no initial response".  After `LoggedIn` or `Denied` it is over."""

    def cancel() -> None:
        """The client has cancelled, or is gone."""


class IAuthenticator(Interface):
    """Who may log in: the one way for every service.  The core's own, not a plugin's."""

    def mechanisms(peer: Peer) -> Sequence[str]:
        """The SASL mechanisms that this peer is offered now, the best first; none in the clear, where that is not allowed."""

    def begin(mechanism: str, peer: Peer, bindings: ChannelBindings) -> ILogin:
        """Begin an exchange with one of `mechanisms`."""

    def granted_senders(account: str) -> Awaitable[Sequence[str]]:
        """As `ISenderGrants`; none where the accounts know none."""


class IRouter(Interface):
    """Says where a recipient goes."""

    def route(address: Address) -> Awaitable[Sequence[Route]]:
        """Return at least one route; several for an alias.  A single `Refused` refuses the recipient."""


class IDelivery(Interface):
    """Takes messages to where they go."""

    stores = Attribute("False where nothing is kept (`discard`): such a message need not be written to the queue first.")

    def deliver(envelope: Envelope, content: Content, destinations: Sequence[Destination]) -> Awaitable[Mapping[int, Outcome]]:
        """Try each destination; return an outcome for each `Destination.index`.

        Several destinations may be one mailbox.  It gets one copy, and all of them have the outcome of the first
        (`mailserver.mail.parcel.one_for_each` sorts them).  A destination that fails never holds up another.  An error counts
        as `Delayed` for all of them.  A `Delivered` need not be durable before `flush` has returned.
        """

    def flush() -> Awaitable[None]:
        """Make durable what was delivered before the call.  After an error none of it counts as delivered."""


class IBatchDelivery(IDelivery):
    """Optional: a delivery that works on many messages with one hand-over."""

    def deliver_batch(parcels: Sequence[Parcel]) -> Awaitable[Sequence[Mapping[int, Outcome]]]:
        """As `deliver`, for each parcel; the answer has the parcels' order."""


class IConcurrentDelivery(IDelivery):
    """Optional: a delivery that waits for others (a command, another host), so that its calls go side by side."""

    calls_at_once = Attribute("How many `deliver` calls may be under way at once.")
    deadline_seconds = Attribute("How long one of them may take; then it is cancelled and counts as Delayed.")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One host with its numeric addresses.  Those of the lowest `rank` are tried first, in random order among equals."""

    name: str
    addresses: tuple[str, ...]
    port: int
    rank: int


class IHostFinder(Interface):
    """Optional, beside `IDelivery`: a delivery that can say which hosts it would try."""

    def hosts_for(address: Address) -> Awaitable[Sequence[Candidate] | Outcome]:
        """The hosts in the order in which they are tried, or the outcome where there are none."""


class IForgiving(Interface):
    """Optional, beside `IDelivery`: a delivery that remembers what it could not reach."""

    def forgive() -> None:
        """Forget what was out of reach, and which look-ups failed: a person wants mail to be tried now."""


class ICounting(Interface):
    """Optional: a component that can say in figures how it works."""

    def counts() -> Mapping[str, int | float]:
        """Figures since the start, by short names.  Cheap, without side effects."""


class IStateStore(Interface):
    """Small facts that expire: greylists, rates, reputation.  `space` keeps components apart."""

    def get(space: str, key: str) -> bytes | None:
        """The value, None where there is none or it has expired."""

    def put(space: str, key: str, value: bytes, lifetime_seconds: float) -> None:
        """Keep the value; it reaches the disk within seconds."""

    def drop(space: str, key: str) -> None:
        """Forget it."""

    def items(space: str) -> Iterable[tuple[str, bytes, float]]:
        """Key, value and end (seconds since the epoch) of what has not expired, by key; at most 100,000 of them.

        It blocks for the disk: for a person's question, not for the path of a message.
        """


class IResolver(Interface):
    """Asks the DNS.  A time-out or SERVFAIL is an error, never "no such record"."""

    def query(name: str, record_type: str) -> Awaitable[Any]:
        """Return an `Answer` (mailserver.mail.dns_records): records, time to live, authenticated-data bit.

        `record_type` is A, AAAA, MX, TXT, PTR, TLSA or CNAME.  Raises `LookupFailed` where nobody can tell.
        """
