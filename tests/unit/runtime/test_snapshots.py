"""Snapshots and restores on a host without a kernel."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from core.errors import AlreadyExists, NotFound, Unavailable, WrongState
from core.operations.operation import Operation
from core.records import Instance, Profile, Snapshot
from core.state import keys
from core.state.store import Txn
from services.runtime.usecases.instances.restore import Restore
from services.runtime.usecases.instances.snapshots import Snapshots, WantedSnapshot
from services.runtime.usecases.instances.still import Stillness
from services.runtime.usecases.policy import Policy
from tests.unit.runtime.conftest import World


@dataclass
class Desk:
    """Snapshots of one instance "web"."""

    world: World
    snapshots: Snapshots
    restore: Restore

    async def take(self, name: str = "", **wanted: float) -> Operation:
        taken = await self.snapshots.take("default", "web", WantedSnapshot(name, **wanted))  # type: ignore[arg-type]
        return await self.world.done(taken)

    def names(self) -> list[str]:
        return [entry.record.name for entry in self.world.host.store.instance_snapshots(self.instance)]

    @property
    def instance(self) -> Instance:
        return self.world.host.store.instance("default", "web").record

    def record(self, name: str) -> Snapshot:
        return self.world.host.store.snapshot(self.instance, name).record

    def write(self, text: str) -> None:
        self.world.driver.content[self.world.host.volume_of(self.instance)] = text

    def content(self) -> str:
        return self.world.driver.content[self.world.host.volume_of(self.instance)]


@pytest.fixture
async def desk(world: World) -> Desk:
    claims = world.changes._claims
    snapshots = Snapshots(world.host, Policy(world.host), claims, Stillness(world.host))
    restore = Restore(world.host, Policy(world.host), claims, world.power)
    await world.made()
    return Desk(world, snapshots, restore)


async def test_snapshots_are_numbered_and_hold_what_the_volume_held(desk: Desk) -> None:
    desk.write("one")
    await desk.take()
    desk.write("two")
    await desk.take()
    assert desk.names() == ["snap0", "snap1"]
    volume = desk.world.driver.volume("default", desk.record("snap0").id)
    assert desk.world.driver.content[volume] == "one"
    assert desk.world.status() == "stopped"


async def test_a_name_is_given_once(desk: Desk) -> None:
    await desk.take("a")
    with pytest.raises(AlreadyExists, match='"instances_snapshots" entry already exists'):
        await desk.take("a")


async def test_many_at_once_wait_for_each_other(desk: Desk) -> None:
    """Whoever snapshots in parallel gets all of them, not the news that the instance is busy."""
    done = await asyncio.gather(*(desk.take() for _ in range(12)))
    assert [operation.error_message for operation in done] == [""] * 12
    assert sorted(desk.names()) == sorted(f"snap{n}" for n in range(12))


async def test_nobody_waits_for_one_that_cannot_end(desk: Desk) -> None:
    """While the state store is away, calls answer that at once, whatever was at work when it went."""
    goes_on, clone = asyncio.Event(), desk.world.driver.clone_volume

    async def stuck(*args: object, **more: object) -> object:
        await goes_on.wait()
        return await clone(*args, **more)  # type: ignore[arg-type]

    desk.world.driver.clone_volume = stuck  # type: ignore[method-assign,assignment]
    first = asyncio.create_task(desk.take("a"))
    await asyncio.sleep(0.01)
    desk.world.late.is_away = True
    with pytest.raises(Unavailable):
        await asyncio.wait_for(desk.take("b"), 5)
    desk.world.late.is_away = False
    goes_on.set()
    await first


async def test_a_running_one_is_frozen_only_meanwhile(desk: Desk) -> None:
    await desk.world.changed("start")
    seen = []
    clone = desk.world.driver.clone_volume

    async def watched(*args: object, **more: object) -> object:
        seen.append(desk.world.host.cgroups.is_frozen(desk.instance.id))
        return await clone(*args, **more)  # type: ignore[arg-type]

    desk.world.driver.clone_volume = watched  # type: ignore[method-assign,assignment]
    await desk.take()
    assert seen == [True]
    assert not desk.world.host.cgroups.is_frozen(desk.instance.id)
    assert desk.world.status() == "running"


async def test_one_that_was_paused_stays_so(desk: Desk) -> None:
    await desk.world.changed("start")
    await desk.world.changed("freeze")
    await desk.take()
    assert desk.world.host.cgroups.is_frozen(desk.instance.id)
    assert desk.world.status() == "frozen"


async def test_a_copy_that_fails_leaves_neither_record_nor_volume(desk: Desk) -> None:
    async def full(*args: object, **more: object) -> object:
        raise WrongState("FULL", "No space left")

    desk.world.driver.clone_volume = full  # type: ignore[method-assign,assignment]
    operation = await desk.take("a")
    assert operation.error_message == "No space left"
    assert desk.names() == []
    assert desk.world.driver.made == {desk.instance.id}
    assert desk.world.status() == "stopped"


async def test_rename_update_and_delete(desk: Desk) -> None:
    await desk.take("a", expires_at=5.0)
    await desk.take("b")
    with pytest.raises(AlreadyExists, match="Name 'web/b' already in use"):
        await desk.snapshots.rename("default", "web", "a", "b")
    await desk.world.done(await desk.snapshots.rename("default", "web", "a", "c"))
    await desk.world.done(await desk.snapshots.update("default", "web", "c", None))
    assert desk.record("c").expires_at == 5.0
    await desk.world.done(await desk.snapshots.update("default", "web", "c", 0.0))
    assert desk.record("c").expires_at == 0.0
    id = desk.record("c").id
    await desk.world.done(await desk.snapshots.delete("default", "web", "c"))
    assert desk.names() == ["b"]
    assert id not in desk.world.driver.made
    with pytest.raises(NotFound, match='Failed to fetch snapshot "c" of instance "web"'):
        await desk.snapshots.delete("default", "web", "c")


async def test_a_restore_puts_back_content_and_configuration(desk: Desk) -> None:
    desk.write("old")
    await desk.take("a")
    desk.write("new")
    store = desk.world.host.store
    changed = replace(desk.instance, config={"user.x": "1"}, ephemeral=True)
    await store.commit(Txn().put(keys.instance("default", "web"), changed))
    await desk.world.done(await desk.restore.accept("default", "web", "a"))
    assert desk.content() == "old"
    assert "user.x" not in desk.instance.config
    assert not desk.instance.ephemeral
    assert desk.world.status() == "stopped"


@pytest.mark.parametrize("now", [("default",), ("default", "renamed")])
async def test_an_instance_keeps_the_profiles_that_it_has_by_then(desk: Desk, now: tuple[str, ...]) -> None:
    """LXD lets a profile go, or get another name, that only snapshots name; they follow the instance."""
    store = desk.world.host.store
    old, new = (keys.profile("default", name) for name in ("extra", "renamed"))
    await store.profiles.wait_for(await store.commit(Txn().put(old, Profile("default", "extra"))))
    plain, own = desk.instance, keys.instance("default", "web")
    await store.commit(Txn().put(own, replace(plain, profiles=("default", "extra"))))
    await desk.take("a")
    renamed = Txn().delete(old).put(new, Profile("default", "renamed"))
    await store.profiles.wait_for(await store.commit(renamed.put(own, replace(plain, profiles=now))))

    operation = await desk.world.done(await desk.restore.accept("default", "web", "a"))

    assert operation.error_message == ""
    assert desk.instance.profiles == now


async def test_a_running_one_runs_again_after_its_restore(desk: Desk) -> None:
    await desk.take("a")
    await desk.world.changed("start")
    operation = await desk.world.done(await desk.restore.accept("default", "web", "a"))
    assert operation.error_message == ""
    assert desk.world.status() == "running"
    assert len(desk.world.engine.plans) == 2


async def test_a_restore_that_cannot_begin_leaves_it_running(desk: Desk) -> None:
    await desk.take("a")
    await desk.world.changed("start")

    async def broken(*args: object, **more: object) -> object:
        raise WrongState("BROKEN", "The pool is broken")

    desk.world.driver.replace_volume = broken  # type: ignore[method-assign,assignment]
    operation = await desk.world.done(await desk.restore.accept("default", "web", "a"))
    assert operation.error_message == "The pool is broken"
    assert desk.world.status() == "running"


async def test_a_missing_snapshot_is_named_as_lxd_does(desk: Desk) -> None:
    with pytest.raises(NotFound, match="Snapshot web/x does not exist"):
        await desk.restore.accept("default", "web", "x")


async def test_an_instance_goes_with_its_snapshots(desk: Desk) -> None:
    await desk.take("a")
    await desk.world.done(await desk.world.changes.delete("default", "web"))
    assert not desk.world.driver.made
    assert not desk.world.host.store.snapshots.entries()
