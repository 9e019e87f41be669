"""The state of one question: the servers asked, the CNAMEs followed, the next step.

No I/O here: `Lookup` is given messages and failures and decides the next step.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from twisted.internet.defer import Deferred

from mailserver.dns.datagrams import QueryAttempt
from mailserver.dns.reading import CHAIN_NAMES, FORMERR, NOTIMP, SERVFAIL, Alias, ServerFailure, read_message
from mailserver.dns.servers import NameServer
from mailserver.dns.wire import MalformedMessage, decode, encode_name, encode_question
from mailserver.mail.dns_records import Answer

__all__ = ["Lookup", "LookupStep"]

BADVERS = 16
TRIES_MOST = 3  # RFC 9520 section 3.1: for one question at one server, by UDP


class LookupStep(enum.Enum):
    """The next step after a message that holds no answer."""

    NEXT_SERVER = "next server"
    BY_TCP = "the same server by TCP"
    WITHOUT_EDNS = "the same server without EDNS"


class Lookup:
    """One question from its start to its answer.  `waiting` holds who wants the answer; `why` is the last failure.

    `believes(server)` says whether that server's AD bit counts, and its SERVFAIL is final.
    """

    __slots__ = (
        "_authenticated",
        "_names",
        "_order",
        "_tries",
        "_trusted_only",
        "_ttl_seconds",
        "_believes",
        "attempt",
        "gives_up_at",
        "key",
        "name",
        "question",
        "rcode",
        "record_type",
        "waiting",
        "why",
        "without_edns",
    )

    def __init__(
        self, key: tuple[str, str], name: bytes, record_type: int, believes: Callable[[NameServer], bool]
    ) -> None:
        self.key = key
        self.name = key[0]
        self.record_type = record_type
        self.question = encode_question(name, record_type)
        self.waiting: deque[Deferred[Answer]] = deque()
        self.why = "no name server was asked"
        self.rcode = 0
        self._believes = believes
        self.gives_up_at = 0.0
        self.attempt: QueryAttempt | None = None  # the one that waits for an answer
        self.without_edns: set[NameServer] = set()  # servers where this question has failed with EDNS
        self._order: list[NameServer] = []
        self._tries: dict[NameServer, int] = {}
        self._names = 0  # CNAMEs followed so far
        self._ttl_seconds: int | None = None  # the shortest of those CNAMEs
        self._authenticated = True
        self._trusted_only = False

    def ask(self, servers: list[NameServer], attempts: int) -> None:
        """Ask these servers for the first (or the next) name, in this order, each up to `attempts` times."""
        self._order = servers * attempts
        self._tries.clear()
        self.without_edns.clear()

    def next_server(self) -> NameServer | None:
        """The server to ask now; None where all have been asked."""
        while self._order:
            server = self._order.pop(0)
            tries = self._tries.get(server, 0)
            if tries < TRIES_MOST and (not self._trusted_only or self._believes(server)):
                self._tries[server] = tries + 1
                return server
        return None

    def failed(self, server: NameServer, why: str, rcode: int = 0) -> None:
        """The server did not answer, or not with what was asked for."""
        self.why = f"{server}: {why}"
        self.rcode = rcode

    def read(self, server: NameServer, data: bytes, *, by_tcp: bool, edns: bool) -> Answer | Alias | LookupStep:
        """What a message that answers this question means.  The caller asks on for the name of an `Alias`.

        `by_tcp` and `edns` say how the question was asked.
        """
        try:
            message = decode(data, self.question, self.name)
            if message.truncated:
                if not by_tcp:
                    return LookupStep.BY_TCP
                raise ServerFailure("an answer that is truncated although it came by TCP")
            found = read_message(message, self.name, self.record_type, trusted=self._believes(server))
            return self._followed(found) if isinstance(found, Alias) else self.whole(found)
        except MalformedMessage as error:
            return self._cannot_tell(server, ServerFailure(f"an answer that makes no sense: {error}"), edns)
        except ServerFailure as error:
            return self._cannot_tell(server, error, edns)

    def _cannot_tell(self, server: NameServer, error: ServerFailure, edns: bool) -> LookupStep:
        self.failed(server, str(error), error.rcode)
        if error.rcode in (FORMERR, NOTIMP, BADVERS) and edns:  # RFC 6891 section 7: a server from before EDNS
            self.without_edns.add(server)
            self._order.insert(0, server)
            return LookupStep.WITHOUT_EDNS
        self._order = [other for other in self._order if other != server]
        if error.rcode == SERVFAIL and self._believes(server):
            # A validating server answers so for forged data.  The next server may not validate, and would believe them.
            self._trusted_only = True
        return LookupStep.NEXT_SERVER

    def _followed(self, alias: Alias) -> Alias:
        self._names += alias.names
        if self._names > CHAIN_NAMES:
            raise ServerFailure("CNAMEs without end")
        if self._ttl_seconds is None or alias.ttl_seconds < self._ttl_seconds:
            self._ttl_seconds = alias.ttl_seconds
        self._authenticated = self._authenticated and alias.authenticated
        self.name = alias.canonical_name
        self.question = encode_question(encode_name(self.name), self.record_type)
        return alias

    def whole(self, answer: Answer) -> Answer:
        """The answer to the question as it was asked, with the CNAMEs before it taken into account."""
        if self._ttl_seconds is None:
            return answer
        return replace(
            answer,
            ttl_seconds=min(answer.ttl_seconds, self._ttl_seconds),
            authenticated=answer.authenticated and self._authenticated,
            canonical_name=answer.canonical_name or self.name,
        )
