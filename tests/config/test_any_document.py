"""Whatever stands in the file: a configuration comes out, or faults that name a line of it, and never another error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import Configuration, ConfigurationError, parse, schema
from mailserver.config.options import keys_of
from mailserver.plugins.catalogue import discover

KEYS = sorted(
    {key for name in schema.__all__ for key in keys_of(getattr(schema, name))} | {"path", "networks", "odd key", ""}
)
TEXTS = ["mail.example.org", "a@example.org", "a@", "*.example.org", "10.0.0.0/8", "5m", "1M", "tcp:25", "tcp:x", "mx", "file", "maildir",
         "denylist", "none", "capture", "starttls", "{user}", "\x00", "é", ""]  # fmt: skip
SCALARS = (
    st.sampled_from(TEXTS)
    | st.integers(-(2**70), 2**70)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS + TEXTS), below, max_size=4),
    max_leaves=12,
)
OTHER = ["1979-05-27T07:32:00Z", "07:32:00", "nan", "-inf", "0x1F"]  # TOML that JSON does not have


def toml(value: Any) -> str:
    """A TOML value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


class AnyDocument(SynchronousTestCase):
    def setUp(self) -> None:
        self.options_of = discover().options_of

    def reads(self, text: str) -> None:
        try:
            configuration = parse(text, file="f", directory="/", options_of=self.options_of)
        except ConfigurationError as error:
            self.assertTrue(error.faults)
            for fault in error.faults:
                self.assertTrue(1 <= fault.line <= text.count("\n") + 1, fault)
                self.assertNotIn("Traceback", fault.message)
        else:
            self.assertIsInstance(configuration, Configuration)

    @settings(max_examples=300, database=None)
    @given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
    def test_any_tables_with_any_keys(self, document: dict[str, Any]) -> None:
        self.reads("".join(f"{toml(key)} = {toml(value)}\n" for key, value in document.items()))

    @settings(max_examples=300, database=None)
    @given(
        st.sampled_from(["listen", "filter", "relay", "accounts", "limits", "queue", "domain", "log"]),
        VALUES,
        st.sampled_from(OTHER),
    )
    def test_one_table_in_an_otherwise_good_file(self, name: str, value: Any, other: str) -> None:
        good = {"hostname": "mail.example.org", "data": "/d", "listen": [{"service": "mx", "endpoint": "tcp:25"}]} | {
            name: value
        }
        self.reads("".join(f"{key} = {toml(below)}\n" for key, below in good.items()))
        self.reads("".join(f"{key} = {toml(below)}\n" for key, below in good.items()) + f"[tls]\nkey = {other}\n")

    @settings(max_examples=200, database=None)
    @given(st.text(max_size=40))
    def test_any_text_at_all(self, text: str) -> None:
        self.reads(text)
