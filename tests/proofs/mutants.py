"""Mutants of one module: does any test see that it is wrong?

    python -m tests.proofs.mutants MODULE NUMBER TEST…      trial's exit status with that mutant in the module's place

A mutant differs in one place of the syntax tree: a comparison, an operator, a constant, a condition, a statement that is gone.  It lives in
the memory of the process that runs the tests; no file changes, and processes that a test starts have the module as it is.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.scenarios.support import ROOT

__all__ = ["mutants", "survives", "tests_of"]

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv,
}  # fmt: skip
TESTS = {
    "queue/ledger": ("tests.queue.test_outcomes", "tests.queue.test_reading_back", "tests.queue.test_reports", "tests.queue.test_verbs"),
    "receive/drop": ("tests.receive.test_drop", "tests.receive.test_drop_waiting", "tests.receive.test_drop_hostile"),
    "sasl/cram_md5": ("tests.sasl.test_exchanges", "tests.sasl.test_client"),
    "sasl/scram": ("tests.sasl.test_exchanges", "tests.sasl.test_scram_keys", "tests.sasl.test_scram_peers"),
    "smtp/data": ("tests.smtp.test_content", "tests.smtp.test_bdat", "tests.smtp.test_smuggling", "tests.smtp.test_splits"),
}  # the quick ones that mean the module; for others, all of its package
SECONDS_MOST = 120.0

Change = Callable[[], None]


def tests_of(module: str) -> tuple[str, ...]:
    return TESTS.get(module, ("tests." + module.rpartition("/")[0].replace("/", "."),))


def changes(tree: ast.Module) -> Iterator[tuple[int, str, Change]]:
    """Line, what it is in words, and what makes the change in the tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for place, one in enumerate(node.ops):
                if type(one) in OPERATORS:
                    yield node.lineno, words(one), lambda n=node, p=place, o=one: n.ops.__setitem__(p, OPERATORS[type(o)]())
        elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
            yield node.lineno, words(node.op), lambda n=node: setattr(n, "op", OPERATORS[type(n.op)]())
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node.lineno, "not is gone", lambda n=node: setattr(n, "op", ast.UAdd()) or setattr(
                n, "operand", ast.Call(ast.Name("bool", ast.Load()), [n.operand], [])
            )
        elif isinstance(node, ast.Constant) and type(node.value) is bool:
            yield node.lineno, f"{node.value} → {not node.value}", lambda n=node: setattr(n, "value", not n.value)
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield node.lineno, f"{node.value} → {node.value + 1}", lambda n=node: setattr(n, "value", n.value + 1)
        elif isinstance(node, ast.If | ast.While | ast.IfExp):
            for value in (True, False) if isinstance(node, ast.If) else (False,):
                yield node.lineno, f"the condition is {value}", lambda n=node, v=value: setattr(n, "test", ast.Constant(v))
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            for place, one in enumerate(block if isinstance(block, list) else ()):
                if isinstance(one, ast.Raise) or (isinstance(one, ast.Expr) and not isinstance(one.value, ast.Constant)):
                    yield one.lineno, f"without {ast.unparse(one)[:60]}", lambda b=block, p=place: b.__setitem__(p, ast.Pass())


def words(operator: ast.AST) -> str:
    return f"{type(operator).__name__} → {OPERATORS[type(operator)].__name__}"


def path_of(module: str) -> Path:
    return ROOT / "mailserver" / f"{module}.py"


def mutants(module: str) -> list[str]:
    """What each mutant of the module is, in words; its place in the list is its number."""
    tree = ast.parse(path_of(module).read_text())
    return [f"{module}.py:{line}: {what}" for line, what, _ in changes(tree)]


def survives(module: str, number: int) -> bool:
    """No test fails.  A mutant with which the tests come to no end is seen."""
    command = [sys.executable, "-m", "tests.proofs.mutants", module, str(number), *tests_of(module)]
    try:
        ran = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=SECONDS_MOST, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return ran.returncode == 0


class Mutant(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Finds the module, and compiles it with its change; a number below 0 changes nothing."""

    def __init__(self, module: str, number: int) -> None:
        super().__init__("mailserver." + module.replace("/", "."), str(path_of(module)))
        self._number = number

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def get_code(self, fullname: str) -> object:
        tree = ast.parse(Path(self.path).read_text(), self.path)
        if self._number >= 0:
            list(changes(tree))[self._number][2]()
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


def main(module: str, number: str, *tests: str) -> None:
    sys.meta_path.insert(0, Mutant(module, int(number)))  # before any test imports it
    import tempfile

    sys.argv[:] = ["trial", "--exitfirst", "--temp-directory", tempfile.mkdtemp(prefix="mutant") + "/trial", *tests]
    from twisted.scripts.trial import run

    run()


if __name__ == "__main__":
    main(*sys.argv[1:])
