"""Those who have a say about mail on its way out, as the configuration binds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailserver.assembly.components import Owned
from mailserver.config import Configuration
from mailserver.interfaces import IAttemptFilter, IHostDelivery, IHosts, IReportPolicy
from mailserver.plugins.bound import BoundComponent
from mailserver.plugins.generation import Generation
from mailserver.plugins.life import StartError
from mailserver.receive.bound_filter import BoundFilter
from mailserver.relay.attempts import AskedBefore

__all__ = ["asked_before", "report_policies"]


STAGES: dict[Any, str] = {IAttemptFilter: "attempt", IHosts: "hosts", IReportPolicy: "report"}


def asked_before(
    configuration: Configuration,
    owned: Sequence[Owned],
    filters: Sequence[BoundFilter],
    *,
    remote: object,
    generation: Generation,
) -> AskedBefore:
    """Those who are asked before an attempt.  Raises `StartError` where hosts are named and the relay cannot be told any."""
    hosts = _bound(IHosts, owned, filters)
    if hosts and not (IHostDelivery.providedBy(remote) and remote.takes_hosts):
        use = configuration.relay.use
        raise StartError(f'filter {hosts[0].name}: it names hosts, and [relay] use = "{use}" cannot be told any')
    return AskedBefore(_bound(IAttemptFilter, owned, filters), hosts, generation)


def report_policies(owned: Sequence[Owned], filters: Sequence[BoundFilter]) -> list[BoundComponent]:
    """Those who are asked before a report."""
    return _bound(IReportPolicy, owned, filters)


def _bound(kind: Any, owned: Sequence[Owned], filters: Sequence[BoundFilter]) -> list[BoundComponent]:
    return [
        BoundComponent(
            name=bound.name,
            component=one.component,
            asking=one.asking,
            on_error=bound.on_error,
            deadline_seconds=bound.deadline_seconds,
            shadow=bound.shadow,
            budget=bound.budgets.of(STAGES[kind]) if bound.budgets is not None else None,
        )
        for one, bound in zip(owned, filters, strict=True)
        if kind.providedBy(one.component)
    ]
