"""Draws docs/road.svg from docs/road.txt:   python docs/draw_road.py

The picture is text as well, so that a change of it can be read; tests/test_rooms.py sees that it is drawn anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

__all__ = ["ROAD_PICTURE", "ROAD_TEXT", "Box", "drawn"]

ROAD_TEXT = Path(__file__).with_name("road.txt")
ROAD_PICTURE = Path(__file__).with_name("road.svg")

COLUMN, ROW = 232, 100  # pixels from box to box
WIDTH, HEIGHT, MARGIN = 150, 64, 12
LINE_CHARACTERS = 22
BOX = re.compile(r"(\d+) (\d+)  ([^:]+): ?(.*)")
ARROW = re.compile(r"(.+?) (->|=>) (.+?):(?: (.*))?")

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
font-family="sans-serif">
<title>The road of a message</title>
<style>
  text {{ fill: #24292f; font-size: 12px; text-anchor: middle; }} .name {{ font-weight: bold; font-size: 14px; }}
  .paper {{ fill: #ffffff; }} .box {{ fill: #f6f8fa; stroke: #57606a; }} .label, .head {{ fill: #57606a; }}
  .line {{ fill: none; stroke: #57606a; stroke-width: 1.5; }} .durable {{ fill: none; stroke: #1a7f37; stroke-width: 5; }}
  .promise {{ fill: #1a7f37; font-weight: bold; }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6edf3; }} .paper {{ fill: #0d1117; }} .box {{ fill: #161b22; stroke: #8b949e; }}
    .label, .head {{ fill: #8b949e; }}
    .line {{ stroke: #8b949e; }} .durable {{ stroke: #3fb950; }} .promise {{ fill: #3fb950; }}
  }}
</style>
<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto" \
markerUnits="userSpaceOnUse">\
<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>
<rect class="paper" width="{width}" height="{height}" rx="6"/>
"""


@dataclass(frozen=True, slots=True)
class Box:
    """Where it stands on the grid, and what is written in it."""

    column: int
    row: int
    name: str
    words: str

    @property
    def middle(self) -> tuple[int, int]:
        """In pixels."""
        return MARGIN + self.column * COLUMN + WIDTH // 2, MARGIN + self.row * ROW + HEIGHT // 2


def drawn(text: str) -> str:
    """The picture of such a text.

    Raises ValueError for a line that is neither a box nor an arrow, KeyError for an arrow to a name without a box.
    """
    boxes: dict[str, Box] = {}
    arrows: list[tuple[str, str, bool, str]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if found := BOX.fullmatch(line):
            boxes[found[3]] = Box(int(found[1]), int(found[2]), found[3], found[4])
        elif found := ARROW.fullmatch(line):
            arrows.append((found[1], found[3], found[2] == "=>", found[4] or ""))
        else:
            raise ValueError(f"neither a box nor an arrow: {line!r}")
    width = 2 * MARGIN + max(box.column for box in boxes.values()) * COLUMN + WIDTH
    height = 2 * MARGIN + max(box.row for box in boxes.values()) * ROW + HEIGHT
    parts = [HEAD.format(width=width, height=height)]
    parts += [arrow(boxes[start], boxes[end], durable, label) for start, end, durable, label in arrows]
    parts += [drawn_box(box) for box in boxes.values()]
    return "".join(parts) + "</svg>\n"


def drawn_box(box: Box) -> str:
    """A rectangle with the name, and the words in lines below it."""
    x, y = box.middle
    words = wrapped(box.words)
    top = y + 3 - 7 * len(words)  # the base line of the name; what is written stands in the middle
    lines = [f'<rect class="box" x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>\n']
    lines.append(f'<text class="name" x="{x}" y="{top}">{escape(box.name)}</text>\n')
    for number, line in enumerate(words):
        lines.append(f'<text x="{x}" y="{top + 16 + 14 * number}">{escape(line)}</text>\n')
    return "".join(lines)


def wrapped(words: str) -> list[str]:
    """Lines that fit into a box."""
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + len(word) + 1 > LINE_CHARACTERS:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def arrow(start: Box, end: Box, durable: bool, label: str) -> str:
    """From side to side where the columns differ, else from top to bottom; its label above the piece that ends at the box."""
    (x, y), (to_x, to_y) = start.middle, end.middle
    if start.column == end.column:
        step = HEIGHT // 2 if to_y > y else -HEIGHT // 2
        points = [(x, y + step), (to_x, to_y - step)]
    else:
        step = WIDTH // 2 if to_x > x else -WIDTH // 2
        points = [(x + step, y), (to_x - step, to_y)]
    (x, y), (to_x, to_y) = points
    half = (x + to_x) // 2
    bend = f"M{x} {y}L{to_x} {to_y}" if y == to_y or x == to_x else f"M{x} {y}H{half}V{to_y}H{to_x}"
    line = f'<path class="{"durable" if durable else "line"}" d="{bend}"' + ("/>\n" if durable else ' marker-end="url(#end)"/>\n')
    if not label:
        return line
    place = f'x="{half if y == to_y else (half + to_x) // 2}" y="{to_y - 7}"'
    return line + f'<text class="{"promise" if durable else "label"}" {place}>{escape(label)}</text>\n'


if __name__ == "__main__":
    ROAD_PICTURE.write_text(drawn(ROAD_TEXT.read_text()))
