"""What the DNS has told the filters, written down for those who replay a message later.

An answer stands on a road of its own, under the name that was asked for, and there once as long as it stays the same: most of
them come from the resolver's cache, and hold for many messages.  After a day it is written down again, since roads have an end.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.dns.recorded import answer_as_json, key_of
from mailserver.interfaces import IResolver
from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.mail.dns_road import STEP, road_of

__all__ = ["NotingResolver"]

REMEMBERED = 20_000  # answers that were written down
AGAIN_SECONDS = 86_400.0
ANSWER_CHARACTERS = 8_000  # a longer one is not written down


@implementer(IResolver)
class NotingResolver:
    """Asks `resolver`, whose answers are Deferreds.  `note(id, step, **fields)` is that of the roads, `seconds` the time."""

    def __init__(self, resolver: Any, *, note: Callable[..., None], seconds: Callable[[], float]) -> None:
        self._resolver = resolver
        self._note = note
        self._seconds = seconds
        self._noted: OrderedDict[tuple[str, str], tuple[object, float]] = OrderedDict()

    def query(self, name: str, record_type: str) -> Deferred[Answer]:
        """The other one's answer."""
        answer: Deferred[Answer] = self._resolver.query(name, record_type)
        found = getattr(answer, "result", None)
        if found.__class__ is Answer and not answer.paused:  # from the cache: there is nothing to wait for
            self._answered(found, name, record_type)
            return answer
        return answer.addCallbacks(
            self._answered, self._failed, callbackArgs=(name, record_type), errbackArgs=(name, record_type)
        )

    def _answered(self, answer: Answer, name: str, record_type: str) -> Answer:
        self._write(name, record_type, answer, (answer.records, answer.name_exists, answer.authenticated))
        return answer

    def _failed(self, failure: Failure, name: str, record_type: str) -> Failure:
        if failure.check(LookupFailed):
            self._write(name, record_type, None, None)
        return failure

    def _write(self, name: str, record_type: str, answer: Answer | None, content: object) -> None:
        key, now = (key_of(name), record_type), self._seconds()
        before = self._noted.get(key)
        if before is not None and before[0] == content and 0 <= now - before[1] < AGAIN_SECONDS:
            return
        text = json.dumps(answer_as_json(name, record_type, answer))
        if len(text) > ANSWER_CHARACTERS:
            return
        self._noted[key] = content, now
        self._noted.move_to_end(key)
        while len(self._noted) > REMEMBERED:
            self._noted.popitem(last=False)
        self._note(road_of(key[0]), STEP, type=record_type, answer=[text[at : at + 900] for at in range(0, len(text), 900)])
