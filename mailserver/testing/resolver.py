"""An `IResolver` that knows what the test has told it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mailserver.dns.wire import TYPES, NotAName, encode_name
from mailserver.interfaces import IResolver
from mailserver.mail.dns_records import Answer, LookupFailed

__all__ = ["FakeResolver"]

CHAIN_NAMES = 8  # as the server's own resolver
Zone = Mapping[str, Mapping[str, Sequence[str]]]


@implementer(IResolver)
class FakeResolver:
    """Answers from zones such as ``{"example.org": {"MX": ["10 mx.example.org"], "A": ["192.0.2.1"]}}``.

    Like the server's own it returns Deferreds, answers ValueError to an unknown type, and takes a malformed name for one that
    does not exist.  A name that is in no zone does not exist.  A ``CNAME`` is followed.  Names in `failing` fail as with a dead
    name server; those in `silent` are not answered before `answer_silent`.  `asked` keeps every question, in order, so that a
    test can assert what must not be looked up.
    """

    def __init__(self, zones: Zone | None = None, *, failing: Sequence[str] = (), authenticated: bool = False) -> None:
        self.zones: dict[str, Mapping[str, Sequence[str]]] = {
            _key(name): types for name, types in (zones or {}).items()
        }
        self.failing = {_key(name) for name in failing}
        self.silent: set[str] = set()
        self.authenticated = authenticated
        self.asked: list[tuple[str, str]] = []
        self._waiting: list[tuple[str, str, Deferred[Answer]]] = []

    def query(self, name: str, record_type: str) -> Deferred[Answer]:
        """The records.  The Deferred fails with `LookupFailed` for a failing name."""
        if record_type not in TYPES:
            raise ValueError(f"{record_type!r} is not a record type that the resolver asks for")
        key = _key(name)
        self.asked.append((key, record_type))
        if key in self.silent:
            waiting: Deferred[Answer] = Deferred()
            self._waiting.append((key, record_type, waiting))
            return waiting
        return self._answer(key, record_type)

    def answer_silent(self) -> None:
        """Answer every question that waits; what is asked from now on is answered at once."""
        self.silent.clear()
        waiting, self._waiting = self._waiting, []
        for key, record_type, deferred in waiting:
            if not deferred.called:  # else it was called off
                self._answer(key, record_type).chainDeferred(deferred)

    def _answer(self, key: str, record_type: str) -> Deferred[Answer]:
        try:
            encode_name(key)
        except NotAName:
            return succeed(Answer((), name_exists=False))
        canonical = ""
        for _ in range(CHAIN_NAMES + 1):
            if key in self.failing:
                return fail(LookupFailed(f"no name server answers for {key}"))
            types = self.zones.get(key)
            if types is None:
                return succeed(Answer((), 0, self.authenticated, name_exists=False, canonical_name=canonical))
            if record_type == "CNAME" or "CNAME" not in types:
                return succeed(Answer(tuple(types.get(record_type, ())), 300, self.authenticated, canonical_name=canonical))
            key = canonical = _key(types["CNAME"][0])
        return fail(LookupFailed(f"CNAMEs without end at {key}"))


def _key(name: str) -> str:
    return name.rstrip(".").lower()
