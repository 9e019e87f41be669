"""Signs mail of our domains (RFC 6376): what users and local programs send, and the server's own reports.

Mail that comes from elsewhere is not signed, whoever it says that it is from: a signature says that we know who has sent it.  A
message is signed for the domain of its author, or the nearest domain above that has keys, with each of its active keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    AddHeader,
    Clock,
    Content,
    Envelope,
    IComponent,
    IComponentFactory,
    ISigner,
    Options,
    Services,
)
from mailserver.mail.originators import OriginatorError, originators
from mailserver.trust.canonical import body_chunks
from mailserver.trust.dkim import body_hashes, sign
from mailserver.trust.signing_keys import DomainKeys, SigningKey, changes_of, read_keys

__all__ = ["DKIMSigning", "DKIMSigningOptions", "factory"]

LOOK_SECONDS = 1.0  # a change of the keys is seen so soon


class DKIMSigningOptions(Options):
    """It has none: `mailserver dkim new DOMAIN` makes the keys."""


@implementer(ISigner, IComponent)
class DKIMSigning:
    """`run_in_thread` reads the keys and makes the signatures."""

    log = Logger()

    def __init__(self, *, keys_directory: str, run_in_thread: Any, clock: Clock, seconds: Callable[[], float]) -> None:
        self._keys_directory = keys_directory
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._seconds = seconds
        self._keys: Mapping[str, DomainKeys] = {}
        self._changes: object = None
        self._looked_at = 0.0

    async def start(self) -> None:
        """Read the keys.  Raises OSError for keys that cannot be read: mail that nobody signs is not sent in silence."""
        self._changes = changes_of(self._keys_directory)
        self._keys = await self._run_in_thread(read_keys, self._keys_directory)
        self._looked_at = self._seconds()

    async def stop(self) -> None:
        """Nothing runs."""

    async def sign(self, envelope: Envelope, content: Content) -> Sequence[AddHeader]:
        """The fields, one for each active key of the author's domain."""
        if not is_ours(envelope):
            return ()
        await self._look_again()
        found = self._keys_for(content)
        if found is None:
            return ()
        values = await self._run_in_thread(
            signatures, content, found.domain, found.in_state("active"), int(self._clock.seconds())
        )
        return [AddHeader("DKIM-Signature", value) for value in values]

    async def _look_again(self) -> None:
        """Somebody may have made keys, or rotated them."""
        now = self._seconds()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
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
            authors = originators(content.head).authors
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
    summary = "Signs what users, local programs and the server itself send (DKIM, RFC 6376)."
    api_version = "1.0"
    provides = ISigner
    options = DKIMSigningOptions

    def build(self, options: Any, services: Services) -> DKIMSigning:
        """Return the signer."""
        return DKIMSigning(
            keys_directory=services.keys_directory,
            run_in_thread=services.run_in_thread,
            clock=services.clock,
            seconds=services.steady_seconds,
        )


factory = DKIMSigningFactory()
