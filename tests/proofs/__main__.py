"""``make proof P=NAME``: a long proof, for a bounded time, going on where the last run of the same commit ended.

    python -m tests.proofs NAME [--seconds N] [--state FOLDER] [--seed N --scene NAME --cuts N]

What was found so far stands in FOLDER/NAME.json; the last line that is printed is a row for docs/reliability.md.  The exit status is 0
where nothing was found.  ``slice`` runs a short piece of one of them, another with each commit: CI's part.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzzing.targets import TARGETS
from tests.proofs import growth, moving, packages, powercut, sample
from tests.proofs.scenes import SCENES
from tests.scenarios.support import ROOT

CUTS = 12  # of one record
KILLING = (
    "tests.queue.test_kill", "tests.scenarios.test_durability", "tests.scenarios.test_relaying.Relaying."
    "test_kills_under_load_lose_nothing_and_double_only_what_was_on_its_way",
    "tests.relay.test_relay.ManyDestinations",
    "tests.scenarios.test_reports.Reports.test_a_kill_loses_no_report", "tests.queue.test_disk",
    "tests.scenarios.test_backup", "tests.scenarios.test_rename", "tests.scenarios.test_acme", "tests.acme.test_faults",
)  # fmt: skip
SLICE_SECONDS = 70.0  # in which a piece begins something new …
SLICE_SECONDS_MOST = 110.0  # … and a process of it is given up
SLICE_TARGETS = 4  # of the fuzzing, in one piece
SLICE_MUTANTS = ("sasl/cram_md5", "sasl/scram", "smtp/server/data")  # whose tests take seconds
BRIEF_CHARACTERS = 400
STRICT = ["-bb", "-X", "faulthandler", "-W", "error"]


class State:
    """What the runs of this commit have found."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self._path = path
        self.commit = git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
        self.rounds = 0
        self.sums: dict[str, int] = {}
        self.wrong: list[str] = []
        if not fresh and path.exists() and (kept := json.loads(path.read_text()))["commit"] == self.commit:
            self.rounds, self.sums, self.wrong = kept["rounds"], kept["sums"], kept["wrong"]

    def add(self, figures: dict[str, int], wrong: list[str]) -> None:
        """One round more, kept at once."""
        self.rounds += 1
        for key, value in figures.items():
            self.sums[key] = self.sums.get(key, 0) + value
        self.wrong += wrong
        for line in wrong:
            print(f"WRONG: {line}", flush=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"commit": self.commit, "rounds": self.rounds, "sums": self.sums, "wrong": self.wrong}
        self._path.write_text(json.dumps(kept, indent=1))

    def brief(self) -> list[str]:
        """A line for each finding: its first, which says where it was and what is wrong; a whole log may follow it."""
        return [line.strip().partition("\n")[0][:BRIEF_CHARACTERS] for line in self.wrong]

    def row(self, name: str) -> str:
        figures = ", ".join(f"{value:,} {key}" for key, value in self.sums.items())
        return f"| {time.strftime('%Y-%m-%d', time.gmtime())} | {self.commit} | {name} | {figures} | {len(self.wrong)} |"


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def power_cuts(state: State, options: argparse.Namespace, until: float) -> None:
    """A scene after the other, each with a seed that has not been used."""
    names = [options.scene] if options.scene else [name for name in SCENES if may_mount() or not SCENES[name].needs_root]
    while time.monotonic() < until:
        scene = names[state.rounds % len(names)]
        seed = options.seed if options.seed is not None else state.rounds // len(names) + 1
        kept = Path(options.state) / "powercut" / f"{scene}-{seed}"
        try:
            result = powercut.prove(scene, seed, options.cuts, until=until, keep=kept)
        except subprocess.TimeoutExpired:
            print(f"{scene}: given up, it came to no end", flush=True)
            state.add({"records given up": 1}, [] if options.name == "slice" else [f"{scene}, seed {seed}: its record came to no end"])
            return
        print(f"{scene}, seed {seed}: {result}", flush=True)
        figures = {
            "records": 1, "cuts": result.cuts, "acknowledged messages": result.acknowledged, "lost": result.lost,
            "torn": result.torn, "doubled": result.doubled,
        }  # fmt: skip
        if result.told or result.altered:
            figures |= {"damages told": result.told, "contents altered": result.altered}
        state.add(figures, result.wrong)
        if options.seed is not None:
            return


def kills(state: State, options: argparse.Namespace, until: float) -> None:
    """The tests that kill, with more rounds than in the suite; in a piece, those of one module."""
    tests, rounds = (KILLING, 5) if options.test is None else ((options.test,), 2)
    while time.monotonic() < until:
        environment = {**os.environ, "PROOF_ROUNDS": str(rounds), "TEST_QUIET_SECONDS": "900"}
        status, said = bounded([sys.executable, *STRICT, "-m", "tests.side_by_side", "--jobs", "2", *tests], options, environment)
        print(said, flush=True)
        failed = sorted(set(re.findall(r"^failed: (.+)$", said, re.MULTILINE)))
        wrong = [f"failed: {', '.join(failed)}\n{said[-3000:]}"] if status else []
        state.add({f"runs with {rounds} times the rounds": int(status is not None)}, wrong)
        if options.test is not None:
            return


def bounded(command: list[str], options: argparse.Namespace, environment: dict[str, str] | None = None) -> tuple[int | None, str]:
    """Run a command to its end; in a piece, as long as there is time.  Its status, None where it was given up, and its words."""
    with tempfile.TemporaryFile() as words:
        ran = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status: int | None = ran.wait(SLICE_SECONDS_MOST if options.name == "slice" else None)
        except subprocess.TimeoutExpired:
            print("given up: this machine is too slow for it today", flush=True)
            status = None
        finally:
            if ran.poll() is None:
                os.killpg(ran.pid, signal.SIGKILL)
                ran.wait()
        words.seek(0)
        return status, words.read().decode(errors="replace")


def growing(state: State, options: argparse.Namespace, until: float) -> None:
    """One soak, as long as there is time."""
    found = growth.soak(max(30.0, until - time.monotonic()))
    print(found.report(), flush=True)
    state.add({"seconds": round(found.seconds), "connections": found.connections}, found.faults())


def fuzz(state: State, options: argparse.Namespace, until: float) -> None:
    """Each target in a process of its own, all for an equal part of the time, or the one that ``--scene`` names."""
    names = [options.scene] if options.scene else list(TARGETS)
    if options.name == "slice":
        names = random.Random(options.seed).sample(names, SLICE_TARGETS)
    seconds = max(1, round((until - time.monotonic()) / len(names)))  # besides some that the start of each takes
    for name in names:
        command = [sys.executable, "-m", "tests.fuzzing.run", name, str(seconds), str(Path(options.state) / "fuzz" / name)]
        status, said = bounded(command, options)
        found = re.search(r"number_of_executed_units: *(\d+)", said)
        tries = int(found[1]) if found else 0
        print(f"{name}: {tries} in {seconds} s", flush=True)
        state.add({"runs": 1, "inputs": tries}, [f"{name}: status {status}\n{said[-3000:]}"] if status else [])


def mutate(state: State, options: argparse.Namespace, until: float) -> None:
    """A sample of a package's mutants, or all of one module; survivors are told."""
    state.sums.clear()  # what has been tried is kept with the mutants, over commits
    figures = sample.prove(options.module, options.seed or 1, until, Path(options.state), lambda line: print(line, flush=True))
    state.add(figures, [])


def packaged(state: State, options: argparse.Namespace, until: float) -> None:
    """Each scene of the packages once: they take what they take."""
    for scene in [options.scene] if options.scene else packages.SCENES:
        right, wrong = packages.prove(scene)
        print(f"{scene}: {right}", flush=True)
        state.add({scene: right}, [wrong] if wrong else [])


def moved(state: State, options: argparse.Namespace, until: float) -> None:
    """Each scene of moving house once."""
    for scene in [options.scene] if options.scene else moving.SCENES:
        figures, wrong = moving.SCENES[scene]()
        print(f"{scene}: {figures}", flush=True)
        state.add(figures, wrong)


PROOFS: dict[str, Callable[[State, argparse.Namespace, float], None]] = {
    "powercut": power_cuts,
    "kills": kills,
    "growth": growing,
    "fuzz": fuzz,
    "mutants": mutate,
    "packages": packaged,
    "moving": moved,
}


def one_slice(options: argparse.Namespace, number: int) -> str:
    """Which piece has the turn `number`; the name of the proof, with its options set."""
    scenes = [name for name, scene in SCENES.items() if may_mount() or not scene.needs_root]
    turns = [("powercut", name) for name in scenes] + [("kills", name) for name in KILLING] + [("growth", ""), ("fuzz", "")]
    turns += [("mutants", name) for name in SLICE_MUTANTS]
    name, what = turns[number % len(turns)]
    options.seed, options.seconds = number, min(options.seconds, SLICE_SECONDS)
    if name == "powercut":
        options.scene, options.cuts = what, 100  # as many as there is time for
    elif name == "kills":
        options.test = what
    elif name == "mutants":
        options.module = what
    print(f"this commit's turn: {name} {what}", flush=True)
    return name


def commit_number() -> int:
    """Another one with each commit."""
    if git("rev-parse", "--is-shallow-repository") == "false":
        return int(git("rev-list", "--count", "HEAD"))
    return int(git("rev-parse", "HEAD")[:8] or "0", 16)  # nobody can count them


def may_mount() -> bool:
    """What the scenes need that take root; root in a container may not."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.proofs")
    parser.add_argument("name", choices=[*PROOFS, "slice"])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--state", default=str(ROOT / "proofs"))
    parser.add_argument("--scene", default="", choices=["", *SCENES, *TARGETS, *packages.SCENES, *moving.SCENES], help="a scene of the power cuts, a target of the fuzzing")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--cuts", type=int, default=CUTS)
    parser.add_argument("--module", default="queue/outcome_writer", help="whose mutants: below mailserver/, without .py, or a package")
    options = parser.parse_args(arguments)
    options.test = None
    is_slice = options.name == "slice"
    name = one_slice(options, options.seed if options.seed is not None else commit_number()) if is_slice else options.name
    title = f"{name} {options.module}" if name == "mutants" else name
    kept = options.name if is_slice or name != "mutants" else title.replace("/", ".")
    state = State(Path(options.state) / f"{kept}.json", fresh=is_slice)
    PROOFS[name](state, options, time.monotonic() + options.seconds)
    for line in state.brief():  # whoever sees the end alone sees all of them
        print(f"FOUND: {line}")
    print(state.row(title))
    return 1 if state.wrong else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
