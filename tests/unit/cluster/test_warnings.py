"""Warnings: one record per trouble, counted, acknowledged and resolved."""

from __future__ import annotations

import pytest

from core.errors import Invalid, NotFound
from core.records import Warning
from services.cluster.usecases.warnings import Warnings
from tests.unit.cluster.conftest import Cluster

_DAY_S = 24 * 3600.0
SEEN = Warning(type="Network unavailable", severity="high", member="m1", subject="networks/b", message="why")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def warnings(cluster: Cluster, clock: Clock) -> Warnings:
    return Warnings(cluster.store, clock)


async def test_the_same_trouble_is_one_warning_that_counts(warnings: Warnings, clock: Clock) -> None:
    """A reporter that restarts and reports again must not flood the list."""
    first = await warnings.raise_warning(SEEN)
    clock.now = 1060.0
    again = await warnings.raise_warning(SEEN)

    assert [e.record.id for e in warnings.all()] == [first.record.id]
    assert (again.record.count, again.record.first_seen_at, again.record.last_seen_at) == (2, 1000.0, 1060.0)


async def test_another_subject_is_another_warning(warnings: Warnings) -> None:
    await warnings.raise_warning(SEEN)
    await warnings.raise_warning(Warning(type=SEEN.type, severity="high", member="m1", subject="networks/c"))
    assert len(warnings.all()) == 2


async def test_an_acknowledged_warning_stays_so_until_it_ends_and_begins_again(warnings: Warnings) -> None:
    """Acknowledging says "I know"; it must not be asked again while the trouble lasts."""
    id = (await warnings.raise_warning(SEEN)).record.id
    await warnings.acknowledge(id, "acknowledged")
    assert (await warnings.raise_warning(SEEN)).record.status == "acknowledged"
    await warnings.resolve(id)
    await warnings.resolve(id)
    assert warnings.get(id).record.status == "resolved"
    assert (await warnings.raise_warning(SEEN)).record.status == "new"


async def test_a_warning_nobody_raised_resolves_silently_but_cannot_be_touched(warnings: Warnings) -> None:
    await warnings.resolve("none")
    with pytest.raises(NotFound):
        await warnings.acknowledge("none", "new")
    with pytest.raises(NotFound):
        await warnings.delete("none")


@pytest.mark.parametrize("status", ["", "resolved", "fine"])
async def test_only_new_and_acknowledged_can_be_set(warnings: Warnings, status: str) -> None:
    id = (await warnings.raise_warning(SEEN)).record.id
    with pytest.raises(Invalid):
        await warnings.acknowledge(id, status)


async def test_a_severity_nobody_knows_is_refused(warnings: Warnings) -> None:
    with pytest.raises(Invalid):
        await warnings.raise_warning(Warning(type="x", severity="dire"))


async def test_what_was_resolved_a_month_ago_is_forgotten(warnings: Warnings, clock: Clock) -> None:
    old = (await warnings.raise_warning(SEEN)).record.id
    await warnings.resolve(old)
    clock.now += 31 * _DAY_S
    await warnings.raise_warning(Warning(type="other", severity="low", member="m1"))
    assert [e.record.type for e in warnings.all()] == ["other"]
