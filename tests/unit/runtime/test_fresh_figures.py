"""Guests that outlive the lxcfs they were started with."""

from __future__ import annotations

import asyncio

from services.runtime.usecases.running.freshfigures import FreshFigures
from tests.unit.runtime.conftest import MEMBER, World


async def test_running_guests_follow_whatever_lxcfs_serves(world: World) -> None:
    """Also where it changed while this service was away, and at once when it dies."""
    for name in ("web", "db"):
        await world.made(name)
    await world.changed("start")
    (running,) = world.engine.pids
    world.engine.figures_of = 7
    follower = FreshFigures(world.host, MEMBER, look_s=0.001)
    await follower.start()
    for number in (7, 0, 8):
        world.engine.figures_of = number
        async with asyncio.timeout(5):
            while world.engine.shown.get(running) != number:
                await asyncio.sleep(0.001)
    await follower.stop()

    assert set(world.engine.shown) == {running}
