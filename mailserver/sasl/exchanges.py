"""The mechanisms: what each needs, which are offered, and how one begins.

    exchange = begin("PLAIN", …)
    step = exchange.respond(initial)       # a Challenge for the client, a question for the caller, or how it ended
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from mailserver.sasl.cram_md5 import cram_md5
from mailserver.sasl.exchange import Exchange, Mechanism
from mailserver.sasl.external import external
from mailserver.sasl.login import login
from mailserver.sasl.plain import plain
from mailserver.sasl.scram import scram_sha_256
from mailserver.sasl.steps import ChannelBindings

__all__ = ["MECHANISMS", "Need", "Start", "begin", "offered"]


class Need(enum.Enum):
    """What a mechanism needs of the accounts."""

    PASSWORD = "can tell whether a password is right"  # noqa: S105
    SCRAM_KEYS = "keep SCRAM keys"
    SECRET = "know the password itself"  # noqa: S105
    CERTIFICATE = "know whom a client certificate stands for"


@dataclass(frozen=True, slots=True)
class Start:
    """What a mechanism begins with.  `challenge` is the msg-id for CRAM-MD5, `nonce` the server's for SCRAM."""

    bindings: ChannelBindings
    offers_plus: bool
    hostname: str

    def nonce(self) -> str:
        """144 random bits."""
        return secrets.token_urlsafe(18)

    def challenge(self) -> bytes:
        """RFC 2195 section 2: a msg-id that never comes twice."""
        return f"<{secrets.token_hex(12)}@{self.hostname}>".encode("ascii")


def _scram(start: Start, plus: bool) -> Mechanism:
    return scram_sha_256(plus=plus, nonce=start.nonce(), bindings=start.bindings, offers_plus=start.offers_plus)


@dataclass(frozen=True, slots=True)
class Kind:
    """A mechanism: its need, and how it begins."""

    need: Need
    begin: Callable[[Start], Mechanism]


MECHANISMS: Mapping[str, Kind] = {  # the best first
    "SCRAM-SHA-256-PLUS": Kind(Need.SCRAM_KEYS, lambda start: _scram(start, True)),
    "SCRAM-SHA-256": Kind(Need.SCRAM_KEYS, lambda start: _scram(start, False)),
    "CRAM-MD5": Kind(Need.SECRET, lambda start: cram_md5(start.challenge())),
    "PLAIN": Kind(Need.PASSWORD, lambda start: plain()),
    "LOGIN": Kind(Need.PASSWORD, lambda start: login()),
    "EXTERNAL": Kind(Need.CERTIFICATE, lambda start: external()),
}


def offered(
    needs_met: Collection[Need], *, is_encrypted: bool, has_certificate: bool, wanted: Collection[str] | None = None
) -> tuple[str, ...]:
    """The names to offer, the best first.  `wanted` None: all.

    The channel binding of PLUS and the certificate of EXTERNAL come with TLS.
    """
    return tuple(
        [
            name
            for name, kind in MECHANISMS.items()
            if kind.need in needs_met
            and (wanted is None or name in wanted)
            and (is_encrypted or not name.endswith("-PLUS"))
            and (has_certificate or kind.need is not Need.CERTIFICATE)
        ]
    )


def begin(name: str, start: Start) -> Exchange:
    """Begin an exchange.  Raises KeyError for a mechanism that there is not."""
    return Exchange(MECHANISMS[name].begin(start))
