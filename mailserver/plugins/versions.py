"""Which plugin API a factory was written for, and whether this server has it.

A factory says `api_version`: ``"1"`` or ``"1.0"`` (that minor version or a later one of the same major), or a range such as
``">=1.0,<2"``.  A new major version may take names away and change what they mean; a new minor one only adds.  A factory
that says nothing was written for 0.1, before versions counted: it runs behind an adapter (`former_plugins`) as long as the
major version is 1.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["API_VERSION", "FORMER", "WrongVersion", "is_former", "require_api"]

API_VERSION = "1.1"
FORMER = "0.1"  # what a factory without `api_version` was written for

VERSION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4})?")
CONDITION = re.compile(rf"(>=|<=|==|>|<) *({VERSION.pattern})")
EXPECTED = 'write a version or a range, such as "1.0" or ">=1.0,<2"'
Version = tuple[int, int]


class WrongVersion(Exception):
    """The factory was written for another plugin API; the words say for which, and what to do."""


def is_former(factory: Any) -> bool:
    """The factory was written for 0.1: it names no version.  Errors of the factory are raised."""
    return getattr(factory, "api_version", None) is None


def require_api(factory: Any, offered: str = API_VERSION) -> None:
    """Raises `WrongVersion` for a factory that this server (of the API `offered`) cannot run, or whose version is none."""
    have = _version(offered)
    written_for = getattr(factory, "api_version", None)
    if written_for is None:
        if have[0] > 1:
            raise WrongVersion(
                f"{factory.name!r} names no api_version, so it was written for plugin API {FORMER}, "
                f"which API {offered} runs no longer: bring it up to date (docs/plugins/changes.md)"
            )
        return
    if not isinstance(written_for, str):
        raise WrongVersion(f"the api_version of {factory.name!r} is {written_for!r}: {EXPECTED}")
    if not _fits(have, written_for.strip(), factory.name):
        raise WrongVersion(f"{factory.name!r} was written for plugin API {written_for}; this server has {offered}")


def _fits(have: Version, text: str, name: str) -> bool:
    if VERSION.fullmatch(text):
        needed = _version(text)
        return have[0] == needed[0] and have >= needed
    conditions = [CONDITION.fullmatch(part.strip()) for part in text.split(",")]
    if None in conditions:
        raise WrongVersion(f"the api_version of {name!r} is {text!r}: {EXPECTED}")
    return all(_holds(have, one[1], _version(one[2])) for one in conditions if one is not None)


def _holds(have: Version, sign: str, other: Version) -> bool:
    match sign:
        case ">=":
            return have >= other
        case "<=":
            return have <= other
        case ">":
            return have > other
        case "<":
            return have < other
        case _:
            return have == other


def _version(text: str) -> Version:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)
