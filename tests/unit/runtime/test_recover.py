"""Notes beside volumes, and the records that are made of them again when all others are lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from core.errors import Invalid, WrongState
from core.records import Instance, Pool, Profile, Volume
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import idmaps, noted
from services.runtime.domain.volumes import VolumeRef
from services.runtime.storage import notes
from services.runtime.storage.dir import DirDriver
from services.runtime.usecases.notes import Notes, lost_ids
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.pools.recover import Recover, WantedPool
from services.runtime.usecases.volumes.claims import VolumeClaims
from services.runtime.usecases.volumes.custom import NewVolume, Volumes
from services.runtime.usecases.volumes.snapshots import VolumeSnapshots
from tests.unit.runtime.conftest import World

REF = VolumeRef("default", "default", "data")


class Room:
    """A host with a real dir pool that holds an instance and a volume with a snapshot."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.store = world, world.host.store
        self.driver = DirDriver(folder)
        world.host.drivers["dir"] = self.driver  # type: ignore[index]
        self.pool = folder / "pools/default"
        claims, policy = VolumeClaims(self.store, world.runner), Policy(world.host, "m")
        self.volumes = Volumes(world.host, policy, claims)
        self.snapshots = VolumeSnapshots(world.host, policy, claims, self.volumes)
        self.notes = Notes(world.host, "m")
        self.recover = Recover(world.host, policy, folder, "m")

    async def filled(self) -> Room:
        pool = Pool("default", "dir", "mine", {"source": str(self.pool), "user.x": "1"}, member="m")
        await self.driver.ensure_open("default", pool.config)
        await self.store.commit(Txn().put(keys.pool("default"), pool))
        await self.world.made()
        await self.volumes.create(NewVolume(REF, config={"user.y": "2"}))
        taken = await self.snapshots.take(replace(REF, snapshot="s0"), expires_at=None)
        await self.world.done(taken)
        await self.notes.flush()
        return self

    async def lose(self) -> None:
        """Delete all records of what the pool holds, and of the pool."""
        txn = Txn()
        for prefix in (
            keys.INSTANCES,
            keys.OBSERVED,
            keys.IDMAPS,
            keys.VOLUMES,
            keys.VOLUME_SNAPSHOTS,
            keys.POOLS,
        ):
            for kv in (await self.store.list(prefix)).kvs:
                txn.delete(kv.key)
        await self.store.commit(txn)


@pytest.fixture
async def room(world: World, tmp_path: Path) -> Room:
    return await Room(world, tmp_path).filled()


async def test_a_change_is_noted_and_what_is_gone_is_forgotten(room: Room) -> None:
    before = room.volumes.find(REF).record
    assert set(notes.names(room.pool)) == {"pool", before.id, room.store.instance("default", "web").record.id}
    await room.notes.start()
    await room.volumes.update(REF, {"user.y": "3"}, "text", merge=True, revision=0)
    await room.notes.stop()
    note = noted.parse(notes.read(room.pool, before.id))
    assert note and (note.volume.config["user.y"], note.volume.description) == ("3", "text")
    assert [snapshot.name for snapshot in note.volume_snapshots] == ["s0"]
    await room.volumes.delete(REF)
    await room.notes.flush()
    assert before.id not in notes.names(room.pool)


async def test_all_that_was_lost_comes_back_as_it_was(room: Room) -> None:
    volume = room.volumes.find(REF).record
    instance = room.store.instance("default", "web").record
    pool = room.store.pool("default").record
    await room.lose()
    report = await room.recover.validate([])
    assert [(f.kind, f.name, f.snapshots) for f in report.found] == [
        ("container", "web", 0),
        ("custom", "data", 1),
    ]
    assert not room.store.pools.entries(), "to look changes nothing"
    await room.recover.restore([])
    assert room.store.pool("default").record == pool
    back = room.store.instance("default", "web").record
    assert replace(back, devices=instance.devices) == instance
    assert room.world.status() == "stopped"
    assert room.volumes.find(REF).record == volume
    assert [e.record.name for e in room.store.snapshots_of_volume(volume)] == ["s0"]
    assert (await room.recover.validate([])).found == ()


async def test_what_nothing_is_recorded_of_is_not_swept_away(room: Room) -> None:
    volume = room.volumes.find(REF).record
    snapshot = room.snapshots.find(replace(REF, snapshot="s0")).record
    assert lost_ids(room.pool, {volume.id}) >= {room.store.instance("default", "web").record.id}
    assert {volume.id, snapshot.id} <= lost_ids(room.pool, set())


async def test_what_must_be_there_first_is_named_and_nothing_is_written(room: Room) -> None:
    await room.lose()
    await room.store.commit(Txn().put(keys.profile("default", "x"), Profile("default", "x")))
    await room.store.commit(Txn().delete(keys.profile("default", "default")))
    await room.store.profiles.wait_for(room.store.profiles.revision + 1, timeout_s=1)
    with pytest.raises(WrongState, match='Profile "default" in project "default"'):
        await room.recover.restore([WantedPool("default", "dir", config={"source": str(room.pool)})])
    assert not room.store.instances.entries()


async def test_a_name_that_was_taken_meanwhile_is_said(room: Room) -> None:
    await room.lose()
    pool = Pool("default", "dir", config={"source": str(room.pool)}, member="m")
    other = Volume("other", "default", "default", "data")
    txn = Txn().put(keys.pool("default"), pool).put(keys.volume("default", "default", "data"), other)
    await room.store.commit(txn)
    assert (
        'Custom volume "data" in project "default" already exists'
        in (await room.recover.validate([])).problems
    )


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "evil"},
        {"format": 99},
        {"volume": {"id": "../../etc"}},
        {"volume": []},
        {"volume_snapshots": [{"id": "/etc"}]},
        {"volume_snapshots": [{"id": "01234567-0123-0123-0123-0123456789ab", "name": "../x"}]},
    ],
)
async def test_notes_that_are_none_are_passed_over(room: Room, change: dict[str, object]) -> None:
    """A pool may come from another host, and somebody may have written what he likes into it."""
    volume = room.volumes.find(REF).record
    path = room.pool / "notes" / f"{volume.id}.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), **change}))
    (room.pool / "notes" / "broken.json").write_bytes(b"{")
    (room.pool / "notes" / "link.json").symlink_to("/etc/passwd")
    await room.lose()
    assert [found.name for found in (await room.recover.validate([])).found] == ["web"]


async def test_a_name_in_a_note_is_checked_like_any_other(room: Room) -> None:
    volume = room.volumes.find(REF).record
    note = orjson.loads((room.pool / "notes" / f"{volume.id}.json").read_bytes())
    note["volume"]["name"] = "../x"
    notes.write(room.pool, volume.id, note)
    await room.lose()
    with pytest.raises(Invalid, match="slashes"):
        await room.recover.restore([])


@pytest.mark.parametrize(
    "change",
    [
        {"instance": {"image": "../../etc"}},
        {"snapshots": [{"name": "a/b"}]},
        {"snapshots": [{"name": "s", "instance": {"image": "/etc"}}]},
    ],
)
def test_what_a_note_brings_into_keys_and_paths_is_checked(change: dict[str, object]) -> None:
    """An image names a folder that is mounted upon, a snapshot a key of the state."""
    plain = noted.of_instance(Instance("01234567-0123-0123-0123-0123456789ab", "default", "web"), {}, [])
    assert noted.parse(plain)
    assert noted.parse({**plain, **change}) is None


async def test_ids_of_the_host_in_a_note_become_no_guests(room: Room) -> None:
    """Else the guest of a pool from elsewhere would be users of this host."""
    id = room.store.instance("default", "web").record.id
    note = orjson.loads((room.pool / "notes" / f"{id}.json").read_bytes())
    note["instance"]["idmap_base"] = 5
    notes.write(room.pool, id, note)
    await room.lose()
    await room.recover.restore([])
    assert room.store.instance("default", "web").record.idmap_base >= idmaps.FIRST
