"""Turn measured rounds into medians, ratios, verdicts and a Markdown table. Pure but for `machine`."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field

from bench.cases import CASES, Row


@dataclass
class Results:
    """Values per row key and side name, in the order measured; and what went wrong."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, side: str, found: dict[str, float]) -> None:
        for key, value in found.items():
            self.values.setdefault(key, {}).setdefault(side, []).append(value)

    def median(self, key: str, side: str) -> float | None:
        rounds = self.values.get(key, {}).get(side)
        return statistics.median(rounds) if rounds else None

    def ratio(self, key: str) -> float | None:
        ours, theirs = self.median(key, "podium"), self.median(key, "lxd")
        return ours / theirs if ours is not None and theirs else None


def verdict(row: Row, results: Results) -> str:
    """'pass', 'FAIL', or '' when the row has no bar or was not measured on both sides."""
    measured, bar = results.ratio(row.key), row.ratio
    if row.limit is not None:
        measured, bar = results.median(row.key, "podium"), row.limit
    if measured is None or bar is None:
        return ""
    return "pass" if measured <= bar else "FAIL"


def bar_text(row: Row) -> str:
    if row.ratio is not None:
        return f"<= {row.ratio:g} x"
    return f"<= {row.limit:g} {row.unit}" if row.limit is not None else ""


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def measured_rows(results: Results) -> list[Row]:
    return [row for case in CASES for row in case.rows if row.key in results.values]


def table(results: Results) -> str:
    """The Markdown table of all measured rows."""
    lines = ["| case | unit | Podium | LXD 5.0.2 | ratio | bar | verdict |", "|---|---|--:|--:|--:|---|---|"]
    for row in measured_rows(results):
        ours, theirs = results.median(row.key, "podium"), results.median(row.key, "lxd")
        cells = [row.title, row.unit, number(ours), number(theirs), number(results.ratio(row.key))]
        lines.append("| " + " | ".join([*cells, bar_text(row), verdict(row, results)]) + " |")
    return "\n".join(lines)


def document(results: Results, *, when: str, sizes: str) -> str:
    failures = "".join(f"- {words}\n" for words in results.failures) or "- none\n"
    return (
        "# Podium and LXD 5.0.2 side by side\n\n"
        f"{when}; {machine()}; {sizes}.\n"
        "Medians; ratio is Podium over LXD; LXD on a btrfs loop pool; same image, same stock `lxc`.\n\n"
        f"{table(results)}\n\n## What failed\n\n{failures}"
    )


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"kernel {platform.release()}, {os.cpu_count()} cores, {memory:.0f} GiB"
