"""NICs and profiles of running instances: what changes reaches the host, and is taken back when refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.errors import WrongState
from core.records import Profile
from core.state import keys
from core.state.store import Txn
from services.runtime.domain.expand import Expanded, differ_in_nics
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.instances.follow import Follow
from tests.unit.runtime.conftest import MEMBER, World

LAN = {"lan": {"type": "nic", "network": "b"}}


async def _update(world: World, devices: dict[str, dict[str, str]]) -> str:
    return await _outcome(world, Update(devices=devices, profiles=("default",)))


async def _outcome(world: World, wanted: Update) -> str:
    operation = await world.changes.update("default", "web", wanted, expected_revision=0)
    return (await world.done(operation)).error_message


def _volatile(world: World) -> dict[str, str]:
    return world.host.store.observed_of(world.host.store.instance("default", "web").record).record.volatile


async def _running(world: World) -> str:
    await world.made()
    await world.changed("start")
    return world.host.store.instance("default", "web").record.id


async def _edit_profile(world: World, devices: dict[str, dict[str, str]]) -> int:
    key = keys.profile("default", "default")
    entry = world.host.store.profiles.get(key)
    assert entry
    changed = replace(entry.record, devices={**entry.record.devices, **devices})
    return await world.host.store.commit(Txn().put(key, changed))


async def test_a_nic_added_while_running_is_plugged_set_up_and_shown(world: World) -> None:
    id = await _running(world)
    assert await _update(world, LAN) == ""
    assert world.networks.plugged[id] == ["eth0", "lan"]
    assert world.host.guests.up == ["lan"]  # type: ignore[attr-defined]
    assert _volatile(world)["volatile.lan.host_name"] == "vethlan"


async def test_a_nic_removed_while_running_is_released_and_forgotten(world: World) -> None:
    id = await _running(world)
    await _update(world, LAN)
    assert await _update(world, {}) == ""
    assert world.networks.reserved[id] == ["eth0"]
    assert not [key for key in _volatile(world) if ".lan." in key]


async def test_a_stopped_instance_reserves_and_plugs_nothing(world: World) -> None:
    await world.made()
    assert await _update(world, LAN) == ""
    assert world.networks.plugged == {}
    assert "volatile.lan.host_name" not in _volatile(world)


async def test_an_instance_with_a_bounded_nic_is_bounded_from_its_start(world: World) -> None:
    """And does not run at all when it cannot be."""
    await world.made()
    await _update(world, {"eth0": {"type": "nic", "network": "b", "limits.egress": "1Mbit"}})
    await world.changed("start")
    id = world.host.store.instance("default", "web").record.id
    assert world.networks.plugged[id] == ["eth0"]


async def test_a_nic_that_comes_or_goes_touches_neither_limits_nor_other_devices(world: World) -> None:
    await _running(world)
    assert await _update(world, {}) == ""
    applied = world.host.cgroups.applied  # type: ignore[attr-defined]
    applied.clear()
    assert [await _update(world, LAN), await _update(world, {})] == ["", ""]
    assert applied == {}


@pytest.mark.parametrize("config", [{"limits.memory": "1GiB"}, {"user.a": "b"}])
async def test_limits_follow_when_keys_change_with_the_nics(world: World, config: dict[str, str]) -> None:
    id = await _running(world)
    wanted = Update(devices=LAN, profiles=("default",), config=config)
    assert await _outcome(world, wanted) == ""
    assert world.host.cgroups.applied[id].items() >= config.items()  # type: ignore[attr-defined]


async def test_limits_follow_an_edited_profile_also_when_only_its_nics_changed(world: World) -> None:
    """Who brings a profile to instances knows not what it was before."""
    id = await _running(world)
    follow = Follow(world.host, world.changes, MEMBER)
    await follow.start()
    applied = world.host.cgroups.applied  # type: ignore[attr-defined]
    applied.clear()
    await follow.settle("default", "default", await _edit_profile(world, LAN))
    assert id in applied
    await follow.stop()


def test_what_follows_from_more_than_nics_is_told_from_what_does_not() -> None:
    root, proxy = {"type": "disk", "path": "/"}, {"type": "proxy", "nat": "true"}
    before = Expanded({"a": "b"}, {"root": root})
    assert differ_in_nics(before, Expanded({"a": "b"}, {"root": root, **LAN}))
    assert not differ_in_nics(before, Expanded({"a": "c"}, {"root": root, **LAN}))
    assert not differ_in_nics(before, Expanded({"a": "b"}, {"root": {**root, "size": "1GiB"}, **LAN}))
    with_proxy = {"root": root, "web": proxy}
    assert not differ_in_nics(Expanded({}, with_proxy), Expanded({}, {**with_proxy, **LAN}))


async def test_a_refused_nic_leaves_the_instance_as_it_was(world: World) -> None:
    """The record must not ask for what the host does not have."""
    await _running(world)
    world.networks.fails = True
    assert "not found" in await _update(world, LAN)
    assert world.host.store.instance("default", "web").record.devices == {}
    assert world.status() == "running"


async def test_an_edited_profile_reaches_the_running_instances(world: World) -> None:
    """LXD applies profiles live; the editor's answer waits for it."""
    id = await _running(world)
    follow = Follow(world.host, world.changes, MEMBER)
    await follow.start()
    revision = await _edit_profile(world, LAN)
    await follow.settle("default", "default", revision)
    assert world.networks.plugged[id] == ["eth0", "lan"]
    await follow.stop()


async def test_a_stopped_instance_gives_up_what_its_profile_no_longer_wants(world: World) -> None:
    """Or a network would be in use by an instance that has no NIC on it."""
    await world.made()
    id = world.host.store.instance("default", "web").record.id
    follow = Follow(world.host, world.changes, MEMBER)
    await follow.start()
    await follow.settled()
    revision = await _edit_profile(world, LAN)
    await follow.settle("default", "default", revision)
    assert world.networks.reserved[id] == ["eth0", "lan"]
    assert world.networks.plugged == {}
    await follow.stop()


async def test_instances_that_cannot_follow_a_profile_are_named(world: World) -> None:
    await _running(world)
    follow = Follow(world.host, world.changes, MEMBER)
    await follow.start()
    world.networks.fails = True
    revision = await _edit_profile(world, LAN)
    with pytest.raises(WrongState, match="Instance: web"):
        await follow.settle("default", "default", revision)
    await follow.stop()


async def test_a_profile_that_changed_while_we_were_away_is_caught_up_with(world: World) -> None:
    """Killed between the change and its effect, the service must not leave instances behind."""
    id = await _running(world)
    revision = await _edit_profile(world, LAN)
    await world.host.store.profiles.wait_for(revision)
    follow = Follow(world.host, world.changes, MEMBER)
    await follow.start()
    await follow.settled()
    assert world.networks.plugged[id] == ["eth0", "lan"]
    await follow.stop()


async def test_a_profile_nobody_uses_settles_at_once(world: World) -> None:
    follow = Follow(world.host, world.changes, MEMBER)
    await follow.start()
    key = keys.profile("default", "other")
    revision = await world.host.store.commit(Txn().put(key, Profile("default", "other")))
    await follow.settle("default", "other", revision)
    await follow.stop()
