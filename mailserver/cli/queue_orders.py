"""``mailserver queue retry | hold | release | bounce | drop | redirect``: a person's hand on waiting mail."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from collections.abc import Callable
from os import EX_UNAVAILABLE
from typing import TYPE_CHECKING, Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable, as_json, plain, say
from mailserver.cli.queue_filters import add_filters, selection_of
from mailserver.control.client import NoServer
from mailserver.mail.faults import StorageFault
from mailserver.processes.identity import as_owner_of

if TYPE_CHECKING:
    from mailserver.config import Configuration
    from mailserver.queue.admin.selection import Selection

__all__ = ["OrderWork", "add_verbs", "confirm", "tell"]

SUMMARIES = {
    "retry": "try again now, also what has failed",
    "hold": "do not try until it is released",
    "release": "try again what was held",
    "bounce": "give up now; the senders are told",
    "drop": "remove for good; nobody is told",
    "redirect": "send to another address instead",
}
DONE = {
    "retry": "retried",
    "hold": "held",
    "release": "released",
    "bounce": "bounced",
    "drop": "dropped",
    "redirect": "redirected",
    "let through": "released",
    "junk": "delivered into Junk",
}
ASKED = {"drop": "Drop {} for good?", "bounce": "Return {} to the senders?"}
Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
LISTED = 20  # messages named one by one


def add_verbs(actions: Any, common: argparse.ArgumentParser) -> None:
    """Declare the commands."""
    for verb, summary in SUMMARIES.items():
        parser = actions.add_parser(verb, parents=[common], help=summary, description=summary.capitalize() + ".")
        add_filters(parser, id_is_argument=True)
        parser.add_argument("--all", action="store_true", help="every message: needed where there is no filter")
        parser.add_argument("--dry-run", action="store_true", help="only say which messages it would be")
        if verb in ASKED:
            parser.add_argument("--yes", action="store_true", help="do not ask")
        if verb == "redirect":
            parser.add_argument("--to", metavar="ADDRESS", required=True, help="where it goes instead")
        parser.set_defaults(run=change_queue, verb=verb)


def change_queue(options: argparse.Namespace) -> int:
    """Carry out the order.  Return 1 where no message matched, or one was left unchanged."""
    from mailserver.config import load

    selections = selection_of(options)
    if selections[0].is_everything and not options.all:
        raise Unable("say which messages: an id or a filter, or --all for every message", 2)
    if options.all and not selections[0].is_everything:
        raise Unable("--all and a filter exclude each other", 2)
    configuration = load(options.config)
    work = OrderWork(configuration, options, options.verb)
    if options.verb in ASKED and not options.dry_run and not options.yes:
        confirm(work, selections)
    done, left = work.do(selections, dry_run=options.dry_run)
    if options.json:
        as_json({"verb": options.verb, "dry_run": options.dry_run, "done": done, "left": left})
    else:
        tell(options, options.verb, done, left)
    return 0 if done and not left else 1


def confirm(work: OrderWork, selections: list[Selection]) -> None:
    """Ask on the terminal.  Raises `Unable` where the answer is no, or nobody is there to ask."""
    if not sys.stdin.isatty():
        raise Unable("there is no terminal to ask on: --yes does it without a question", 2)
    meant, _ = work.do(selections, dry_run=True)
    if not meant:
        return
    sys.stderr.write(ASKED[work.verb].format(_messages(len(meant))) + " [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Unable(f"nothing was {DONE[work.verb]}")


class OrderWork:
    """Page after page, asked of the server, or done here where none runs.  `verb` is one of `queue.admin.changes.Verb`."""

    def __init__(self, configuration: Configuration, options: argparse.Namespace, verb: str) -> None:
        self._configuration = configuration
        self.verb = verb
        self._to: str = getattr(options, "to", "")
        self._config: str = options.config
        self._by = who()
        self._quiet = options.json or not sys.stderr.isatty()

    def do(self, selections: list[Selection], *, dry_run: bool) -> tuple[list[Any], list[Any]]:
        """What was done (id, recipients) and what was left (id, why)."""
        try:
            return self._pages(self._ask, selections, dry_run)
        except NoServer:
            return self._without_server(selections, dry_run)

    def _ask(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return ask_server(self._configuration.data, command, arguments, timeout_seconds=120)

    def _pages(self, ask: Ask, selections: list[Selection], dry_run: bool) -> tuple[list[Any], list[Any]]:
        done: list[Any] = []
        left: list[Any] = []
        scanned = 0
        try:
            for selection in selections:
                after: int | None = 0
                while after is not None:
                    answer = ask(
                        "queue.change",
                        {
                            "verb": self.verb,
                            "selection": selection.as_json(),
                            "after": after,
                            "by": self._by,
                            "to": self._to,
                            "dry_run": dry_run,
                        },
                    )
                    done += answer["done"]
                    left += answer["left"]
                    scanned += answer["scanned"]
                    after = answer["next"]
                    self._progress(scanned, answer.get("depth"), len(done), dry_run)
        finally:
            if not self._quiet:
                sys.stderr.write("\r\x1b[K")
        return done, left

    def _progress(self, scanned: int, depth: int | None, done: int, dry_run: bool) -> None:
        if not self._quiet:
            what = "found" if dry_run else DONE[self.verb]
            of = f" of {max(depth, scanned)}" if depth else ""
            sys.stderr.write(f"\r\x1b[K{scanned}{of} looked at, {done} {what}")
            sys.stderr.flush()

    def _without_server(self, selections: list[Selection], dry_run: bool) -> tuple[list[Any], list[Any]]:
        from mailserver.control.queue import page_as_json
        from mailserver.observe import RoadStore, Steps
        from mailserver.queue.admin.changes import Verb
        from mailserver.queue.admin.orders import Order, StoppedQueue
        from mailserver.queue.admin.selection import Selection
        from mailserver.queue.lock import QueueInUse

        routes: tuple[Any, ...] = ()
        if self.verb == "redirect":
            from mailserver.cli.route import stopped_routes

            routes = stopped_routes(self._config, self._to)
        roads = RoadStore(os.path.join(self._configuration.data, "explain.db"))
        steps = Steps(roads=roads, addresses=self._configuration.log.addresses)
        try:
            with as_owner_of(self._configuration.data), StoppedQueue.opened(self._configuration.data) as queue:
                if queue is None:
                    return [], []

                def carry_out(_: str, arguments: dict[str, Any]) -> dict[str, Any]:
                    selection = Selection.from_json(arguments["selection"])
                    order = Order(Verb(self.verb), selection, self._by, self._to, routes)
                    page = queue.carry_out(
                        order, after=arguments["after"], now=time.time(), note=steps.note, dry_run=dry_run
                    )
                    steps.flush()
                    return page_as_json(page)

                return self._pages(carry_out, selections, dry_run)
        except QueueInUse as error:
            raise Unable("a server is just starting or stopping: ask again in a moment", EX_UNAVAILABLE) from error
        except (StorageFault, OSError) as error:
            raise Unable(str(error), EX_IOERR) from error
        finally:
            roads.close()


def who() -> str:
    """Who asks: the user, and who became that user."""
    from mailserver.mail.outcomes import clean_text

    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    before = os.environ.get("SUDO_USER", "")
    return clean_text(f"{name} ({before})" if before and before != name else name)


def tell(options: argparse.Namespace, verb: str, done: list[Any], left: list[Any]) -> None:
    """Say what was done, message by message, and how many there were."""
    word = f"would be {DONE[verb]}" if options.dry_run else DONE[verb]
    for one in done[:LISTED]:
        names = one["recipients"]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        say(f"{one['id']}  {word}  {plain(names[0]) if names else ''}{more}".rstrip())
    if len(done) > LISTED:
        say(f"… and {len(done) - LISTED} more")
    for one in left[:LISTED]:
        say(f"{one['id']}  left as it was: {plain(one['why'])}")
    if len(left) > LISTED:
        say(f"… and {len(left) - LISTED} more left as they were")
    if not done and not left:
        say(f"There is no such message, or nothing to {verb} about it.")
    else:
        say(f"{_messages(len(done))} {word}." + (f"  {_messages(len(left))} left." if left else ""))


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"
