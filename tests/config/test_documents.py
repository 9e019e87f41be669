"""The reference page is the schema, and the sample configuration loads."""

from __future__ import annotations

import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import Configuration, Options, load
from mailserver.config.options import keys_of
from mailserver.plugins.catalogue import discover
from tests.config.reference import PAGE, TABLES, page

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "etc" / "mailserver.toml"


def field_models() -> set[type[Options]]:
    """Every table class that the configuration can hold, found by walking the schema itself."""
    found: set[type[Options]] = set()
    waiting = [Configuration]
    while waiting:
        model = waiting.pop()
        for key in keys_of(model):
            text = [model.model_fields[key].annotation]
            while text:
                one = text.pop()
                text += getattr(one, "__args__", ())
                if isinstance(one, type) and issubclass(one, Options) and one not in found:
                    found.add(one)
                    waiting.append(one)
    return found


class Reference(SynchronousTestCase):
    def test_the_page_is_up_to_date(self) -> None:
        self.assertEqual(PAGE.read_text(), page(), "run `python -m tests.config.reference`")

    def test_the_page_has_every_table(self) -> None:
        self.assertEqual({model for _, model in TABLES}, field_models())

    def test_every_key_has_a_meaning(self) -> None:
        silent = [
            f"{model.__name__}.{key}"
            for model in field_models()
            for key in keys_of(model)
            if not model.model_fields[key].description
        ]
        self.assertEqual(silent, [])


class Sample(SynchronousTestCase):
    def test_it_loads_with_the_shipped_components(self) -> None:
        configuration = load(SAMPLE, discover().options_of)
        self.assertEqual(configuration.hostname, "mail.example.org")

    def test_it_shows_every_table(self) -> None:
        shown = set(tomllib.loads(SAMPLE.read_text()))
        commented = {
            line.strip("#[] \n").split(".")[0] for line in SAMPLE.read_text().splitlines() if line.startswith("#[")
        }
        tables = {title.strip("[]").split(".")[0] for title, _ in TABLES}
        self.assertEqual(tables - shown - commented, set())

    def test_what_it_comments_out_would_load_too(self) -> None:
        lines = SAMPLE.read_text().splitlines()
        text = "\n".join(line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in lines)
        path = Path(self.mktemp())
        path.write_text(text)
        load(path, discover().options_of)
