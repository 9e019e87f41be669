"""Joins the parts, and knows all of them: what lives as long as the process, and what a reload replaces.

In the order in which they are read:

* `server`: makes the parts from the configuration
* `policy`: what a reload replaces: who exists, where recipients go, the filters and the limits
* `routing`: makes the router of the domains
* `submission`: makes what submission asks of a message
* `certificates`: makes the certificates of the listeners
* `listeners`: what a listener's table says: who its proxies are, and the bounds on a connection
* `steps`: makes the part that takes in the steps of all roads, and writes the log
* `resolver`: makes the resolver
* `logins`: what all listeners share of logging in: the threads that compare passwords, the lockout, and the secret of
  the false keys
* `notes`: joins the notes to postmaster to the server's parts
* `retirement`: what a reload has replaced is stopped when nothing that began with it is under way any more
* `daemon`: daemon mode: the process that was typed waits until the server has really started, and ends with its status
* `systemd`: what systemd is told: that we have started, reload, stop, and that the reactor turns (sd_notify(3))
* `sandbox`: a server to play with: loopback only, high ports, one account, and whatever is sent elsewhere is caught
* `root_plan`: what the root process may do, read from the configuration by a program of a moment
"""
