"""What people order: no message passes here on its way.

In the order in which they are read:

* `orders`: Retry, hold, release, bounce, drop, redirect: what a person does to waiting mail while the queue works, and
  while none runs
* `selection`: which messages of the queue a person means, and which of their destinations
* `states`: the names of states that can be asked for
* `changes`: what a person's verb changes about one message
* `backup`: a copy of a queue that may be at work: one moment of its store, and the files of the messages that stand in
  it
* `salvage`: what can still be read of a damaged queue, written into a new one
"""
