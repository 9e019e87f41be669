"""What happened: the log, the road of each message, counters, observers.

In the order in which they are read:

* `steps`: the steps of all roads: taken in at once, written down a little later by a thread of their own
* `roads`: the road of each message, kept for `mailserver explain`
* `table`: a road as a table for people
* `search`: which messages a person may mean who knows no id: looked for among the roads, the newest first
* `lines`: one step or one log event as a line of text or of JSON
* `redaction`: how much of a mail address the log and the roads keep
* `output`: where log lines go: a file, or standard output
* `events`: everything else that is logged, in the same stream: Twisted's own events, warnings, failures with their
  tracebacks
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
