"""``mailserver sink``: take every mail, keep none, print it."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING, Any

from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say

if TYPE_CHECKING:
    from mailserver.sink import CapturedMessage, CaptureServer
    from mailserver.sink.faults import Stage

__all__ = ["add_to"]

STAGES: tuple[Stage, ...] = ("mail", "rcpt", "data", "end")
ANSWERED: tuple[Stage, ...] = ("hello", *STAGES)
MESSAGE_OCTETS = 52_428_800
CONNECTIONS = 100
IDLE_SECONDS = 300.0
LEAVE_SECONDS = 2.0  # for the answer to the last mail


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    sink = commands.add_parser("sink", parents=[common], help=summary, description=summary.capitalize() + ".")
    sink.add_argument("--port", metavar="PORT", type=int, default=2525, help="where to listen (2525); 0 for a free one")
    sink.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    for stage in STAGES:
        where = "after the dot" if stage == "end" else f"at {stage.upper()}"
        sink.add_argument(f"--{stage}", metavar="REPLY", type=_reply, default=None, help=f"refuse so {where}: '451 4.3.0 Later'")
    sink.add_argument("--delay", metavar="SECONDS", type=_seconds, default=0.0, help="wait so long before each answer")
    sink.add_argument("--drop", action="store_true", help="end the connection after the dot, without an answer")
    sink.add_argument("--count", metavar="N", type=int, default=0, help="end after N mails")
    sink.set_defaults(run=run_sink, needs_configuration=False)


def run_sink(options: argparse.Namespace) -> int:
    """Run until interrupted, or until N messages have come."""
    from mailserver.sink import CaptureServer

    printing = threading.Condition()
    shown = 0

    def show(mail: CapturedMessage) -> None:
        nonlocal shown
        with printing:
            _print(mail, options.json)
            shown += 1
            printing.notify_all()

    server = CaptureServer(
        host=options.host,
        port=options.port,
        tls="none",
        message_octets=MESSAGE_OCTETS,
        connections_max=CONNECTIONS,
        idle_seconds=IDLE_SECONDS,
        take=show,
    )
    _order_faults(server, options)
    try:
        server.start()
    except (OSError, OverflowError) as error:
        raise Unable(f"{options.host} port {options.port}: {error}", EX_IOERR) from error
    print(f"mailserver: listening on {server.host} port {server.port}", file=sys.stderr, flush=True)
    try:
        with printing:
            printing.wait_for(lambda: 0 < options.count <= shown)
        server.stop(answer_seconds=options.delay + LEAVE_SECONDS)
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    return 0


def _order_faults(server: CaptureServer, options: argparse.Namespace) -> None:
    """Order the faults of the command line, for every message."""
    for stage in STAGES:
        reply = getattr(options, stage)
        if reply is not None:
            server.refuse(stage, *reply, times=None)
    if options.drop:
        server.hang_up("end", times=None)
    if options.delay:
        for stage in ANSWERED:
            server.delay(stage, options.delay, times=None)


def _print(mail: CapturedMessage, in_json: bool) -> None:
    text = mail.content.decode("utf-8", "replace").replace("\r\n", "\n")
    if in_json:
        as_json({"sender": mail.sender, "recipients": list(mail.recipients), "hello": mail.hello, "content": text})
    else:
        to = ", ".join(f"<{plain(one)}>" for one in mail.recipients)
        say(f"--- from <{plain(mail.sender)}> to {to} (hello {plain(mail.hello)})")
        say(*(plain(line.replace("\t", "    ")) for line in text.removesuffix("\n").split("\n")), "")
    sys.stdout.flush()


def _reply(text: str) -> tuple[int, str]:
    """A reply such as ``451 4.3.0 Try again later``, with or without the enhanced code."""
    from mailserver.sink.faults import refusal

    code, _, words = text.partition(" ")
    try:
        if not (len(code) == 3 and code.isascii() and code.isdigit()):
            raise ValueError(f"{text!r} is no refusal, such as '451 4.3.0 Try again later'")
        refusal(int(code), words or "No")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return int(code), words or "No"


def _seconds(text: str) -> float:
    """A time in seconds.  Raises ValueError."""
    from mailserver.sink.faults import DELAY_SECONDS

    seconds = float(text)
    if not 0 <= seconds <= DELAY_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 to {DELAY_SECONDS:.0f} seconds")
    return seconds
