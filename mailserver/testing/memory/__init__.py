"""A whole server in memory, on the test's clock: from an SMTP dialogue to what is delivered.

The parts that decide are the server's own: configuration, policy, connection, filters, router.  In memory are what stands
around them: the transport, the queue, the accounts, the mailboxes and the other hosts.

In the order in which they are read:

* `dialogue`: a client that says what the test says
* `ends`: accounts, mailboxes and other hosts in memory, as components
* `logins`: who may log in, by one password
* `queue`: takes messages and has them delivered, on the test's clock
* `server`: joins them to the server's own policy
"""
