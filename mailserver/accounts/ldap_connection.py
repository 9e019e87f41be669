"""Conversations with an LDAP server (RFC 4511), spoken by ldaptor's protocol.  Each ends; each failure is a `CannotTell`.

Of ldaptor, only its messages, its client protocol and its parser of filters are used: see docs/decisions.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldaptor.protocols import pureldap
from ldaptor.protocols.ldap.ldapclient import LDAPClient
from ldaptor.protocols.ldap.ldaperrors import LDAPException
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.protocol import Factory

from mailserver.accounts.directory_faults import DirectoryGone, DirectorySilent
from mailserver.interfaces import CannotTell
from mailserver.transport.certificate_faults import words_of

__all__ = ["LDAPConnection", "LDAPEntry", "SearchFilter", "connect"]

ANSWER_OCTETS = 1024 * 1024
SUCCESS, SIZE_EXCEEDED = 0, 4
WHOLE_SUBTREE = 2
IDLE_SECONDS = 60.0  # firewalls drop idle connections after some minutes, a few after one


@dataclass(frozen=True, slots=True)
class LDAPEntry:
    """An entry that was found.  Attribute names are in lower case."""

    name: str
    values: Mapping[str, Sequence[str]]


class SearchFilter:
    """A filter (RFC 4515) with placeholders in its values.

    It is parsed once, and values are put into the parsed filter, so no value can change its meaning.  Raises ValueError for a
    malformed filter.
    """

    def __init__(self, text: str) -> None:
        with warnings.catch_warnings():  # ldaptor is older than the pyparsing that it uses
            warnings.simplefilter("ignore")
            from ldaptor.ldapfilter import InvalidLDAPFilter, parseFilter

            try:
                self._parsed = parseFilter(text)
            except (InvalidLDAPFilter, NotImplementedError, ValueError) as error:
                raise ValueError(f"is not a filter (RFC 4515): {text}") from error

    def filled(self, values: Mapping[str, str]) -> Any:
        """The filter with `values` in place of ``{name}``."""
        filled = copy.deepcopy(self._parsed)
        _fill(filled, {f"{{{name}}}".encode(): value.encode("utf-8") for name, value in values.items()})
        return filled


def _fill(node: Any, values: Mapping[bytes, bytes]) -> None:
    if isinstance(node, list):
        for one in node:
            _fill(one, values)
        return
    for name, value in list(getattr(node, "__dict__", {}).items()):
        if isinstance(value, str | bytes):
            octets = value.encode("utf-8") if isinstance(value, str) else value
            if b"{" in octets:
                setattr(node, name, _replaced(octets, values))
        else:
            _fill(value, values)


def _replaced(octets: bytes, values: Mapping[bytes, bytes]) -> bytes:
    for placeholder, value in values.items():
        before, found, after = octets.partition(placeholder)
        if found:
            return _replaced(before, values) + value + _replaced(after, values)
    return octets


class _Client(LDAPClient):  # type: ignore[misc]
    """ldaptor's client with a bound for its input.  Malformed input ends the connection instead of filling the log."""

    def dataReceived(self, recd: bytes) -> None:
        """Handle what has come."""
        if len(self.buffer) + len(recd) > ANSWER_OCTETS:
            self.transport.abortConnection()
            return
        try:
            super().dataReceived(recd)
        except Exception:  # noqa: BLE001  # whoever waits hears of the end of the connection
            self.transport.abortConnection()

    def unsolicitedNotification(self, msg: Any) -> None:
        """A notice of disconnection (RFC 4511 section 4.4.1): the end itself follows."""


class LDAPConnection:
    """An open connection, with TLS where that is wanted.  No operation takes longer than `seconds`."""

    def __init__(self, client: Any, *, clock: Any, seconds: float) -> None:
        self._client = client
        self._clock = clock
        self._seconds = seconds
        self._closed = False
        self._heard_at: float = clock.seconds()

    @property
    def is_idle(self) -> bool:
        """Whether nothing has come over it for `IDLE_SECONDS`."""
        return not 0 <= self._clock.seconds() - self._heard_at < IDLE_SECONDS

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return bool(self._client.connected) and not self._closed

    async def bind(self, name: str, password: str) -> int:
        """Bind; return the result code (RFC 4511 section 4.1.9).  Never without a password (RFC 4513 section 5.1.2)."""
        if not password:
            raise ValueError("a bind without a password is anonymous")
        request = pureldap.LDAPBindRequest(dn=name.encode("utf-8"), auth=password.encode("utf-8"))
        answer = await self._within(self._client.send, request)
        return int(answer.resultCode)

    async def search(self, base: str, wanted: Any, attributes: Sequence[str], *, at_most: int) -> list[LDAPEntry]:
        """The entries below `base` that match, up to `at_most`; 0 for all.  The server's own bound raises `CannotTell`."""
        request = pureldap.LDAPSearchRequest(
            baseObject=base.encode("utf-8"),
            scope=WHOLE_SUBTREE,
            derefAliases=0,
            sizeLimit=at_most,
            timeLimit=max(int(self._seconds), 1),
            typesOnly=0,
            filter=wanted,
            attributes=[name.encode("utf-8") for name in attributes],
        )
        found: list[LDAPEntry] = []
        done: Deferred[Any] = Deferred()

        def take(message: Any) -> bool:
            if isinstance(message, pureldap.LDAPSearchResultEntry):
                found.append(_entry(message))
            elif isinstance(message, pureldap.LDAPSearchResultDone):
                if not done.called:
                    done.callback(message)
                return True
            return False

        def ask() -> Deferred[Any]:
            lost = self._client.send_multiResponse(request, take)
            lost.addErrback(lambda failure: None if done.called else done.errback(failure))
            return done

        answer = await self._within(ask)
        if answer.resultCode == SUCCESS or (answer.resultCode == SIZE_EXCEEDED and len(found) == at_most > 0):
            return found
        raise CannotTell(f"the directory answers a search with result {answer.resultCode} {_words(answer)}".rstrip())

    async def start_tls(self, creator: Any) -> None:
        """Begin TLS (RFC 4511 section 4.14).  A bad certificate shows only with the next operation."""
        await self._within(self._client.startTLS, creator)
        if self._client.buffer:  # injected in the clear, to be taken for encrypted
            self.close()
            raise CannotTell("octets came between StartTLS and its handshake")

    def close(self) -> None:
        """Close the connection without waiting."""
        if self.is_open:
            self._closed = True
            self._client.transport.abortConnection()

    async def _within(self, function: Any, *arguments: Any) -> Any:
        try:
            answer = await function(*arguments).addTimeout(self._seconds, self._clock)
            self._heard_at = self._clock.seconds()
            return answer
        except TimeoutError:
            self.close()
            raise DirectorySilent(f"the directory has not answered within {self._seconds:g} seconds") from None
        except LDAPException as error:
            raise CannotTell(f"the directory: {error}") from error
        except Exception as error:  # the end of the connection, a bad certificate, or a malformed answer
            self.close()
            raise DirectoryGone(f"the directory: {words_of(error)}") from error


async def connect(endpoint: Any, *, starttls: Any, clock: Any, seconds: float) -> LDAPConnection:
    """Open a connection.  `starttls` makes its TLS; None for no STARTTLS.  Raises `CannotTell`."""
    try:
        connecting: Awaitable[Any] = endpoint.connect(Factory.forProtocol(_Client)).addTimeout(seconds, clock)
        client = await connecting
    except Exception as error:  # an endpoint's
        raise CannotTell(f"the directory cannot be reached: {words_of(error)}") from error
    connection = LDAPConnection(client, clock=clock, seconds=seconds)
    if starttls is not None:
        await connection.start_tls(starttls)
    return connection


def _entry(message: Any) -> LDAPEntry:
    values = {
        name.decode("utf-8", "replace").lower(): [value.decode("utf-8", "replace") for value in found]
        for name, found in message.attributes
    }
    return LDAPEntry(message.objectName.decode("utf-8"), values)


def _words(answer: Any) -> str:
    words = answer.errorMessage
    return words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
