"""Components: found by interface and name, built, run and ended.

In the order in which they are read:

* `catalogue`: finds components by name and builds them
* `life`: the life of a component: its start and its stop, each of which has its time
* `awaiting`: run what a component returns, without a reactor turn where nothing has to be waited for
* `threads`: a few threads for one kind of waiting
* `generation`: which parts serve whom over a reload
"""
