"""``mailserver sink``: take every mail, keep none, print it."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING, Any

from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say

if TYPE_CHECKING:
    from mailserver.sink import Caught

__all__ = ["add_to"]

STAGES = ("mail", "rcpt", "data", "end")


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    sink = commands.add_parser("sink", parents=[common], help=summary, description=summary.capitalize() + ".")
    sink.add_argument("--port", metavar="PORT", type=int, default=2525, help="where to listen (2525); 0 for a free one")
    sink.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    for stage in STAGES:
        where = "after the dot" if stage == "end" else f"at {stage.upper()}"
        sink.add_argument(f"--{stage}", metavar="REPLY", type=_reply, default=None, help=f"refuse so {where}: '451 4.3.0 Later'")
    sink.add_argument("--delay", metavar="SECONDS", type=float, default=0.0, help="wait so long before each answer")
    sink.add_argument("--drop", action="store_true", help="end the connection after the dot, without an answer")
    sink.add_argument("--count", metavar="N", type=int, default=0, help="end after N mails")
    sink.set_defaults(run=run_sink, needs_configuration=False)


def run_sink(options: argparse.Namespace) -> int:
    """Until it is interrupted, or N mails have come."""
    from mailserver.sink import Faults, Sink

    printing = threading.Lock()

    def show(mail: Caught) -> None:
        with printing:
            _print(mail, options.json)

    faults = Faults(options.mail, options.rcpt, options.data, options.end, options.delay, options.drop)
    sink = Sink(host=options.host, port=options.port, faults=faults, caught=show)
    try:
        sink.start()
    except (OSError, OverflowError) as error:
        raise Unable(f"{options.host} port {options.port}: {error}", EX_IOERR) from error
    print(f"mailserver: listening on {sink.host} port {sink.port}", file=sys.stderr, flush=True)
    try:
        if options.count:
            sink.wait(options.count, threading.TIMEOUT_MAX)
        else:
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        sink.stop()
    return 0


def _print(mail: Caught, in_json: bool) -> None:
    sender, recipients = str(mail.sender or ""), [str(one) for one in mail.recipients]
    text = mail.content.decode("utf-8", "replace").replace("\r\n", "\n")
    if in_json:
        as_json({"sender": sender, "recipients": recipients, "hello": mail.hello, "content": text})
    else:
        say(f"--- from <{plain(sender)}> to {', '.join(f'<{plain(one)}>' for one in recipients)} (hello {plain(mail.hello)})")
        say(*(plain(line.replace("\t", "    ")) for line in text.removesuffix("\n").split("\n")), "")
    sys.stdout.flush()


def _reply(text: str) -> Any:
    from mailserver.sink import parse_reply

    try:
        return parse_reply(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
