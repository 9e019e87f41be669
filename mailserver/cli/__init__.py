"""The command ``mailserver``.

Exit codes: 0 done; 1 the answer is no (faults found, no such message, no such account); 2 the command line is wrong;
69 the server could not be asked; 74 a file of the server cannot be read; 78 the configuration has faults.
(From 64 on as in sysexits.h.)

In the order in which they are read:

* `command`: one command: its line, its run, what its faults mean as an exit code
* `parsing`: the command line's own parser: what could have been meant, an example with every help, the version
* `output`: what commands say: tables for people, JSON for programs
* `asking`: ask the running server; where none runs, look into its files
* `offline`: components without a server: what a command lends them, and how it hears their answers
* `access`: ``mailserver user app-password|certificate|sender``: what an account has besides its password
* `accounts`: the accounts file as the commands of `mailserver user` see it
* `alias`: ``mailserver alias``: names that lead to other addresses
* `backup`: ``mailserver backup``: the queue of a server that may be running, and what else it keeps
* `cat`: ``mailserver queue cat``: a message that waits, as it is kept
* `changing`: what `mailserver domain` and `mailserver alias` share: a change of the configuration file, told, and taken
  up by the server
* `check`: ``mailserver check``: everything that can be known to be wrong before the server starts
* `check_tls`: what ``mailserver check`` says of certificates: the files as the start would read them, and what their
  clients would think
* `checkpassword`: ``mailserver checkpassword``: whether a password is right, asked in the way of DJB's checkpassword,
  as Dovecot does
* `domain`: ``mailserver domain``: which domains' mail is delivered here
* `examples`: an example or two for each command, shown with its help
* `explain`: ``mailserver explain``: the whole road of a message or a connection; and which one it may have been
* `letter`: a message as a program types it, made into one that can travel: line ends, recipients from its header, what
  is missing
* `lockouts`: ``mailserver lockouts``: who may not log in now, and how to let them
* `manual`: ``mailserver manual``: the manual page, and completion for a shell, made of the one parser that there is
* `moving`: an account's Maildir under another name, while mail is being delivered into it
* `plugins`: ``mailserver plugins``: which components there are, what is wrong with some, and a new one to start from
* `purge`: a removed account's Maildir, removed as well: for good
* `queue`: ``mailserver queue``: what is waiting, since when, and why
* `references`: what in the configuration names an address or a domain: changed with it, or told
* `renaming`: accounts get other names, under a server that runs: their mail, what they log in with, and whatever names
  them
* `restore`: ``mailserver restore``: a backup's queue into a data folder that has none; all of it is held, and told
* `route`: ``mailserver route ADDRESS``: where a message would go, and why
* `salvage`: ``mailserver queue salvage``: out of a damaged queue what can still be read
* `selecting`: the filters of the queue's commands
* `sendmail`: ``mailserver sendmail``: what programs of the host call to send mail, with the command line that all of
  them know
* `since`: what of a backup's mail has been delivered since, by what can be seen: the Maildirs that are here, and the
  roads
* `sink`: ``mailserver sink``: take every mail, keep none, print it
* `skeleton`: what ``mailserver plugins new NAME`` writes: a package that pip can install, with a filter and a test that
  passes
* `status`: ``mailserver status``: what the running server is doing, in figures
* `user`: ``mailserver user``: accounts in the accounts file
* `verbs`: ``mailserver queue retry | hold | release | bounce | drop | redirect``: a person's hand on waiting mail
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["sendmail"]:  # has a command line of its own, as old as mail
        from mailserver.cli.sendmail import main as sendmail

        return sendmail(words[1:])
    from mailserver.cli.command import run_command

    return run_command(words)
