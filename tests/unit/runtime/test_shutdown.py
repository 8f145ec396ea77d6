"""What happens to instances when the host goes down."""

from __future__ import annotations

import pytest

from core.errors import WrongState
from core.records import Instance
from services.runtime.domain.shutdown import Stopping, plan
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.running.shutdown import HostShutdown
from tests.unit.runtime.conftest import MEMBER, World


class Marker:
    forgotten = False

    def is_new(self) -> bool:
        return False

    def seen(self) -> None:
        return None

    def forget(self) -> None:
        self.forgotten = True


def stopping(name: str, priority: str = "") -> Stopping:
    config = {"boot.stop.priority": priority} if priority else {}
    return Stopping(Instance(name, "default", name), config)


def test_higher_priorities_stop_first_and_equal_ones_at_once() -> None:
    """A database that others depend on is given a low one, and goes last."""
    groups = plan([stopping("db", "-5"), stopping("b"), stopping("front", "10"), stopping("a")])
    assert [[s.instance.name for s in group] for group in groups] == [["front"], ["a", "b"], ["db"]]


def test_a_timeout_is_taken_from_the_instance() -> None:
    assert stopping("a").timeout_s == 30
    assert Stopping(Instance(), {"boot.host_shutdown_timeout": "7"}).timeout_s == 7


async def test_what_ran_is_stopped_and_comes_back_with_the_host(world: World) -> None:
    """Its last state stays RUNNING, unlike that of one which somebody stopped."""
    marker = Marker()
    await world.made("up")
    await world.made("down")
    await world.changed("start", "up")
    failed = await HostShutdown(world.host, world.power, marker, MEMBER).run()
    assert failed == []
    assert world.status("up") == "stopped"
    store = world.host.store
    power = {
        name: store.observed_of(store.instance("default", name).record).record.volatile.get(
            "volatile.last_state.power"
        )
        for name in ("up", "down")
    }
    assert power == {"up": "RUNNING", "down": None}
    assert marker.forgotten


async def test_one_that_does_not_stop_in_time_is_killed(world: World) -> None:
    await world.made("stuck")
    update = Update(config={"boot.host_shutdown_timeout": "1"}, merge=True)
    await world.done(await world.changes.update("default", "stuck", update, expected_revision=0))
    await world.changed("start", "stuck")
    world.engine.is_stuck = True
    assert await HostShutdown(world.host, world.power, Marker(), MEMBER).run() == []
    assert world.status("stuck") == "stopped"


async def test_nothing_starts_while_the_host_goes_down(world: World) -> None:
    await world.made()
    world.power.is_closing = True
    with pytest.raises(WrongState, match="shutting down"):
        await world.changed("start")
