"""What happened: the log, the road of each message, counters, observers.

In the order in which they are read:

* `steps`: takes in the steps of all roads at once; a thread writes them down a little later
* `roads`: the road of each message, kept for `mailserver explain`
* `judged`: what a road says of verdicts and findings, read back as values
* `road_table`: a road as a table for people
* `road_search`: searches the roads for messages whose id is not known
* `lines`: one step or one log event as a line of text or of JSON
* `redaction`: how much of a mail address the log and the roads keep
* `output`: where log lines go: a file, or standard output
* `events`: other events in the same log: Twisted's own, warnings, tracebacks

The names are looked up when they are imported: the web process wants `lines` alone, and no database.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailserver.observe.events import LogObserver
    from mailserver.observe.output import LogFile
    from mailserver.observe.road_table import format_road
    from mailserver.observe.roads import AmbiguousId, RoadStore, RoadsUnreadable, Step, UnknownId, read_road
    from mailserver.observe.steps import Steps

__all__ = [
    "AmbiguousId",
    "LogFile",
    "LogObserver",
    "RoadStore",
    "RoadsUnreadable",
    "Step",
    "Steps",
    "UnknownId",
    "format_road",
    "read_road",
]

MODULES = {"LogFile": "output", "LogObserver": "events", "Steps": "steps", "format_road": "road_table"}  # all others: `roads`


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"mailserver.observe.{MODULES.get(name, 'roads')}"), name)
