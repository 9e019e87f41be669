"""Messages to one-time reply addresses: who may decide is found out while their sender waits, the decision is made later.

A stranger hears no, at RCPT or after the data; he gets no report.  What is taken is durable, and comes again after a crash: then
it finds its own mark on the token, and goes on where it was.
"""

from __future__ import annotations

from typing import Any

from mailserver.api import (
    Address,
    AddressError,
    Content,
    Delivered,
    Envelope,
    Failed,
    Outcome,
    Pass,
    Refuse,
    Reply,
    Verdict,
)
from mailserver.filters.contact_claims import is_automatic
from mailserver.filters.contact_decisions import Decisions
from mailserver.filters.contact_records import owner_of
from mailserver.filters.contact_tokens import DecideAddress, Token, Tokens, claim_of
from mailserver.filters.evidence import author_of, passed

__all__ = ["Replies"]

NO_SUCH = Reply.of(550, "5.1.1", "There is no such address here")
TOO_LATE = Reply.of(550, "5.7.1", "This was decided already, or is over")
NO_ROOM = Reply.of(550, "5.3.0", "This could not be kept: you have too many contacts")
NOT_YOURS = Reply.of(550, "5.7.1", "This is for somebody else to decide")
KNOWN_SECONDS = 30 * 86_400.0  # longer than a message stays in the queue


class Replies:
    """`state` remembers messages that DMARC has shown to be from the user; without one only who has logged in can decide."""

    def __init__(self, tokens: Tokens, decisions: Decisions, *, state: Any, separator: str) -> None:
        self._tokens = tokens
        self._decisions = decisions
        self._state = state
        self._separator = separator

    async def judge_address(self, address: Address) -> Verdict:
        """At RCPT: whether anything could be decided with it."""
        claim = claim_of(address)
        token = None if claim is None else await self._tokens.get(claim.secret)
        if token is None:
            return Refuse("there is nothing to decide with this address, or not any more", enhanced="5.1.1")
        return Refuse("it has been decided already") if token.used_by else Pass()

    async def judge(self, envelope: Envelope, content: Content, address: Address) -> Verdict:
        """After the data: whether it is from the user whose decision it is."""
        claim = claim_of(address)
        token = None if claim is None else await self._tokens.get(claim.secret)
        if token is None:
            return Refuse("there is nothing to decide with this address, or not any more", enhanced="5.1.1")
        if token.used_by:
            return Refuse("it has been decided already")
        if envelope.sender is None or is_automatic(content):
            return Refuse("it is an automatic answer: a person decides")
        if self._is_logged_in(envelope, token.user):
            return Pass()
        if not self._is_shown(envelope, content, token.user) or not _is_addressed(content, address):
            return Refuse(f"only {token.user} may decide this, logged in, or from his own address if DMARC shows it")
        await self._state.put(_shown_key(envelope.id), token.user.encode(), KNOWN_SECONDS)
        return Pass()

    async def read(self, envelope: Envelope, address: Address) -> Outcome:
        """Make the decision.  An error means later."""
        claim = claim_of(address)
        token = None if claim is None else await self._tokens.get(claim.secret)
        if claim is None or token is None:
            return Failed(NO_SUCH, "nothing can be decided with it", reports=bool(envelope.peer.login))
        if not await self._is_his(envelope, token):
            return Failed(NOT_YOURS, f"it is not from {token.user}", reports=bool(envelope.peer.login))
        used = await self._tokens.use(claim.secret, f"{envelope.id}{claim.letter}")  # one message may have several addresses
        if used is None:
            return Failed(TOO_LATE, "another message was first")  # its user is told
        return await self._decided(claim, used)

    async def _decided(self, claim: DecideAddress, token: Token) -> Outcome:
        subject, choice = claim.subject(token), claim.choice
        by = f"{token.user}, by mail"
        try:
            decided = await self._decisions.decide(token.user, subject, choice, by=by, at=token.used_at)
        except ValueError as error:  # there is no room for one more contact: its user is told
            return Failed(NO_ROOM, str(error))
        return Delivered(f"{token.user} decided about {subject.partition(':')[2]}: {choice} ({decided.done} held)")

    async def _is_his(self, envelope: Envelope, token: Token) -> bool:
        if self._is_logged_in(envelope, token.user):
            return True
        if self._state is None:
            return False
        return bool(await self._state.get(_shown_key(envelope.id)) == token.user.encode())

    def _is_logged_in(self, envelope: Envelope, user: str) -> bool:
        """The account itself, or one that has sent this as the user: what it may send as was looked at when it did."""
        login, sender = envelope.peer.login, envelope.sender
        if not login:
            return False
        return user == _normal(login) or (sender is not None and user == owner_of(sender, self._separator))

    def _is_shown(self, envelope: Envelope, content: Content, user: str) -> bool:
        authors = author_of(content)
        if self._state is None or len(authors) != 1 or owner_of(authors[0], self._separator) != user:
            return False
        return user.rpartition("@")[2] in passed(envelope, "dmarc")


def _is_addressed(content: Content, address: Address) -> bool:
    """Whether To or Cc names it.  A signature shows who has written a message and not whom he has sent it to: what somebody
    once got from the user would verify here, too."""
    local = address.local.lower()
    return any(f"{local}@" in (value or "").lower() for name in ("To", "Cc") for value in content.headers.get_all(name))


def _normal(login: str) -> str:
    """The account as users are named here; with its detail, if it has one: that is another account."""
    try:
        return owner_of(Address.parse(login, utf8=True), "")
    except AddressError:
        return ""


def _shown_key(id: str) -> str:
    return f"shown\t{id}"
