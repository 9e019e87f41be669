"""How old a domain is, as its registry says (RDAP: RFC 9083), which IANA's bootstrap file names (RFC 9224)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

__all__ = ["BOOTSTRAP", "NotTold", "rdap_url", "registered_at"]

BOOTSTRAP = "https://data.iana.org/rdap/dns.json"
BOOTSTRAP_OCTETS = 1 << 21
ANSWER_OCTETS = 1 << 20
TRIES = 3


class NotTold(ValueError):
    """Nobody tells; the words say why."""


def registered_at(domain: str, fetch: Callable[[str, int], bytes]) -> tuple[str, datetime]:
    """The name that was registered, the domain or one above it, and when.  Raises `NotTold`, and OSError."""
    url = rdap_url(domain, _json(fetch(BOOTSTRAP, BOOTSTRAP_OCTETS)))
    if not url:
        raise NotTold(f"nobody tells about names in {domain.rpartition('.')[2]}")
    labels = domain.split(".")
    why = ""
    for first in range(min(TRIES, len(labels) - 1)):
        name = ".".join(labels[first:])
        try:
            said = _json(fetch(f"{url}domain/{name}", ANSWER_OCTETS))
        except OSError as error:
            why = str(error)
            continue
        for event in said.get("events", ()):
            if isinstance(event, dict) and event.get("eventAction") == "registration":
                return name, _time(str(event.get("eventDate")))
        raise NotTold(f"the registry does not say when {name} was registered")
    raise NotTold(why or "the registry does not know it")


def rdap_url(domain: str, bootstrap: Any) -> str:
    """The https URL, with "/" at its end, of the service for the longest suffix of the domain; "" for none."""
    best, url = "", ""
    services = bootstrap.get("services", ())
    for service in services if isinstance(services, list) else ():
        names, urls = (service[0], service[1]) if isinstance(service, list) and len(service) > 1 else ((), ())
        for name in names:
            suffix = str(name).lower()
            if (domain == suffix or domain.endswith("." + suffix)) and len(suffix) > len(best):
                secure = [str(one) for one in urls if str(one).startswith("https://")]
                best, url = suffix, (secure[0].rstrip("/") + "/" if secure else "")
    return url


def _json(octets: bytes) -> Any:
    try:
        value = json.loads(octets)
    except ValueError:
        raise NotTold("an answer that is no JSON") from None
    if not isinstance(value, dict):
        raise NotTold("an answer of another form")
    return value


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise NotTold("the registry's date cannot be read") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
