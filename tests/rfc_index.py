"""The RFC index: docs/rfc.tsv is the table, docs/rfc.md is its readable form.

``python -m tests.rfc_index`` writes docs/rfc.md again after a change of the table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Standard", "cited", "page", "read_table"]

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "rfc.tsv"
PAGE = ROOT / "docs" / "rfc.md"
STATUSES = ("full", "partial", "planned")
CITATION = re.compile(r"\bRFCs? (\d{3,4}(?:(?:, | and | or )\d{4}\b)*)")

PREFACE = """\
# RFC index

Which standard is implemented where. *full*: all that a server of our role must do and all that the extension offers;
*partial*: the title says which part; *planned*: nothing yet. Each wire rule in the code names its section.

No RFC: [draft-hall-prdr](https://datatracker.ietf.org/doc/html/draft-hall-prdr), a reply after the data for each recipient
(PRDR), as Exim speaks it: [smtp/server/session.py](../mailserver/smtp/server/session.py),
[smtp/client/transaction.py](../mailserver/smtp/client/transaction.py).

Written from [rfc.tsv](rfc.tsv) by `python -m tests.rfc_index`. A test keeps the table, this page and the code's citations
together.

| RFC | title | status | files |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Standard:
    """One row of the table."""

    number: int
    status: str
    files: tuple[str, ...]
    title: str


def read_table() -> list[Standard]:
    """The rows of docs/rfc.tsv, in its order.  Raises ValueError for a row of another shape."""
    rows = []
    for line in TABLE.read_text().splitlines()[1:]:
        number, status, files, title = line.split("\t")
        rows.append(Standard(int(number), status, tuple(files.split()), title))
    return rows


def cited(source: str) -> set[int]:
    """The numbers of the RFCs that a text cites: "RFC 5321 section 4.2", "RFC 6152, 3030"."""
    return {int(number) for match in CITATION.finditer(source) for number in re.findall(r"\d+", match[1])}


def page(rows: list[Standard]) -> str:
    """The text of docs/rfc.md."""
    lines = []
    for row in rows:
        files = "<br>".join(f"[{file.removeprefix('mailserver/')}](../{file})" for file in row.files)
        link = f"[{row.number}](https://www.rfc-editor.org/rfc/rfc{row.number})"
        lines.append(f"| {link} | {row.title} | {row.status} | {files} |\n")
    return PREFACE + "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(read_table()))
