"""Binds the filters as the configuration says: in which order they are asked, what their failure means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mailserver.config import Configuration, FilterTable
from mailserver.config.filter_order import filter_names, levels_of
from mailserver.plugins.budget import Budget, Budgets
from mailserver.plugins.catalogue import Catalogue, PluginError
from mailserver.plugins.register import Register
from mailserver.receive.bound_filter import BoundFilter

__all__ = ["bind_filters", "cost_of", "show_filters"]


def bind_filters(configuration: Configuration, components: Sequence[Any], catalogue: Catalogue) -> list[BoundFilter]:
    """One for each table, in their order.  Raises `PluginError` for a component that declares no number as its cost."""
    tables = configuration.filter
    names = filter_names([(table.use, table.name) for table in tables])
    levels = levels_of(names, [table.after for table in tables])
    return [
        _bound(name, level, table, component, catalogue.factory("filter", table.use), configuration.limits.filter_seconds)
        for name, level, table, component in zip(names, levels, tables, components, strict=True)
    ]


def show_filters(filters: Sequence[BoundFilter], register: Register) -> None:
    """`mailserver plugins` tells people which of them are slow, and which are not asked for a while."""
    for bound in filters:
        lent = register.of(bound.component)
        if lent is None:
            continue
        lent.durations = bound.durations
        if bound.budgets is not None:
            lent.budgets = bound.budgets.by_stage


def _bound(
    name: str, level: int, table: FilterTable, component: Any, factory: Any, usual_seconds: float
) -> BoundFilter:
    return BoundFilter(
        name=name,
        component=component,
        services=frozenset(table.services),
        on_error=table.on_error,
        deadline_seconds=table.deadline or usual_seconds,
        level=level,
        cost=cost_of(component, factory),
        skippable=bool(_declared(component, factory, "skippable")) and not table.hard
        if table.skippable is None
        else table.skippable,
        hard=bool(_declared(component, factory, "hard")) and not table.skippable if table.hard is None else table.hard,
        shadow=table.mode == "shadow",
        log_passes=table.log_passes,
        budgets=Budgets(
            lambda: Budget(failures=table.failures, window_seconds=table.failure_window, pause_seconds=table.pause)
        ),
    )


def _declared(component: Any, factory: Any, name: str) -> Any:
    """What the component declares, or its factory; None where neither does."""
    found = getattr(component, name, None)
    return getattr(factory, name, None) if found is None else found


def cost_of(component: Any, factory: Any) -> float:
    """What the component or its factory declares; 0 where neither does.  Raises `PluginError` for what is no number."""
    cost = _declared(component, factory, "cost")
    if cost is None:
        return 0
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not math.isfinite(cost):
        raise PluginError(f"the component {factory.name!r} declares a cost that is no number: {cost!r}")
    return cost
