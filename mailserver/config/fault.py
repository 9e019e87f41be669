"""One thing that is wrong with a configuration, and the exception that holds all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ConfigurationError", "Fault"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.  `key` is the dotted path of the key, "" for the file as a whole."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key + ': ' if self.key else ''}{self.message}"


class ConfigurationError(Exception):
    """The configuration cannot be used; `faults` holds everything that is wrong with it, in the order of the file."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: (fault.file, fault.line))
        super().__init__("\n".join(map(str, self.faults)))
