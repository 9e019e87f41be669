"""Makes the resolver."""

from __future__ import annotations

import time
from typing import Any

from mailserver.config import Configuration
from mailserver.dns import NameServer, ProbeNames, Resolver, Trust

__all__ = ["make_resolver"]


def make_resolver(configuration: Configuration, reactor: Any, *, examines: bool = False) -> Resolver:
    """The resolver.  With `examines` it finds out which servers validate, as long as it runs; else none is asked for that."""
    dns = configuration.dns
    names = ProbeNames(signed=dns.signed_zones, unsigned=dns.unsigned_zones, bogus=dns.bogus_zones)
    return Resolver(
        reactor=reactor, seconds=time.monotonic,
        servers=[NameServer(one, trusted=dns.validating or one.is_loopback) for one in dns.servers],
        timeout_seconds=dns.timeout,
        attempts=dns.attempts,
        question_seconds=dns.give_up,
        cache_entries=dns.cache_entries,
        random_case=dns.random_case,
        trust=Trust(dns.trust),
        probe_names=names if examines else None,
    )  # fmt: skip
