"""Frozen values that are made quickly.

`dataclass` has a frozen value set each of its fields by ``object.__setattr__``, which looks the field up by its name; a message
comes to fifty of them.  `quick` has it done by the fields' own descriptors, in less than half of the time.  Nothing else about
the class changes, and nothing can be assigned to its fields from outside.

A `NamedTuple` is made by a function of Python; `maker` leaves that out, for what is made with every packet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, TypeVar

__all__ = ["maker", "quick"]

T = TypeVar("T")


def quick(kind: type[T]) -> type[T]:
    """To be put above ``@dataclass(frozen=True, slots=True)``, for what is made with every message.

    Raises TypeError for a class with fields that a factory makes.
    """
    names: dict[str, Any] = {}
    parameters, named, lines = ["self"], ["*"], []
    for one in fields(kind):  # type: ignore[arg-type]
        if one.default_factory is not MISSING:
            raise TypeError(f"{kind.__name__}.{one.name} is no field for a quick value")
        names[f"set_{one.name}"] = getattr(kind, one.name).__set__  # of the class that has the slot
        names[f"default_{one.name}"] = one.default
        has_default = one.default is not MISSING
        if one.init:
            (named if one.kw_only else parameters).append(f"{one.name}=default_{one.name}" if has_default else one.name)
        if one.init or has_default:
            lines.append(f"set_{one.name}(self, {one.name if one.init else f'default_{one.name}'})")
    if len(named) > 1:
        parameters += named
    if hasattr(kind, "__post_init__"):
        lines.append("self.__post_init__()")
    # As `dataclass` itself does it.  Only the names of fields go into the text.
    function = f"def __init__({', '.join(parameters)}):\n    " + "\n    ".join(lines or ["pass"])
    made: dict[str, Any] = {}
    text = f"def make({', '.join(names)}):\n  " + function.replace("\n", "\n  ") + "\n  return __init__"
    exec(compile(text, "<quick>", "exec"), made)  # noqa: S102
    quicker = made["make"](**names)
    quicker.__annotations__ = kind.__init__.__annotations__
    quicker.__qualname__ = f"{kind.__qualname__}.__init__"
    quicker.__module__ = kind.__module__
    kind.__init__ = quicker  # type: ignore[method-assign]
    return kind


def maker(kind: type[T]) -> Callable[[tuple[Any, ...]], T]:
    """What makes values of this NamedTuple of a tuple with all of its fields, in less than half of the time.

    It does not look whether there are as many as there should be.
    """
    return partial(tuple.__new__, kind)  # type: ignore[type-var]
