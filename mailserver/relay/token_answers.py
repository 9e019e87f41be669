"""What an issuer of tokens says of itself, and what it answers: RFC 6749, RFC 8414 and OpenID Connect Discovery.  No I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mailserver.config.next_hop import checked_url
from mailserver.sasl.oauth import is_token

__all__ = [
    "DeviceCode", "Issuer", "TokenFailed", "IssuedTokens", "device_code_of", "issuer_of", "tokens_from",
    "tokens_of",
]  # fmt: skip

WORDS_CHARACTERS = 300
SECRET_CHARACTERS = 16_384
LIFETIME_MOST = 86_400.0  # whatever an issuer promises, there is a new one each day
LIFETIME_UNSAID = 3600.0  # RFC 6749 section 5.1: then other means would have to tell
REFRESH_LIFETIME_MOST = 10 * 365 * 86_400.0
EARLY = 0.25  # of the lifetime: so much earlier a new one is fetched
SPARE_SECONDS = 30.0  # no login is begun with a token that ends so soon
INTERVAL_SECONDS, DEVICE_SECONDS = 5.0, 900.0  # RFC 8628 section 3.2
TEMPORARY = frozenset({"temporarily_unavailable", "server_error", "slow_down", "authorization_pending"})


class TokenFailed(Exception):
    """There is no token, and why, in words without secrets.

    `error` is the issuer's code (RFC 6749 section 5.2), "" where it has none; `is_refused` says that asking again will not help.
    """

    def __init__(self, words: str, error: str = "", *, is_refused: bool = False) -> None:
        super().__init__(words)
        self.error = error
        self.is_refused = is_refused


@dataclass(frozen=True, slots=True)
class Issuer:
    """Where an issuer is asked.  `posts_secret`: a client's secret goes into the form, else into a header field."""

    token_endpoint: str
    device_endpoint: str
    authorization_endpoint: str
    posts_secret: bool


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a person is told, and how often the issuer may be asked what has come of it (RFC 8628 section 3.2)."""

    code: str = field(repr=False)
    user_code: str
    place: str
    seconds: float
    interval_seconds: float


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """A token for logins, and perhaps one for the next token.  Times in seconds since the epoch, lifetimes in seconds.

    `refresh_lifetime` 0: nobody has said.
    """

    access: str = field(repr=False)
    lifetime: float
    obtained_at: float
    refresh: str = field(repr=False, default="")
    refresh_lifetime: float = 0.0
    refresh_at: float = 0.0

    def seconds_left(self, now: float) -> float:
        """How long it is good for; 0 too for one from the future: a clock was set."""
        return max(0.0, self.obtained_at + self.lifetime - now) if self.obtained_at <= now + SPARE_SECONDS else 0.0

    def refresh_seconds_left(self, now: float) -> float:
        """How long the other is good for; infinite where nobody has said."""
        return max(0.0, self.refresh_at + self.refresh_lifetime - now) if self.refresh_lifetime else math.inf

    def is_good(self, now: float) -> bool:
        """A login may begin with it."""
        return self.seconds_left(now) > min(SPARE_SECONDS, self.lifetime / 2)

    def is_fresh(self, now: float) -> bool:
        """It is too early for the next one."""
        return self.is_good(now) and self.seconds_left(now) > self.lifetime * EARLY

    def as_text(self) -> str:
        """For a file that is sealed."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})


def tokens_from(text: str) -> IssuedTokens:
    """What `as_text` has made.  Raises ValueError."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no tokens")
    access, refresh = found.get("access"), found.get("refresh")
    times = [found.get(name) for name in ("lifetime", "obtained_at", "refresh_lifetime", "refresh_at")]
    if not isinstance(access, str) or not isinstance(refresh, str) or not all(isinstance(one, int | float) for one in times):
        raise ValueError("no tokens")
    lifetime, obtained_at, refresh_lifetime, refresh_at = [float(one) for one in times if one is not None]
    return IssuedTokens(access, lifetime, obtained_at, refresh, refresh_lifetime, refresh_at)


def issuer_of(status: int, octets: bytes, issuer: str) -> Issuer:
    """What the metadata of this issuer say.  Raises `TokenFailed`."""
    if status != 200:
        raise TokenFailed(f"{issuer}: the issuer's metadata cannot be had: HTTP {status}")
    said = _object(octets)
    if said is None:
        raise TokenFailed(f"{issuer}: the issuer's metadata are no JSON object")
    if (its := said.get("issuer")) != issuer:  # OpenID Connect Discovery section 4.3: else it speaks for another
        raise TokenFailed(f"{issuer}: these are the metadata of the issuer {_words(its)}: write that", is_refused=True)
    methods = said.get("token_endpoint_auth_methods_supported")
    token_endpoint = _endpoint(said, "token_endpoint")
    if not token_endpoint:
        raise TokenFailed(f"{issuer}: the issuer's metadata name no token_endpoint that may be used")
    return Issuer(
        token_endpoint,
        _endpoint(said, "device_authorization_endpoint"),
        _endpoint(said, "authorization_endpoint"),
        isinstance(methods, list) and "client_secret_post" in methods,
    )


def device_code_of(status: int, octets: bytes, secrets: Collection[str]) -> DeviceCode:
    """The answer to a device's request (RFC 8628 section 3.2).  Raises `TokenFailed`."""
    said = _good(status, octets, secrets)
    code, user_code = said.get("device_code"), said.get("user_code")
    place = said.get("verification_uri", said.get("verification_url"))  # the latter is Google's
    if not all(isinstance(one, str) and 0 < len(one) <= 2000 for one in (code, user_code, place)):
        raise TokenFailed("the issuer's answer has no code for a device")
    seconds, interval = _number(said.get("expires_in")), _number(said.get("interval"))
    return DeviceCode(
        str(code), _words(user_code), _words(place), min(seconds or DEVICE_SECONDS, 3600.0),
        min(max(INTERVAL_SECONDS if interval is None else interval, 1.0), 60.0),
    )  # fmt: skip


def tokens_of(
    status: int, octets: bytes, secrets: Collection[str], now: float, before: IssuedTokens | None = None
) -> IssuedTokens:
    """The answer of a token endpoint; what it leaves out stays as `before`.  Raises `TokenFailed`, in words without `secrets`."""
    said = _good(status, octets, secrets)
    access, kind, refresh = said.get("access_token"), said.get("token_type"), said.get("refresh_token")
    if not isinstance(access, str) or not is_token(access):
        raise TokenFailed("the issuer's answer has no access_token that can be used")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokenFailed("the issuer's token is none of the type Bearer")
    lifetime = _number(said.get("expires_in"))
    found = IssuedTokens(access, LIFETIME_UNSAID if lifetime is None else min(lifetime, LIFETIME_MOST), now)
    if isinstance(refresh, str) and 0 < len(refresh) <= SECRET_CHARACTERS:
        ends = _number(said.get("refresh_token_expires_in"))
        return replace(found, refresh=refresh, refresh_lifetime=min(ends or 0.0, REFRESH_LIFETIME_MOST), refresh_at=now)
    if before is not None:  # RFC 6749 section 6: the one of before goes on
        return replace(
            found, refresh=before.refresh, refresh_lifetime=before.refresh_lifetime, refresh_at=before.refresh_at
        )
    return found


def _good(status: int, octets: bytes, secrets: Collection[str]) -> Mapping[str, Any]:
    said = _object(octets)
    if status == 200 and said is not None:
        return said
    error = "" if said is None else said.get("error")
    if said is None or not isinstance(error, str) or not error:
        raise TokenFailed(f"the issuer gives no answer that is understood: HTTP {status}")
    words = error if not isinstance(said.get("error_description"), str) else f"{error}: {said['error_description']}"
    for secret in secrets:
        if secret:
            words = words.replace(secret, "…")
    is_refused = 400 <= status < 500 and status not in (408, 429) and error not in TEMPORARY
    raise TokenFailed(f"the issuer refuses: {_words(words)}", error, is_refused=is_refused)


def _object(octets: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(octets)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _endpoint(said: Mapping[str, Any], name: str) -> str:
    url = said.get(name)
    try:
        return checked_url(url) if isinstance(url, str) else ""
    except ValueError:
        return ""


def _number(value: Any) -> float | None:
    """A number of seconds, also as text, as some issuers write it; None for anything else."""
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and found >= 0 else None


def _words(value: Any) -> str:
    text = " ".join(str(value).split())[:WORDS_CHARACTERS]
    return "".join([one if one.isprintable() else "?" for one in text])
