"""From a socket to the queue: one connection, its transactions, the filters that are asked.

In the order in which they are read:

* `factory`: a listener: makes a protocol for each connection, counts them, times them, ends them
* `listener`: what a connection needs of its listener
* `profile`: what the connections of one listener share
* `connection`: what drives a connection: octets, turns, time, patience, back-pressure
* `states`: states of a connection, its legal moves, and reasons not to read
* `protocol`: what is said on a connection: the greeting, STARTTLS, AUTH, and a `Transaction`'s answers
* `transaction`: one mail transaction (RFC 5321 section 3.3): from MAIL to the reply after the data
* `judging`: asks the filters of a stage side by side, each with a deadline, for one judgement
* `copies`: the copies of an accepted message, from the routes of its recipients
* `spooling`: takes in the octets of a message: in memory, above a threshold in a file
* `throttle`: how much a peer may ask for: connections, patience with errors, and time
* `encryption`: TLS of a listener: the handshake, its facts, for what it is required
* `tls_rules`: senders and recipients whose mail is taken over encrypted connections alone
* `login_replies`: what a client hears that wants to log in (RFC 4954)
* `absence`: recipients whose delivery cannot take mail now: they are deferred at RCPT
* `proxied`: a connection from a proxy, until the proxy has said whom it brings
* `proxy_header`: the header of the PROXY protocol, versions 1 and 2
* `submission/`: what users may send (RFC 6409)
"""
