"""Refuses senders whose domain takes no mail and so could never be answered (RFC 7505 section 4.2)."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mailserver.api import (
    Envelope,
    IComponentFactory,
    ISenderFilter,
    Options,
    Pass,
    Refuse,
    Services,
    Verdict,
)

__all__ = ["NullMX", "NullMXOptions", "factory"]


class NullMXOptions(Options):
    """No options."""


@implementer(ISenderFilter)
class NullMX:
    """Asks for the MX records of each sender's domain.  `resolver` is an `IResolver`; its failure is the filter's."""

    def __init__(self, resolver: Any) -> None:
        self._resolver = resolver

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """The null reverse-path and address literals have no domain to ask for."""
        sender = envelope.sender
        if sender is None or sender.is_literal:
            return Pass()
        answer = await self._resolver.query(sender.domain_key, "MX")
        if [one.exchange for one in answer.exchanges] == ["."]:
            return Refuse(f"{sender.domain} has a null MX", enhanced="5.7.27")
        return Pass()


@implementer(IComponentFactory)
class NullMXFactory:
    """Makes the filter for ``[[filter]] use = "null_mx"``."""

    name = "null_mx"
    summary = "Refuses senders whose domain takes no mail itself (null MX, RFC 7505)."
    api_version = "1.0"
    replays = True
    provides = ISenderFilter
    options = NullMXOptions

    def build(self, options: Any, services: Services) -> NullMX:
        """Return the filter."""
        return NullMX(services.resolver)


factory = NullMXFactory()
