"""``mailserver quickstart you@example.org``: from nothing to a server that can be started."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from os import EX_NOPERM
from typing import TYPE_CHECKING, Any

from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say

if TYPE_CHECKING:
    from mailserver.config import Configuration
    from mailserver.doctor.house_facts import DomainFacts
    from mailserver.quickstart.ledger import QuickLedger, QuickLock
    from mailserver.quickstart.plan import QuickHost
    from mailserver.quickstart.steps import QuickStep
    from mailserver.quickstart.verdicts import Sighting
    from mailserver.quickstart.wishes import HouseWishes

__all__ = ["add_to"]

PASSWORD_LINE_CHARACTERS = 4096
SEEN_SECONDS, SEEN_ANSWER_SECONDS = 10.0, 1.5
MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "cannot tell": "?   "}


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    parser = commands.add_parser("quickstart", parents=[common], help=summary)
    parser.add_argument("address", metavar="ADDRESS", nargs="?", default="", help="the first account, such as you@example.org")
    parser.add_argument("--dry-run", action="store_true", help="look, and say what would be made; make nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--undo", action="store_true", help="take away what it has made and nobody has changed; never mail")
    parser.add_argument("--start", action="store_true", help="enable and start the service, where systemd runs")
    parser.add_argument("--password-stdin", action="store_true", help="read the account's password from standard input, one line")
    parser.add_argument("--hostname", metavar="NAME", help="what the server calls itself (default: the host's name)")
    parser.add_argument("--data", metavar="FOLDER", help="the queue, the mail, the accounts (default: /var/lib/mailserver)")
    parser.add_argument("--keys", metavar="FOLDER", help="keys (default: the data folder's name with -keys)")
    parser.add_argument(
        "--address", dest="addresses", action="append", default=[], metavar="IP",
        help="an address of the host as the Internet sees it; once for each",
    )  # fmt: skip
    parser.add_argument("--nat", action="store_true", help="the host is behind a NAT, and the DNS shows its address already")
    parser.add_argument("--smarthost", metavar="HOST[:PORT]", help="all mail leaves by this host")
    parser.add_argument("--imap", metavar="HOST[:PORT]", help="where users read their mail, a Dovecot")
    parser.add_argument("--no-acme", action="store_true", help="no certificates from an authority (ACME)")
    parser.add_argument("--acme-directory", metavar="URL", help="another authority than Let's Encrypt")
    parser.add_argument("--no-web", action="store_true", help="no listener for the web (policies, settings of mail programs)")
    parser.set_defaults(run=quickstart, insist=_insist, needs_configuration=False)


def _insist(options: argparse.Namespace) -> None:
    if not options.address and not options.undo:
        raise Unable("say the first account's address: mailserver quickstart you@example.org", 2)
    if options.undo and (options.start or options.password_stdin or options.address):
        raise Unable("--undo goes with no address, and neither with --start nor with --password-stdin", 2)
    if options.addresses and options.nat:
        raise Unable("--address says which the addresses are, --nat that the DNS knows: one of the two", 2)
    if options.acme_directory and options.no_acme:
        raise Unable("--acme-directory and --no-acme exclude each other", 2)


def quickstart(options: argparse.Namespace) -> int:
    """Look, ask, make, tell.  Return 1 where it was refused."""
    from mailserver.authentication.passwords import PasswordError
    from mailserver.quickstart.ledger import LedgerFault, locked, read_ledger
    from mailserver.quickstart.plan import this_host
    from mailserver.quickstart.wishes import WrongWish

    host = this_host()
    config = _config_path(options, host)
    try:
        with locked(config) as lock:
            ledger = read_ledger(config)
            if options.undo:
                return _undo(options, config, host, ledger)
            return _quickstart(options, config, host, ledger, lock)
    except WrongWish as error:
        raise Unable(str(error)) from error
    except PasswordError as error:
        raise Unable(f"{error}: nothing was made") from error
    except LedgerFault as error:
        raise Unable(f"{error}: nothing was touched", EX_IOERR) from error
    except PermissionError as error:
        left = _left(config) or "nothing is left of it (as root it would be the system's folders)"
        raise Unable(f"{_words(error)}: {left}", EX_NOPERM) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC and not error.filename:
            _forget_output()
        gone = "--undo again tries once more" if options.undo else "what was made was taken back"
        raise Unable(f"{_words(error)}: {_left(config) or gone}", EX_IOERR) from error


def _left(config: str) -> str:
    """What has to be said of what a run that failed has left, "" where it has left nothing."""
    from mailserver.quickstart.ledger import read_ledger

    try:
        ledger = read_ledger(config)
    except OSError:
        ledger = None
    if ledger is None or ledger.is_done:
        return ""
    return "some of it stays: the same command completes it, --undo takes it back"


def _forget_output() -> None:
    """What standard output could not take would be met again at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def _config_path(options: argparse.Namespace, host: QuickHost) -> str:
    from mailserver.config.choice import VARIABLE
    from mailserver.quickstart.wishes import default_places

    named = options.config or os.environ.get(VARIABLE, "")
    return os.path.abspath(named or default_places(host.uid, host.home)[0])


def _quickstart(
    options: argparse.Namespace, config: str, host: QuickHost, ledger: QuickLedger | None, lock: QuickLock
) -> int:  # fmt: skip
    from mailserver.quickstart.carrying_out import missing, take
    from mailserver.quickstart.ledger import open_ledger
    from mailserver.quickstart.plan import config_folder_mode, forbid, steps_of

    wishes = _wishes(options, config, host, ledger)
    forbid(wishes, host, ledger)
    given: list[str] = []  # the password, once it was needed

    def password() -> str:
        given[:] = [_password(options)]
        return given[0]

    configuration, text = _configuration(wishes, ledger)
    facts = _facts(configuration, wishes)
    steps = steps_of(wishes, host, ledger, password)
    plan = missing(steps, ledger)
    if ledger is not None and not plan and ledger.is_done:
        code = _tell(options, host, wishes, configuration, "", [], [])
        return _start(options, host, wishes, ledger) if options.start else code
    sightings = _look(configuration, wishes, facts)
    if not options.json:
        _show(wishes, sightings, plan, ledger)
    if options.dry_run:
        return _tell_dry(options, sightings, plan, text)
    _ask(options, sightings)
    if ledger is None:
        ledger = open_ledger(wishes, config_folder_mode(wishes), lock)
    made: list[str] = []
    take(steps, ledger, lambda step: made.append(step.words))
    _write_twisteds_list()
    code = _tell(options, host, wishes, configuration, "".join(given), made, sightings)
    sys.stdout.flush()
    ledger.done()
    return _start(options, host, wishes, ledger) if options.start else code


# --- what is asked for ---


def _wishes(options: argparse.Namespace, config: str, host: QuickHost, ledger: QuickLedger | None) -> HouseWishes:
    """What is asked for now, or was before: then both have to agree.  Raises `WrongWish`."""
    from mailserver.quickstart import wishes as asked
    from mailserver.quickstart.configuration_text import for_programs, read_if_there

    address, domain = asked.checked_address(options.address)
    addresses = tuple([asked.checked_ip(one) for one in options.addresses])
    smarthost = asked.checked_host_and_port(options.smarthost, 587) if options.smarthost else ""
    _, data, user = asked.default_places(host.uid, host.home)
    data = os.path.abspath(options.data or data)
    before = None if ledger is None else ledger.wishes
    wishes = asked.HouseWishes(
        address=address, domain=domain, config=config, data=data, user=user, addresses=addresses, behind_nat=options.nat,
        hostname=asked.checked_host(options.hostname) if options.hostname else asked.hostname_of(domain, *asked.own_names()),
        keys=os.path.abspath(options.keys or data + "-keys"), smarthost=smarthost, with_acme=not options.no_acme,
        with_web=not options.no_web, acme_directory=options.acme_directory or "", has_ipv6=host.has_ipv6,
        ports=asked.HousePorts() if host.uid == 0 or _may_listen_low() else asked.HIGH_PORTS,
        with_web_unit=host.has_web_unit and not options.no_web and bool(user),
        imap=asked.checked_host_and_port(options.imap, 993) if options.imap else "",
        local_programs=read_if_there(config) == for_programs(),
    )  # fmt: skip
    if before is None:
        return wishes
    said = {"address": True, "hostname": options.hostname, "data": options.data, "keys": options.keys, "addresses": addresses}
    said |= {"behind_nat": options.nat, "smarthost": smarthost, "acme_directory": options.acme_directory}
    said |= {"imap": options.imap, "with_acme": options.no_acme, "with_web": options.no_web}
    other = [key for key, is_said in said.items() if is_said and getattr(before, key) != getattr(wishes, key)]
    if other:
        why = ", ".join(f"{key} {getattr(before, key)!r}, not {getattr(wishes, key)!r}" for key in other)
        words = "say the same, take it back by --undo, or change the configuration (mailserver domain add, user add)"
        raise asked.WrongWish(f"a quickstart before this one was for {why}: nothing was touched; {words}")
    return before


def _may_listen_low() -> bool:
    from mailserver.quickstart.eyes import Eyes

    return "may not" not in Eyes(()).why_not_listen(25)


def _password(options: argparse.Namespace) -> str:
    from mailserver.quickstart.told import new_password

    if options.password_stdin:
        return sys.stdin.readline(PASSWORD_LINE_CHARACTERS).rstrip("\r\n")
    return new_password()


def _configuration(wishes: HouseWishes, ledger: QuickLedger | None) -> tuple[Configuration, str]:
    """The configuration that will be: the file that is there by us, else our text, read back with the schema."""
    from mailserver.config import load, parse
    from mailserver.plugins.catalogue import discover
    from mailserver.quickstart.configuration_text import configuration_text, is_the_sample, read_if_there

    options_of = discover().options_of
    there = read_if_there(wishes.config)
    if ledger is not None and there and not is_the_sample(there):
        return load(wishes.config, options_of), there
    text = configuration_text(wishes)
    return parse(text, file=wishes.config, directory=os.path.dirname(wishes.config), options_of=options_of), text


def _facts(configuration: Configuration, wishes: HouseWishes) -> DomainFacts:
    from mailserver.doctor.configured import facts_of

    return facts_of(configuration, wishes.domain, wishes.addresses)


# --- the look before ---


def _look(configuration: Configuration, wishes: HouseWishes, facts: DomainFacts) -> list[Sighting]:
    from mailserver.doctor.asking import SeenLive
    from mailserver.doctor.configured import recursive_servers
    from mailserver.quickstart.eyes import Eyes
    from mailserver.quickstart.preflight import look
    from mailserver.quickstart.what_is_seen import Seeing
    from mailserver.quickstart.wishes import own_names

    try:
        servers = recursive_servers(configuration)
    except OSError:  # no resolv.conf: told as such
        servers = ()
    seen = SeenLive(servers, timeout_seconds=SEEN_ANSWER_SECONDS, total_seconds=SEEN_SECONDS)
    return look(Seeing(wishes, facts, seen, Eyes(servers), own_names()[0], _server_runs(wishes)))


def _server_runs(wishes: HouseWishes) -> bool:
    from mailserver.control.client import ControlError, NoServer, ask

    try:
        ask(os.path.join(wishes.data, "control.sock"), "status", timeout_seconds=5)
    except NoServer:
        return False
    except ControlError:
        return True
    return True


def _show(wishes: HouseWishes, sightings: list[Sighting], plan: list[QuickStep], ledger: QuickLedger | None) -> None:
    say(f"A mail server for {wishes.domain}, called {wishes.hostname}.", "")
    for one in sightings:
        say(f"{MARKS[one.standing.value]}  {one.name}: {plain(one.why)}")
        if one.fix:
            say(f"        -> {plain(one.fix)}")
    if ledger is not None and not ledger.is_done:
        say("", "An earlier run was cut off; this one completes it.")
    say("", "To be made:", *[f"  {plain(step.words)}" for step in plan], "")


def _tell_dry(options: argparse.Namespace, sightings: list[Sighting], plan: list[QuickStep], text: str) -> int:
    if options.json:
        as_json({
            "dry_run": True, "preflight": [one.plain for one in sightings], "would_make": [one.words for one in plan],
            "configuration": text,
        })  # fmt: skip
    else:
        say("The configuration would be:", "", text, "Nothing was made (--dry-run).")
    return 0


def _ask(options: argparse.Namespace, sightings: list[Sighting]) -> None:
    """Raises `Unable` where nobody wants it, or can be asked."""
    if options.yes:
        return
    if options.password_stdin or not sys.stdin.isatty():
        raise Unable("there is no terminal to ask on: --yes makes it without a question", 2)
    failing = sum(one.standing.value == "fail" for one in sightings)
    words = f"{failing} of these will keep mail from going or coming. " if failing else ""
    sys.stdout.flush()
    sys.stderr.write(f"{words}Make all this? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Unable("nothing was made")


# --- at the end ---


def _write_twisteds_list() -> None:
    """Twisted's list of its plugins, while the folder can be written: the server's user may not."""
    if os.geteuid() == 0:
        from twisted.application.service import IServiceMaker
        from twisted.plugin import getPlugins

        list(getPlugins(IServiceMaker))


def _tell(
    options: argparse.Namespace, host: QuickHost, wishes: HouseWishes, configuration: Configuration, password: str,
    made: list[str], sightings: list[Sighting],
) -> int:  # fmt: skip
    from mailserver.cli.dns import zone_lines
    from mailserver.quickstart.told import client_settings, next_commands, settings_lines

    facts = _facts(configuration, wishes)
    commands = next_commands(wishes, host)
    zone = zone_lines(configuration, facts, SEEN_ANSWER_SECONDS)
    if options.json:
        as_json({
            "address": wishes.address, "hostname": wishes.hostname, "configuration": wishes.config, "made": made,
            "password": None if options.password_stdin else password or None, "clients": client_settings(wishes, facts),
            "zone": zone, "next": [command for command, _ in commands], "preflight": [one.plain for one in sightings],
        })  # fmt: skip
        return 0
    if made:
        say(f"Made: {wishes.config}, and what it names.", "")
    else:
        say(f"All of this is there already: nothing was changed ({wishes.config}).", "")
    if password and not options.password_stdin:
        say(f"The password of {wishes.address}, which is shown this once and kept nowhere:", "", f"  {password}", "")
    elif not made:
        say(f"The password of {wishes.address} is as it was; `mailserver user password {wishes.address}` sets another.", "")
    say("Settings for a mail program:", "", *settings_lines(wishes, facts), "")
    say(f"The DNS has to show (mailserver dns {wishes.domain} --zone):", "", *zone, "")
    say("Next:", "", *[f"  {command}\n      {what}" for command, what in commands])
    return 0


def _start(options: argparse.Namespace, host: QuickHost, wishes: HouseWishes, ledger: QuickLedger) -> int:
    """What was made stays, whatever comes of the start."""
    from mailserver.quickstart.plan import EnabledStep
    from mailserver.quickstart.told import start_command

    command = start_command(wishes, host)
    if not (wishes.user and host.systemd_runs):
        raise Unable(f"no systemd runs here that could start it: {command}")
    if EnabledStep.name not in ledger.steps:
        ledger.begin(EnabledStep.name, {})
        ledger.made(EnabledStep.name, {})
        ledger.done()
    try:
        host.run(command.split())
    except OSError as error:
        raise Unable(f"all was made, but the service does not start: {_words(error)} (journalctl -u mailserver)") from error
    if not options.json:
        say("", "The service runs, and starts with the host.")
    return 0


def _undo(options: argparse.Namespace, config: str, host: QuickHost, ledger: QuickLedger | None) -> int:
    """Take back.  Return 1 where something stays."""
    from mailserver.quickstart.carrying_out import undo
    from mailserver.quickstart.ledger import clear_begun
    from mailserver.quickstart.plan import steps_of

    if ledger is None:
        if not options.dry_run and clear_begun(config):
            say("All of it is taken back: it was cut off before anything was made.")
            return 0
        raise Unable(f"no quickstart has made {config}, or it was taken back already")
    wishes = ledger.wishes
    if _server_runs(wishes):
        raise Unable("the server runs: stop it first (systemctl stop mailserver)")
    if options.dry_run:
        say("Would be taken back, as far as nobody has changed it:", *[f"  {name}" for name in reversed(ledger.steps)])
        return 0
    if not options.yes:
        _ask(argparse.Namespace(yes=False, password_stdin=False), [])
    names = list(ledger.steps)
    came = undo(steps_of(wishes, host, ledger, lambda: ""), ledger, names)
    if not came.failed:
        ledger.remove()
    if options.json:
        gone = [one for one in names if one not in ledger.steps]
        as_json({"undone": gone, "stays": list(came.stays), "failed": list(came.failed)})
    else:
        say(*[plain(one) for one in (*came.stays, *came.failed)])
        say("All of it is taken back." if not came.stays and not came.failed else "The rest is taken back.")
    if came.failed:
        raise Unable("not all could be taken back: --undo again tries once more", EX_IOERR)
    return 1 if came.stays else 0
