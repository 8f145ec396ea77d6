"""Scheduled snapshots and their expiry, with a clock that is told what time it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from core.configkeys.schedule import is_due, parse_schedule
from core.records import Snapshot
from services.runtime.usecases.instances.create import Source, Wanted
from services.runtime.usecases.instances.schedules import Schedules
from services.runtime.usecases.instances.snapshots import Snapshots
from services.runtime.usecases.instances.still import Stillness
from services.runtime.usecases.policy import Policy
from tests.fakes.runtime_host import FakeTicks
from tests.unit.runtime.conftest import MEMBER, World

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Clock:
    def __init__(self, world: World) -> None:
        claims = world.changes._claims
        self.now = NOON
        self.world = world
        self.ticks = FakeTicks()
        self.ticks.seen(NOON.timestamp())
        self.snapshots = Snapshots(world.host, Policy(world.host), claims, Stillness(world.host))
        self.schedules = Schedules(
            world.host, claims, self.snapshots, self.ticks, MEMBER, clock=lambda: self.now
        )

    async def make(self, name: str = "web", **config: str) -> None:
        keys = {key.replace("_", "."): value for key, value in config.items()}
        source = Source(alias="debian/12")
        await self.world.done(await self.world.create.accept(Wanted("default", name, source, config=keys)))

    async def passes(self, minutes: float = 1) -> None:
        self.now += timedelta(minutes=minutes)
        await self.schedules.tick()

    def taken(self, name: str = "web") -> list[Snapshot]:
        store = self.world.host.store
        return [e.record for e in store.instance_snapshots(store.instance("default", name).record)]


@pytest.fixture
def clock(world: World) -> Clock:
    return Clock(world)


async def test_a_running_instance_is_snapshot_when_its_minute_comes(clock: Clock) -> None:
    await clock.make(snapshots_schedule="5 * * * *")
    await clock.world.changed("start")
    await clock.passes(4)
    assert clock.taken() == []
    await clock.passes(1)
    assert [s.name for s in clock.taken()] == ["snap0"]
    await clock.passes(59)
    assert len(clock.taken()) == 1
    await clock.passes(1)
    assert len(clock.taken()) == 2


async def test_a_stopped_one_only_if_that_is_wanted(clock: Clock) -> None:
    await clock.make("off", snapshots_schedule="@hourly")
    await clock.make("on", snapshots_schedule="@hourly", snapshots_schedule_stopped="true")
    await clock.passes(60)
    assert clock.taken("off") == []
    assert len(clock.taken("on")) == 1


async def test_a_minute_that_passed_while_the_service_was_away_is_made_up_for_once(clock: Clock) -> None:
    await clock.make(snapshots_schedule="* * * * *", snapshots_schedule_stopped="true")
    await clock.passes(30)
    assert len(clock.taken()) == 1


async def test_a_night_is_not_made_up_for(clock: Clock) -> None:
    await clock.make(snapshots_schedule="30 12 * * *", snapshots_schedule_stopped="true")
    await clock.passes(12 * 60)
    assert clock.taken() == []


async def test_a_death_before_the_tick_was_noted_doubles_nothing(clock: Clock) -> None:
    await clock.make(snapshots_schedule="* * * * *", snapshots_schedule_stopped="true")
    await clock.passes(1)
    clock.ticks.seen(NOON.timestamp())
    await clock.passes(0)
    assert len(clock.taken()) == 1


async def test_what_has_expired_is_deleted(clock: Clock) -> None:
    """Expiry counts from the real time at which a snapshot is taken, so the clock is set by it."""
    schedule = {"snapshots_schedule": "* * * * *", "snapshots_schedule_stopped": "true"}
    await clock.make(**schedule, snapshots_expiry="1d")
    await clock.passes(1)
    assert len(clock.taken()) == 1
    clock.now = datetime.fromtimestamp(clock.taken()[0].expires_at + 1, UTC)
    clock.ticks.seen(clock.now.timestamp())
    await clock.schedules.tick()
    assert clock.taken() == []


async def test_a_start_takes_the_snapshot_of_startup_first(clock: Clock) -> None:
    clock.world.power.before_start = clock.schedules.before_start
    await clock.make(snapshots_schedule="@startup, 5 5 * * *")
    await clock.world.changed("start")
    assert len(clock.taken()) == 1
    assert clock.world.status() == "running"


@pytest.mark.parametrize(
    ("text", "at", "due"),
    [
        ("0 12 * * *", NOON, True),
        ("0 13 * * *", NOON, False),
        ("*/15 * * * *", NOON.replace(minute=45), True),
        ("0 12 * * tue", NOON, True),
        ("0 12 * * sun", NOON, False),
        ("0 12 1 * tue", NOON, True),
        ("0 12 1 * sun", NOON, False),
        ("0 12 24 * *", NOON, True),
        ("@never", NOON, False),
        ("@daily, @hourly", NOON, True),
        ("@yearly", NOON.replace(month=1, day=1, hour=0), True),
    ],
)
def test_schedules_name_minutes(text: str, at: datetime, due: bool) -> None:
    assert is_due(parse_schedule(text), at) is due
