"""Medians, ratios and verdicts of the benchmark."""

from __future__ import annotations

import pytest

from bench.cases import CASES, Row
from bench.report import Results, bar_text, number, table, verdict

LIFE = Row("stop", "stop --force", "ms", ratio=0.3)
MEMORY = Row("control_pss", "control plane", "MiB", limit=280)


def results(ours: list[float], theirs: list[float], key: str = "stop") -> Results:
    found = Results()
    for value in ours:
        found.add("podium", {key: value})
    for value in theirs:
        found.add("lxd", {key: value})
    return found


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [([30.0], [100.0], "pass"), ([31.0], [100.0], "FAIL"), ([], [100.0], ""), ([30.0], [], "")],
)
def test_a_ratio_bar_needs_both_sides(ours: list[float], theirs: list[float], expected: str) -> None:
    assert verdict(LIFE, results(ours, theirs)) == expected


@pytest.mark.parametrize(("ours", "expected"), [([280.0], "pass"), ([281.0], "FAIL"), ([], "")])
def test_a_limit_looks_at_podium_alone(ours: list[float], expected: str) -> None:
    assert verdict(MEMORY, results(ours, [1.0], "control_pss")) == expected


def test_one_slow_round_does_not_move_the_median() -> None:
    assert results([1, 900, 2], [10, 10, 10]).ratio("stop") == 0.2


def test_the_table_shows_measured_rows_only() -> None:
    lines = table(results([20], [100])).splitlines()
    assert lines[2:] == ["| stop --force | ms | 20 | 100 | 0.2 | <= 0.3 x | pass |"]


def test_every_row_has_a_key_of_its_own() -> None:
    keys = [row.key for case in CASES for row in case.rows]
    assert len(keys) == len(set(keys))


def test_numbers_and_bars_read_well() -> None:
    assert [number(None), number(1234.5), number(0.12345)] == ["-", "1234", "0.123"]
    assert [bar_text(LIFE), bar_text(MEMORY)] == ["<= 0.3 x", "<= 280 MiB"]
