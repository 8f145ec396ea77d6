"""Custom volumes: their records, who uses them, and what is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from core.errors import AlreadyExists, Invalid, NotFound, PodiumError, Unsupported, WrongState
from core.records import Pool, Project, Volume
from core.state import keys
from core.state.store import Txn
from services.runtime.domain.volumes import VolumeRef, check_new_snapshot
from services.runtime.ports import VolumeKind
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.volumes.claims import VolumeClaims
from services.runtime.usecases.volumes.custom import NewVolume, Volumes
from tests.unit.runtime.conftest import World

REF = VolumeRef("default", "default", "data")


@pytest.fixture
def volumes(world: World) -> Volumes:
    return Volumes(world.host, Policy(world.host, "m"), VolumeClaims(world.host.store, world.runner))


async def made(volumes: Volumes, ref: VolumeRef = REF, **config: str) -> Volume:
    keys = {key.replace("_", "."): value for key, value in config.items()}
    operation = await volumes.create(NewVolume(ref, config=keys))
    assert operation.state == "succeeded", operation.error_message
    return volumes.find(ref).record


async def attach(world: World, source: str = "data", path: str = "/mnt") -> None:
    """Give the instance "web" the volume as a disk."""
    entry = world.host.store.instance("default", "web")
    disk = {"type": "disk", "pool": "default", "source": source, "path": path}
    record = replace(entry.record, devices={**entry.record.devices, "data": disk})
    await world.host.store.commit(Txn().put(keys.instance("default", "web"), record))


async def test_a_new_volume_has_a_folder_and_what_its_pool_gives(world: World, volumes: Volumes) -> None:
    pool = Pool("default", "dir", config={"volume.snapshots.expiry": "1d", "volume.size": "1MiB"})
    await world.host.store.commit(Txn().put(keys.pool("default"), pool))
    volume = await made(volumes, user_x="1", size="2MiB")
    assert volume.status == "Created"
    assert volume.config == {"snapshots.expiry": "1d", "user.x": "1", "size": "2MiB"}
    assert await world.driver.volumes("default", kind=VolumeKind.CUSTOM) == [volume.id]


async def test_a_name_is_taken_once(volumes: Volumes) -> None:
    await made(volumes)
    with pytest.raises(AlreadyExists, match="Volume by that name already exists"):
        await made(volumes)


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "x" * 256, "a\nb"])
async def test_names_that_could_lead_elsewhere_are_refused(volumes: Volumes, name: str) -> None:
    with pytest.raises(Invalid):
        await made(volumes, replace(REF, name=name))


@pytest.mark.parametrize(("kind", "error"), [("block", Unsupported), ("iso", Invalid), ("x", Invalid)])
async def test_content_for_virtual_machines_is_refused(
    volumes: Volumes, kind: str, error: type[PodiumError]
) -> None:
    with pytest.raises(error):
        await volumes.create(NewVolume(REF, content_type=kind))


async def test_unknown_keys_are_named_with_the_volume(volumes: Volumes) -> None:
    with pytest.raises(Invalid, match=r'Invalid option for volume "default_data" option "zfs\.blocksize"'):
        await made(volumes, zfs_blocksize="4096")


async def test_a_volume_in_use_is_not_deleted(world: World, volumes: Volumes) -> None:
    await made(volumes)
    await world.made()
    await attach(world)
    assert volumes.users(volumes.find(REF).record).urls == ("instances/web",)
    with pytest.raises(WrongState, match="still in use"):
        await volumes.delete(REF)


async def test_a_volume_is_used_by_the_profile_that_brings_it(world: World, volumes: Volumes) -> None:
    """As LXD has it: instances are told only with a disk of their own; all of them keep it from going."""
    await made(volumes)
    await world.made()
    profile = world.host.store.profiles.get(keys.profile("default", "default"))
    assert profile
    disk = {"type": "disk", "pool": "default", "source": "data", "path": "/mnt"}
    shared = replace(profile.record, devices={**profile.record.devices, "data": disk})
    revision = await world.host.store.commit(Txn().put(keys.profile("default", "default"), shared))
    await world.host.store.profiles.wait_for(revision)

    assert volumes.users(volumes.find(REF).record).urls == ("profiles/default",)
    await attach(world)
    assert volumes.users(volumes.find(REF).record).urls == ("instances/web", "profiles/default")
    with pytest.raises(WrongState, match="still in use"):
        await volumes.delete(REF)


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\u00a0b"])
def test_a_new_snapshot_of_a_volume_has_no_blanks_in_its_name(name: str) -> None:
    with pytest.raises(Invalid, match="Storage name cannot contain white space"):
        check_new_snapshot(name)


async def test_the_root_disk_of_an_instance_is_no_use_of_a_volume(world: World, volumes: Volumes) -> None:
    """A custom volume may have any name; "source" of a root disk is none."""
    await made(volumes)
    await world.made()
    assert volumes.users(volumes.find(REF).record).urls == ()


async def test_deleting_forgets_folder_and_name(world: World, volumes: Volumes) -> None:
    await made(volumes)
    assert (await volumes.delete(REF)).state == "succeeded"
    assert await world.driver.volumes("default", kind=VolumeKind.CUSTOM) == []
    with pytest.raises(NotFound):
        volumes.find(REF)


async def test_a_stopped_instance_follows_the_new_name(world: World, volumes: Volumes) -> None:
    before = await made(volumes)
    await world.made()
    await attach(world)
    await volumes.rename(REF, "other")
    assert volumes.find(replace(REF, name="other")).record.id == before.id
    assert world.host.store.instance("default", "web").record.devices["data"]["source"] == "other"


async def test_a_volume_of_a_running_instance_keeps_its_name(world: World, volumes: Volumes) -> None:
    await made(volumes)
    await world.made()
    await attach(world)
    await world.changed("start")
    with pytest.raises(WrongState, match="Volume is still in use by running instances"):
        await volumes.rename(REF, "other")
    with pytest.raises(WrongState, match="Cannot modify shifting"):
        await volumes.update(REF, {"security.shifted": "true"}, "", merge=False, revision=0)


async def test_a_bound_that_the_pool_refuses_leaves_the_volume_as_it_was(
    world: World, volumes: Volumes
) -> None:
    before = await made(volumes)
    world.driver.refuses = True
    operation = await volumes.update(REF, {"size": "1MiB"}, "new", merge=False, revision=0)
    assert operation.error_message == "The pool cannot bound sizes"
    assert volumes.find(REF).record == before


async def test_projects_share_the_volumes_of_the_default_project_unless_they_have_their_own(
    world: World, volumes: Volumes
) -> None:
    txn = Txn().put(keys.project("own"), Project("own", config={"features.storage.volumes": "true"}))
    await world.host.store.commit(txn.put(keys.project("guest"), Project("guest")))
    await asyncio.sleep(0.05)  # the projects are another service's records: they come by the watch
    await made(volumes)
    assert (await made(volumes, replace(REF, project="own"))).project == "own"
    assert volumes.find(replace(REF, project="guest")).record.project == "default"


async def test_keys_that_contradict_are_refused(volumes: Volumes) -> None:
    with pytest.raises(Invalid, match="Schedule must be of the form"):
        await volumes.create(NewVolume(REF, config={"snapshots.schedule": "@never"}))
    await made(volumes, security_shifted="true")
    with pytest.raises(Invalid, match="mutually exclusive"):
        await volumes.update(REF, {"security.unmapped": "true"}, "", merge=True, revision=0)
