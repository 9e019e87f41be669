"""Makes the resolver."""

from __future__ import annotations

import time
from typing import Any

from mailserver.config import Configuration
from mailserver.dns import NameServer, Resolver

__all__ = ["make_resolver"]


def make_resolver(configuration: Configuration, reactor: Any) -> Resolver:
    dns = configuration.dns
    return Resolver(
        reactor=reactor, seconds=time.monotonic,
        servers=[NameServer(one, trusted=dns.validating or one.is_loopback) for one in dns.servers],
        timeout_seconds=dns.timeout,
        attempts=dns.attempts,
        question_seconds=dns.give_up,
        cache_entries=dns.cache_entries,
        random_case=dns.random_case,
    )  # fmt: skip
