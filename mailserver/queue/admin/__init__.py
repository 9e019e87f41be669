"""What people order: no message passes here on its way.

In the order in which they are read:

* `orders`: retry, hold, release, bounce, drop, redirect: with and without a running server
* `selection`: which messages and destinations a person means
* `states`: the names of states that can be asked for
* `changes`: what an order changes about one message
* `held`: what verdicts hold, copy by copy
* `quarantine`: what verdicts hold, for the filters that look after it
* `account_mail`: what an account has waiting, for the filters that stop its sending
* `backup`: a copy of a queue that may be at work
* `salvage`: reads what it can of a damaged queue into a new one
"""
