"""The certificates of the listeners: read at the start, and again whenever their files change.

An invalid pair stops the start.  Later it replaces nothing: a certificate program writes two files one after the other, and
between the two they do not match.  Open connections keep the certificate that they began with.

Doubts about usable certificates (expired, or soon to expire) are logged when a certificate is taken up, and once a day.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import Clock, IComponent
from mailserver.mail.envelope import TLSFacts
from mailserver.sasl.steps import ChannelBindings
from mailserver.tls.contexts import CertificateParts, ClientCertificates, ServerContexts, Verification
from mailserver.tls.facts import facts_of, fault_of
from mailserver.tls.identity import Identity, IdentityError, Pair, read_authorities, read_identity, read_revocations
from mailserver.tls.soundness import SOON, authority_doubts, identity_doubts, revocation_doubts
from mailserver.transport.certificate_faults import words_of
from mailserver.transport.channel_bindings import bindings_of

__all__ = ["Certificates", "Sources"]

LOOK_SECONDS = 5.0
DAY_SECONDS = 86_400.0
Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """The files to read.  `names` are exact, or ``*.`` and a domain for one label below it.

    With `is_renewed` somebody else sees to it that the default one is renewed in time, and tells where it is not.
    """

    default: Pair
    names: Mapping[str, Pair] = field(default_factory=dict)
    authorities: str | None = None
    revocations: str | None = None
    minimum_version: str = "1.2"
    ciphers: str = ""
    is_renewed: bool = False

    def files(self) -> list[str]:
        """Every file, once."""
        pairs = (self.default, *self.names.values())
        optional = (self.authorities, self.revocations)
        return list(dict.fromkeys([*(f for pair in pairs for f in (pair.certificate, pair.key)), *filter(None, optional)]))


@implementer(IComponent)
class Certificates:
    """Gives each handshake the present certificates.

    `sources` is called, in a thread, before the first read: it may have to make a certificate first.
    """

    log = Logger()

    def __init__(
        self,
        *,
        sources: Callable[[], Sources],
        clock: Clock,
        run_in_thread: Callable[..., Any],
    ) -> None:
        self._find_sources = sources
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._sources: Sources | None = None
        self._parts: CertificateParts | None = None
        self._contexts: ServerContexts | None = None
        self._verification = Verification()
        self._signature: Signature = ()
        self._doubted = 0.0  # when doubts were logged, by the clock
        self._timer: Any = None
        self._stopped = False
        self.doubts: tuple[str, ...] = ()  # as they were logged last

    # --- life ---

    def load(self) -> None:
        """Read everything now.  Blocks.  Raises `IdentityError` with every fault, or OSError."""
        sources = self._find_sources()
        signature = signature_of(sources)
        parts, faults = read_parts(sources, None)
        if parts is None or faults:
            raise IdentityError("\n".join(faults))
        self._take(sources, signature, parts, contexts_of(parts, self._verification))

    async def start(self) -> None:
        """Read what is not read yet, and watch the files from now on.  Raises as `load`."""
        if self._contexts is None:
            await self._run_in_thread(self.load)
        self._stopped = False
        await self._tell_doubts()
        self._wait()

    async def stop(self) -> None:
        """Stop watching the files.  Handshakes go on as before."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- changes ---

    def _wait(self) -> None:
        if not self._stopped:
            self._timer = self._clock.callLater(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        looked = Deferred.fromCoroutine(self.look())
        looked.addErrback(self._stumbled).addCallback(lambda _: self._wait())

    async def look(self) -> None:
        """Read the files that have changed, and use what is valid."""
        if self._sources is None:
            return
        if not 0 <= self._clock.seconds() - self._doubted < DAY_SECONDS:
            await self._tell_doubts()
        found = await self._run_in_thread(self._read_again, self._sources, self._parts, self._signature)
        if found is None:
            return
        signature, parts, contexts, faults = found
        self._signature = signature
        for fault in faults:
            self.log.error("a certificate cannot be used, what was read before stays: {fault}", fault=fault)
        if contexts is not None:
            self._take(self._sources, signature, parts, contexts)
            self.log.info("certificates read again; {name} expires {when}", name=parts.default.pair.certificate,
                          when=parts.default.expires.date().isoformat())  # fmt: skip
            await self._tell_doubts()

    async def look_anew(self) -> None:
        """The files may be others by now: a CA has issued the first certificate."""
        if self._sources is not None:
            self._sources = await self._run_in_thread(self._find_sources)
            await self.look()

    async def _tell_doubts(self) -> None:
        self._doubted = self._clock.seconds()
        if self._sources is not None and self._parts is not None:
            self.doubts = tuple(await self._run_in_thread(doubts_of, self._sources, self._parts))
            for doubt in self.doubts:
                self.log.warn("{doubt}", doubt=doubt)

    def _read_again(
        self, sources: Sources, old: CertificateParts | None, old_signature: Signature
    ) -> tuple[Signature, CertificateParts, ServerContexts | None, list[str]] | None:
        signature = signature_of(sources)
        if signature == old_signature or old is None:
            return None
        parts, faults = read_parts(sources, old)
        if parts is None or parts == old:
            return signature, old, None, faults  # unchanged, or faulty: nothing to take up
        try:
            return signature, parts, contexts_of(parts, self._verification), faults
        except IdentityError as error:  # logged once, as every other fault, and not with each look
            return signature, old, None, [*faults, str(error)]

    def _take(self, sources: Sources, signature: Signature, parts: CertificateParts, contexts: ServerContexts) -> None:
        self._sources, self._signature, self._parts, self._contexts = sources, signature, parts, contexts

    def _stumbled(self, failure: Failure) -> None:
        self.log.failure("the certificates could not be looked at", failure)

    # --- handshakes ---

    @property
    def default(self) -> Identity:
        """The certificate for clients that ask for no name.  Raises RuntimeError before the first read."""
        if self._parts is None:
            raise RuntimeError("no certificate has been read")
        return self._parts.default

    def ends(self) -> list[tuple[str, float]]:
        """The name of each certificate in the configuration ("" for the default one), and when it ends (Unix time)."""
        if self._parts is None:
            return []
        ends = [("", self._parts.default.expires.timestamp())]
        return ends + [(name, identity.expires.timestamp()) for name, identity in self._parts.by_name.items()]

    def connection(self, policy: ClientCertificates) -> SSL.Connection:
        """An OpenSSL connection for one client.  Raises RuntimeError before the first read."""
        if self._contexts is None:
            raise RuntimeError("no certificate has been read")
        return self._contexts.connection(policy)

    def creator(self, policy: ClientCertificates) -> Creator:
        """The connection creator that Twisted needs for a listener."""
        return Creator(self, policy)

    def facts(self, transport: Any) -> TLSFacts:
        """What the handshake has shown.  Call it after the handshake."""
        return facts_of(transport, self._verification)

    def bindings(self, transport: Any) -> ChannelBindings:
        """The channel bindings of the connection.  Call it after the handshake."""
        return bindings_of(transport)

    def fault(self, transport: Any, reason: Failure) -> str:
        """Why a handshake has failed, for the log."""
        return fault_of(transport, reason, self._verification)


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    """Makes the TLS connections of one listener."""

    def __init__(self, certificates: Certificates, policy: ClientCertificates) -> None:
        self._certificates = certificates
        self._policy = policy

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See `IOpenSSLServerConnectionCreator`."""
        return self._certificates.connection(self._policy)


def read_parts(sources: Sources, old: CertificateParts | None) -> tuple[CertificateParts | None, list[str]]:
    """Read every file.  Blocks.  For an invalid one the part of `old` is used, and the faults have a sentence.

    None where an invalid part has no counterpart in `old`.
    """
    faults: list[str] = []

    def attempt(read: Callable[[Any], Any], source: Any, fallback: Any) -> Any:
        try:
            return read(source)
        except IdentityError as error:
            faults.append(str(error))
            return fallback

    default = attempt(read_identity, sources.default, old and old.default)
    by_name = {
        name: attempt(read_identity, pair, old and old.by_name.get(name)) for name, pair in sources.names.items()
    }
    authorities = attempt(read_authorities, sources.authorities, old and old.authorities) if sources.authorities else ()
    revocations = attempt(read_revocations, sources.revocations, old and old.revocations) if sources.revocations else ()
    if default is None or None in by_name.values() or authorities is None or revocations is None:
        return None, faults
    return CertificateParts(default, by_name, authorities, revocations, sources.minimum_version, sources.ciphers), faults


def contexts_of(parts: CertificateParts, verification: Verification) -> ServerContexts:
    """Make OpenSSL's contexts.  Raises `IdentityError` for what OpenSSL refuses."""
    try:
        return ServerContexts(parts, verification)
    except (SSL.Error, ValueError) as error:
        file = parts.default.pair.certificate
        raise IdentityError(f"OpenSSL refuses the certificate {file} or the ciphers: {words_of(error)}") from None


def doubts_of(sources: Sources, parts: CertificateParts) -> list[str]:
    """Doubts about usable certificates, one sentence each.  Blocks."""
    now = datetime.datetime.now(datetime.UTC)
    at_the_end = datetime.timedelta(0)
    doubts = list(identity_doubts(parts.default, now=now, soon=at_the_end if sources.is_renewed else SOON))
    doubts += [doubt for one in parts.by_name.values() for doubt in identity_doubts(one, now=now)]
    if sources.authorities:
        doubts += authority_doubts(sources.authorities, parts.authorities, now)
    if sources.revocations:
        doubts += revocation_doubts(sources.revocations, parts.revocations, parts.authorities, now)
    return list(dict.fromkeys(doubts))


def signature_of(sources: Sources) -> Signature:
    """Modification time, size and inode of every file; zeros for a missing one.  Blocks."""
    found = []
    for path in sources.files():
        try:
            status = os.stat(path)
        except OSError:
            found.append((path, 0, 0, 0))
        else:
            found.append((path, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
