"""One question on its way: whom it was put to, where its chain of CNAMEs has led, what is to be done next.

No I/O here: `Lookup` gets messages and failures and says what follows.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import replace

from twisted.internet.defer import Deferred

from mailserver.dns.reading import CHAIN_NAMES, FORMERR, NOTIMP, SERVFAIL, Alias, ServerFailure, read_message
from mailserver.dns.servers import Server
from mailserver.dns.wire import Malformed, decode, encode_name, encode_question
from mailserver.mail.lookup import Answer

__all__ = ["Lookup", "Step"]

BADVERS = 16


class Step(enum.Enum):
    """What follows a message where there is no answer yet."""

    NEXT_SERVER = "next server"
    BY_TCP = "the same server by TCP"


class Lookup:
    """The life of one question.  `waiting` are those who want its answer; `why` is the last trouble."""

    __slots__ = (
        "_authenticated",
        "_names",
        "_order",
        "_trusted_only",
        "_ttl_seconds",
        "edns",
        "gives_up_at",
        "key",
        "name",
        "question",
        "record_type",
        "waiting",
        "why",
    )

    def __init__(self, key: tuple[str, str], name: bytes, record_type: int) -> None:
        self.key = key
        self.name = key[0]
        self.record_type = record_type
        self.question = encode_question(name, record_type)
        self.waiting: deque[Deferred[Answer]] = deque()
        self.why = "no name server was asked"
        self.gives_up_at = 0.0
        self.edns = True
        self._order: list[Server] = []
        self._names = 0  # CNAMEs that were followed
        self._ttl_seconds: int | None = None  # of those CNAMEs
        self._authenticated = True
        self._trusted_only = False

    def ask(self, servers: list[Server], attempts: int) -> None:
        """Put the (first, or the next) name to these servers, in this order, so many times."""
        self._order = servers * attempts

    def next_server(self) -> Server | None:
        """Whom to ask now; None where all have been asked."""
        while self._order:
            server = self._order.pop(0)
            if server.trusted or not self._trusted_only:
                return server
        return None

    def failed(self, server: Server, why: str) -> None:
        """The server did not answer."""
        self.why = f"{server}: {why}"

    def read(self, server: Server, data: bytes, *, by_tcp: bool) -> Answer | Alias | Step:
        """What a message that answers this question means; of an `Alias` the caller goes on to ask."""
        try:
            message = decode(data, self.question, self.name)
            if message.truncated:
                if not by_tcp:
                    return Step.BY_TCP
                raise ServerFailure("an answer that is truncated although it came by TCP")
            found = read_message(message, self.name, self.record_type, trusted=server.trusted)
            return self._followed(found) if isinstance(found, Alias) else self._whole(found)
        except Malformed as error:
            self._cannot_tell(server, ServerFailure(f"an answer that makes no sense: {error}"))
        except ServerFailure as error:
            self._cannot_tell(server, error)
        return Step.NEXT_SERVER

    def _cannot_tell(self, server: Server, error: ServerFailure) -> None:
        self.failed(server, str(error))
        if error.rcode in (FORMERR, NOTIMP, BADVERS) and self.edns:
            self.edns = False  # RFC 6891 section 7: a server from before EDNS
            self._order.insert(0, server)
            return
        self._order = [other for other in self._order if other != server]
        if error.rcode == SERVFAIL and server.trusted:
            # Forged data look like this to a server that validates; one that does not would take them for true.
            self._trusted_only = True

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

    def _whole(self, answer: Answer) -> Answer:
        if self._ttl_seconds is None:
            return answer
        return replace(
            answer,
            ttl_seconds=min(answer.ttl_seconds, self._ttl_seconds),
            authenticated=answer.authenticated and self._authenticated,
            canonical_name=answer.canonical_name or self.name,
        )
