"""A sample of the mutants of a package, or all of one module, each with the tests that execute its line."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.proofs.brood import ROOT, Brood
from tests.proofs.mutants import IN_SERVERS, TESTS, changes, path_of
from tests.side_by_side import durations, modules

__all__ = ["Reach", "Sampled", "every", "explanation", "is_package", "prove", "sample", "touched"]

EXPLAINED = Path(__file__).with_name("explained.tsv")  # why it is right that no test sees them, and their keys

SIZE = 60
WHOLE = {
    "queue/outcome_writer", "pickup/pickup", "receive/protocol", "receive/connection", "smtp/server/data", "processes/privileged", "sasl/cram_md5",
    "sasl/scram",
}  # fmt: skip  are measured one by one
OWN_SECONDS, RELATED_SECONDS = 30.0, 3.0  # longer test modules are left out
TESTS_SECONDS, AGAIN = 10.0, 6  # for one mutant; and so many times more for one that has survived that
SLOWER = 3  # for what whole servers run
IN_PROCESSES = ("processes/", "delivery/", "authentication/pam", "accounts/system_logins")  # what these execute in processes of their own, no record has
TESTED_IN = {"sink": "testing"}  # where the tests of a package are not in the folder of its name
WHOLE_SERVERS = {  # tests that run such parts in their own process
    "assembly": ("tests.control.test_asked", "tests.processes.test_root"),
    "control": ("tests.assembly.test_whole",),
}
LEFT_OUT = ("tests.proofs", "tests.upgrades", "tests.fuzzing", "tests.test_house", "tests.test_side_by_side", "tests.scenarios")


@dataclass(frozen=True, slots=True)
class Sampled:
    """One mutant; ``key`` stays when other lines change."""

    key: str
    module: str
    number: int
    line: int
    words: str


def is_package(name: str) -> bool:
    return name == "." or (ROOT / "mailserver" / name).is_dir()


def modules_of(package: str) -> list[str]:
    folder = ROOT / "mailserver"
    paths = folder.glob("*.py") if package == "." else (folder / package).rglob("*.py")
    return sorted({str(path.relative_to(folder))[:-3] for path in paths} - WHOLE)


def every(module: str) -> list[Sampled]:
    """All mutants of a module, but for what only a type checker sees."""
    text = path_of(module).read_text()
    lines, seen = text.splitlines(), Counter[str]()
    found = []
    for number, (line, words, _) in enumerate(changes(ast.parse(text))):
        if "TYPE_CHECKING" not in lines[line - 1]:
            key = f"{module}: {lines[line - 1].strip()}: {words}"
            seen[key] += 1
            found.append(Sampled(f"{key} ({seen[key]})", module, number, line, words))
    return found


def sample(package: str, seed: int = 1, size: int = SIZE) -> list[Sampled]:
    """Those whose digest is lowest: the same ones as long as their own lines stay."""
    found = [one for module in modules_of(package) for one in every(module)]
    return sorted(found, key=lambda one: hashlib.sha256(f"{seed}{one.key}".encode()).digest())[:size]


def touched(text: str, line: int) -> tuple[range, bool]:
    """The lines of the statement around a line, of a compound one its head; and whether the import executes it."""
    lines, at_import = range(line, line + 1), True
    block: list[ast.stmt] = ast.parse(text).body
    while around := [one for one in block if first_line(one) <= line <= (one.end_lineno or line)]:
        one = around[0]
        below = [child for child in ast.walk(one) if isinstance(child, ast.stmt) and child is not one]
        head = min((first_line(child) for child in below), default=(one.end_lineno or line) + 1)
        if line < head:
            return range(first_line(one), head), at_import
        at_import = at_import and not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        block = [child for child in below if first_line(child) <= line]
        lines = range(line, line + 1)
    return lines, at_import


def first_line(statement: ast.stmt) -> int:
    """Decorators belong to it."""
    return min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", ()))])


def explanation(one: Sampled) -> str | None:
    """Why it is right that no test sees it: what is so by its kind, or is written down."""
    text = path_of(one.module).read_text().splitlines()[one.line - 1].strip()
    if re.match(r"without (self\.)?_?log\.", one.words):
        return "a line of the log"
    if text.startswith("@dataclass("):
        return "frozen and slots are for the reader and the type checker"
    if re.match(r"\d+ → \d+$", one.words) and re.match(r"_?[A-Z][A-Z0-9_]*\b.* = ", text):
        return "how large a bound or how long a time is: one more or one less is as good"
    return explained().get(one.key)


def explained() -> dict[str, str]:
    lines = EXPLAINED.read_text().splitlines() if EXPLAINED.exists() else []
    return {key: why for why, key in (line.split("\t", 1) for line in lines)}


class Reach:
    """Which test executes which line of a package, or of a module; kept in a folder, a file for each test module."""

    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder
        self._names = test_modules(name) if is_package(name) else list(TESTS.get(name) or test_modules(name.rpartition("/")[0] or "."))
        self._sources = {f"{module}.py": digest(path_of(module)) for module in (modules_of(name) if is_package(name) else [name])}
        self._tests: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        return self._names

    def record(self, brood: Brood) -> None:
        """What has not been recorded, or has changed."""
        for name in self._names:
            path = self._folder / f"{name}.json"
            own = digest(ROOT / f"{name.replace('.', '/')}.py")
            kept = json.loads(path.read_text()) if path.exists() else None
            if kept is None or kept["own"] != own or any(kept["sources"].get(file, now) != now for file, now in self._sources.items()):
                tests = brood.record(name)
                files = {file for test in tests.values() for file in test["lines"]}
                kept = {"own": own, "tests": tests, "sources": {file: digest(ROOT / "mailserver" / file) for file in files}}
                self._folder.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(kept))
                print(f"recorded {name}: {len(tests)} tests", flush=True)
            self._tests |= kept["tests"]

    def tests_of(self, module: str, line: int, seen: Counter[str], seconds: float) -> list[tuple[str, float]]:
        """Those that have `seen` most come first, then those of the module's own test module, then the fastest.

        What the import executes may be seen by all that execute anything of the module, and by the package's own.
        """
        lines, at_import = touched(path_of(module).read_text(), line)
        file, wanted = f"{module}.py", set(lines)
        near, far = [], []
        for name, test in self._tests.items():
            reached = test["lines"].get(file, ())
            if (reached and at_import) or not wanted.isdisjoint(reached):
                near.append((name, test["seconds"]))
            elif at_import and name.startswith(f"tests.{module.partition('/')[0]}."):
                far.append((name, test["seconds"]))
        named = f".test_{module.rpartition('/')[2]}."

        def order(test: tuple[str, float]) -> tuple[int, bool, float]:
            return -seen[test[0]], named not in test[0], test[1]

        return list(within(seconds, sorted(near, key=order) + sorted(far, key=order)))


def within(seconds: float, tests: list[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """Those at the beginning that take no longer together."""
    for name, taken in tests:
        seconds -= taken
        if seconds > 0:
            yield name, taken


def test_modules(package: str) -> list[str]:
    """The package's own, and the quick ones of others that name it."""
    known = durations()
    if package == ".":
        loose = "|".join(module for module in modules_of(".") if module != "__init__")
        named = re.compile(rf"mailserver\.({loose})\b|from mailserver import ({loose})\b")
    else:
        named = re.compile(rf"mailserver\.{package}\b|from mailserver import {package}\b")
    found = []
    for name in modules(["tests"]):
        own = name.startswith("tests.test_") if package == "." else name.startswith(f"tests.{TESTED_IN.get(package, package)}.")
        if name.startswith(LEFT_OUT) or known.get(name, 0.0) > (OWN_SECONDS if own else RELATED_SECONDS):
            continue
        if own or named.search((ROOT / f"{name.replace('.', '/')}.py").read_text()):
            found.append(name)
    return [*found, *(name for name in WHOLE_SERVERS.get(package, ()) if name not in found)]


def in_servers(module: str) -> tuple[str, ...]:
    """Scenarios whose servers execute the module: its own, else its package's."""
    return IN_SERVERS.get(module) or IN_SERVERS.get(f"{module.partition('/')[0]}/", ())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def prove(name: str, seed: int, until: float, folder: Path, say: Callable[[str], None]) -> dict[str, int]:
    """The figures of a package's sample or of a module.  What was killed stays so; survivors that nobody has explained are tried again by the next run, with more tests."""
    kept_at = folder / (f"sample.{name}.json" if is_package(name) else f"module.{name.replace('/', '.')}.{digest(path_of(name))[:8]}.json")
    kept: dict[str, str | None] = json.loads(kept_at.read_text()) if kept_at.exists() else {}
    reach = Reach(name, folder / "reach")
    brood = Brood(reach.names)
    chosen = sample(name, seed) if is_package(name) else every(name)
    seen = Counter(filter(None, (kept.get(one.key) for one in chosen)))
    untried = sorted(chosen, key=lambda one: one.key in kept)
    try:
        reach.record(brood)
        for one in untried:
            if one.key in kept and (kept[one.key] is not None or explanation(one) is not None):
                continue
            if time.monotonic() < until:
                times = AGAIN if one.key in kept else SLOWER if one.module.partition("/")[0] in WHOLE_SERVERS else 1
                tests = reach.tests_of(one.module, one.line, seen, TESTS_SECONDS * times)
                if one.module.startswith(IN_PROCESSES) or not tests:
                    tests += [(name, TESTS_SECONDS) for name in TESTS.get(one.module, ())]
                if one.module.startswith(tuple(IN_SERVERS)) and (one.key in kept or not tests):  # half a minute each
                    tests += [(name, TESTS_SECONDS) for name in in_servers(one.module)]
                killer = kept[one.key] = brood.killer(one.module, one.number, tests) if tests else None
                kept_at.write_text(json.dumps(kept, indent=1))
                if killer is not None:
                    seen[killer] += 1
                elif explanation(one) is None:
                    text = path_of(one.module).read_text().splitlines()[one.line - 1].strip()
                    say(f"survives {len(tests)} tests: {one.module}.py:{one.line}: {one.words}: {text}\n\t{one.key}")
    finally:
        brood.close()
    tried = [one for one in chosen if one.key in kept]
    left = [explanation(one) for one in tried if kept[one.key] is None]
    for why, times in Counter(filter(None, left)).most_common():
        say(f"explained, {times}: {why}")
    return {
        "mutants": len(tried), "killed": len(tried) - len(left), "explained": len(left) - left.count(None), "left": left.count(None),
    }  # fmt: skip
