"""An `IResolver` that knows what the test has told it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zope.interface import implementer

from mailserver.interfaces import IResolver
from mailserver.mail.dns_records import Answer, LookupFailed

__all__ = ["FakeResolver"]

CHAIN_NAMES = 8  # as the server's own resolver
Zone = Mapping[str, Mapping[str, Sequence[str]]]


@implementer(IResolver)
class FakeResolver:
    """Answers from zones such as ``{"example.org": {"MX": ["10 mx.example.org"], "A": ["192.0.2.1"]}}``.

    A name that is in no zone does not exist.  A ``CNAME`` is followed.  Names in `failing` fail as with a dead name server.
    `asked` keeps every question, in order, so that a test can assert what must not be looked up.
    """

    def __init__(self, zones: Zone | None = None, *, failing: Sequence[str] = (), authenticated: bool = False) -> None:
        self.zones: dict[str, Mapping[str, Sequence[str]]] = {
            _key(name): types for name, types in (zones or {}).items()
        }
        self.failing = {_key(name) for name in failing}
        self.authenticated = authenticated
        self.asked: list[tuple[str, str]] = []

    async def query(self, name: str, record_type: str) -> Answer:
        """Return the records.  Raises `LookupFailed` for a failing name."""
        key = _key(name)
        self.asked.append((key, record_type))
        canonical = ""
        for _ in range(CHAIN_NAMES + 1):
            if key in self.failing:
                raise LookupFailed(f"no name server answers for {key}")
            types = self.zones.get(key)
            if types is None:
                return Answer((), 0, self.authenticated, name_exists=False, canonical_name=canonical)
            if record_type == "CNAME" or "CNAME" not in types:
                return Answer(tuple(types.get(record_type, ())), 300, self.authenticated, canonical_name=canonical)
            key = canonical = _key(types["CNAME"][0])
        raise LookupFailed(f"CNAMEs without end at {key}")


def _key(name: str) -> str:
    return name.rstrip(".").lower()
