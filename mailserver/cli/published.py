"""Asks the authoritative servers of a zone whether they show a record: no cache can hide what a domain's owner has done.

Each address of each server is asked.  One that does not answer is told and holds nothing up, as long as another does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import DeferredList

from mailserver.cli.output import Unable
from mailserver.cli.without_server import NotNow, finished
from mailserver.mail.dns_records import DNS_PORT, Answer, LookupFailed, ServerAddress
from mailserver.trust.dkim_key import is_shown

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["not_published"]

SERVERS_MOST = 20
QUESTION_SECONDS = 10.0


def not_published(configuration: Configuration, domain: str, records: Mapping[str, str], *, port: int = DNS_PORT) -> list[str]:
    """What is wrong, a sentence each: for each name, which servers do not show its TXT record.  Raises `Unable`."""
    try:
        found: list[str] = finished(_not_published(configuration, domain, records, port))
    except (LookupFailed, NotNow) as error:
        raise Unable(f"the DNS cannot tell who answers for {domain}: {error}") from error
    return found


async def _not_published(configuration: Configuration, domain: str, records: Mapping[str, str], port: int) -> list[str]:
    from twisted.internet import reactor

    from mailserver.assembly.resolver import make_resolver
    from mailserver.dns import NameServer, Resolver

    resolver = make_resolver(configuration, reactor)
    await resolver.start()
    try:
        servers = await _servers_of(domain, resolver)
    finally:
        await resolver.stop()
    wrong: list[str] = []
    answered: set[str] = set()
    for name, address in servers:
        one = Resolver(
            reactor=reactor, servers=[NameServer(ServerAddress(address, port))], attempts=2, question_seconds=QUESTION_SECONDS
        )
        await one.start()
        try:
            answers: Any = await DeferredList([one.query(record, "TXT") for record in records], consumeErrors=True)
        finally:
            await one.stop()
        for record, (success, answer) in zip(records, answers, strict=True):
            if not success:
                wrong.append(f"{name} ({address}) does not answer for {record}")
            elif not is_shown(records[record], answer.texts):
                answered.add(record)
                wrong.append(f"{name} ({address}) does not show {record}, or another key")
            else:
                answered.add(record)
    silent = [one for one in wrong if "does not answer" in one]
    return wrong if len(wrong) > len(silent) or len(answered) < len(records) else []


async def _servers_of(domain: str, resolver: Any) -> Sequence[tuple[str, str]]:
    """Name and address of each server of the zone that the domain is in.  Raises `LookupFailed`."""
    labels = domain.split(".")
    for start in range(len(labels)):
        answer: Answer = await resolver.query(".".join(labels[start:]), "NS")
        if not answer.records or answer.canonical_name:
            continue
        found: list[tuple[str, str]] = []
        for name in answer.records[:SERVERS_MOST]:
            for record_type in ("A", "AAAA"):
                found += [(name, address) for address in (await resolver.query(name, record_type)).records]
        if found:
            return found[:SERVERS_MOST]
    raise LookupFailed("no name server was found")
