"""The command ``mailserver``.

Exit codes: 0 done; 1 the answer is negative (faults found, unknown message, unknown account); 2 the command line is wrong;
69 the server could not be asked; 74 a file of the server cannot be read; 78 the configuration has faults.
(From 64 on as in sysexits.h.)

In the order in which they are read:

* `command`: one command: its line, its run, its exit code
* `parsing`: the parser of the command line: suggestions, examples with every help, the version
* `examples`: an example or two for each command, shown with its help
* `output`: what commands say: tables for people, JSON for programs
* `asking`: ask the running server; where none runs, look into its files
* `without_server`: components without a server: what a command lends them, and how it hears their answers
* `quickstart`: ``mailserver quickstart ADDRESS``: from nothing to a server that can be started
* `check`: ``mailserver check``: everything that is wrong and can be known before the start
* `check_tls`: what ``mailserver check`` says of certificates
* `user`: ``mailserver user``: add, list and remove accounts, set passwords
* `user_locks`: ``mailserver user lock|unlock|show``: accounts whose sending is stopped
* `accounts`: the accounts file as ``mailserver user`` sees it
* `access`: ``mailserver user app-password|certificate|sender``: what an account has besides its password
* `renaming`: ``mailserver user rename``: other names for accounts, under a running server
* `rename_journal`: which renames are under way, or were cut off: nobody else gets their names
* `following`: what components keep of users follows a rename, or goes with a removal
* `maildir_move`: moves an account's Maildir while mail is being delivered into it
* `references`: which keys of the configuration name an address or a domain
* `purge`: removes a removed account's Maildir for good
* `domain`: ``mailserver domain``: which domains' mail is delivered here
* `alias`: ``mailserver alias``: names that lead to other addresses
* `configuration_change`: what ``domain`` and ``alias`` share: a change of the configuration file that the server takes up
* `records`: ``mailserver records``: what components keep of people
* `dns`: ``mailserver dns DOMAIN``: what the DNS has to show for a domain of ours, and whether it does
* `check_acme`: what it says of certificates that come from a CA
* `check_web`: what it says of web listeners
* `certificate`: ``mailserver certificate``: the certificates that come from a CA
* `dkim`: ``mailserver dkim``: the keys with which the mail of our domains is signed
* `srs`: ``mailserver srs``: the keys of the return paths with which forwarded mail leaves
* `dmarc`: ``mailserver dmarc``: reports about mail in our name, and those that we send
* `tlsrpt`: ``mailserver tlsrpt``: reports about TLS with our hosts, and those that we send
* `report_filters`: what those two share: their actions, and how the filter behind them is asked
* `dns_notes`: name servers that are not believed
* `last_look`: what the daily looks at the DNS have found
* `published`: asks the authoritative servers of a zone whether they show a record
* `filter_records`: commands of a filter that keeps records: by the server that runs, else in its files
* `lists`: ``mailserver list``: the white, black and grey lists of a server that runs, or of its files
* `learn`: ``mailserver learn``: teaches the filter ``bayes``, that of a server that runs or in its files
* `contacts`: ``mailserver contacts``: whom users have to do with, and mail from strangers that is held for them
* `expect`: ``mailserver expect``: mail that a user waits for
* `suppression`: ``mailserver suppression``: addresses that accounts write to no more, since they do not exist
* `subaddress`: ``mailserver subaddress``: addresses that are for one sender each, and can be closed
* `lockouts`: ``mailserver lockouts``: who may not log in now, and how to let them
* `status`: ``mailserver status``: what the running server is doing, in figures
* `queue`: ``mailserver queue``: what is waiting, since when, and why
* `quarantine`: ``mailserver quarantine``: the copies that filters hold, and a person's decision about them
* `queue_filters`: the filters of the queue's commands
* `queue_orders`: ``mailserver queue retry | hold | release | bounce | drop | redirect``
* `reply_remarks`: what a reply of a large operator means, for those commands that show it
* `queue_destinations`: ``mailserver queue destinations``: how mail goes to each host or operator
* `queue_cat`: ``mailserver queue cat``: a message that waits, as it is kept
* `queue_salvage`: ``mailserver queue salvage``: out of a damaged queue what can still be read
* `backup`: ``mailserver backup``: the queue of a server that may be running, and what else it keeps
* `restore`: ``mailserver restore``: a backup into a data folder that has no queue; all of it is held
* `importing`: ``mailserver import``: configuration, accounts and mail of another mail system
* `import_postfix`: ``mailserver import postfix``: a configuration of Postfix as one of ours
* `import_passwd`: ``mailserver import dovecot-passwd``: accounts and passwords out of Dovecot's passwd-file
* `import_mail`: ``mailserver import maildir | mbox``: mail of another mail store into an account's Maildir
* `exporting`: ``mailserver export``: the house in a form that other programs can read
* `import_house`: ``mailserver import house``: what ``export`` has written, on an empty machine
* `delivered_since`: which of a backup's messages have been delivered since
* `traces`: ``mailserver traces``: the roads of messages as traces, to a collector of OpenTelemetry's
* `checkpassword`: ``mailserver checkpassword``: DJB's checkpassword interface, as Dovecot uses it
* `sendmail`: ``mailserver sendmail``: the command line of other systems' sendmail
* `sendmail_message`: a message as a program types it, completed so that it can travel
* `route`: ``mailserver route ADDRESS``: where a message would go, and why
* `probe`: ``mailserver probe ADDRESS``: asks an address's hosts up to RCPT, and sends nothing
* `selftest`: ``mailserver selftest``: a probe message, how long each of its steps took, and its removal
* `selftest_roads`: the roads on which its probes are sent
* `selftest_break`: ``mailserver selftest --break``: a sandbox in which something is broken, and what is said then
* `route_tls`: ``mailserver route ADDRESS --tls``: what TLS its hosts must have, why, and what was seen
* `tls_override`: ``mailserver tls-override``: what is said of a domain's TLS for a time
* `explain`: ``mailserver explain``: the road of a message or a connection
* `replay`: ``mailserver replay``: what would become of a message, without anything coming of it
* `reweigh`: ``mailserver replay --since``: what was found of recent mail, weighed anew
* `kept_text`: the text of messages that came some time ago, where it is still there
* `road_mail`: a message that came some time ago, as its road and its text have it
* `verdicts`: what `explain` says of verdicts: what was found, and what would have changed them
* `decode`: ``mailserver decode``: the sessions in a capture file
* `decode_output`: how it shows a session, and figures
* `shown_sessions`: what becomes of sessions: dialogues, JSON, figures, files
* `record`: ``mailserver record``: what the server says to one peer, and hears from it
* `sink`: ``mailserver sink``: take every mail, keep none, print it
* `smarthost`: ``mailserver smarthost``: log in at the smarthost with OAuth, and look at the token
* `plugins`: ``mailserver plugins``: list components, check them, begin a new one
* `component_command`: ``mailserver NAME COMMAND``: what a component of the server that runs offers
* `running_components`: what ``mailserver plugins`` says of the components of the server that runs
* `skeletons/`: the packages that ``mailserver plugins new NAME`` writes, one for each kind
* `manual`: ``mailserver manual``: the manual page, and completion for a shell
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mailserver.processes.streams import fill_streams

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    fill_streams()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["sendmail"]:  # has a command line of its own, as old as mail
        from mailserver.cli.sendmail import main as sendmail

        return sendmail(words[1:])
    from mailserver.cli.command import run_command

    return run_command(words)
