"""An attribute that is computed when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["Remembering", "cached"]

T = TypeVar("T")


class cached(Generic[T]):  # a decorator, as `property` is
    """`functools.cached_property` without the lock that it takes before Python 3.12.

    Two threads that ask at the same time may both work it out; both get the same answer.
    """

    def __init__(self, work: Callable[[Any], T]) -> None:
        self._work = work
        self.__doc__ = work.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> cached[T] | T:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._work(instance)
        return value


class Remembering:
    """Has `cached` attributes besides its slots: what they keep stands in a dictionary that is made for the first of
    them."""

    __slots__ = ("__dict__",)
