"""``mailserver replay``: what would become of a message under a configuration, without anything coming of it.

It goes through the whole judging of the configuration (`assembly.rehearsal`), with what the DNS says now or has said then.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.config.quantities import seconds
from mailserver.mail.address import Address, AddressError
from mailserver.mail.envelope import MailParameters
from mailserver.mail.ids import is_id
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    from mailserver.assembly.rehearsal import PostedMail, Rehearsed
    from mailserver.config import Configuration

__all__ = ["add_to"]

FILE_OCTETS = 256 << 20
JUDGED_SECONDS = 180.0


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    replay = commands.add_parser("replay", parents=[common], help=summary, description=summary.capitalize() + ".")
    for name, metavar, words in (
        ("--ip", "ADDRESS", "the peer's address"),
        ("--helo", "NAME", "what it calls itself (default: its address)"),
        ("--login", "ACCOUNT", "it has logged in as this account"),
        ("--dns", "FILE", "answers of the DNS, as --json prints them; it is not asked then"),
    ):
        replay.add_argument(name, metavar=metavar, default="", help=words)
    for name, dest, metavar, words in (
        ("--to", "recipients", "ADDRESS", "a recipient; several times"),
        ("--also", "also", "FILTER", "ask this one, too: it reaches other programs"),
        ("--without", "without", "FILTER", "do not ask this one, such as a greylist"),
    ):
        replay.add_argument(name, dest=dest, metavar=metavar, action="append", default=[], help=words)
    words = "a message (.eml), - for standard input; or the id of one that came"
    replay.add_argument("file", metavar="FILE", nargs="?", default="", help=words)
    replay.add_argument("--from", dest="sender", metavar="ADDRESS", default=None, help="the sender; <> for none")
    replay.add_argument("--tls", action="store_true", help="its connection is encrypted")
    replay.add_argument("--service", choices=("mx", "submission", "lmtp"), default="", help="where it comes in (mx)")
    replay.add_argument("--live", action="store_true", help="of one that came: ask the DNS of today, not that of then")
    replay.add_argument("--since", metavar="AGE", type=_age, default=None, help="weigh the mail of so long anew: 7d")
    replay.add_argument("--against", metavar="FILE", default="", help="with --since: the configuration under which it came")
    replay.set_defaults(run=replay_mail, insist=_whole, wrong=replay.error)


def _whole(options: argparse.Namespace) -> None:
    """Check that the line has a message and its envelope, or --since."""
    o = options
    envelope = o.sender is not None or o.recipients or o.ip or o.helo or o.login or o.service or o.tls
    if o.since is not None and (o.file or envelope or o.dns or o.also or o.without):
        o.wrong("--since takes the mail as it came: it goes with --config, --against and --json alone")
    if o.since is None and not (o.file and is_id(o.file) and not envelope):
        if not o.file or o.sender is None or not o.recipients or not o.ip or o.against:
            o.wrong("say what is replayed: a FILE with --from, --to and --ip; the ID of a message that came; or --since")


def replay_mail(options: argparse.Namespace) -> int:
    """Print what would become of it.  Return 1 where it would be refused, or where mail of the past would have another fate."""
    if options.since is not None:
        from mailserver.cli.reweigh import reweigh

        return reweigh(options)
    from twisted.internet import reactor

    from mailserver.assembly.rehearsal import Rehearsal
    from mailserver.assembly.resolver import make_resolver
    from mailserver.cli.without_server import NotNow, finished
    from mailserver.config import load
    from mailserver.dns.recorded import RecordedResolver, RecordingResolver
    from mailserver.mail.faults import StorageFault
    from mailserver.plugins.catalogue import PluginError, discover
    from mailserver.plugins.life import StartError

    catalogue = discover()
    configuration = load(options.config, catalogue.options_of, catalogue.useless_keys)
    inner: Any = None
    if is_id(options.file) and options.sender is None:
        mail, inner = _came(options, configuration)
    else:
        mail = _mail(options)
    try:
        if options.dns:
            inner = RecordedResolver(_recorded(options.dns))
    except (OSError, ValueError) as error:
        raise Unable(f"{plain(options.dns)} has no answers of the DNS: {error}", EX_IOERR) from error
    resolver = RecordingResolver(inner or make_resolver(configuration, reactor))
    how = {"reactor": reactor, "resolver": resolver, "also": options.also, "without": options.without}
    try:
        with as_owner_of(configuration.data):
            rehearsal = Rehearsal(configuration, catalogue, **how)
            try:
                finished(rehearsal.start())
                found: Rehearsed = finished(rehearsal.judge(mail), JUDGED_SECONDS)
            finally:
                finished(rehearsal.stop())
    except NotNow as error:
        raise Unable(f"no verdict within {JUDGED_SECONDS:g} s") from error
    except (PluginError, StartError, StorageFault, OSError) as error:
        raise Unable(str(error), EX_IOERR) from error
    _tell(options, found, resolver)
    return 0 if found.replies and found.replies[-1][1].code < 400 else 1


def _tell(options: argparse.Namespace, found: Rehearsed, resolver: Any) -> None:
    from mailserver.cli.verdicts import as_it_went, explained, in_words
    from mailserver.observe.road_table import format_road

    judged = as_it_went(explained(found.steps), {who for who, _, what in found.fates if what})
    if options.json:
        as_json(
            {
                "replies": [{"to": question, "reply": str(reply)} for question, reply in found.replies],
                "copies": [{"recipient": who, "goes_to": where, "held": what} for who, where, what in found.fates],
                "verdicts": [one.as_json() for one in judged],
                "cannot_tell": list(found.left_out),
                "dns": resolver.answers(),
            }
        )
        return
    say(*format_road(found.steps))
    say("", *[f"{plain(question)}: {plain(str(reply))}" for question, reply in found.replies])
    say(*[f"{plain(who)} -> {plain(where)}{f' ({what})' if what else ''}" for who, where, what in found.fates])
    say(*[plain(line) for line in in_words(judged)])
    if found.left_out:
        say("", f"cannot tell: {', '.join(map(plain, found.left_out))} (--also asks them, and they reach other programs)")


def _came(options: argparse.Namespace, configuration: Configuration) -> tuple[PostedMail, Any]:
    """A message that came, and the DNS of then; None with --live.  Raises `Unable`."""
    from mailserver.cli.explain import ROADS
    from mailserver.cli.kept_text import KeptTexts
    from mailserver.cli.road_mail import AnswersOfThen, mail_of_road
    from mailserver.observe.roads import DnsOfThen, RoadsUnreadable, UnknownId, read_road

    id, roads = options.file.upper(), os.path.join(configuration.data, ROADS)
    try:
        with as_owner_of(configuration.data):
            steps = read_road(roads, id)
            mail = mail_of_road(id, steps, KeptTexts(configuration))
            then = None if options.live else AnswersOfThen(DnsOfThen(roads))
    except UnknownId as error:
        raise Unable(str(error)) from error
    except RoadsUnreadable as error:
        raise Unable(str(error), EX_IOERR) from error
    if mail is None:
        raise Unable(f"the text of {id} is not there any more, or nobody knows from whom it came")
    if then is not None:
        then.at(id, steps)
    return mail, then


def _mail(options: argparse.Namespace) -> PostedMail:
    """What the line says.  Raises `Unable`."""
    from mailserver.assembly.rehearsal import PostedMail

    o = options
    try:
        ip = str(ipaddress.ip_address(o.ip))
    except ValueError as error:
        raise Unable(f"{plain(o.ip)!r} is no IP address", 2) from error
    try:
        sender = None if o.sender in ("", "<>") else Address.parse(o.sender, utf8=True)
        recipients = tuple([Address.parse(one, utf8=True) for one in dict.fromkeys(o.recipients)])
    except AddressError as error:
        raise Unable(f"no address: {error}", 2) from error
    octets = _octets(o.file)
    has_utf8 = not all(str(one).isascii() for one in (sender or "", *recipients))
    service = o.service or ("submission" if o.login else "mx")
    hello = o.helo or (f"[IPv6:{ip}]" if ":" in ip else f"[{ip}]")
    return PostedMail(octets, sender, recipients, ip, hello, service, o.login, o.tls, MailParameters(smtputf8=has_utf8))


def _octets(path: str) -> bytes:
    """The message with CRLF line ends.  Raises `Unable`."""
    try:
        if path == "-":
            octets = sys.stdin.buffer.read(FILE_OCTETS + 1)
        else:
            with open(path, "rb") as file:
                octets = file.read(FILE_OCTETS + 1)
    except OSError as error:
        raise Unable(f"{plain(path)}: {error.strerror}", EX_IOERR) from error
    if len(octets) > FILE_OCTETS:
        raise Unable(f"{plain(path)} has more than {FILE_OCTETS >> 20} MiB", EX_IOERR)
    return re.sub(rb"(?<!\r)\n", b"\r\n", octets)


def _recorded(path: str) -> list[dict[str, Any]]:
    """The answers that a file has: a list, or the `dns` of what --json has printed.  Raises OSError, ValueError."""
    with open(path, encoding="utf-8") as file:
        given = json.load(file)
    answers = given.get("dns") if isinstance(given, dict) else given
    if not isinstance(answers, list) or not all(isinstance(one, dict) for one in answers):
        raise ValueError("a list of answers was expected")
    return answers


def _age(text: str) -> float:
    try:
        return time.time() - seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
