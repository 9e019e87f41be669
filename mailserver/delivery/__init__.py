"""How mail gets to where it leads on this host: Maildirs, commands, nowhere.

In the order in which they are read:

* `maildir`: delivery into Maildirs: the component
* `names`: file names: what an address or a configuration may put into a path, and in which form
* `maildir_format`: the form that a message has in a Maildir: trace fields of the final delivery in front, lines that
  end with LF
* `batch_format`: a batch in its plain form, which crosses to the thread or the process that writes, and what comes back
* `batch_frames`: a batch in pieces that a writer takes one by one, and the answers put together again
* `open_maildirs`: the open Maildirs: directory descriptors, so that a message costs no walk along its path
* `writer`: write messages into Maildirs: ``tmp/``, then renamed into ``new/``
* `watched_writer`: a writer with somebody beside it who looks at the clock
* `writer_process`: the writer in a process of its own
* `durability`: make what was written durable, all at once
* `sweep`: remove what deliveries left in ``tmp/`` when they were cut off: files older than 36 hours, as the Maildir
  rules say
* `errno_outcomes`: what a failed attempt at a mailbox means: the outcome for each kind of error
* `courier_client`: delivery into the homes of the host's own users, through the courier process
* `home_queues`: whose turn it is among the homes: one delivery at a time into each, and one that does not answer holds
  up its own mail alone
* `courier`: the courier: a small process that writes mail into the homes of the host's users, each file with its user's
  identity
* `pipe`: delivery to a command: the message on its standard input, the outcome in its exit code
* `command_template`: a command that gets mail: its words with placeholders, and the arguments made of them
* `launcher_client`: a message on its way to the launcher, and what comes back
* `launcher`: the launcher: a small process that runs one command for one message at a time, with the identity of a user
* `sysexits`: what a command's end means for the message that it was given: the exit codes of ``sysexits.h``
* `discard`: throw mail away, to measure the rest of the server or to try out its filters
* `capture`: keep mail for other hosts in one Maildir instead of sending it: for the sandbox, and to try a configuration
  out
"""
