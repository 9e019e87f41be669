"""Facts that the server keeps for its parts and for plugins, in SQLite.

In the order in which they are read:

* `facts`: what a fact may be: bounds, and the atomic verbs as decisions on one fact
* `own_time`: a clock that nobody sets, over restarts
* `state_file`: the file of the small facts that expire, `state.db`
* `space`: the facts of one component, in memory first (`IStateStore`)
* `store`: the running server's store of them all
* `stopped`: the same file while no server runs
* `former`: the same for plugins of API 0.1, which call and do not wait
* `records_file`: the file of the durable records, `records.db`
* `records`: durable facts of people (`IRecords`)
* `learnt_file`: what was learnt of messages, in a file of the filter that learns
* `read_only`: state and records as they stand in the files, for whoever must change nothing
"""

from mailserver.state_store.records import RecordStore
from mailserver.state_store.stopped import StoppedState
from mailserver.state_store.store import StateStore

__all__ = ["RecordStore", "StateStore", "StoppedState"]
