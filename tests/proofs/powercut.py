"""The power goes at any moment: what was acknowledged is delivered after the next start, whole.

A scene is recorded once (`scenes`, `trace`); then the disk is written down as it may stand after a cut at each of many moments (`disk`),
a server is started on it, and when it has nothing left to do each message that had its 250 (or its sendmail's exit status 0) before the
cut has to be in all its Maildirs, with its report where one is due.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from twisted.trial.unittest import FailTest

from mailserver.queue.reader import list_entries
from tests.proofs import damage
from tests.proofs.clients import Sent
from tests.proofs.damage import Damaging
from tests.proofs.disk import Disk, Style
from tests.proofs.letters import Found, look
from tests.proofs.scene import Scene, prepared
from tests.proofs.scenes import scene_of
from tests.proofs.trace import Event, Said, Sync, SyncAll, events, record
from tests.requires import require_root, require_tool
from tests.scenarios.support import ROOT, Server, wait_until

__all__ = ["Recording", "Result", "prove", "recorded"]

DRAIN_SECONDS = 120.0  # as long as a slow machine may take
RECORD_SECONDS = 160.0
CUTTING_SECONDS = 20.0  # at least, however long the record took
CUTS_IN_A_ROUND = 6
LOG_SHOWN = 6000  # characters: the words before it are to be seen


@dataclass(slots=True)
class Result:
    """Sums over cuts.  `wrong` has a line for each fault."""

    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    torn: int = 0
    doubled: int = 0
    told: int = 0  # with damage besides: the server has said so
    altered: int = 0  # with damage besides: content that is not what was sent, where nobody could know
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        self.cuts += other.cuts
        self.acknowledged += other.acknowledged
        self.lost += other.lost
        self.torn += other.torn
        self.doubled += other.doubled
        self.told += other.told
        self.altered += other.altered
        self.wrong += other.wrong

    def __str__(self) -> str:
        damage = f", {self.told} damages told, {self.altered} contents altered" if self.told or self.altered else ""
        return f"{self.cuts} cuts, {self.acknowledged} acknowledged: {self.lost} lost, {self.torn} torn, {self.doubled} doubled{damage}"


@dataclass(frozen=True, slots=True)
class Recording:
    """What a scene did to `root`.  `acknowledged`: the messages, each with the position of its acknowledgement."""

    scene: str
    seed: int
    root: Path
    start: Disk
    events: list[Event]
    acknowledged: list[tuple[int, Sent]]


@contextlib.contextmanager
def recorded(scene: str, seed: int, *, keep: Path | None = None) -> Iterator[Recording]:
    """Play the scene.  Raises RuntimeError where it fails, or where the model and the real folder do not agree in the end."""
    top = Path(tempfile.mkdtemp(prefix="cut")).resolve()
    work, trace = top / "w", top / "trace"
    root = work / "disk"
    root.mkdir(parents=True)
    what = scene_of(scene)
    if what.small:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={what.small}", "none", str(root)], check=True)
    try:
        disk = Disk(root)
        command = [sys.executable, "-m", "tests.proofs.scenes", scene, str(work), str(seed)]
        status = record(command, trace, cwd=ROOT, inject=what.inject, seconds=RECORD_SECONDS)
        if status != 0:
            raise RuntimeError(f"the scene {scene} ended with status {status}:\n{(work / 'log').read_text()[-4000:]}")
        found = list(events(trace, root))
        sent = [Sent(**{**row, "holders": tuple(row["holders"])}) for row in json.loads((work / "sent.json").read_text())]
        whole = Disk(Path(top / "nothing"))
        whole.root = disk.root
        for event in found:
            whole.apply(event)
        if wrong := whole.differences():
            raise RuntimeError(f"the model differs from the folder: {wrong[:10]}")
        yield Recording(scene, seed, root, disk, found, acknowledgements(found, sent))
    finally:
        if what.small:
            subprocess.run(["umount", "--lazy", str(root)], check=False)
        if keep is not None:
            shutil.copytree(top, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))
        shutil.rmtree(top, ignore_errors=True)


def acknowledgements(found: Sequence[Event], sent: Sequence[Sent]) -> list[tuple[int, Sent]]:
    """Where each message was acknowledged: its 250 began to be sent, or its program ended."""
    by_id = {one.id: one for one in sent if one.id}
    by_process = {one.process: one for one in sent if one.process}
    positions: list[tuple[int, Sent]] = []
    for event in found:
        if not isinstance(event, Said):
            continue
        if event.text == b"exit 0" and event.process in by_process:
            positions.append((event.began, by_process.pop(event.process)))
        elif event.text.startswith(b"250"):
            for word in event.text.decode(errors="replace").split():
                if word in by_id:
                    positions.append((event.began, by_id.pop(word)))
    if by_id or by_process:
        raise RuntimeError(f"no acknowledgement was seen of {[*by_id.values(), *by_process.values()][:5]}")
    return positions


def moments(recording: Recording, count: int, chance: random.Random) -> list[int]:
    """Positions at which the power goes: half of them right after an acknowledgement or a sync, the others anywhere."""
    everywhere = [event.ended for event in recording.events]
    special = [position for position, _ in recording.acknowledged]
    special += [event.ended for event in recording.events if isinstance(event, Sync | SyncAll)]
    chosen = [chance.choice(special if special and chance.random() < 0.5 else everywhere) for _ in range(count)]
    return sorted(chosen)


def prove(scene: str, seed: int, cuts: int, *, side_by_side: int = 2, until: float = float("inf"), keep: Path | None = None) -> Result:
    """Play a scene, cut its record at `cuts` moments, start a server on each; no new one after the monotonic time `until`."""
    result = Result()
    if scene_of(scene).needs_root:
        require_root(f"the scene {scene}")
    with recorded(scene, seed) as recording, ThreadPoolExecutor(side_by_side) as pool:
        until = max(until, time.monotonic() + CUTTING_SECONDS)
        running: list[Future[Result]] = []
        folder = Path(tempfile.mkdtemp(prefix="cut")).resolve()
        try:
            for number, (work, due, name) in enumerate(found_after(recording, cuts, folder)):
                if number and time.monotonic() > until:
                    break
                running.append(pool.submit(after, work, due, name, keep, scene_of(scene), number))
                while sum(not one.done() for one in running) >= 2 * side_by_side and time.monotonic() < until:
                    time.sleep(0.05)
            while time.monotonic() < until and not all(one.done() for one in running):
                time.sleep(0.05)
            if time.monotonic() > until:  # those that have not begun; the first one always does
                running = [one for number, one in enumerate(running) if number == 0 or not one.cancel()]
            for one in running:
                result.add(one.result())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return result


def found_after(recording: Recording, cuts: int, folder: Path) -> Iterator[tuple[Path, list[Sent], str]]:
    """For each cut a folder with what it has left, what was acknowledged before it, and its name.

    The moments come in rounds, each from the beginning of the record to its end: whoever stops early has seen all parts of it.
    """
    scene, seed = recording.scene, recording.seed
    chance = random.Random(f"cuts {scene} {seed}")
    for first in range(0, cuts, CUTS_IN_A_ROUND):
        disk = copy.deepcopy(recording.start)
        waiting = iter(recording.events)
        event = next(waiting, None)
        for number, moment in enumerate(moments(recording, min(CUTS_IN_A_ROUND, cuts - first), chance), first):
            while event is not None and event.ended <= moment:
                disk.apply(event)
                event = next(waiting, None)
            style = Style.draw(chance)
            work = folder / str(number)
            work.mkdir()
            disk.write_down(work / "disk", style, random.Random(f"{scene} {seed} {number}"))
            due = [sent for position, sent in recording.acknowledged if position <= moment]
            yield work, due, f"{scene}, seed {seed}, cut {number} at {moment}, names {style.names}, content {style.content}"


def after(work: Path, due: Sequence[Sent], name: str, keep: Path | None, scene: Scene, number: int) -> Result:
    """Start a server on what the cut has left, wait until it has nothing to do, and count."""
    result = Result(1, len(due))
    before = work.parent / f"{work.name}-before"
    if keep is not None or isinstance(scene, Damaging):
        copy_folder(work, before)
    server = prepared(work, scene, number)
    if scene.clocks:
        clock = scene.clocks[number % len(scene.clocks)]
        name += f", clock {clock}"
        server.twistd = [*at_clock(clock), *server.twistd]
    try:
        found = None
        if isinstance(scene, Damaging):
            did, found, due = damaged(server, before, due, scene, number, result)
            name += f", {did}"
        if found is None:
            found = drained(server, due, scene, number)
    except FailTest as failure:
        result.wrong.append(f"{name}: {failure}")
        found = look(scene.boxes(work))
    finally:
        if server.process is not None:
            server.kill()
    lost = missing(due, found, owes_reports=scene.owes_reports(number))
    result.lost, result.torn = len(lost), len(found.torn)
    result.doubled = sum(times - 1 for times in found.letters.values()) + sum(times - 1 for times in found.reports.values())
    result.wrong += [f"{name}: lost {one}" for one in lost] + [f"{name}: torn {one}" for one in found.torn]
    if result.wrong and keep is not None:
        copy_folder(before, keep / f"before-{work.name}")
        copy_folder(work, keep / f"after-{work.name}")
    shutil.rmtree(before, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    return result


def at_clock(clock: str) -> list[str]:
    """What a command begins with to have this clock.  faketime would stay its parent, and a kill would not reach the server."""
    asked = [require_tool("faketime"), "-f", clock, "printenv", "LD_PRELOAD"]
    for _ in range(5):  # it fails where a killed one of the same process number has left its shared memory
        said = subprocess.run(asked, capture_output=True, text=True)
        if said.returncode == 0:
            break
    said.check_returncode()
    library = said.stdout.strip()
    return ["env", f"LD_PRELOAD={library}", f"FAKETIME={clock}"]


def damaged(
    server: Server, whole: Path, due: Sequence[Sent], scene: Scene, number: int, result: Result
) -> tuple[str, Found | None, Sequence[Sent]]:
    """Damage the queue besides and see what the server makes of it.  Raises FailTest.

    Returns what was done, what was found and what is still due.  Where the server would not go on, the queue is whole again and
    nothing is found yet.
    """
    data = Path("disk", "data")
    did = damage.spoil(server.work / data, number, random.Random(f"{number} {len(due)}"))
    if not did:
        return "nothing to damage", None, due
    verdict = damage.judged(server, scene, lambda found: missing(due, found), DRAIN_SECONDS)
    did += f", {verdict.how}"
    result.wrong += [f"{did}: {line}" for line in verdict.wrong]
    result.told += verdict.how != damage.WHOLE
    result.altered += len(verdict.found.torn)
    if verdict.how in (damage.WHOLE, damage.SHOWN):
        verdict.found.torn.clear()
        told = {damage.number_in(line) for line in missing(due, verdict.found)}
        return did, verdict.found, [one for one in due if one.number not in told]
    if server.process is not None:
        server.kill()
    damage.put_back(whole / data, server.work / data)
    (server.work / "pid").unlink(missing_ok=True)
    server.log_path.rename(server.work / "log-of-the-damage")
    return did, None, due


def drained(server: Server, due: Sequence[Sent], scene: Scene, number: int) -> Found:
    """Start the server and wait until nothing is left to do; what stands in the Maildirs then.  Raises FailTest."""
    server.start()
    wait_until(
        lambda: is_idle(server.work / "disk", scene),
        lambda: f"not idle: {left_over(server.work / 'disk', scene)[:5]}\n{server.log()[-LOG_SHOWN:]}",
        DRAIN_SECONDS,
    )

    def look_again() -> Found:
        return look(scene.boxes(server.work))

    with contextlib.suppress(FailTest):  # a report is made a moment after its message has left the queue
        wait_until(lambda: not missing(due, look_again(), owes_reports=scene.owes_reports(number)), lambda: "", 1.0)
    return look_again()


def copy_folder(source: Path, target: Path) -> None:
    """With holes as holes; sockets and what else is no file stay behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-rT", "--sparse=always", str(source), str(target)], stderr=subprocess.DEVNULL, check=False)


def is_idle(disk: Path, scene: Scene) -> bool:
    """Nothing is in the queue, the spool and the pickup folder."""
    return not left_over(disk, scene)


def left_over(disk: Path, scene: Scene) -> list[str]:
    """What waits there; a file that a program has not finished, and what is no file, waits for nobody."""
    data, pickup = disk / "data", disk / scene.pickup
    # Where the queue was put back, entries may be there again whose files went when they had been delivered.
    files = [*pickup.glob("[!.]*.mail"), *(pickup / "taken").glob("*"), *(data / "spool").glob("*")]
    return [str(path.relative_to(disk)) for path in files if path.is_file()] + [
        f"{entry.id} {entry.state} {entry.note}".rstrip() for entry in list_entries(str(data)) if not (isinstance(scene, Damaging) and entry.state == "damaged")
    ]


def missing(due: Sequence[Sent], found: Found, *, owes_reports: bool = False) -> list[str]:
    """What has not come.  `owes_reports`: of those who heard 4yz to the end the sender has to have a report."""
    lost = []
    for one in due:
        holders = (*one.holders, *([one.waits] if one.waits and not owes_reports else []))
        lost += [f"{one.number} for {user}" for user in holders if not found.letters[one.number, user]]
    owed = [one for one in due if one.report or (one.waits and owes_reports)]
    return lost + [f"the report of {one.number}" for one in owed if not found.reports[one.number]]
