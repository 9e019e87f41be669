"""What a look before the start has found."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

__all__ = ["Outlook", "Sighting"]


class Outlook(enum.Enum):
    """How a matter stands."""

    OK = "ok"
    WARN = "warn"  # it works, and could be better; or it will once what is printed stands in the DNS
    FAIL = "fail"  # mail will not go, or not come
    UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One matter: its name, how it stands, why, and the exact fix ("" where there is nothing to be done)."""

    name: str
    standing: Outlook
    why: str
    fix: str = ""

    @property
    def plain(self) -> dict[str, Any]:
        """For programs."""
        return {"name": self.name, "standing": self.standing.value, "why": self.why, "fix": self.fix}
