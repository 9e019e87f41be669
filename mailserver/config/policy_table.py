"""What becomes of copies that are not simply delivered, as the configuration says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mailserver.config.options import Options
from mailserver.config.values import Duration

__all__ = ["PolicyTable"]


class PolicyTable(Options):
    """What becomes of copies that are not simply delivered."""

    per_recipient: Literal["quarantine", "report"] | None = None
    """What becomes of the copy that one recipient's filters refuse while another's take the message, where one reply has to do.
    `quarantine`: it is held. `report`: its sender gets a report, who has logged in, is a program of this host, or whose domain
    passes DMARC and SPF; everybody else's is held, since anybody may write any address there. Absent: as `report`, but only for
    who has logged in and programs of this host."""
    quarantine: Literal["junk", "hold"] = "junk"
    """Where a copy goes that a filter puts aside: `junk`, the Junk folder of its mailbox; `hold`, it is held in the queue. A copy
    for another host is held in any case."""
    held_expire: Annotated[Duration, Field(gt=0)] = 30 * 86_400.0
    """How long a copy is held that a filter refused or put aside. Then it is discarded, and that recorded; nobody gets a
    report."""
