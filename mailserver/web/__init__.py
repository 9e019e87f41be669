"""What is served over HTTP to mail programs, other servers and certificate authorities, by a process of its own.

The server loads the first three; the rest, with `twisted.web`, is the process's, and that of ACME's own listeners while a CA
looks.

In the order in which they are read:

* `content`: all that the process knows
* `wire`: how the server says it: frames of JSON
* `hand_over`: the server's end: one frame under way at a time, all of it anew to the next process
* `sites`: which of our names a request is for
* `answers`: what a request is answered, without I/O
* `autoconfig`: what Thunderbird reads of a domain
* `autodiscover`: what Outlook asks and is told
* `mobileconfig`: what mail programs of Apple read, signed
* `user_agents`: what user agents read by the draft of PACC
* `hello`: which protocols a client offers in its ClientHello
* `certificates`: TLS of the process
* `channel`: connections, by `twisted.web`'s channel: bounded in number, time and octets
* `log`: the process's own log
* `process`: the program: takes up what is handed over, accepts, answers
"""
