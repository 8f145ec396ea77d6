"""Names and expiry of snapshots, as LXD decides them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from core.errors import Invalid
from services.runtime.domain.snapshots import expiry, next_name, snapshot_name

NOW = datetime(2026, 11, 24, 10, 16, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("pattern", "taken", "name"),
    [
        ("snap%d", [], "snap0"),
        ("snap%d", ["snap0", "snap7", "snapx", "other9"], "snap8"),
        ("a%db", ["a3b", "a4", "xa9b"], "a4b"),
        ("fixed", [], "fixed"),
        ("fixed", ["fixed"], "fixed-0"),
        ("fixed", ["fixed", "fixed-0", "fixed-4"], "fixed-5"),
        ("x-{{ creation_date|date:'2006-01-02_15-04-05' }}", [], "x-2026-11-24_10-16-05"),
        ('{{creation_date | date:"Jan-_2-06"}}-%d', [], "Nov-24-26-0"),
        ("+.*%d", ["+.*3"], "+.*4"),
    ],
)
def test_a_snapshot_without_a_name_gets_that_of_the_pattern(
    pattern: str, taken: list[str], name: str
) -> None:
    assert next_name(pattern, taken, NOW) == name


@pytest.mark.parametrize(
    "pattern", ["%d%d", "{{ nope", "{{ 7*7 }}", "{% for x in y %}", "{{ creation_date|x }}"]
)
def test_a_pattern_is_never_more_than_a_name(pattern: str) -> None:
    with pytest.raises(Invalid):
        next_name(pattern, (), NOW)


@pytest.mark.parametrize("name", ["a b", "a/b", "", ".", "..", "x" * 256, "a\tb", "a\x00b"])
def test_names_that_could_not_be_asked_for_again_are_refused(name: str) -> None:
    with pytest.raises(Invalid, match="Invalid instance snapshot name"):
        snapshot_name(name)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1d", datetime(2026, 11, 25, 10, 16, 5, tzinfo=UTC)),
        ("1w 2d", datetime(2026, 12, 3, 10, 16, 5, tzinfo=UTC)),
        ("3m", datetime(2027, 2, 24, 10, 16, 5, tzinfo=UTC)),
        ("2y 1H 5M 6S", datetime(2028, 11, 24, 11, 21, 11, tzinfo=UTC)),
        ("", None),
    ],
)
def test_a_life_is_counted_by_the_calendar(text: str, at: datetime | None) -> None:
    assert expiry(text, NOW) == at


def test_a_month_after_the_31st_is_what_go_says() -> None:
    """LXD adds months as Go does: there is no 31st of February, so it is the 3rd of March."""
    assert expiry("1m", datetime(2026, 1, 31, tzinfo=UTC)) == datetime(2026, 3, 3, tzinfo=UTC)
