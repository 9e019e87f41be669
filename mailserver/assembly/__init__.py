"""Joins the parts, and knows all of them: what lives as long as the process, and what a reload replaces.

In the order in which they are read:

* `server`: makes the parts from the configuration
* `logins`: what all listeners share of logging in: the threads that compare passwords, the lockout, and the secret of
  the false keys
* `notes`: joins the notes to postmaster to the server's parts
* `retirement`: what a reload has replaced is stopped when nothing that began with it is under way any more
* `daemon`: daemon mode: the process that was typed waits until the server has really started, and ends with its status
* `systemd`: what systemd is told: that we have started, reload, stop, and that the reactor turns (sd_notify(3))
* `sandbox`: a server to play with: loopback only, high ports, one account, and whatever is sent elsewhere is caught
* `root_plan`: what the root process may do, read from the configuration by a program of a moment
"""
