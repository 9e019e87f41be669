"""What happened: the log, the road of each message, counters, observers.

* `Steps` takes in each step (`note`), and `LogObserver` hands it Twisted's log events; a thread writes both, as text or JSON
  lines, to a `LogFile`, and the steps into a `RoadStore`.
* `read_road` and `format_road` are `mailserver explain`.

A step has the id of a message or of a connection; a message's first step names its connection.
"""

from mailserver.observe.events import LogObserver
from mailserver.observe.output import LogFile
from mailserver.observe.roads import AmbiguousId, RoadStore, RoadsUnreadable, Step, UnknownId, read_road
from mailserver.observe.steps import Steps
from mailserver.observe.table import format_road

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
