"""The steps that the server's code notes, with the fields that stand there by name."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

from mailserver.queue.admin.changes import STEPS
from tests.rfc_index import ROOT

__all__ = ["steps_in_code"]

STEP = re.compile(r"[a-z]+(?:_[a-z]+)*")
NOTING = ("note", "_note", "_tell", "_refuse")  # what notes a step, and what hands one on to be noted
ROOMS = ("receive", "queue", "pickup", "control", "authentication", "postmaster", "assembly", "relay", "delivery")


def steps_in_code() -> dict[str, set[str]]:
    """Each step that is noted under a name of its own, and all fields that any place gives it."""
    found: dict[str, set[str]] = defaultdict(set)
    for room in ROOMS:
        for path in sorted((ROOT / "mailserver" / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _called(node) in NOTING and "STEPS[" in ast.unparse(node):
                    for step in STEPS.values():
                        found[step] |= _fields(node)
                elif isinstance(node, ast.Call) and _called(node) in NOTING:
                    for step in _steps(node):
                        found[step] |= _fields(node)
    return dict(found)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""


def _fields(call: ast.Call) -> set[str]:
    return {keyword.arg for keyword in call.keywords if keyword.arg}


def _steps(call: ast.Call) -> list[str]:
    """``note(id, "step", …)``, ``_tell("step", …)``, ``_tell(entry, destination, "step", …)``; "a" if … else "b" is two."""
    named: list[str] = []
    for argument in call.args[:3]:
        for node in [argument.body, argument.orelse] if isinstance(argument, ast.IfExp) else [argument]:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and STEP.fullmatch(node.value):
                named.append(node.value)
    return named[:2]
