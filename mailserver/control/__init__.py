"""How people ask the running server: a socket in the data folder, and the commands by subject.

In the order in which they are read:

* `client`: the asking side of the socket; it blocks and needs no reactor
* `server`: the answering side of the socket
* `parts`: what the commands need of the server and of its policy
* `queue`: the commands on waiting mail
* `probe`: asks another host about an address, up to RCPT
* `selftest`: a log-in that works once, and a probe through the relay to this server itself
* `route`: the command on an address: where it leads, and what a peer would hear at RCPT
* `tls`: what is known of other hosts' TLS, and what an administrator says of it for a time
* `certificate_facts`: what is said of a certificate that comes from a CA
* `certificates`: the commands about certificates that come from a CA
* `lockouts`: the commands on lockouts, of a running server and of a file without one
* `recording`: the commands on recordings of dialogues
* `status`: the commands on the server as a whole: status, reload, explain, a look into the pickup folder
* `components`: how the components do, and the commands that they offer themselves
* `commands`: all commands by name, and which of them a server answers that is starting
* `password_socket`: a socket for other programs, such as Dovecot, that ask whether a password is right

Accounts and plugins have no commands here: both are read from files and packages, with or without a server.
"""
