"""Rows as a table, compact text, CSV, JSON or YAML, as the stock client prints them. Pure but for `show`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from cli.failure import UsageError

FORMATS = ("table", "compact", "csv", "json", "yaml")
Row = Sequence[str]


def show(format: str, header: Row, rows: Sequence[Row], objects: Any, *, is_sorted: bool = True) -> None:
    """Print rows, or the objects they were made from for json and yaml. Raises: UsageError."""
    ordered = sorted(rows, key=lambda row: [natural(cell) for cell in row]) if is_sorted else rows
    sys.stdout.write(render(format or "table", header, ordered, objects))


def render(format: str, header: Row, rows: Sequence[Row], objects: Any) -> str:
    if format == "json":
        import json

        return json.dumps(objects, separators=(",", ":"), ensure_ascii=False) + "\n"
    if format == "yaml":
        from cli.documents import dump

        return dump(objects)
    if format == "csv":
        return "".join(_csv_line(row) for row in rows)
    if format == "compact":
        return _compact(header, rows)
    if format == "table":
        return _table(header, rows)
    raise UsageError(f"there is no format {format!r}", f"formats are {', '.join(FORMATS)}", "list")


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts web9 before web10."""
    parts = re.split(r"([0-9]+)", text)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def _csv_line(row: Row) -> str:
    return ",".join(_csv_cell(cell) for cell in row) + "\n"


def _csv_cell(cell: str) -> str:
    if cell[:1] in (" ", "\t") or any(mark in cell for mark in ',"\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _widths(header: Row, rows: Sequence[Row]) -> list[int]:
    return [
        max((width(line) for row in [header, *rows] for line in row[i].split("\n")), default=0)
        for i in range(len(header))
    ]


def width(text: str) -> int:
    """Return how many columns of a terminal *text* takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(1 for char in text if unicodedata.combining(char))


def _centred(text: str, size: int) -> str:
    gap = size - width(text)
    return " " * (gap // 2) + text + " " * (gap - gap // 2)


def _lines(row: Row) -> list[Row]:
    """Return the lines of a row whose cells may hold line breaks."""
    cells = [cell.split("\n") for cell in row]
    height = max(len(cell) for cell in cells)
    return [[cell[i] if i < len(cell) else "" for cell in cells] for i in range(height)]


def _left(cells: Row, widths: Sequence[int]) -> list[str]:
    return [cell + " " * (size - width(cell)) for cell, size in zip(cells, widths, strict=True)]


def _table(header: Row, rows: Sequence[Row]) -> str:
    widths = _widths(header, rows)
    rule = "+" + "+".join("-" * (size + 2) for size in widths) + "+\n"
    titles = [_centred(cell, size) for cell, size in zip(header, widths, strict=True)]
    text = rule + f"| {' | '.join(titles)} |\n" + rule
    for row in rows:
        text += "".join(f"| {' | '.join(_left(line, widths))} |\n" for line in _lines(row)) + rule
    return text


def _compact(header: Row, rows: Sequence[Row]) -> str:
    widths = _widths(header, rows)
    titles = [_centred(cell, size) for cell, size in zip(header, widths, strict=True)]
    lines = [titles, *(_left(line, widths) for row in rows for line in _lines(row))]
    return "".join(f"  {'  '.join(line)}  \n" for line in lines)
