"""Copies and snapshots of custom volumes on a driver that keeps a text per volume."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from core.errors import AlreadyExists, Busy, NotFound, WrongState
from core.records import Pool, Project, Volume
from core.state import keys
from core.state.store import Txn
from services.runtime.domain.volumes import VolumeRef
from services.runtime.ports import VolumeKind
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.volumes.claims import VolumeClaims, key_of
from services.runtime.usecases.volumes.copies import VolumeCopies, WantedCopy
from services.runtime.usecases.volumes.custom import NewVolume, Volumes
from services.runtime.usecases.volumes.schedules import VolumeSchedules
from services.runtime.usecases.volumes.snapshots import VolumeSnapshots
from tests.unit.runtime.conftest import World

REF = VolumeRef("default", "default", "data")
OTHER = replace(REF, name="other")


class Room:
    """The use cases of custom volumes, and what the fake driver keeps of them."""

    def __init__(self, world: World) -> None:
        self.world, self.claims = world, VolumeClaims(world.host.store, world.runner)
        claims = self.claims
        policy = Policy(world.host, "m")
        self.volumes = Volumes(world.host, policy, claims)
        self.snapshots = VolumeSnapshots(world.host, policy, claims, self.volumes)
        self.copies = VolumeCopies(world.host, claims, self.volumes)

    async def made(self, **config: str) -> Volume:
        names = {key.replace("_", "."): value for key, value in config.items()}
        await self.volumes.create(NewVolume(REF, config=names))
        return self.volumes.find(REF).record

    async def taken(self, name: str = "", *, text: str = "", expires_at: float | None = None) -> str:
        """Let the volume hold *text*, take a snapshot and return its name."""
        self.hold(self.volumes.find(REF).record.id, text)
        operation = await self.snapshots.take(replace(REF, snapshot=name), expires_at=expires_at)
        final = await self.world.done(operation)
        assert final.state == "succeeded", final.error_message
        return str(operation.input["snapshot"])

    def hold(self, id: str, text: str) -> None:
        self.world.driver.content[self._path(id)] = text

    def held(self, ref: VolumeRef) -> str:
        found = self.snapshots.find(ref).record if ref.snapshot else self.volumes.find(ref).record
        return self.world.driver.content[self._path(found.id)]

    def _path(self, id: str) -> object:
        return self.world.driver.volume("default", id, VolumeKind.CUSTOM)

    def names(self, ref: VolumeRef) -> list[str]:
        volume = self.volumes.find(ref).record
        return [entry.record.name for entry in self.world.host.store.snapshots_of_volume(volume)]


@pytest.fixture
def room(world: World) -> Room:
    return Room(world)


async def test_snapshots_are_named_by_pattern_and_end_as_the_volume_says(room: Room) -> None:
    await room.made(snapshots_expiry="1d", snapshots_pattern="day%d")
    assert [await room.taken(), await room.taken(), await room.taken("own", expires_at=0.0)] == [
        "day0", "day1", "own",
    ]  # fmt: skip
    ends = [room.snapshots.find(replace(REF, snapshot=name)).record.expires_at for name in ("day0", "own")]
    assert ends[0] == pytest.approx(time.time() + 86400, abs=60)
    assert ends[1] == 0.0


async def test_restoring_gives_the_content_back(room: Room) -> None:
    await room.made()
    await room.taken("s0", text="old")
    room.hold(room.volumes.find(REF).record.id, "new")
    operation = await room.snapshots.restore(replace(REF, snapshot="s0"))
    assert operation.state == "succeeded"
    assert room.held(REF) == "old"


async def test_a_snapshot_that_is_not_there_is_named(room: Room) -> None:
    await room.made()
    with pytest.raises(NotFound):
        await room.snapshots.restore(replace(REF, snapshot="s0"))
    await room.taken("s0")
    with pytest.raises(AlreadyExists, match='Snapshot "s0" already in use'):
        await room.taken("s0")


async def test_a_copy_has_content_snapshots_and_keys(room: Room) -> None:
    await room.made(user_x="1")
    await room.taken("s0", text="old")
    room.hold(room.volumes.find(REF).record.id, "new")
    await room.world.done(await room.copies.copy(WantedCopy(REF, OTHER)))
    assert room.held(OTHER) == "new"
    assert room.held(replace(OTHER, snapshot="s0")) == "old"
    assert room.volumes.find(OTHER).record.config == {"user.x": "1"}
    assert room.volumes.find(REF).record.operation == ""


async def test_a_copy_can_be_made_of_a_snapshot_or_without_them(room: Room) -> None:
    await room.made()
    await room.taken("s0", text="old")
    await room.world.done(await room.copies.copy(WantedCopy(replace(REF, snapshot="s0"), OTHER)))
    assert (room.held(OTHER), room.names(OTHER)) == ("old", [])
    third = replace(REF, name="third")
    await room.world.done(await room.copies.copy(WantedCopy(REF, third, only=True)))
    assert room.names(third) == []


async def test_a_refresh_brings_what_is_missing_and_drops_what_is_gone(room: Room) -> None:
    await room.made()
    await room.taken("s0", text="one")
    await room.world.done(await room.copies.copy(WantedCopy(REF, OTHER)))
    await room.world.done(await room.snapshots.delete(replace(REF, snapshot="s0")))
    await room.taken("s0", text="two")
    await room.taken("s1", text="three")
    await room.world.done(await room.copies.copy(WantedCopy(REF, OTHER, refresh=True)))
    assert room.names(OTHER) == ["s0", "s1"]
    assert [room.held(replace(OTHER, snapshot=name)) for name in ("s0", "s1")] == ["two", "three"]
    assert room.held(OTHER) == "three"
    assert len(await room.world.driver.volumes("default", kind=VolumeKind.CUSTOM)) == 6


async def test_a_volume_moves_to_another_project_with_all_it_has(room: Room) -> None:
    project = Project("own", config={"features.storage.volumes": "true"})
    await room.world.host.store.commit(Txn().put(keys.project("own"), project))
    await room.world.host.store.projects.wait_for(room.world.host.store.projects.revision + 1, timeout_s=1)
    await room.made()
    await room.taken("s0", text="old")
    there = replace(REF, project="own")
    await room.world.done(await room.copies.move(REF, there))
    assert (room.held(there), room.names(there)) == ("old", ["s0"])
    with pytest.raises(NotFound):
        room.volumes.find(REF)
    assert len(await room.world.driver.volumes("default", kind=VolumeKind.CUSTOM)) == 2


async def test_a_volume_that_something_works_on_is_busy(room: Room) -> None:
    volume = await room.made()
    operation = await room.world.runner.open("x", "x", op_class="task")
    await room.world.host.store.commit(Txn().put(key_of(volume), replace(volume, operation=operation.id)))
    with pytest.raises(Busy):
        await room.taken("s0")
    with pytest.raises(Busy):
        await room.volumes.delete(REF)


async def test_a_volume_that_is_being_made_cannot_be_copied(room: Room) -> None:
    volume = await room.made()
    await room.world.host.store.commit(Txn().put(key_of(volume), replace(volume, status="Pending")))
    with pytest.raises(WrongState, match="is being made"):
        await room.copies.copy(WantedCopy(REF, OTHER))


async def test_a_schedule_is_kept_once_and_what_expired_goes(room: Room) -> None:
    """Also when the service died after the snapshot and before it noted the time."""
    await room.made(snapshots_schedule="@hourly", snapshots_expiry="1M")
    hour = datetime.now().astimezone().replace(minute=0, second=0, microsecond=0)
    await room.world.host.store.commit(Txn().put(keys.pool("default"), Pool("default", "dir", member="m")))
    keeper = VolumeSchedules(room.world.host.store, room.claims, room.snapshots, "m")
    for _ in range(2):
        await keeper.keep([hour - timedelta(minutes=1), hour], time.time())
    assert room.names(REF) == ["snap0"]
    await keeper.keep([], time.time() + 61)
    assert room.names(REF) == []
