"""What every look is shown: what is asked for, what our house will have, and the eyes."""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.seen import Seen
from mailserver.quickstart.eyes import Eyes
from mailserver.quickstart.wishes import HouseWishes

__all__ = ["Seeing"]


@dataclass(frozen=True, slots=True)
class Seeing:
    """`facts` are those of the configuration that will be; `runs` says that the server runs already, and holds its ports."""

    wishes: HouseWishes
    facts: DomainFacts
    seen: Seen
    eyes: Eyes
    own_name: str
    runs: bool = False
