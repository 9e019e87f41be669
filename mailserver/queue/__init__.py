"""The durable queue: a message is in it when its sender has heard 250, until every recipient has its outcome.

In the order in which they are read:

* `queue`: the queue as the rest of the server sees it: commit, list, show, start and stop
* `entry`: what the queue keeps of a message, as values and as octets
* `limits`: the bounds and times of the queue, as one value
* `commit`: group commit: one thread writes, and what arrives while it syncs is the next batch
* `store`: the embedded store of the queue: SQLite in WAL mode, through apsw
* `reader`: a second connection to the store, so that reading never waits for a commit
* `summaries`: what is stored of an entry, as values for people
* `reading_back`: what waits in the store alone, on its way back into an active queue
* `runner`: after the commit: deliver, remember what could not be delivered, settle what could
* `acceptance`: what follows a commit: the senders hear 250, then the runner gets the messages
* `active_message`: a message in memory, and what of it is on its way
* `delivery_call`: a delivery's answer that is waited for, but not for ever
* `active`: the active queue of one delivery: what waits, what is under way, what is not flushed yet
* `fairness`: whose turn it is among destinations, and how much one of them may take
* `store_window`: the range of the store's numbers in which entries still wait for one delivery
* `settlement`: what an attempt changes for a destination: pure, without a clock
* `outcome_writer`: writes outcomes into the store: settled entries, and attempts
* `schedule`: when to try again: pure, without a clock
* `retry_timer`: one timer for the store's index of due times: brings deferred mail back
* `reports`: reports to senders, on their way into the queue
* `report_policies`: asks those who have a say about reports
* `holding`: what is recorded of copies that verdicts hold, and what becomes of them: pure
* `held_copies`: looks after them: judged again, or discarded when their time is over
* `undeliverable`: failures that nobody can be told of: a bounce that bounced, a sender that does not exist
* `direct`: messages that need no store, since their delivery keeps nothing (`IDelivery.stores` is False)
* `recovery`: what an earlier run left: unsettled entries, files without entries, entries without files
* `opening`: opens and closes the queue's file: is it there, is it whole, was it closed in order
* `mark`: a file that says that there has been a queue, and how its last user ended
* `lock`: one process for one data directory
* `checkup`: SQLite's own check of the whole file after an unclean end, beside the mail
* `health`: whether the store can be written to: what its errors mean, and when it works again
* `spool`: large contents as files, and the room on the disk
* `shared_memory`: SQLite's ``queue.db-shm`` on a disk that fills up
* `clocks`: the wall clock, which may be set, beside one that nobody sets
* `clock_watch`: a thread that notices when the machine's clock is set
* `clock_changes`: what the queue does when the clock is wrong or is set
* `counts`: figures of what the queue has done
* `figures`: what monitoring wants to know beside them
* `no_relay`: the relay where none is configured
* `admin/`: what people order: no message passes here on its way
"""
