"""Tables whose names have changed.  The former name is understood; `mailserver check` says that it is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["FORMER_TABLES", "with_present_names"]

FORMER_TABLES: Mapping[str, str] = {"drop": "pickup"}  # the former name: the present one


def with_present_names(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The document with each table under its present name, and the former names that it has, by the present ones.

    Where both names are there, the one that is understood would depend on chance, so the former stays: it is a fault.
    """
    present = dict(document)
    former = {now: old for old, now in FORMER_TABLES.items() if old in document and now not in document}
    for now, old in former.items():
        present[now] = present.pop(old)
    return present, former
