"""Joins the parts, and knows all of them: what lives as long as the process, and what a reload replaces.

In the order in which they are read:

* `server`: the parts that live as long as the process
* `policy`: the parts that a reload replaces: who exists, where recipients go, the filters and the limits
* `routing`: makes the router
* `submission`: makes the rules of submission
* `certificates`: makes the listeners' certificates
* `listeners`: a listener's table: who its proxies are, and the bounds on a connection
* `steps`: makes the log and the roads
* `resolver`: makes the resolver
* `logins`: what all listeners share of logging in: the threads that compare passwords, the lockout, the secret of false
  keys
* `notes`: joins the notes to postmaster to the server's parts
* `retirement`: stops what a reload has replaced once nothing uses it any more
* `daemon`: daemon mode: the process that was typed waits for the real start and ends with its status
* `systemd`: tells systemd of start, reload and stop, and that the reactor turns (sd_notify(3))
* `sandbox`: a server to play with: loopback only, high ports, one account; mail for elsewhere is caught
* `root_plan`: what the root process may do, read from the configuration by a short-lived program
"""
