"""The queue's file is damaged, too, when the server starts after the power cut: it has to say so, and nothing may be gone without a word.

What SQLite cannot know nobody can: it keeps no checksums, so octets of a message may be others (`altered`).  A message that is
missing is told where the server refuses to start, where it says that the queue is damaged and takes no mail, or where the queue shows
as many damaged entries.  Then the whole file is put back, and everything has to come.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from twisted.trial.unittest import FailTest

from mailserver.mail.faults import StorageFault
from mailserver.queue.entry import EntrySummary
from mailserver.queue.reader import list_entries
from tests.proofs.clients import Clients
from tests.proofs.letters import Found, look
from tests.proofs.scene import Scene
from tests.scenarios.support import Server, Wire, wait_until

__all__ = ["KINDS", "SHOWN", "WHOLE", "Damaging", "Verdict", "judged", "number_in", "put_back", "spoil"]

PAGE = 16384
REFUSED, SHUT, SHOWN, WHOLE = "refused", "shut", "shown", "whole"
FILES = ("queue.db", "queue.db-wal", "queue.mark")


def pages(file: Path, chance: random.Random) -> None:
    """Some pages are full of something else."""
    count = max(1, file.stat().st_size // PAGE)
    with file.open("r+b") as db:
        for page in chance.sample(range(count), max(1, count // chance.choice((2, 5, 20)))):
            os.pwrite(db.fileno(), chance.choice((bytes(PAGE), chance.randbytes(PAGE))), page * PAGE)


def beginnings(file: Path, chance: random.Random) -> None:
    """Some pages begin with something else."""
    count = max(1, file.stat().st_size // PAGE)
    with file.open("r+b") as db:
        for page in chance.sample(range(count), max(1, count // chance.choice((1, 3, 10)))):
            os.pwrite(db.fileno(), chance.randbytes(64), page * PAGE)


def bits(file: Path, chance: random.Random) -> None:
    """Some bits are turned."""
    octets = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 5, 50, 500))):
        octets[chance.randrange(len(octets))] ^= 1 << chance.randrange(8)
    file.write_bytes(octets)


def cut_off(file: Path, chance: random.Random) -> None:
    """The end is missing."""
    os.truncate(file, chance.randrange(1, file.stat().st_size))


def empty(file: Path, chance: random.Random) -> None:
    """Nothing is left in it."""
    os.truncate(file, 0)


def gone(file: Path, chance: random.Random) -> None:
    """The file is missing."""
    file.unlink()


def unmarked(file: Path, chance: random.Random) -> None:
    """The mark beside it is missing."""
    file.with_name("queue.mark").unlink(missing_ok=True)


KINDS: tuple[Callable[[Path, random.Random], None], ...] = (pages, empty, bits, cut_off, beginnings, unmarked, gone)


def spoil(data: Path, number: int, chance: random.Random) -> str:
    """Damage the queue in the data folder; what was done, "" where there is none that could be damaged."""
    file = data / "queue.db"
    if not file.exists() or not file.stat().st_size:
        return ""
    kind = KINDS[number % len(KINDS)]
    kind(file, chance)
    return kind.__name__


class Damaging(Scene):
    """No mailbox can be written to, so that all mail waits in the queue, some of it in its file, the last in its log."""

    def equip(self, server: Server, cut: int | None) -> None:
        mail = server.work / "disk" / "mail"
        mail.mkdir(exist_ok=True)
        for box in self.boxes(server.work).values():
            if cut is None:
                box.touch()
            elif box.is_file():
                box.unlink()
        if cut is None:
            os.sync()

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        file, size = server.work / "disk" / "data" / "queue.db", 0
        for turn in range(3):
            clients.start(3, 12, sendmails=1, name=f"s{turn}")
            clients.join()
            # After two quiet seconds the log is moved into the file.
            if turn < 2:
                with contextlib.suppress(FailTest):
                    wait_until(lambda size=size: file.stat().st_size > size + 8 * PAGE, server.log, 20)
                size = file.stat().st_size
        clients.wait()


@dataclass(slots=True)
class Verdict:
    """How the server met the damage, what was found in the Maildirs, and what is wrong with that."""

    how: str
    found: Found
    wrong: list[str] = field(default_factory=list)


def judged(server: Server, scene: Scene, missing: Callable[[Found], list[str]], seconds: float) -> Verdict:
    """Start the server, which has not been started, on a damaged queue, and see what it says."""
    try:
        server.start()
    except FailTest:
        words = server.log()
        named = "queue.db" in words or "queue in it" in words
        wrong = [] if named and server.process is None else [f"it does not start, and does not say that it is the queue: {words[-2000:]}"]
        return Verdict(REFUSED, look(scene.boxes(server.work)), wrong)

    def ended() -> str:
        if "the queue is damaged" in server.log():
            return SHUT
        try:
            left = list_entries(str(server.work / "disk" / "data"))
        except StorageFault:
            return ""
        return "" if any(not is_damaged(entry) for entry in left) else SHOWN if left else WHOLE

    how: str = wait_until(ended, lambda: f"no end:\n{server.log()[-6000:]}", seconds)
    if how == SHUT:
        wrong = [] if mail_code(server) == 451 else ["it takes mail, though it has said that the queue is damaged"]
        return Verdict(SHUT, look(scene.boxes(server.work)), wrong)
    with contextlib.suppress(FailTest):  # a report is made a moment after its message has left the queue
        wait_until(lambda: not missing(look(scene.boxes(server.work))), lambda: "", 1.0)
    found = look(scene.boxes(server.work))
    lost = {number_in(line) for line in missing(found)}
    shown = len(list_entries(str(server.work / "disk" / "data")))
    wrong = [] if len(lost) <= shown + len(found.torn) else [f"{len(lost)} are missing, {shown} shown as damaged: {sorted(lost)[:5]}"]
    return Verdict(how, found, wrong)


def number_in(line: str) -> str:
    """Of which message a line of `missing` speaks."""
    words = line.split()
    return words[-1] if words[0] == "the" else words[0]


def is_damaged(entry: EntrySummary) -> bool:
    return entry.state == "damaged"


def mail_code(server: Server) -> int:
    with Wire(server.port) as wire:
        return wire.dialogue("EHLO client.example", "MAIL FROM:<a@example.net>")[-1]


def put_back(whole: Path, data: Path) -> None:
    """The queue's files as they were before the damage."""
    for name in (*FILES, "queue.db-shm"):
        (data / name).unlink(missing_ok=True)
    for name in FILES:
        if (whole / name).exists():
            shutil.copy2(whole / name, data / name)
