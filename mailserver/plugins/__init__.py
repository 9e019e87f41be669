"""Components: found by interface and name, built, run and ended.

In the order in which they are read:

* `catalogue`: finds components by name and builds them
* `versions`: which plugin API a factory was written for
* `former_plugins`: what a plugin of API 0.1 is lent
* `life`: starts and stops a component, each within its time
* `awaiting`: runs a coroutine without a reactor turn where it has nothing to wait for
* `failure_log`: failures in the log, with a traceback, once for each kind and minute
* `asyncio_world`: futures and coroutines of asyncio as Deferreds
* `budget`: leaves alone for a while what fails too often
* `rarely`: one line in the log for each kind and minute
* `threads`: a few threads for one kind of call that may block
* `pools`: the server's own threads, a pool for each kind of waiting
* `in_reactor`: the way from a component's thread into the reactor's
* `observing`: an observer in a thread of its own
* `periodic`: what a component does from time to time
* `metrics`: what a component counts
* `component_commands`: the commands that components offer
* `register`: the components of the running server: what each was lent, and how it does
* `watchdog`: tells who holds the reactor
* `generation`: which parts serve a transaction that a reload overtakes
"""
