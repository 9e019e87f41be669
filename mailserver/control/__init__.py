"""How people ask the running server: a socket in the data folder, and the commands by subject.

In the order in which they are read:

* `client`: the asking side of the socket; it blocks and needs no reactor
* `server`: the answering side of the socket
* `parts`: what the commands need of the server and of its policy
* `queue`: the commands on waiting mail and on routes
* `lockouts`: the commands on lockouts, of a running server and of a file without one
* `password_socket`: a socket for other programs, such as Dovecot, that ask whether a password is right
"""
