"""Small processes beside the server, those that keep the privileges among them.

In the order in which they are read:

* `small`: starts the small processes and replaces those that die
* `spawning`: starts a module of ours as a program
* `version`: the version of the program on the disk now
* `frames`: frames on a Unix stream socket: a length, octets, descriptors with the first
* `exchange`: questions to a process over a socket that the reactor serves
* `kept`: the server's end of a process that is replaced when it dies
* `watching`: notices a death at once and starts a successor
* `answer`: an answer that is awaited from another process
* `jobs`: a component's processes for heavy work
* `job_process`: the program that does it
* `job_format`: what the two say to each other
* `privileged`: what the privileged processes have in common: how they take requests and change identity
* `root`: the root process: keeps root's privileges where the server gives them up
* `root_client`: the server's end of the root process
* `binding`: sockets that are bound and do not listen yet
* `bound`: listens on sockets that were bound before: by us as root, by the root process, by systemd
* `unix_port`: accepts the connections of a Unix socket that was bound elsewhere
* `streams`: standard input, output and error, whatever was closed
* `identity`: root acts as another user for a while
"""
