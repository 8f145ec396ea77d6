"""A pool whose last user has just gone."""

from __future__ import annotations

import asyncio

from core.records import Pool
from core.state import keys
from core.state.store import Txn
from services.runtime.usecases.instances.create import Source, Wanted
from services.runtime.usecases.pools.pools import Pools
from tests.unit.runtime.conftest import MEMBER, World


async def test_a_pool_is_free_for_whoever_heard_that_its_last_user_is_gone(world: World) -> None:
    """A client can hear of an outcome before the process that recorded it knows."""
    store, pools = world.host.store, Pools(world.host, world.runner, MEMBER)
    await store.commit(Txn().put(keys.pool("other"), Pool("other", "dir", member=MEMBER)))
    devices = {"root": {"type": "disk", "path": "/", "pool": "other"}}
    wanted = Wanted("default", "web", Source(alias="debian/12"), devices=devices)
    await world.done(await world.create.accept(wanted))
    await world.changes.delete("default", "web")
    world.late.may_answer.clear()
    while await world.late.get(keys.instance("default", "web")):
        await asyncio.sleep(0)
    assert pools.users("other")

    deleted = asyncio.create_task(pools.delete("other"))
    await asyncio.sleep(0)
    world.late.may_answer.set()
    await deleted

    assert store.pools.get(keys.pool("other")) is None
