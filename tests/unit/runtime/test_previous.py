"""What an instance was before its last change is kept, so that the change can be taken back."""

from __future__ import annotations

from typing import Any

from core.records import Previous
from core.state import codec, keys
from services.runtime.usecases.instances.change import Update


async def previous_of(world: Any, name: str) -> Previous | None:
    instance = world.host.store.instance("default", name).record
    found = await world.host.store.get(keys.previous(instance.id))
    return codec.decode(Previous, found.value) if found else None


async def updated(world: Any, name: str, **config: str) -> Any:
    wanted = Update(config={key.replace("_", "."): value for key, value in config.items()}, merge=True)
    operation = await world.changes.update("default", name, wanted, expected_revision=0)
    return await world.done(operation)


async def test_the_version_before_the_last_change_is_kept(world: Any) -> None:
    """Configuration and name; a new one is never changed before."""
    await world.made()
    assert await previous_of(world, "web") is None

    await updated(world, "web", user_a="1")
    await updated(world, "web", user_a="2")
    assert (await previous_of(world, "web")).instance.config["user.a"] == "1"
    await world.done(await world.changes.rename("default", "web", "shop"))

    assert (await previous_of(world, "shop")).instance.name == "web"


async def test_a_change_that_failed_is_none(world: Any) -> None:
    """Its undo put back the record; what was before the last real change is still known."""
    await world.made()
    await updated(world, "web", user_a="1")
    before = await previous_of(world, "web")
    world.networks.fails = True

    operation = await updated(world, "web", user_a="2")

    assert operation.error_message
    assert await previous_of(world, "web") == before


async def test_it_goes_with_the_instance(world: Any) -> None:
    """Nothing of it is left, whose name may be another's soon."""
    await world.made()
    await updated(world, "web", user_a="1")
    await world.done(await world.changes.delete("default", "web"))

    assert not (await world.host.store.list(keys.PREVIOUS)).kvs
