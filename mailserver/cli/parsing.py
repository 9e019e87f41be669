"""The command line's own parser: what could have been meant, an example with every help, the version."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from mailserver.cli.examples import EXAMPLES

__all__ = ["Parser", "Version", "with_examples"]


class Parser(argparse.ArgumentParser):
    """Parsers of commands and actions are of this class, too: argparse makes them of their parent's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.prog in EXAMPLES:
            self.formatter_class = argparse.RawDescriptionHelpFormatter
            self.epilog = with_examples(EXAMPLES[self.prog])

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError:
            from difflib import get_close_matches

            near = get_close_matches(str(value), [str(choice) for choice in action.choices or ()], n=1)
            if not near:
                raise
            raise argparse.ArgumentError(action, f"there is no {value!r}; did you mean {near[0]!r}?") from None


class Version(argparse.Action):
    """Print what this is, and end."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version and end")

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        from importlib.metadata import version

        python = ".".join(map(str, sys.version_info[:3]))
        print(f"mailserver {version('mailserver')} (Python {python}, Twisted {version('twisted')})")
        parser.exit()


def with_examples(lines: Sequence[str]) -> str:
    """The end of a help text."""
    return "\n".join(("example:" if len(lines) == 1 else "examples:", *(f"  {line}" for line in lines)))
