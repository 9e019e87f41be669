"""The command ``mailserver``.

Exit codes: 0 done; 1 the answer is no (faults found, no such message, no such account); 2 the command line is wrong;
69 the server could not be asked; 74 a file of the server cannot be read; 78 the configuration has faults.
(From 64 on as in sysexits.h.)

In the order in which they are read:

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

import argparse
import importlib
import io
import os
import sys
from collections.abc import Collection, Sequence

from mailserver.cli.output import Unable
from mailserver.cli.parsing import Parser, Version
from mailserver.config.choice import INSTALLED, VARIABLE, chosen_path
from mailserver.config.fault import ConfigurationError
from mailserver.control.client import CommandRefused, ControlError

__all__ = ["COMMANDS", "main", "whole_parser"]

EX_NO, EX_UNAVAILABLE, EX_CONFIG = 1, 69, 78
COMMANDS = {
    "check": "check the configuration and what it refers to",
    "user": "add, list and remove accounts, set passwords",
    "domain": "list, add and remove the domains whose mail is delivered here",
    "alias": "list, add and remove names that lead to other addresses",
    "lockouts": "list and clear the lockouts of those who failed to log in too often",
    "status": "what the running server is doing, in figures",
    "queue": "list, show, retry, hold, release, bounce, drop or redirect what is waiting",
    "backup": "copy the queue of a server that may be running, and what else it keeps",
    "restore": "put a backup into a data folder that has no queue; all of it is held",
    "checkpassword": "say whether a password is right, for Dovecot and others that ask in this way",
    "sendmail": "hand a message over, as the sendmail of other mail systems does",
    "route": "where a message for an address would go, and why",
    "explain": "the road of a message, also of a refused one; or which ones may be meant",
    "sink": "take every mail, keep none, print it: to try programs that send",
    "plugins": "list components, check them, begin a new one",
    "manual": "print the manual page, or completion for a shell",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without our signs, a name that is not UTF-8
    if words[:1] == ["sendmail"]:  # has a command line of its own, as old as mail
        from mailserver.cli.sendmail import main as sendmail

        return sendmail(words[1:])
    options = _parser(words[:1]).parse_args(words)
    if hasattr(options, "insist"):
        options.insist(options)
    try:
        options.config = _configuration(options)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except ConfigurationError as error:
        return _failed(str(error), EX_CONFIG)
    except CommandRefused as error:
        return _failed(str(error), EX_NO)
    except ControlError as error:
        return _failed(str(error), EX_UNAVAILABLE)
    except Unable as error:
        return _failed(str(error), error.code)
    except BrokenPipeError:  # a reader such as `head` has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _configuration(options: argparse.Namespace) -> str:
    """The path of the configuration file.  Raises `ConfigurationError`."""

    def say(words: str) -> None:
        print(f"mailserver: {words}", file=sys.stderr)

    if options.config is None and not getattr(options, "needs_configuration", True):
        return ""
    options.names_config = options.config is not None
    return chosen_path(options.config, say=say, environment=os.environ)


def _failed(words: str, code: int) -> int:
    print(f"mailserver: {words}" if "\n" not in words else words, file=sys.stderr)
    return code


def whole_parser() -> argparse.ArgumentParser:
    """The command line with all that is in it, for manual pages and completion."""
    return _parser(frozenset(COMMANDS))


def _parser(wanted: Collection[str]) -> argparse.ArgumentParser:
    """The command line.  Only the modules of the wanted commands are imported: `check` needs the whole server."""
    common = Parser(add_help=False)
    common.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"the configuration file (default: ${VARIABLE}, else {INSTALLED})",
    )
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")
    parser = Parser(
        prog="mailserver",
        description="Looks after the mail server; `twistd mailserver` starts it.",
        epilog="Exit codes: 0 done, 1 no, 2 wrong command line, 69 the server could not be asked, "
        "74 a file cannot be read, 78 the configuration has faults.",
    )
    parser.set_defaults(config=None, json=False)
    parser.add_argument("--version", action=Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name in wanted and name != "sendmail":
            importlib.import_module(f"mailserver.cli.{name}").add_to(commands, common, summary)
        else:
            commands.add_parser(name, help=summary)
    return parser
