"""Small processes beside the server, those that keep the privileges among them.

In the order in which they are read:

* `small`: who starts the processes, and what is known of them
* `spawning`: starts a module of ours as a program
* `version`: the version of the program on the disk now
* `frames`: frames on a Unix stream socket: a length, octets, descriptors with the first
* `exchange`: questions to a process over a socket that the reactor serves
* `kept`: the server's end of a process that is replaced when it dies
* `watching`: notices a death at once and starts a successor
* `answer`: an answer that is awaited from another process
* `privileged`: what the privileged processes share: how they take requests and change identity
* `root`: the root process: keeps root's privileges where the server gives them up
* `root_client`: the server's end of the root process
* `binding`: addresses, bound and not listened on yet
* `bound`: listens on addresses bound before: by us as root, by the root process, by systemd
* `unix_port`: accepts connections of a Unix socket that somebody else has bound
* `identity`: root acts as another user for a while
"""
