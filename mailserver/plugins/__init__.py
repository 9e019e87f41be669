"""Components: found by interface and name, built, run and ended.

In the order in which they are read:

* `catalogue`: finds components by name and builds them
* `versions`: which plugin API a factory was written for
* `former_plugins`: what a plugin of API 0.1 is lent
* `awaiting`: runs a coroutine without a reactor turn where it has nothing to wait for
* `left_behind`: how much of what was given up at its deadline runs on
* `failure_log`: failures in the log, with a traceback, once for each kind and minute
* `asyncio_world`: futures and coroutines of asyncio as Deferreds
* `asking`: asks one component something, with a deadline and under its name
* `life`: starts and stops a component, each within its time
* `sound_routes`: checks the mailboxes and routes that a directory or a router answers
* `asked_directory`: a directory as the core asks it
* `asked_router`: a plugin's router as the core asks it
* `asked_delivery`: a delivery as the core knows it
* `budget`: leaves alone for a while what fails too often
* `durations`: how long the last calls took
* `bound`: a component as a table binds it: its name, its deadline, what its failure means
* `rarely`: one line in the log for each kind and minute
* `threads`: a few threads for one kind of call that may block
* `pools`: the server's own threads, a pool for each kind of waiting
* `in_reactor`: the way from a component's thread into the reactor's
* `observing`: an observer in a thread of its own
* `periodic`: what a component does from time to time
* `metrics`: what a component counts
* `account_following`: tells components that accounts are renamed or removed
* `component_commands`: the commands that components offer
* `lent`: what one component was lent: its threads, its processes, its figures
* `register`: the components of the running server: what each was lent, and how it does
* `watchdog`: tells who holds the reactor
* `code_on_disk`: whether the code of a component that runs is still what stands on the disk
* `generation`: which parts serve a transaction that a reload overtakes
"""
