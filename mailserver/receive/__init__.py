"""From a socket to the queue: one connection, its transactions, the filters that are asked.

In the order in which they are read:

* `factory`: a listener: makes a protocol for each connection, counts them, looks at the clock for them and sees them
  off
* `listener`: what a connection needs of its listener, which is `mailserver.receive.factory`
* `profile`: what the connections of one listener share
* `connection`: what drives a connection: octets, turns, time, patience, back-pressure
* `states`: where a connection stands, apart from what its session has to say: the states, the legal moves, the reasons
  not to read
* `protocol`: what is said on one connection: the greeting, encryption, log-ins, and the answers that a `Transaction`
  gives
* `transaction`: one mail transaction (RFC 5321 section 3.3): from MAIL to the reply after the data
* `judging`: ask the filters of a stage, side by side, each with a deadline; one judgement comes out
* `copies`: the copies of an accepted message: what its recipients' ways come to
* `spooling`: takes in the octets of a message: in memory while it is small, in a file of the spool once it is not
* `throttle`: how much a peer may ask for: connections, patience with errors, and time
* `encryption`: what a listener knows of TLS: who shakes hands, what came of it, and for what it is required
* `tls_rules`: senders and recipients whose mail is taken over encrypted connections alone
* `login_replies`: what a client that wants to log in hears (RFC 4954)
* `absence`: recipients whose mail nobody could take anywhere now: they are put off at RCPT
* `proxied`: a connection from a proxy, until the proxy has said whom it brings
* `proxy_header`: the header with which a proxy says whom it brings (PROXY protocol, versions 1 and 2), read without I/O
* `submission/`: what users may send (RFC 6409)
"""
