"""SMTP and LMTP without I/O, a library of its own: octets in, events out.  Neither Twisted nor zope, no socket, no clock.

In the order in which they are read:

* `grammar`: the syntax of command lines, each production above the pattern that translates it
* `vocabulary`: the words of the protocol as constants: verbs, ports, reply codes and what each code means
* `content`: how content stands behind DATA: its end, and the dots before it
* `replies`: the one catalogue of replies
* `events`: what a peer did, as values
* `faults`: errors of a caller on our own side of a session
* `server/`: the server's side of SMTP and LMTP
* `client/`: the client's side of SMTP and LMTP
"""
