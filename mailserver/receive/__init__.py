"""From a socket to the queue: one connection, its transactions, the filters that are asked.

In the order in which they are read:

* `factory`: a listener: makes a protocol for each connection, counts them, looks at the clock for them and sees them
  off
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
* `absence`: recipients whose mail nobody could take anywhere now: they are put off at RCPT
* `proxy_header`: the header with which a proxy says whom it brings (PROXY protocol, versions 1 and 2), read without I/O
* `submission`: what a submission server asks of a message and does for it (RFC 6409), beside what holds for every
  message
* `allowance`: how much an account may send: messages, recipients and new recipients, within an hour and within a day
* `announced`: a connection from a proxy, until the proxy has said whom it brings
* `drop`: watches the drop folder: mail that programs of this host hand over
* `drop_folder`: the drop folder on the disk: who may put files into it, and how one is taken out
* `drop_handover`: brings one file of the drop folder into the queue, through as many transactions as its recipients
  need
* `drop_progress`: how far a file of the drop folder has come, where one transaction was not enough for all its
  recipients
* `drop_told`: what is said in the log about the entries of the drop folder, so that nobody can flood it
* `drop_visit`: one file of the drop folder in one transaction, as a connection has one: the same router, filters and
  limits
* `log_in`: what a client that wants to log in hears (RFC 4954)
* `sender_rights`: whom an account may send as (RFC 6409 section 6.1)
* `usage`: how much an account has sent lately: pure counting in slots of ten minutes
* `user_names`: Users' names, asked of the host's name service outside the reactor: a directory server that hangs costs
  a pause, no more
"""
