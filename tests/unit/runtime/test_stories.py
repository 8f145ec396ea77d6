"""The stories of instances on a fake host: done, undone, and one at a time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from core.errors import AlreadyExists, Invalid, NotFound, PodiumError, WrongState
from core.operations.operation import Operation
from core.state import codec, keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from services.runtime.domain import idmaps
from services.runtime.domain.expand import Expanded
from services.runtime.ports import ExitRecord
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.instances.create import Source, Wanted
from services.runtime.usecases.running import power
from tests.unit.runtime.conftest import World

_NEW = "Failed initialising instance: "


async def test_a_created_instance_is_stopped_and_has_its_mac(world: World) -> None:
    assert (await world.made()).state == "succeeded"
    observed = world.host.store.observed_of(world.host.store.instance("default", "web").record).record
    assert (observed.status, observed.volatile["volatile.eth0.hwaddr"]) == ("stopped", "00:16:3e:00:00:01")


async def test_a_failed_creation_leaves_nothing_and_frees_the_name(world: World) -> None:
    world.networks.fails = True
    assert (await world.made()).error_reason == "NO_NETWORK"
    assert not world.host.store.instances.entries()
    assert not world.host.store.idmaps.entries()
    assert not world.driver.made
    world.networks.fails = False
    assert (await world.made()).state == "succeeded"


async def test_a_name_is_used_once(world: World) -> None:
    await world.made()
    with pytest.raises(AlreadyExists):
        await world.made()


async def test_many_creations_at_once_get_ranges_of_their_own(world: World) -> None:
    await asyncio.gather(*(world.made(f"c{i}") for i in range(8)))
    bases = {e.record.idmap_base for e in world.host.store.instances.entries()}
    assert len(bases) == 8


async def test_an_unknown_profile_or_alias_is_refused_before_anything_is_recorded(world: World) -> None:
    with pytest.raises(NotFound):
        await world.create.accept(Wanted("default", "web", Source(alias="debian/12"), profiles=("no",)))
    with pytest.raises(NotFound):
        await world.create.accept(Wanted("default", "web", Source(alias="no")))
    with pytest.raises(Invalid):
        await world.create.accept(Wanted("default", "web", Source()))
    assert not world.host.store.instances.entries()


async def test_a_module_that_is_not_loaded_is_told_at_once_to_what_runs(world: World) -> None:
    """As LXD loads it at once. What is stopped is told when it starts."""
    update = Update(config={"linux.kernel_modules": "nonsense"}, merge=True)
    await world.made()
    await world.changed("start")
    said = await world.done(await world.changes.update("default", "web", update, expected_revision=0))
    assert said.error_message.startswith("Failed to load kernel module 'nonsense'")
    await world.changed("stop")
    assert (
        await world.done(await world.changes.update("default", "web", update, expected_revision=0))
    ).state == "succeeded"
    assert (await world.changed("start")).error_message.startswith("Failed to load kernel module 'nonsense'")


@pytest.mark.parametrize(
    ("is_v2", "wanted", "starts"), [(True, "v1", False), (True, "", True), (False, "v1", True)]
)
async def test_an_image_that_requires_cgroup_v1_starts_where_there_is_one(
    world: World, is_v2: bool, wanted: str, starts: bool
) -> None:
    world.host.cgroups.is_v2 = is_v2
    await world.made()
    update = Update(config={"image.requirements.cgroup": wanted}, merge=True)
    await world.done(await world.changes.update("default", "web", update, expected_revision=0))

    done = await world.changed("start")

    words = "The image used by this instance requires a CGroupV1 host system"
    assert done.error_message == ("" if starts else words)


async def test_start_freeze_thaw_stop_delete(world: World) -> None:
    await world.made()
    for action, status in (
        ("start", "running"),
        ("freeze", "frozen"),
        ("unfreeze", "running"),
        ("stop", "stopped"),
    ):
        assert (await world.changed(action)).state == "succeeded"
        assert world.status() == status
    await world.done(await world.changes.delete("default", "web"))
    assert not world.host.store.instances.entries()
    assert not world.networks.reserved


async def test_what_is_frozen_is_restarted_only_by_force(world: World) -> None:
    """It cannot be asked to end; LXD says so, and kills it if that is asked for."""
    await world.made()
    await world.changed("start")
    await world.changed("freeze")
    with pytest.raises(WrongState, match="Instance is not running"):
        await world.changed("restart")
    assert (await world.changed("restart", force=True)).state == "succeeded"
    assert world.status() == "running"


async def test_what_is_done_to_all_is_called_what_is_done_to_each(world: World) -> None:
    await world.made()
    operation = await world.power.change_all("default", "start", timeout_s=5, force=False)
    assert operation.description == "Starting instance"
    await world.done(operation)
    assert world.status() == "running"


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [
        ({"x": {"type": "nosuch"}}, "Invalid device type nosuch"),
        ({"x": {"path": "/x"}}, "Invalid device type"),
        ({"x": {"type": "nic"}}, f'{_NEW}Invalid devices: Device validation failed for "x": Failed loading'),
        (
            {"x": {"type": "disk", "path": "/", "pool": "default"}},
            f"{_NEW}Invalid devices: Failed detecting root disk device: More than one root device found",
        ),
        (
            {"root": {"type": "disk", "path": "/", "pool": "nosuch"}},
            f"{_NEW}Failed loading storage pool: Storage pool not found",
        ),
    ],
)
async def test_devices_of_a_new_instance_are_refused_in_the_words_of_lxd(
    world: World, devices: dict[str, dict[str, str]], sentence: str
) -> None:
    with pytest.raises(PodiumError) as caught:
        await world.create.accept(Wanted("default", "web", Source(empty=True), devices=devices))
    assert caught.value.message.startswith(f"Failed creating instance record: {sentence}")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("nosuch", "Architecture isn't supported: nosuch"),
        ("s390x", "Failed creating instance record: Requested architecture isn't supported by this host"),
    ],
)
async def test_what_this_host_cannot_run_is_not_made(world: World, asked: str, sentence: str) -> None:
    with pytest.raises(Invalid) as caught:
        await world.create.accept(Wanted("default", "web", Source(empty=True), architecture=asked))
    assert caught.value.message == sentence


async def test_an_instance_gets_no_architecture_that_does_not_exist(world: World) -> None:
    """It could then not be copied, moved or restored from a backup; that of a foreign host may come back."""
    await world.made()
    for merge in (True, False):
        with pytest.raises(Invalid, match="Architecture isn't supported: foo"):
            wanted = Update(architecture="foo", profiles=("default",), merge=merge)
            await world.changes.update("default", "web", wanted, expected_revision=0)
    wanted = Update(architecture="amd64", merge=True)
    await world.changes.update("default", "web", wanted, expected_revision=0)
    assert world.host.store.instance("default", "web").record.architecture == "x86_64"


async def test_an_instance_keeps_a_root_disk_beside_other_devices(world: World) -> None:
    """As with LXD: it goes with the last profile, not by a slip. What was so before can be changed."""
    await world.made()
    nothing = {"x": {"type": "none"}}
    with pytest.raises(Invalid, match="Invalid expanded devices: Failed detecting root disk device: No root"):
        await world.changes.update("default", "web", Update(devices=nothing), expected_revision=0)
    await world.changes.update("default", "web", Update(), expected_revision=0)
    assert not world.host.store.instance("default", "web").record.profiles

    key = keys.instance("default", "web")
    record = replace(world.host.store.instance("default", "web").record, devices=nothing)
    await world.host.store.commit(Txn().put(key, record))
    again = Update(devices=nothing, config={"user.a": "1"})
    await world.changes.update("default", "web", again, expected_revision=0)
    assert world.host.store.instance("default", "web").record.config == {"user.a": "1"}


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ({}, "Failed getting root disk: No root device could be found"),
        ({"x": {"type": "none"}}, "Invalid devices: Failed detecting root disk device: No root device could"),
    ],
)
async def test_a_new_instance_has_a_root_disk(
    world: World, devices: dict[str, dict[str, str]], said: str
) -> None:
    wanted = Wanted("default", "web", Source(empty=True), profiles=(), devices=devices)
    with pytest.raises(Invalid) as caught:
        await world.create.accept(wanted)
    before = "Failed creating instance record: Failed initialising instance: "
    assert caught.value.message.startswith(f"{before}{said}")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("volatile.x", "1", "Unknown configuration key: volatile.x"),
        ("volatile.eth0.foo", "1", "Unknown configuration key: volatile.eth0.foo"),
        ("volatile.uuid", "foo", "Invalid UUID"),
    ],
)
async def test_volatile_keys_of_a_new_instance_are_refused_as_lxd_does(
    world: World, key: str, value: str, said: str
) -> None:
    with pytest.raises(Invalid) as caught:
        await world.create.accept(Wanted("default", "web", Source(empty=True), config={key: value}))
    assert caught.value.message == f"Failed creating instance record: {said}"


async def test_a_guest_reaches_its_socket_by_the_group_of_its_root(world: World) -> None:
    """With another user for root than for its group it was given to the user's number, and did not start."""
    own = {"raw.idmap": "uid 1500 0"}
    await world.create.accept(Wanted("default", "web", Source(empty=True), config=own))
    assert (await world.changed("start")).state == "succeeded"
    instance = world.host.store.instance("default", "web").record
    assert world.host.doors.groups[instance.id] == idmaps.of(instance).root[1] != 1500


async def test_an_instance_of_no_image_tells_of_none(world: World) -> None:
    await world.create.accept(Wanted("default", "web", Source(empty=True)))
    instance = world.host.store.instance("default", "web").record
    assert "volatile.base_image" not in world.host.store.observed_of(instance).record.volatile


async def test_of_many_that_are_deleted_at_once_the_last_one_lets_go_of_their_image(world: World) -> None:
    """Each still saw the record of another, and the image stayed mounted for nobody."""
    names = [f"web{number}" for number in range(8)]
    for name in names:
        await world.made(name)
        await world.changed("start", name)
        await world.changed("stop", name, force=True)
    assert world.host.rootfs.images()
    for operation in await asyncio.gather(*(world.changes.delete("default", name) for name in names)):
        await world.done(operation)
    assert not world.host.rootfs.images()


async def test_a_failed_start_leaves_it_stopped(world: World) -> None:
    await world.made()
    world.engine.fails = True
    assert (await world.changed("start")).error_message == "The engine said no"
    assert world.status() == "stopped"


async def test_a_running_instance_cannot_be_deleted_or_renamed(world: World) -> None:
    await world.made()
    await world.changed("start")
    with pytest.raises(WrongState):
        await world.changes.delete("default", "web")
    with pytest.raises(WrongState):
        await world.changes.rename("default", "web", "other")


async def test_rename_keeps_the_id(world: World) -> None:
    await world.made()
    before = world.host.store.instance("default", "web").record.id
    assert (await world.done(await world.changes.rename("default", "web", "other"))).state == "succeeded"
    assert world.host.store.instance("default", "other").record.id == before
    assert world.status("other") == "stopped"


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(3):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_instance_that_ends_by_itself_is_recorded_as_stopped(world: World) -> None:
    await world.made()
    await world.changed("start")
    world.engine.end(world.host.store.instance("default", "web").record.id)
    await until(lambda: world.status() == "stopped")


async def test_a_reboot_from_inside_starts_it_again(world: World) -> None:
    await world.made()
    await world.changed("start")
    world.engine.end(world.host.store.instance("default", "web").record.id, "reboot")
    await until(lambda: len(world.engine.plans) == 2 and world.status() == "running")


async def test_an_ephemeral_instance_goes_when_it_stops(world: World) -> None:
    await world.made(ephemeral=True)
    await world.changed("start")
    await world.changed("stop", force=True)
    assert not world.host.store.instances.entries()
    assert not world.driver.made


async def test_a_client_that_read_the_outcome_first_is_not_told_busy(world: World) -> None:
    """etcd may tell the gateway of a commit before it answers the process that committed."""
    operation = await world.create.accept(Wanted("default", "web", Source(alias="debian/12")))
    world.late.may_answer.clear()
    await asyncio.wait_for(_recorded(world.late, operation.id), 5)

    starting = asyncio.create_task(world.power.change("default", "web", "start", timeout_s=5, force=False))
    asyncio.get_running_loop().call_later(0.01, world.late.may_answer.set)
    await world.done(await starting)

    assert world.status() == "running"


async def _recorded(store: MemoryStore, id: str) -> None:
    while True:
        await asyncio.sleep(0)
        kv = await store.get(keys.operation(id))
        if kv and codec.decode(Operation, kv.value).is_final:
            return


async def test_a_failed_update_leaves_the_record_as_it_was(world: World) -> None:
    """A limit that the kernel refuses must not be shown as if it held."""
    await world.made()
    before = world.host.store.instance("default", "web").record
    world.driver.refuses = True
    wanted = Update(config={"user.x": "1"}, merge=True)
    operation = await world.changes.update("default", "web", wanted, expected_revision=0)
    assert (await world.done(operation)).error_reason == "NO_QUOTA"
    assert world.host.store.instance("default", "web").record == before
    assert world.status() == "stopped"


async def test_who_comes_while_an_instance_follows_its_profiles_is_not_told_busy(world: World) -> None:
    """Nobody asked for that: after a restart it may happen the moment its owner deletes the instance."""
    await world.made()
    following = asyncio.create_task(world.changes.apply_again("default", "web", Expanded({}, {})))
    instance = world.host.store.instance("default", "web").record
    while not world.host.store.observed_of(instance).record.operation:
        await asyncio.sleep(0)

    assert (await world.done(await world.changes.delete("default", "web"))).error_message == ""
    assert (await following).state == "succeeded"
    assert not world.host.store.instances.entries()


async def test_a_failed_rename_gives_the_old_name_back(world: World) -> None:
    await world.made()
    world.networks.fails = True
    operation = await world.done(await world.changes.rename("default", "web", "other"))
    assert operation.error_reason == "NO_NETWORK"
    assert [e.record.name for e in world.host.store.instances.entries()] == ["web"]
    assert world.status() == "stopped"


async def test_a_reboot_that_was_already_carried_out_is_not_waited_for_again(world: World) -> None:
    """A crash between the new start and its commit runs the exit story again, with the guest up."""
    await world.made()
    await world.changed("start")
    instance = world.host.store.instance("default", "web").record
    async with asyncio.timeout(3):
        await world.power._on_exit(instance, ExitRecord("reboot", 0.0))
        await until(lambda: not world.runner.live_of("instance.exit"))
    assert world.status() == "running"


async def test_a_name_is_free_as_soon_as_a_client_read_that_its_creation_failed(world: World) -> None:
    """etcd may tell the gateway of the outcome before it answers the process that recorded it."""
    world.networks.fails = True
    operation = await world.create.accept(Wanted("default", "web", Source(alias="debian/12")))
    world.late.may_answer.clear()
    await asyncio.wait_for(_recorded(world.late, operation.id), 5)
    world.networks.fails = False

    again = asyncio.create_task(world.create.accept(Wanted("default", "web", Source(alias="debian/12"))))
    asyncio.get_running_loop().call_later(0.01, world.late.may_answer.set)

    assert (await world.done(await again)).state == "succeeded"


async def test_an_init_that_was_not_listening_yet_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal to an init without a handler is lost; a stop right after a start waited for ten minutes."""
    monkeypatch.setattr(power, "_ASK_AGAIN_S", (0.01, 0.01, 0.0))
    await world.made()
    await world.changed("start")
    world.engine.deaf_to = 1
    assert (await world.changed("stop")).state == "succeeded"
    assert world.engine.asked == 2 and world.status() == "stopped"


async def test_who_comes_while_an_end_is_tidied_up_waits_for_that(world: World) -> None:
    """The guest ended on its own; nobody who asks in that moment did anything wrong."""
    await world.made()
    await world.changed("start")
    await _ends(world)
    with pytest.raises(WrongState, match="already stopped"):
        await world.power.change("default", "web", "stop", timeout_s=1, force=True)

    await world.changed("start")
    await _ends(world)
    assert (await world.changed("start")).error_message == ""
    assert world.status() == "running"


async def _ends(world: World) -> None:
    """Let the guest end on its own, and return when that begins to be tidied up."""
    instance = world.host.store.instance("default", "web").record
    world.host.engine.pids.clear()  # type: ignore[attr-defined]
    await world.power._on_exit(instance, ExitRecord("stop", 0.0))
