"""Copies, refreshes, moves and rebuilds on a host without a kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.errors import AlreadyExists, NotFound, WrongState
from core.operations.operation import Operation
from core.records import Instance, Pool, Profile, Project
from core.state import keys
from core.state.store import Txn
from services.runtime.copying import Copying
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.instances.copy import Origin, WantedCopy
from services.runtime.usecases.instances.create import Source
from services.runtime.usecases.instances.move import Destination
from services.runtime.usecases.instances.snapshots import WantedSnapshot
from services.runtime.usecases.policy import Policy
from tests.fakes import runtime_host as fakes
from tests.unit.runtime.conftest import MEMBER, World


class Desk:
    def __init__(self, world: World) -> None:
        claims = world.changes._claims
        self.world = world
        self.room = Copying(
            world.host, Policy(world.host), claims, world.power, world.create, fakes.FakeTicks(), MEMBER
        )

    def of(self, name: str, project: str = "default") -> Instance:
        return self.world.host.store.instance(project, name).record

    def snapshots(self, name: str, project: str = "default") -> list[str]:
        entries = self.world.host.store.instance_snapshots(self.of(name, project))
        return [entry.record.name for entry in entries]

    def write(self, name: str, text: str) -> None:
        self.world.driver.content[self.world.host.volume_of(self.of(name))] = text

    def read(self, name: str, project: str = "default") -> str:
        return self.world.driver.content[self.world.host.volume_of(self.of(name, project))]

    async def take(self, name: str, snapshot: str) -> None:
        wanted = WantedSnapshot(snapshot)
        await self.done(await self.room.snapshots.take("default", name, wanted))

    async def copy(self, source: str, name: str, **more: object) -> Operation:
        origin = Origin("default", *source.split("/"))
        wanted = WantedCopy(**{"project": "default", "name": name, "source": origin, **more})  # type: ignore[arg-type]
        return await self.done(await self.room.copies.accept(wanted))

    async def move(self, instance: str, **to: object) -> Operation:
        return await self.done(await self.room.moves.accept("default", instance, Destination(**to)))  # type: ignore[arg-type]

    async def done(self, operation: Operation) -> Operation:
        final = await self.world.done(operation)
        await self.world.host.store.observed.wait_for(0)
        return final


@pytest.fixture
async def desk(world: World) -> Desk:
    await world.made()
    store = world.host.store
    txn = Txn().put(keys.pool("other"), Pool("other", "dir"))
    txn.put(keys.project("p"), Project("p", config={"features.profiles": "true"}))
    devices = {"root": {"type": "disk", "path": "/", "pool": "default"}}
    await store.commit(txn.put(keys.profile("p", "default"), Profile("p", "default", devices=devices)))
    await store.projects.wait_for(0)
    made = Desk(world)
    made.write("web", "content")
    return made


async def test_a_copy_holds_content_keys_and_snapshots_but_is_another_instance(desk: Desk) -> None:
    await desk.take("web", "s0")
    desk.write("web", "changed")
    operation = await desk.copy("web", "two", config={"user.b": "2"}, ephemeral=True)
    assert operation.error_message == ""
    one, two = desk.of("web"), desk.of("two")
    assert desk.read("two") == "changed"
    assert desk.snapshots("two") == ["s0"]
    assert two.config == {**one.config, "user.b": "2"}
    assert two.ephemeral
    assert (one.id, one.idmap_base) != (two.id, two.idmap_base)
    snapshot = desk.world.host.store.snapshot(two, "s0").record
    assert desk.world.driver.content[desk.world.driver.volume("default", snapshot.id)] == "content"
    assert snapshot.created_at == desk.world.host.store.snapshot(one, "s0").record.created_at
    assert desk.world.status("two") == "stopped"


async def test_a_copy_of_a_snapshot_is_what_the_instance_was(desk: Desk) -> None:
    await desk.take("web", "s0")
    desk.write("web", "changed")
    await desk.copy("web/s0", "old")
    assert desk.read("old") == "content"
    assert desk.snapshots("old") == []


async def test_snapshots_can_be_left_out(desk: Desk) -> None:
    await desk.take("web", "s0")
    await desk.copy("web", "two", instance_only=True)
    assert desk.snapshots("two") == []


async def test_a_copy_lies_in_the_pool_that_is_asked_for(desk: Desk) -> None:
    root = {"type": "disk", "path": "/", "pool": "other"}
    await desk.take("web", "s0")
    await desk.copy("web", "two", devices={"root": root})
    assert desk.of("two").pool == "other"
    assert desk.read("two") == "content"
    assert desk.world.host.store.snapshot(desk.of("two"), "s0").record.instance.pool == "other"


@pytest.mark.parametrize(
    ("source", "more", "error", "says"),
    [
        ("nope", {}, NotFound, 'Failed to fetch instance "nope" in project "default": Instance not found'),
        ("web/nope", {}, NotFound, 'Failed to fetch snapshot "nope" of instance "web"'),
        ("web", {"name": "web"}, AlreadyExists, 'This "instances" entry already exists'),
        ("web", {"project": "nope"}, NotFound, "Failed loading project: Project not found"),
        ("web", {"profiles": ("nope",)}, NotFound, 'Requested profile "nope" doesn\'t exist'),
    ],
)
async def test_refusals_are_those_of_lxd(
    desk: Desk, source: str, more: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await desk.copy(source, **{"name": "two", **more})  # type: ignore[arg-type]


async def test_a_failed_copy_leaves_nothing(desk: Desk) -> None:
    await desk.take("web", "s0")
    before = dict(desk.world.driver.content)
    desk.world.networks.fails = True
    assert (await desk.copy("web", "two")).error_message
    assert desk.world.driver.content == before
    assert len(desk.world.host.store.snapshots.entries()) == 1
    with pytest.raises(NotFound):
        desk.of("two")


async def test_a_source_deleted_meanwhile_fails_the_copy(desk: Desk) -> None:
    clone = desk.world.driver.clone_volume

    async def late(*args: object, **more: object) -> object:
        done = await clone(*args, **more)  # type: ignore[arg-type]
        await desk.done(await desk.world.changes.delete("default", "web"))
        return done

    desk.world.driver.clone_volume = late  # type: ignore[method-assign,assignment]
    assert "changed while it was copied" in (await desk.copy("web", "two")).error_message


async def test_a_refresh_takes_over_content_and_snapshots(desk: Desk) -> None:
    for name in ("s0", "s1"):
        await desk.take("web", name)
    await desk.copy("web", "two")
    await desk.done(await desk.room.snapshots.delete("default", "web", "s0"))
    await desk.take("web", "s2")
    await desk.take("two", "own")
    desk.write("web", "newer")
    origin = Origin("default", "web")
    kept = desk.world.host.store.snapshot(desk.of("two"), "s1").record.id
    operation = await desk.room.refresh.accept("default", "two", origin, instance_only=False)
    assert (await desk.done(operation)).error_message == ""
    assert desk.read("two") == "newer"
    assert desk.snapshots("two") == ["s1", "s2"]
    assert desk.world.host.store.snapshot(desk.of("two"), "s1").record.id == kept
    volumes = {i.id for i in (desk.of("web"), desk.of("two"))}
    volumes |= {e.record.id for e in desk.world.host.store.snapshots.entries()}
    assert desk.world.driver.made == volumes


async def test_a_copy_never_takes_over_the_address_of_its_source(desk: Desk) -> None:
    """After a refresh the stock client sends the copy all that its source has, MAC address and all."""
    await desk.copy("web", "two")
    store = desk.world.host.store
    theirs = {"volatile.eth0.hwaddr": "00:16:3e:00:00:99", "volatile.uuid": desk.of("web").id}
    web = store.observed_of(desk.of("web")).record
    await store.commit(Txn().put(keys.observed(web.id), replace(web, volatile={**web.volatile, **theirs})))
    before = store.observed_of(desk.of("two")).record.volatile

    sent = Update(config=theirs, merge=True)
    operation = await desk.world.changes.update("default", "two", sent, expected_revision=0)
    assert (await desk.done(operation)).error_message == ""

    after = store.observed_of(desk.of("two")).record.volatile
    assert {key: after[key] for key in theirs} == {key: before[key] for key in theirs}


async def test_a_running_copy_is_not_refreshed(desk: Desk) -> None:
    await desk.copy("web", "two")
    await desk.world.changed("start", "two")
    with pytest.raises(WrongState, match="Instance is running"):
        await desk.room.refresh.accept("default", "two", Origin("default", "web"), instance_only=False)


async def test_a_move_to_another_pool_keeps_who_it_is(desk: Desk) -> None:
    await desk.take("web", "s0")
    before = desk.of("web")
    operation = await desk.move("web", name="www", pool="other")
    assert operation.error_message == ""
    after = desk.of("www")
    assert (after.id, after.idmap_base, after.pool) == (before.id, before.idmap_base, "other")
    assert after.devices["root"]["pool"] == "other"
    assert desk.read("www") == "content"
    assert desk.snapshots("www") == ["s0"]
    assert {path.parts[2] for path in desk.world.driver.content} == {"other"}


async def test_a_move_to_another_project_keeps_its_volumes(desk: Desk) -> None:
    await desk.take("web", "s0")
    content = dict(desk.world.driver.content)
    assert (await desk.move("web", project="p")).error_message == ""
    assert desk.of("web", "p").project == "p"
    assert desk.snapshots("web", "p") == ["s0"]
    assert desk.world.driver.content == content
    with pytest.raises(NotFound):
        desk.of("web")


async def test_a_move_to_a_project_whose_profiles_have_no_root_keeps_the_root_disk(desk: Desk) -> None:
    store = desk.world.host.store
    revision = await store.commit(Txn().put(keys.profile("p", "default"), Profile("p", "default")))
    await store.profiles.wait_for(revision)
    assert (await desk.move("web", project="p")).error_message == ""
    moved = desk.of("web", "p")
    assert moved.pool == "default"
    assert moved.devices["root"] == {"type": "disk", "path": "/", "pool": "default"}


@pytest.mark.parametrize(
    ("to", "says"),
    [
        (
            {"pool": "nope"},
            "Failed initialising instance: Failed loading storage pool: Storage pool not found",
        ),
        ({"project": "nope"}, "Failed creating instance record: Project not found"),
    ],
)
async def test_a_move_that_cannot_be_is_an_operation_that_failed(
    desk: Desk, to: dict[str, str], says: str
) -> None:
    """The stock client tells refusals of the request and of the operation apart."""
    before = desk.of("web")
    assert says in (await desk.move("web", **to)).error_message
    assert desk.of("web") == before


async def test_a_move_that_fails_is_as_if_it_never_began(desk: Desk) -> None:
    before, content = desk.of("web"), dict(desk.world.driver.content)
    real = desk.world.driver.clone_volume

    async def full(*args: object, **more: object) -> object:
        await real(*args, **more)  # type: ignore[arg-type]
        raise WrongState("FULL", "No space left")

    desk.world.driver.clone_volume = full  # type: ignore[method-assign,assignment]
    assert (await desk.move("web", name="www", pool="other")).error_message == "No space left"
    assert desk.of("web") == before
    assert desk.world.driver.content == content
    assert desk.world.status() == "stopped"


async def test_a_running_one_is_not_moved(desk: Desk) -> None:
    await desk.world.changed("start")
    assert "CRIU isn't installed" in (await desk.move("web", pool="other")).error_message


async def test_a_rebuilt_one_is_empty_over_its_image(desk: Desk) -> None:
    await desk.take("web", "s0")
    operation = await desk.room.rebuild.accept("default", "web", Source(empty=True))
    assert (await desk.done(operation)).error_message == ""
    assert desk.read("web") == ""
    assert desk.of("web").image == ""
    assert not any(key.startswith("image.") for key in desk.of("web").config)
    assert desk.snapshots("web") == ["s0"]
    await desk.done(await desk.room.rebuild.accept("default", "web", Source(alias="debian/12")))
    assert desk.of("web").config["image.os"] == "Debian"
    assert replace(desk.of("web"), config={}).name == "web"
