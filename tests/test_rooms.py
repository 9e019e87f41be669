"""The rooms of the house: what each is for, who stands loose, which names stand for two things, what has moved."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import runpy
import subprocess
import sys
import warnings
from collections import defaultdict
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mailserver
from mailserver.former import MEMBERS, MODULES
from tests.rfc_index import ROOT

TOP = ROOT / "mailserver"
BESIDE = {"interfaces", "api", "service"}  # these have to stand at the top
LOOSE_MOST = 3
ACROSS = ("scenarios", "hostile", "proofs", "fuzzing", "upgrades")  # tests of no single room
TWICE = {
    "Failed": "an attempt at a recipient, and a login: each in the words of its RFC, and neither meets the other",
    "Refused": "a route that leads nowhere, and a client's event: the client core is a library of its own",
    "Options": "twistd asks the service for a class of this name",
}


def modules() -> dict[str, Path]:
    """Every module by its dotted name, packages among them."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(TOP.rglob("*.py"))
    }


def members(package: Path) -> set[str]:
    """The modules and packages that stand in a package's folder."""
    own = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    return own | {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}


class Rooms(SynchronousTestCase):
    def test_every_module_says_what_it_is_for(self) -> None:
        silent = [name for name, path in modules().items() if len(ast.get_docstring(ast.parse(path.read_text())) or "") < 10]
        self.assertEqual(silent, [])

    def test_a_package_names_each_of_its_modules_and_no_other(self) -> None:
        wrong = {}
        for path in sorted(TOP.rglob("__init__.py")):
            named = re.findall(r"^\* `([\w/]+)`: \S", ast.get_docstring(ast.parse(path.read_text())) or "", re.M)
            if sorted(named) != sorted(members(path.parent)):
                wrong[str(path.parent.relative_to(ROOT))] = set(named) ^ members(path.parent)
        self.assertEqual(wrong, {})

    def test_few_modules_stand_loose_at_the_top(self) -> None:
        loose = {path.stem for path in TOP.glob("*.py")} - BESIDE - {"__init__"}
        self.assertLessEqual(len(loose), LOOSE_MOST, str(sorted(loose)))

    def test_no_class_name_stands_for_two_things(self) -> None:
        found: dict[str, list[str]] = defaultdict(list)
        for name, path in modules().items():
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(name)
        twice = {name: places for name, places in found.items() if len(places) > 1 and name not in TWICE}
        self.assertEqual(twice, {})
        self.assertEqual([name for name in TWICE if len(found[name]) < 2], [], "an exception that is none any more")

    def test_the_tests_of_a_room_stand_in_a_folder_of_its_name(self) -> None:
        folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
        strange = [folder for folder in folders if not (TOP / folder).is_dir() and folder.parts[0] not in ACROSS]
        self.assertEqual(strange, [])

    def test_no_module_knows_itself_over_others(self) -> None:
        self.assertEqual(circles(), [])

    def test_the_tour_draws_the_contract(self) -> None:
        contract = configparser.ConfigParser()
        contract.read(ROOT / ".importlinter")
        layers = contract["importlinter:contract:rooms"]["layers"].strip().splitlines()
        drawing = (ROOT / "docs" / "tour.md").read_text().split("## Who imports whom\n\n```\n")[1].split("\n```")[0]
        self.assertEqual(
            [sorted(re.findall(r"\w+", line.partition("(neighbours")[0])) for line in drawing.splitlines()],
            [sorted(re.findall(r"\w+", line)) for line in layers],
        )

    def test_the_picture_of_the_road_is_drawn_from_its_text(self) -> None:
        script = runpy.run_path(str(ROOT / "docs" / "draw_road.py"))
        drawn = script["drawn"](script["ROAD_TEXT"].read_text())
        self.assertEqual(script["ROAD_PICTURE"].read_text(), drawn, "run `python docs/draw_road.py`")


class Documents(SynchronousTestCase):
    def test_every_link_leads_to_a_file_and_a_heading(self) -> None:
        dead = []
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
            for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
                path, _, anchor = target.partition("#")
                there = page.parent / path if path else page
                if re.match(r"\w+:", target) is None and not (there.exists() and (not anchor or anchor in anchors(there))):
                    dead.append(f"{page.relative_to(ROOT)}: {target}")
        self.assertEqual(dead, [])

    def test_a_word_is_defined_where_the_page_of_words_says(self) -> None:
        for row in (ROOT / "docs" / "words.md").read_text().splitlines():
            if row.startswith("| ") and "](" in row:
                words, places, _ = row.strip("| ").split(" | ")
                text = "".join((TOP.parent / "docs" / path).read_text() for path in re.findall(r"\]\(([^)]+)\)", places))
                for name in re.findall(r"`([A-Z]\w+)`", words + places):
                    self.assertRegex(text, rf"(?m)^(class {name}\b|{name} = )", f"{name}: {row}")

    def test_the_page_of_words_names_no_word_twice(self) -> None:
        rows = [row for row in (ROOT / "docs" / "words.md").read_text().splitlines() if row.startswith("| ") and "](" in row]
        words = [word for row in rows for word in re.split(r", | \(", row.strip("| ").split(" | ")[0])]
        self.assertEqual(sorted(set(words)), sorted(words))


class FormerNames(SynchronousTestCase):
    def test_each_leads_to_the_present_module_and_warns_once(self) -> None:
        for old, new in MODULES.items():
            sys.modules.pop(old, None)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                module = importlib.import_module(old)
                importlib.import_module(old)
            told = [str(one.message) for one in caught if issubclass(one.category, DeprecationWarning)]
            self.assertIn(f"{old} is now {new}", told)
            self.assertEqual(told.count(f"{old} is now {new}"), 1)
            present = importlib.import_module(new)
            for name in getattr(present, "__all__", ()):
                self.assertIs(getattr(module, name), getattr(present, name), f"{old}.{name}")
            for name, now in MEMBERS.get(new, {}).items():
                self.assertIs(getattr(module, name), getattr(present, now), f"{old}.{name}")
            sys.modules.pop(old, None)

    def test_each_member_leads_to_the_present_one(self) -> None:
        for module, names in MEMBERS.items():
            present = importlib.import_module(module)
            for old, new in names.items():
                if not hasattr(present, "__getattr__"):
                    continue  # reached by the module's former name alone, which has it
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    self.assertIs(getattr(present, old), getattr(present, new), f"{module}.{old}")
                self.assertEqual([str(one.message) for one in caught], [f"{module}.{old} is now {new}"])

    def test_a_folder_that_an_update_has_left_is_not_taken_for_a_package(self) -> None:
        left = Path(self.mktemp())
        (left / "capturing" / "__pycache__").mkdir(parents=True)
        self.patch(mailserver, "__path__", [*mailserver.__path__, str(left)])
        sys.modules.pop("mailserver.capturing", None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module("mailserver.capturing")
        self.assertIs(module.CaptureServer, importlib.import_module("mailserver.sink").CaptureServer)
        sys.modules.pop("mailserver.capturing", None)

    def test_what_never_existed_is_not_found(self) -> None:
        self.assertRaises(ModuleNotFoundError, importlib.import_module, "mailserver.mail.nothing_of_the_kind")

    def test_a_process_is_started_by_its_former_name_too(self) -> None:
        """A server that runs while its program is replaced knows no other."""
        for name in ("mailserver.accounts.pam", "mailserver.delivery.process", "mailserver.root_reading"):
            ended = subprocess.run(
                [sys.executable, "-P", "-W", "ignore", "-m", name], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            self.assertIn("not enough values to unpack", ended.stderr, name)  # it has begun, and misses its arguments

    def test_nothing_of_ours_uses_one(self) -> None:
        names = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, MODULES))})(?!\w)")
        guilty = []
        for folder in ("mailserver", "tests", "bench", "twisted", "docs"):
            for path in sorted((ROOT / folder).rglob("*.py")):
                if path.name not in ("former.py", "test_rooms.py", "test_versions.py") and names.search(path.read_text()):
                    guilty.append(str(path.relative_to(ROOT)))
        self.assertEqual(guilty, [])


def prose(page: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.S)


def anchors(page: Path) -> set[str]:
    """The headings of a document as a link names them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def circles() -> list[list[str]]:
    """Modules that import each other, however far round; imports for types and those inside functions count."""
    found, edges = modules(), defaultdict(set)
    for name, path in found.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in found:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    edges[name].add(whole if whole in found else node.module)
            elif isinstance(node, ast.Import):
                edges[name].update(alias.name for alias in node.names if alias.name in found)
    number: dict[str, int] = {}
    least: dict[str, int] = {}
    stack: list[str] = []
    rings: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = least[name] = len(number)
        stack.append(name)
        for other in sorted(edges[name]):
            if other not in number:
                visit(other)
                least[name] = min(least[name], least[other])
            elif other in stack:
                least[name] = min(least[name], number[other])
        if least[name] == number[name]:
            ring = [stack.pop()]
            while ring[-1] != name:
                ring.append(stack.pop())
            if len(ring) > 1:
                rings.append(sorted(ring))

    for name in found:
        if name not in number:
            visit(name)
    return rings
