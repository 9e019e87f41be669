"""From a socket to the queue: connections, transactions, and the filters that are asked.

In the order in which they are read:

* `states`: the states of a connection, the legal moves, the reasons not to read
* `connection`: drives a connection: octets, turns, time-outs, back-pressure
* `protocol`: what a connection says: the greeting, encryption, logins, the answers of a transaction
* `transaction`: one mail transaction (RFC 5321 section 3.3), from MAIL to the reply after the data
* `after_data`: its second half: judged, edited, decided for each recipient, committed
* `judging`: all filters of a server, and the questions that they are asked
* `filter_stage`: asks the filters of one stage, group after group, those of a group side by side, each with a deadline
* `bound_filter`: a filter as the configuration binds it; turns whatever comes back into an answer
* `verdicts`: a filter's answer, checked, as one of our own values
* `judgement`: the one verdict that follows from all answers
* `fates`: what becomes of each recipient's copy when all verdicts are known, and what the sender hears
* `editing`: what the modifiers make of a message, one after another
* `new_body`: takes in the body that a modifier has put in place of a message's
* `copies`: the copies of an accepted message, from the routes of its recipients
* `spooling`: takes in the content: in memory while it is small, in a file once it is not
* `throttle`: limits on what a peer may use: connections, errors, time
* `profile`: what the connections of one listener share: limits, parts, policy
* `ends`: tells components how transactions and connections have ended
* `service_extensions`: what plugins add to SMTP: who is offered it, and how their commands are answered
* `listener`: what a connection needs of its listener
* `factory`: a listener: makes the connections, counts them, ends them
* `encryption`: what a listener knows of TLS
* `tls_rules`: senders and recipients whose mail is taken over encrypted connections alone
* `login_replies`: the reply to each outcome of a login (RFC 4954)
* `absence`: whether the delivery of a recipient's mail is missing now: such a recipient is deferred at RCPT
* `proxied`: a connection from a proxy, until its header is there
* `submission/`: what users may send (RFC 6409)
"""
