"""Joins the parts, and knows all of them: what lives as long as the process, and what a reload replaces.

In the order in which they are read:

* `components`: the components that the configuration names, each as long as anybody holds it
* `server`: the parts that live as long as the process
* `policy`: the parts that a reload replaces: who exists, where recipients go, the filters and the limits
* `filters`: binds the filters as the configuration says
* `set_apart`: what becomes of copies that are not simply delivered
* `outbound`: binds those who have a say about mail on its way out
* `route_refusals`: which mail the relay's routes refuse, as the sender hears it at RCPT
* `rehearsal`: a message goes through the whole judging, and nothing comes of it
* `reload`: the policy in force, and the reload that puts another one in its place
* `retirement`: stops what a reload has replaced once nothing uses it any more
* `monitoring`: what the metrics listeners give out
* `web`: what the web process is handed, and when
* `web_service`: the web process: started, watched, started again, told what has changed
* `web_log`: the log lines of a web process that we have started, read with suspicion
* `web_socket`: the Unix socket to which the web process of a unit of its own connects
* `ports`: the listeners' ports: bound, opened, changed by a reload, closed
* `listeners`: a listener's table: who its proxies are, and the bounds on a connection
* `acme`: joins the certificates that come by ACME to the server's parts
* `certificates`: makes the listeners' certificates
* `routing`: makes the router
* `dead_ends`: tells the log which aliases lead nowhere
* `submission`: makes the rules of submission
* `logins`: what all listeners share of logins: the threads that compare passwords, the lockout, the secret of false keys
* `pickup`: makes the pickup of local programs' mail
* `resolver`: makes the resolver
* `host_names`: what the system's resolver is asked, in threads of its own
* `steps`: makes the log and the roads
* `sending`: messages of components, on their way into the queue
* `daily_look`: joins the daily look at the DNS of our domains to the server's parts
* `notes`: joins the notes to postmaster to the server's parts
* `host`: what the start asks of the host: folders, a Python that the server's user may run, memory
* `root_plan`: what the root process may do, read from the configuration by a short-lived program
* `daemon`: daemon mode: the process that was typed waits for the real start and ends with its status
* `tls_results`: takes what the relay has seen of TLS to those who count it
* `systemd`: tells systemd of start, reload and stop, and that the reactor turns (sd_notify(3))
* `sandbox`: a server to play with: loopback only, high ports, one account; mail for elsewhere is caught
"""
