"""How people ask the running server: a socket in the data folder, and the commands by subject.

In the order in which they are read:

* `client`: the asking side of the control socket, without a reactor: it blocks, as a command line may
* `server`: the control socket: how the command line speaks with the running server
* `parts`: what the commands need of the server and of its policy, which a reload replaces
* `queue`: what the command line may ask the running server about routes and waiting mail, beside what `assembly`
  answers itself
* `lockouts`: what the command line may ask about lockouts: the same of a running server and of a file without one
* `password_socket`: the authentication socket: another program of this host, such as Dovecot, asks whether a password
  is right
"""
