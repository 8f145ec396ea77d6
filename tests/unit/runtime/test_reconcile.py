"""What a start of the runtime makes of each state in which a crash or a boot may have left things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from core.records import Instance, InstanceObserved
from core.state import keys
from core.state.store import Txn
from services.runtime.usecases.running.power import Power
from services.runtime.usecases.running.reconcile import Reconcile
from services.runtime.usecases.running.watch import Watch
from tests.unit.runtime.conftest import MEMBER, World

STRAY = "00000000-0000-4000-8000-000000000000"


class FakeBoots:
    def __init__(self) -> None:
        self.new = False

    def is_new(self) -> bool:
        return self.new

    def seen(self) -> None:
        self.new = False


@pytest.fixture
def boots() -> FakeBoots:
    return FakeBoots()


@pytest.fixture
async def reconcile(world: World, boots: FakeBoots) -> AsyncIterator[Reconcile]:
    """As in a process that has just started: its watch knows of no instance yet."""
    watch = Watch(world.host.store, world.engine)
    watch.on_exit = Power._on_exit.__get__(world.power)
    yield Reconcile(world.host, world.runner, watch, boots, MEMBER)
    await watch.stop()


def instance_of(world: World) -> Instance:
    return world.host.store.instance("default", "web").record


def observed_of(world: World) -> InstanceObserved:
    return world.host.store.observed_of(instance_of(world)).record


async def record(world: World, **changes: object) -> None:
    """Write what a process wrote that died before it could go on."""
    new = replace(observed_of(world), **changes)  # type: ignore[arg-type]
    await world.host.store.commit(Txn().put(keys.observed(new.id), new))


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not claim():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("said", ["stopped", "starting", "stopping", "error", "frozen"])
async def test_what_runs_is_recorded_as_running(world: World, reconcile: Reconcile, said: str) -> None:
    await world.made()
    await world.changed("start")
    await record(world, status=said, operation="gone", pid=0)
    await reconcile.adopt()
    observed = observed_of(world)
    assert (observed.status, observed.pid, observed.operation) == (
        "running",
        world.engine.pid(observed.id),
        "",
    )


@pytest.mark.parametrize(
    ("said", "becomes"), [("starting", "stopped"), ("stopping", "stopped"), ("deleting", "stopped"),
                          ("creating", "error"), ("error", "error")],
)  # fmt: skip
async def test_what_does_not_run_and_has_no_owner_is_settled(
    world: World, reconcile: Reconcile, said: str, becomes: str
) -> None:
    await world.made()
    await record(world, status=said, operation="gone")
    await reconcile.adopt()
    assert (observed_of(world).status, observed_of(world).operation) == (becomes, "")


async def test_an_end_that_nobody_saw_goes_through_the_exit_story(world: World, reconcile: Reconcile) -> None:
    await world.made(ephemeral=True)
    await world.changed("start")
    world.engine.pids.clear()
    await reconcile.adopt()
    await until(lambda: not world.host.store.instances.entries())


async def test_after_a_boot_the_last_state_is_kept_for_the_start(
    world: World, reconcile: Reconcile, boots: FakeBoots
) -> None:
    await world.made()
    await world.changed("start")
    world.engine.pids.clear()
    boots.new = True
    await reconcile.adopt()
    observed = observed_of(world)
    assert (observed.status, observed.pid) == ("stopped", 0)
    assert observed.volatile["volatile.last_state.power"] == "RUNNING"


async def test_a_running_instance_with_a_live_operation_is_watched(
    world: World, reconcile: Reconcile
) -> None:
    """The operation may leave it running; then nobody else would notice its end."""
    await world.made()
    await world.changed("start")
    operation = await world.runner.open("t.open", "Being open", op_class="task", id="open")
    await record(world, operation=operation.id)
    await reconcile.adopt()
    await world.runner.finish("open")
    await record(world, operation="")
    world.engine.end(instance_of(world).id)
    await until(lambda: world.status() == "stopped")


async def test_what_has_no_record_is_taken_away_and_what_is_not_ours_stays(
    world: World, reconcile: Reconcile
) -> None:
    await world.made()
    kept = instance_of(world).id
    for id in (STRAY, "somebody-elses"):
        await world.driver.ensure_volume("default", id)
    world.engine.pids[STRAY] = 1
    await reconcile.adopt()
    assert world.driver.made == {kept, "somebody-elses"}
    assert STRAY not in world.engine.pids
