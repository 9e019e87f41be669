"""All entries of the lists in memory: which ones speak of a message, in which order, and which one decides.  Pure."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from mailserver.filters.evidence import domain_forms, is_answered_for
from mailserver.filters.list_entries import SITE, Entry
from mailserver.mail.quick import quick

__all__ = ["Choice", "EntryTable", "Subject", "choose"]

REMEMBERED = 1000  # subjects, each with those of the entries that speak of it: a message is asked about at three stages
REMEMBERED_NAMES = 8  # of a subject, and so many entries: nobody's message takes much room
REMEMBERED_ENTRIES = 50
REMEMBERED_CHARACTERS = 64  # a name of many labels has many forms: those of a longer one are made anew


@quick
@dataclass(frozen=True, slots=True)
class Subject:
    """What entries are compared with, in the form in which they are kept.

    `senders` are the reverse-path and, after the data, the author.  `names` are the peer's confirmed names.  `signers` are the
    domains of DKIM signatures that verify; `proved` all domains that answer for the message: signers, SPF's, DMARC's.
    `hello_is_proved`: SPF or the DNS says that the peer is what it calls itself.
    """

    senders: tuple[str, ...] = ()
    ip: IPv4Address | IPv6Address | None = None
    hello: str = ""
    names: tuple[str, ...] = ()
    signers: frozenset[str] = frozenset()
    proved: frozenset[str] = frozenset()
    hello_is_proved: bool = False

    def is_proved(self, entry: Entry) -> bool:
        """The message is from whom the entry names, as far as the entry wants that shown."""
        if not entry.needs_evidence or entry.kind in ("network", "ptr", "dkim"):
            return True
        if entry.kind == "helo":
            return self.hello_is_proved
        for sender in self.senders:
            domain = sender.rpartition("@")[2]
            if entry.value in (sender, *domain_forms(domain)) and is_answered_for(domain, self.proved):
                return True
        return False


@quick
@dataclass(frozen=True, slots=True)
class Choice:
    """`entry` decides, None where none does.  `unproved` are allow entries before it that lack evidence."""

    entry: Entry | None
    unproved: tuple[Entry, ...] = ()


class EntryTable:
    """Entries by scope.  One scope has one entry of a kind and a value."""

    __slots__ = ("_against", "_entries", "_kinds", "_lengths", "_remembered")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[str, dict[tuple[str, str], Entry]] = {}
        self._kinds: Counter[str] = Counter()
        self._lengths: Counter[tuple[int, int]] = Counter()  # of networks: version and prefix
        self._against: Counter[tuple[str, str]] = Counter()  # what a user's or a domain's entry is against
        self._remembered: dict[tuple[object, ...], list[Entry]] = {}  # what speaks of a subject, until an entry comes or goes
        for entry in entries:
            self.add(entry)

    def __len__(self) -> int:
        return self._kinds.total()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        for of_scope in self._entries.values():
            yield from of_scope.values()

    def get(self, scope: str, kind: str, value: str) -> Entry | None:
        """The entry of this key."""
        return self._entries.get(scope, {}).get((kind, value))

    def add(self, entry: Entry) -> None:
        """In the place of the one that has its key, if there is one."""
        self.remove(entry)
        self._entries.setdefault(entry.scope, {})[entry.kind, entry.value] = entry
        self._count(entry, 1)

    def remove(self, entry: Entry) -> None:
        """The one that has this key, whatever else it says."""
        of_scope = self._entries.get(entry.scope, {})
        there = of_scope.pop((entry.kind, entry.value), None)
        if there is None:
            return
        self._count(there, -1)
        if not of_scope:
            del self._entries[entry.scope]

    def matching(self, subject: Subject, scopes: Sequence[str], now: float) -> list[Entry]:
        """Those that speak of it, and count now: the site's hard ones, then by scope as given, the most specific first."""
        about = subject.senders, subject.ip, subject.hello, subject.names, subject.signers, *scopes
        found = self._remembered.get(about)
        if found is None:
            found = self._speaking_of(subject, scopes)
            names = len(subject.senders) + len(subject.names) + len(subject.signers) + len(scopes)
            if names <= REMEMBERED_NAMES and len(found) <= REMEMBERED_ENTRIES:
                if len(self._remembered) >= REMEMBERED:
                    self._remembered.clear()
                self._remembered[about] = found
        return [one for one in found if not one.has_ended(now)]

    def _speaking_of(self, subject: Subject, scopes: Sequence[str]) -> list[Entry]:
        keys = self._keys(subject)
        found = []
        for n, scope in enumerate(scopes):
            of_scope = self._entries.get(scope)
            if of_scope:
                found += [(not one.hard, n, at, one) for at, key in enumerate(keys) if (one := of_scope.get(key)) is not None]
        found.sort(key=lambda one: one[:3])
        return [one for _, _, _, one in found]

    def somebody_is_against(self, subject: Subject) -> bool:
        """Some user or some domain of ours has an entry for it that is no allow entry."""
        return bool(self._against) and any(key in self._against for key in self._keys(subject))

    def wants_names(self) -> bool:
        """Some entry is about the peer's name: it has to be looked up."""
        return bool(self._kinds["ptr"] or self._kinds["helo"])

    def _keys(self, subject: Subject) -> Iterable[tuple[str, str]]:
        """The most specific first, each once; none of a kind of which there is no entry."""
        kinds, senders, ip = self._kinds, subject.senders, subject.ip
        keys = [("address", sender) for sender in senders]
        if kinds["domain"] and senders:
            keys += _forms("domain", [sender.rpartition("@")[2] for sender in senders])
        if kinds["dkim"] and subject.signers:
            keys += _forms("dkim", sorted(subject.signers))
        if ip is not None and kinds["network"]:
            lengths = sorted([bits for version, bits in self._lengths if version == ip.version], reverse=True)
            keys += _networks(ip, tuple(lengths))
        if kinds["ptr"] and subject.names:
            keys += _forms("ptr", subject.names)
        if kinds["helo"] and subject.hello:
            keys += _forms_of("helo", subject.hello)
        return dict.fromkeys(keys)

    def _count(self, entry: Entry, by: int) -> None:
        """What is asked for each message is known without a look at all entries."""
        self._remembered.clear()
        self._kinds[entry.kind] += by
        if entry.kind == "network":
            network = ip_network(entry.value)
            _add(self._lengths, (network.version, network.prefixlen), by)
        if entry.scope != SITE and entry.colour != "white":
            _add(self._against, (entry.kind, entry.value), by)


def choose(entries: Sequence[Entry], subject: Subject) -> Choice:
    """The first that counts: an allow entry without the evidence that it wants is passed over."""
    unproved: list[Entry] = []
    for entry in entries:
        if entry.colour != "white" or subject.is_proved(entry):
            return Choice(entry, tuple(unproved))
        unproved.append(entry)
    return Choice(None, tuple(unproved))


# Each message of a peer is asked about at three stages, and most domains send more than one.


@functools.lru_cache(4096)
def _networks(ip: IPv4Address | IPv6Address, lengths: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    return tuple([("network", str(ip_network((ip, bits), strict=False))) for bits in lengths])


def _forms_of(kind: str, name: str) -> Sequence[tuple[str, str]]:
    """The most specific first."""
    return _remembered_forms(kind, name) if len(name) <= REMEMBERED_CHARACTERS else [(kind, one) for one in domain_forms(name)]


@functools.lru_cache(4096)
def _remembered_forms(kind: str, name: str) -> tuple[tuple[str, str], ...]:
    return tuple([(kind, one) for one in domain_forms(name)])


def _forms(kind: str, names: Sequence[str]) -> Sequence[tuple[str, str]]:
    if len(names) == 1:
        return _forms_of(kind, names[0])
    return sorted([form for name in names for form in _forms_of(kind, name)], key=lambda form: _by_width(form[1]))


def _by_width(form: str) -> tuple[bool, int]:
    return form.startswith("."), -form.count(".")


def _add(counter: Counter[tuple[int, int]] | Counter[tuple[str, str]], key: tuple[int, int] | tuple[str, str], by: int) -> None:
    counts: Counter[object] = counter  # type: ignore[assignment]
    counts[key] += by
    if not counts[key]:
        del counts[key]
