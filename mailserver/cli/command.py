"""One command: its line, its run, what its faults mean as an exit code."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Collection, Sequence
from os import EX_CONFIG, EX_UNAVAILABLE

from mailserver.cli.component_command import run_component_command
from mailserver.cli.output import EX_IOERR, Unable, plain
from mailserver.cli.parsing import Parser, Version
from mailserver.config.choice import INSTALLED, VARIABLE, chosen_path
from mailserver.config.fault import ConfigurationError
from mailserver.control.client import CommandRefused, ControlError

__all__ = ["COMMANDS", "run_command", "whole_parser"]

EX_NO = 1
COMMANDS = {
    "quickstart": "from nothing to a server: look, make configuration, keys and the first account, print what the DNS needs",
    "check": "check the configuration and what it refers to",
    "user": "add, list and remove accounts, set passwords",
    "domain": "list, add and remove the domains whose mail is delivered here",
    "alias": "list, add and remove names that lead to other addresses",
    "lockouts": "list and clear the lockouts of those who failed to log in too often",
    "dns": "what the DNS has to show for a domain of ours, what it shows, and what mends it",
    "certificate": "list the certificates that come from a CA, renew, roll over and revoke them",
    "dkim": "make and list the keys with which the mail of our domains is signed",
    "srs": "the keys of the return paths with which forwarded mail leaves",
    "dmarc": "what reports of others say about mail in our name, and the reports that we send",
    "tlsrpt": "what reports of others say about TLS with our hosts, and the reports that we send",
    "list": "white, black and grey lists: add, remove, show and test entries",
    "learn": "teach the filter that learns which messages are spam, and which are none",
    "contacts": "whom users have to do with; accept or refuse mail from strangers that is held",
    "expect": "take a user's mail without delay for a while",
    "subaddress": "addresses such as alice+shop@, each for one sender: open, close and list them",
    "suppression": "addresses that accounts write to no more, since they do not exist: list, add and remove them",
    "records": "list, export and import what components keep of people",
    "smarthost": "log in at the smarthost with OAuth, and look at the token",
    "tls-override": "say for a time what TLS a domain's hosts must have",
    "status": "what the running server is doing, in figures",
    "queue": "list, show, retry, hold, release, bounce, drop or redirect what is waiting",
    "quarantine": "list, show, release or drop the copies that filters hold",
    "backup": "copy the queue of a server that may be running, and what else it keeps",
    "import": "configuration, accounts and mail of another mail system, or what export has written",
    "export": "write the house in a form that others can read: configuration, accounts, records, mail",
    "restore": "put a backup into a data folder that has no queue; all of it is held",
    "checkpassword": "say whether a password is right, for Dovecot and others that ask in this way",
    "sendmail": "hand a message over, as the sendmail of other mail systems does",
    "route": "where a message for an address would go, and why",
    "probe": "ask an address's hosts up to RCPT, as the relay would, and send nothing",
    "selftest": "send a probe message to an account that is nobody's, say how long each step took, remove it again",
    "explain": "the road of a message, also of a refused one; or which ones may be meant",
    "traces": "bring the roads of messages to a collector, as traces of OpenTelemetry",
    "decode": "the dialogues, messages and figures of SMTP in a capture file",
    "record": "record what the server says to one peer and hears from it, also inside TLS",
    "replay": "what would become of a message, without anything coming of it",
    "sink": "take every mail, keep none, print it: to try programs that send",
    "plugins": "list components, check them, begin a new one",
    "manual": "print the manual page, or completion for a shell",
}
MODULES = {  # a module `list` would hide the type from its package, and `import` is a word of the language
    "list": "lists", "import": "importing", "export": "exporting", "tls-override": "tls_override",
}  # fmt: skip


def run_command(words: Sequence[str]) -> int:
    """Run one command, all but ``sendmail``; return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without our signs, a name that is not UTF-8
    try:
        if words and words[0] not in COMMANDS and not words[0].startswith("-"):
            code_of_component = run_component_command(words, COMMANDS)
            if code_of_component is not None:
                sys.stdout.flush()
                return code_of_component
        options = _parser(words[:1]).parse_args(words)
        if hasattr(options, "insist"):
            options.insist(options)
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
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what has not been written would be met again at the end
        return _failed(str(error), EX_IOERR)
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
    lines = [plain(line) for line in words.split("\n")]  # a plugin's words may be among them
    print(f"mailserver: {lines[0]}" if len(lines) == 1 else "\n".join(lines), file=sys.stderr)
    return code


def whole_parser() -> argparse.ArgumentParser:
    """The parser with all commands, for manual pages and completion."""
    return _parser(frozenset(COMMANDS))


def _parser(wanted: Collection[str]) -> argparse.ArgumentParser:
    """The parser.  Only the modules of the wanted commands are imported, since `check` needs the whole server."""
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
        epilog="Components have commands of their own while the server runs: `mailserver NAME --help`. "
        "Exit codes: 0 done, 1 no, 2 wrong command line, 69 the server could not be asked, "
        "74 a file cannot be read, 78 the configuration has faults.",
    )
    parser.set_defaults(config=None, json=False)
    parser.add_argument("--version", action=Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name in wanted and name != "sendmail":
            importlib.import_module(f"mailserver.cli.{MODULES.get(name, name)}").add_to(commands, common, summary)
        else:
            commands.add_parser(name, help=summary)
    return parser
