"""How mail gets to where it leads on this host: Maildirs, commands, nowhere.

In the order in which they are read:

* `maildir`: delivery into Maildirs: the component
* `names`: file names: what an address or a configuration may put into a path
* `maildir_format`: a message's form in a Maildir: trace fields of the final delivery, lines that end with LF
* `batch_format`: a batch for the thread or the process that writes it, and the report that comes back
* `batch_frames`: a large batch in pieces, and the answers put together again
* `open_maildirs`: directory descriptors of Maildirs in use
* `writer`: writes messages into Maildirs: ``tmp/``, then renamed into ``new/``
* `watched_writer`: a writer whose time is looked at
* `writer_process`: the writer in a process of its own
* `durability`: syncs everything that was written, all at once
* `sweep`: removes files from ``tmp/`` that are older than 36 hours
* `errno_outcomes`: the outcome of a failed attempt for each error of the system
* `courier_client`: delivery into users' homes: the server's side of the courier
* `home_queues`: one delivery at a time into each home
* `courier`: the courier: a process that writes files with the identity of each user
* `pipe`: delivery to a command: the message on its standard input, the outcome in its exit code
* `command_template`: a command with placeholders, and the arguments made of it
* `launcher_client`: the server's side of the launcher
* `launcher`: the launcher: a process that runs one command for one message, with the identity of a user
* `sysexits`: what an exit code means for the message (``sysexits.h``)
* `readers`: beside the local delivery: those who read the mail of an address themselves
* `discard`: throws mail away, to measure the rest or to try filters
* `capture`: keeps mail for other hosts in one Maildir: for the sandbox and for trials
"""
