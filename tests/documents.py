"""The pages of docs/ and the examples in them, for the tests that hold a page to what it says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

__all__ = ["DOCS", "blocks", "example_as_shown", "load_example", "page_text"]

DOCS = Path(__file__).resolve().parents[1] / "docs"


def page_text(name: str) -> str:
    """The page `name`, such as ``relay.md``."""
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The texts of a page's code blocks in this language."""
    return re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```", page, re.S | re.M)


def load_example(name: str) -> ModuleType:
    """The program `name` of docs/examples as a new module, such as ``relay_send``."""
    path = DOCS / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def example_as_shown(name: str) -> str:
    """The block with which a page shows this program as it is."""
    return f"```python\n{(DOCS / 'examples' / f'{name}.py').read_text(encoding='utf-8')}```\n"
