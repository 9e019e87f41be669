"""Durable records on the command line."""

from __future__ import annotations

import json
import os

from mailserver.state_store.records_file import open_records, write_record
from tests.cli.support import CommandCase

PEOPLE = [("delivery/lists", "a@example.org", b"\0\xff"), ("delivery/lists", "b@example.org", b"b"), ("filter/suppress", "k", b"")]


class Records(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.data / "records.db"

    def fill(self) -> None:
        connection = open_records(str(self.path))
        with connection:
            for record in PEOPLE:
                write_record(connection, *record)
        connection.close()

    def exported(self, *more: str) -> str:
        said = self.command("records", "export", *more)
        self.assertEqual((said.code, said.err), (0, ""))
        return said.out

    def test_where_nothing_was_kept_there_is_nothing(self) -> None:
        self.assertEqual(self.command("records", "list").out, "No component has kept records.\n")
        self.assertEqual(self.command("records", "list", "--json").json, [])
        said = self.command("records", "export")
        self.assertEqual((said.code, said.out), (1, ""))
        self.assertFalse(self.path.exists())

    def test_they_are_counted(self) -> None:
        self.fill()
        self.assertEqual(self.lines(self.command("records", "list"))[1].split()[:2], ["delivery/lists", "2"])
        listed = self.command("records", "list", "--json").json
        self.assertEqual(listed[0], {"space": "delivery/lists", "records": 2, "octets": 3})

    def test_what_is_exported_is_imported_elsewhere_as_it_was(self) -> None:
        self.fill()
        whole, part = self.exported(), self.exported("--space", "filter/suppress")
        self.assertEqual([json.loads(line)["key"] for line in whole.splitlines()], ["a@example.org", "b@example.org", "k"])
        self.assertEqual(len(part.splitlines()), 1)
        for file in self.data.iterdir():
            os.unlink(file)
        self.assertEqual(self.command("records", "import", "-", stdin=whole).out, "3 records are kept.\n")
        self.assertEqual(self.exported(), whole)
        exported = self.folder / "records.jsonl"
        exported.write_text(whole)
        self.assertEqual(self.command("records", "import", str(exported), "--json").json, {"records": 3}, "again is no harm")

    def test_another_value_is_not_overwritten_unasked_and_then_nothing_is_changed(self) -> None:
        self.fill()
        before = self.exported()
        other = '{"space": "filter/suppress", "key": "new", "value": ""}\n{"space": "delivery/lists", "key": "b@example.org", "value": "eA=="}\n'
        said = self.command("records", "import", "-", stdin=other)
        self.assertEqual(said.code, 1)
        self.assertIn("nothing was changed", said.err)
        self.assertEqual(self.exported(), before)
        self.assertEqual(self.command("records", "import", "-", "--replace", stdin=other).code, 0)
        self.assertEqual(len(self.exported().splitlines()), 4)
        self.assertIn("eA==", self.exported())

    def test_what_is_no_record_is_named_by_its_line(self) -> None:
        for line in (
            "x", "[]", "1", "{}", '{"space": "s", "key": 1, "value": ""}', '{"space": "s", "key": "k", "value": "?"}',
            '{"space": "", "key": "k", "value": ""}', '{"space": "s", "key": "\\ud800", "value": ""}', "[" * 100_000,
        ):  # fmt: skip
            said = self.command("records", "import", "-", stdin=f'{{"space": "s", "key": "k", "value": ""}}\n\n{line}\n')
            self.assertEqual(said.code, 2, said)
            self.assertIn("line 3 is no record", said.err)
            self.assertFalse(self.path.exists())
        self.assertEqual(self.command("records", "import", str(self.folder / "nowhere")).code, 74)

    def test_a_damaged_file_is_said_and_left_alone(self) -> None:
        self.path.write_bytes(b"not a database" * 1000)
        for words in (("list",), ("export",), ("import", "-")):
            said = self.command("records", *words, stdin='{"space": "s", "key": "k", "value": ""}\n')
            self.assertEqual(said.code, 74, said)
            self.assertIn("records.db", said.err)
        self.assertEqual(self.path.read_bytes(), b"not a database" * 1000)
