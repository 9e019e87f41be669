"""The durable queue: a message is in it when its sender has heard 250, until every recipient has its outcome.

In the order in which they are read:

* `queue`: the durable queue as the rest of the server sees it: commit, list, show, start and stop
* `entry`: what the queue keeps of a message, as values and as octets
* `commit`: group commit: one thread writes, and what arrives while it syncs is the next batch
* `store`: the embedded store of the queue: SQLite in WAL mode, through apsw
* `reader`: the reading side of the embedded store: a connection of its own, so that reading back never stands in a
  commit's way
* `runner`: after the commit: deliver, remember what could not be delivered, settle what could
* `active`: the way to one delivery: what waits for it, what is under way, what it has yet to flush
* `fairness`: fairness between destinations: whose turn it is, and how much one of them may take
* `store_window`: what a lane has to do beyond the numbers that it keeps in memory: between which of the store's numbers
  it stands
* `settlement`: what an attempt changes for a destination: pure, without a clock
* `outcome_writer`: what becomes of entries, on its way into the store: settled ones, and attempts to remember
* `schedule`: when to try again: pure, without a clock
* `retry_timer`: when deferred mail comes back: one timer for the store's index of due times, so that the length of the
  queue costs nothing
* `reports`: reports to senders, on their way into the queue
* `undeliverable`: failures that nobody can be told of: a bounce that bounced, a sender that does not exist
* `direct`: messages that need no store: every destination's delivery keeps nothing (`IDelivery.stores` is False)
* `recovery`: what an earlier run left: entries that were not settled, files without entries, entries without files
* `opening`: the queue's file at the start and at the end: is it there, is it whole, was it closed in order
* `mark`: a mark beside the queue's file: that there has been a queue, and how its last user came to an end
* `lock`: one process for one data directory: a server, or a command while there is none
* `checkup`: a look through the whole file of the queue after an end that was not in order: SQLite's own check, beside
  the mail
* `health`: whether the store of the queue can be written to: what an error of it means, and when it works again
* `spool`: large contents as files, and the room on the disk
* `shared_memory`: SQLite's shared memory file, ``queue.db-shm``, on a disk that fills up
* `clocks`: the clock on the wall, which people and time servers set, beside one that nobody sets
* `clock_watch`: a thread that notices when the clock of the machine is set
* `clock_changes`: what the queue does about a clock that is wrong or is set: see `clocks`
* `counts`: what the queue has done, in figures
* `no_relay`: what stands in for the relay where none is configured
* `admin/`: what people order: no message passes here on its way
"""
