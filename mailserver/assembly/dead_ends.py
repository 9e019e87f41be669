"""Tells the log which aliases and patterns lead nowhere."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.assembly.policy import Policy

__all__ = ["look_for_dead_ends"]

TOLD_MOST = 50
log = Logger()


def look_for_dead_ends(policy: Policy, *, relays: bool) -> None:
    """It asks the directory for each alias, so nobody waits for it."""
    Deferred.fromCoroutine(_tell(policy, relays)).addErrback(
        lambda failure: log.warn(
            "whether every alias leads somewhere could not be found out: {why}", why=failure.getErrorMessage()
        )
    )


async def _tell(policy: Policy, relays: bool) -> None:
    with policy.generation:
        faults = await policy.router.faults(relays=relays)
    for fault in faults[:TOLD_MOST]:
        log.warn("{fault}", fault=fault)
    if len(faults) > TOLD_MOST:
        log.warn("{count} more lead nowhere: mailserver check names them", count=len(faults) - TOLD_MOST)
