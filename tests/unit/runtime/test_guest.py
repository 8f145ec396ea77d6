"""What guests are told of themselves, and what they may say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.errors import WrongState
from core.policy.expansion import Expanded
from core.state import keys
from services.runtime.domain.guest import ConfigChange, DeviceChange, Hook, changes
from services.runtime.usecases.inside.guest import Guests
from services.runtime.usecases.instances.change import Update

NIC = {"type": "nic", "network": "b"}


def test_only_what_is_meant_for_guests_is_told() -> None:
    """Keys of the host's (limits, security) are no business of a guest."""
    before = Expanded({"user.a": "1", "limits.cpu": "1"}, {})
    after = Expanded({"user.a": "2", "limits.cpu": "2", "cloud-init.user-data": "x"}, {})

    assert changes(before, after) == [
        ConfigChange("cloud-init.user-data", "", "x"),
        ConfigChange("user.a", "1", "2"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, NIC, ["added"]),
        (NIC, {}, ["removed"]),
        (NIC, {**NIC, "limits.ingress": "1Mbit"}, ["updated"]),
        (NIC, {**NIC, "network": "c"}, ["removed", "added"]),
        ({"type": "proxy"}, {"type": "proxy", "listen": "x"}, ["removed", "added"]),
        (NIC, NIC, []),
    ],
)
def test_a_device_that_cannot_change_in_place_goes_and_comes(
    before: dict[str, str], after: dict[str, str], told: list[str]
) -> None:
    """As LXD tells it, so that what listens inside does the same work."""
    found = changes(
        Expanded({}, {"d": before} if before else {}), Expanded({}, {"d": after} if after else {})
    )

    assert [change.action for change in found if isinstance(change, DeviceChange)] == told


async def test_a_listener_is_told_when_the_change_is_in_force(world: Any) -> None:
    """First the operation ends, then the guest hears of it."""
    await world.made()
    guests = Guests(world.host)
    id = world.host.store.instance("default", "web").record.id

    with guests.listening(id) as listener:
        operation = await world.changes.update(
            "default", "web", Update(config={"user.x": "1"}, merge=True), expected_revision=0
        )
        await world.done(operation)
        change = await asyncio.wait_for(anext(aiter(listener)), 1)

    assert change == ConfigChange("user.x", "", "1")


async def test_a_listener_hears_of_the_end(world: Any) -> None:
    """A stream that never ended would be kept for an instance that is gone."""
    await world.made()
    guests = Guests(world.host)
    id = world.host.store.instance("default", "web").record.id

    with guests.listening(id) as listener:
        await world.done(await world.changes.delete("default", "web"))
        told = [change async for change in listener]

    assert told == []


async def test_ready_is_said_once_and_forgotten_at_the_stop(world: Any) -> None:
    """It is about what runs now; the next start begins without."""
    await world.made()
    guests = Guests(world.host)
    id = world.host.store.instance("default", "web").record.id
    with pytest.raises(WrongState):
        await guests.say(id, is_ready=True)
    await world.changed("start")

    await guests.say(id, is_ready=True)
    await guests.say(id, is_ready=True)

    assert guests.get(id).state == "true"
    await world.changed("stop", force=True)
    assert guests.get(id).state == ""


async def test_the_door_is_open_while_it_runs(world: Any) -> None:
    """The folder is what the gateway goes by: none may be left of an instance that stopped."""
    await world.made()
    instance = world.host.store.instance("default", "web").record
    await world.changed("start")
    assert world.host.doors.known() == {instance.id}

    await world.changed("stop", force=True)

    assert world.host.doors.known() == set()
    assert world.host.store.observed.get(keys.observed(instance.id)).record.status == "stopped"


async def test_a_guest_hears_of_its_stop_before_it_happens(world: Any) -> None:
    """So that what runs inside can give work away; once, however often the record is written."""
    await world.made()
    await world.changed("start")
    guests = Guests(world.host)
    id = world.host.store.instance("default", "web").record.id

    with guests.listening(id) as listener:
        await world.changed("stop", force=True)
        change = await asyncio.wait_for(anext(aiter(listener)), 1)
        await world.done(await world.changes.delete("default", "web"))
        rest = [change async for change in listener]

    assert change == Hook("stopping")
    assert rest == []
