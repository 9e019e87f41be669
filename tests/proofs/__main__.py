"""``make proof P=NAME``: a long proof, for a bounded time, going on where the last run of the same commit ended.

    python -m tests.proofs NAME [--seconds N] [--state FOLDER] [--seed N --scene NAME --cuts N]

What was found so far stands in FOLDER/NAME.json; the last line that is printed is a row for docs/reliability.md.  The exit status is 0
where nothing was found.  ``slice`` runs a short piece of one of them, another with each commit: CI's part.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzzing.targets import TARGETS
from tests.proofs import growth, powercut, sample
from tests.proofs.scenes import SCENES
from tests.scenarios.support import ROOT

CUTS = 12  # of one record
KILLING = (
    "tests.queue.test_kill", "tests.scenarios.test_durability", "tests.scenarios.test_relaying.Relaying."
    "test_kills_under_load_lose_nothing_and_double_only_what_was_on_its_way",
    "tests.relay.test_relay.ManyDestinations",
    "tests.scenarios.test_reports.Reports.test_a_kill_loses_no_report", "tests.queue.test_disk",
    "tests.scenarios.test_backup", "tests.scenarios.test_rename",
)  # fmt: skip
STRICT = ["-bb", "-X", "faulthandler", "-W", "error"]


class State:
    """What the runs of this commit have found."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.commit = git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
        self.rounds = 0
        self.sums: dict[str, int] = {}
        self.wrong: list[str] = []
        if path.exists() and (kept := json.loads(path.read_text()))["commit"] == self.commit:
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

    def row(self, name: str) -> str:
        figures = ", ".join(f"{value:,} {key}" for key, value in self.sums.items())
        return f"| {time.strftime('%Y-%m-%d', time.gmtime())} | {self.commit} | {name} | {figures} | {len(self.wrong)} |"


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def power_cuts(state: State, options: argparse.Namespace, until: float) -> None:
    """A scene after the other, each with a seed that has not been used."""
    names = [options.scene] if options.scene else [name for name in SCENES if os.geteuid() == 0 or not SCENES[name].needs_root]
    while time.monotonic() < until:
        scene = names[state.rounds % len(names)]
        seed = options.seed if options.seed is not None else state.rounds // len(names) + 1
        kept = Path(options.state) / "powercut" / f"{scene}-{seed}"
        result = powercut.prove(scene, seed, options.cuts, until=until, keep=kept)
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
    """The tests that kill, with more rounds than in the suite."""
    while time.monotonic() < until:
        environment = {**os.environ, "PROOF_ROUNDS": "5", "TEST_QUIET_SECONDS": "900"}
        command = [sys.executable, *STRICT, "-m", "tests.side_by_side", "--jobs", "2", *KILLING]
        ran = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        print(ran.stdout, flush=True)
        state.add({"runs with five times the rounds": 1}, [ran.stdout[-3000:]] if ran.returncode else [])


def growing(state: State, options: argparse.Namespace, until: float) -> None:
    """One soak, as long as there is time."""
    found = growth.soak(max(30.0, until - time.monotonic()))
    print(found.report(), flush=True)
    state.add({"seconds": round(found.seconds), "connections": found.connections}, found.faults())


def fuzz(state: State, options: argparse.Namespace, until: float) -> None:
    """Each target in a process of its own, all for an equal part of the time, or the one that ``--scene`` names."""
    names = [options.scene] if options.scene else list(TARGETS)
    seconds = max(1, round((until - time.monotonic()) / len(names)))  # besides some that the start of each takes
    for name in names:
        command = [sys.executable, "-m", "tests.fuzzing.run", name, str(seconds), str(Path(options.state) / "fuzz" / name)]
        ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        found = re.search(r"number_of_executed_units: *(\d+)", ran.stderr)
        tries = int(found[1]) if found else 0
        print(f"{name}: {tries} in {seconds} s", flush=True)
        state.add({"runs": 1, "inputs": tries}, [f"{name}: {ran.stderr[-3000:]}"] if ran.returncode else [])


def mutate(state: State, options: argparse.Namespace, until: float) -> None:
    """A sample of a package's mutants, or all of one module; survivors are told."""
    state.sums.clear()  # what has been tried is kept with the mutants, over commits
    figures = sample.prove(options.module, options.seed or 1, until, Path(options.state), lambda line: print(line, flush=True))
    state.add(figures, [])


PROOFS: dict[str, Callable[[State, argparse.Namespace, float], None]] = {
    "powercut": power_cuts,
    "kills": kills,
    "growth": growing,
    "fuzz": fuzz,
    "mutants": mutate,
}


def one_slice(options: argparse.Namespace) -> str:
    """Which piece is this commit's turn; the name of the proof, with its options set."""
    turns = [("powercut", scene) for scene in SCENES] + [("growth", "")]
    if git("rev-parse", "--is-shallow-repository") == "false":
        number = int(git("rev-list", "--count", "HEAD"))
    else:  # nobody can count them
        number = int(git("rev-parse", "HEAD")[:8] or "0", 16)
    name, options.scene = turns[number % len(turns)]
    options.seed, options.cuts = number, 100  # as many as there is time for
    print(f"this commit's turn: {name} {options.scene}", flush=True)
    return name


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.proofs")
    parser.add_argument("name", choices=[*PROOFS, "slice"])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--state", default=str(ROOT / "proofs"))
    parser.add_argument("--scene", default="", choices=["", *SCENES, *TARGETS], help="a scene of the power cuts, a target of the fuzzing")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--cuts", type=int, default=CUTS)
    parser.add_argument("--module", default="queue/ledger", help="whose mutants: below mailserver/, without .py, or a package")
    options = parser.parse_args(arguments)
    name = one_slice(options) if options.name == "slice" else options.name
    title = f"{name} {options.module}" if name == "mutants" else name
    state = State(Path(options.state) / f"{options.name if name != 'mutants' else title.replace('/', '.')}.json")
    PROOFS[name](state, options, time.monotonic() + options.seconds)
    print(state.row(title))
    return 1 if state.wrong else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
