"""Signs mail of our domains (RFC 6376): what users and local programs send, the server's own reports, what an alias sends on.

A signature says that we know who has sent it.  So mail that comes from elsewhere, whoever it says that it is from, is signed only
where it leaves this host again and DMARC has passed for its author.  A message is signed for the domain of its author, or the
nearest domain above that has keys, with each of its active keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    AddHeader,
    Clock,
    Content,
    Envelope,
    IComponent,
    IComponentFactory,
    ICounting,
    IPeriodic,
    ISigner,
    LookupFailed,
    Options,
    Services,
)
from mailserver.mail.originators import OriginatorError, originators
from mailserver.trust.authors import TooManyAuthors, author_domains
from mailserver.trust.canonical import body_chunks
from mailserver.trust.dkim import body_hashes, sign
from mailserver.trust.dkim_key import is_shown
from mailserver.trust.signing_keys import DomainKeys, SigningKey, changes_of, read_keys

__all__ = ["DKIMSigning", "DKIMSigningOptions", "factory"]

SHOWN_SECONDS = 3600.0  # a record that was seen is asked for again
AT_ONCE = 10  # questions to the DNS


class DKIMSigningOptions(Options):
    """What is signed beside the mail of users; `mailserver dkim new DOMAIN` makes the keys."""

    sent_on: bool = True
    """Mail of our domains that comes from elsewhere and that an alias sends on, where DMARC has passed for it (`dmarc`)."""


@implementer(ISigner, IComponent, IPeriodic, ICounting)
class DKIMSigning:
    """`run_in_thread` reads the keys and makes the signatures.  Now and then it looks whether the DNS shows the keys."""

    log = Logger()
    interval_seconds = 300.0
    deadline_seconds = 120.0

    def __init__(
        self,
        options: DKIMSigningOptions,
        *,
        keys_directory: str,
        run_in_thread: Any,
        resolver: Any,
        clock: Clock,
        seconds: Callable[[], float],
    ) -> None:
        self._signs_sent_on = options.sent_on
        self._keys_directory = keys_directory
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._seconds = seconds
        self._keys: Mapping[str, DomainKeys] = {}
        self._changes: object = None
        self._resolver = resolver
        self._shown: dict[tuple[str, str], float] = {}  # when a record was last seen, by its name and key
        self._missing: frozenset[str] = frozenset()

    async def start(self) -> None:
        """Read the keys.  Raises OSError for keys that cannot be read: mail that nobody signs is not sent in silence."""
        self._changes = changes_of(self._keys_directory)
        self._keys = await self._run_in_thread(read_keys, self._keys_directory)

    async def stop(self) -> None:
        """Nothing runs."""

    async def sign(self, envelope: Envelope, content: Content) -> Sequence[AddHeader]:
        """The fields, one for each active key of the author's domain."""
        is_own = is_ours(envelope)
        if not is_own and not (self._signs_sent_on and envelope.sent_on and envelope.peer.service == "mx"):
            return ()
        await self._look_again()
        found = self._keys_for(content)
        if found is None or not (is_own or has_passed(envelope, content)):
            return ()
        values = await self._run_in_thread(
            signatures, content, found.domain, found.in_state("active"), int(self._clock.seconds())
        )
        return [AddHeader("DKIM-Signature", value) for value in values]

    async def run_periodically(self) -> None:
        """Ask for the records of the keys that sign, those that were there an hour ago and those that were not."""
        await self._look_again()
        now = self._seconds()
        wanted = [(keys.name_of(one), one.key.record) for keys in self._keys.values() for one in keys.in_state("active")]
        due = [one for one in wanted if now - self._shown.get(one, -math.inf) >= SHOWN_SECONDS]
        turns = DeferredSemaphore(AT_ONCE)
        asked = [turns.run(lambda one: Deferred.fromCoroutine(self._is_missing(*one)), one) for one in due]
        answers = await DeferredList(asked, fireOnOneErrback=True, consumeErrors=True)
        missing: set[str] = set()
        for (name, record), (_, is_missing) in zip(due, answers, strict=True):
            if is_missing or (is_missing is None and name in self._missing):
                missing.add(name)
            elif is_missing is False:
                self._shown[name, record] = now
        self._shown = {one: seen for one, seen in self._shown.items() if one in wanted and one[0] not in missing}
        self._tell(frozenset(missing))

    async def _is_missing(self, name: str, record: str) -> bool | None:
        """None where the DNS cannot tell."""
        if self._resolver is None:
            return None
        try:
            return not is_shown(record, (await self._resolver.query(name, "TXT")).texts)
        except LookupFailed:
            return None

    def _tell(self, missing: frozenset[str]) -> None:
        if missing and missing != self._missing:
            self.log.warn("mail is signed with keys that the DNS does not show: {names}", names=" ".join(sorted(missing)))
        elif self._missing and not missing:
            self.log.info("the DNS shows all keys that mail is signed with")
        self._missing = missing

    def counts(self) -> Mapping[str, int | float]:
        """How many domains have keys, and how many of the keys that sign the DNS does not show."""
        return {"domains": len(self._keys), "records_missing": len(self._missing)}

    async def _look_again(self) -> None:
        """Somebody may have made keys, or rotated them: the next message is signed with them."""
        changes = changes_of(self._keys_directory)
        if changes == self._changes:
            return
        try:
            self._keys = await self._run_in_thread(read_keys, self._keys_directory)
            self._changes = changes
        except OSError as error:  # go on with those that are known; the next message looks again
            self.log.error("the keys of DKIM cannot be read; those of before are used: {error}", error=error)

    def _keys_for(self, content: Content) -> DomainKeys | None:
        if not self._keys:
            return None
        try:
            authors = originators(content.head, content.headers).authors
        except OriginatorError:
            return None
        for author in authors:
            labels = author.domain_key.split(".")
            for start in range(len(labels)):
                found = self._keys.get(".".join(labels[start:]))
                if found is not None:
                    return found
        return None


def is_ours(envelope: Envelope) -> bool:
    """Whether it is known who has sent it: a user, a program of this host, the server itself."""
    peer = envelope.peer
    return bool(peer.login) or peer.address == "local" or peer.service == "report"


def has_passed(envelope: Envelope, content: Content) -> bool:
    """Whether its one author's domain answers for the whole of it: what stands in it is vouched for already."""
    try:
        domains = author_domains(content.headers)
    except TooManyAuthors:
        return False
    passed = [one.properties for one in envelope.findings if one.name == "dmarc" and one.properties.get("result") == "pass"]
    if len(domains) != 1 or [one.get("domain") for one in passed] != list(domains):
        return False
    by_spf = "spf" in str(passed[0].get("aligned") or "").split()
    signed = [one.properties for one in envelope.findings if one.name == "dkim" and one.properties.get("result") == "pass"]
    return by_spf or not any(one.get("partial") for one in signed)


def signatures(content: Content, domain: str, keys: Sequence[SigningKey], now: int) -> list[str]:
    """The values of the fields.  Blocks for a file, and for the signatures; raises OSError."""
    digest = body_hashes(body_chunks(content), [("relaxed", None)])["relaxed", None][0]
    return [
        sign(content.headers, digest, one.key, domain=domain, selector=one.selector, signed_at=now) for one in keys
    ]


@implementer(IComponentFactory)
class DKIMSigningFactory:
    """Makes the signer for ``[[filter]] use = "dkim_signing"``."""

    name = "dkim_signing"
    summary = "Signs what users, local programs and the server itself send, and what aliases send on (DKIM, RFC 6376)."
    api_version = "1.0"
    replays = True
    provides = ISigner
    options = DKIMSigningOptions

    def build(self, options: Any, services: Services) -> DKIMSigning:
        """Return the signer."""
        return DKIMSigning(
            options,
            keys_directory=services.keys_directory,
            run_in_thread=services.run_in_thread,
            resolver=services.resolver,
            clock=services.clock,
            seconds=services.steady_seconds,
        )


factory = DKIMSigningFactory()
