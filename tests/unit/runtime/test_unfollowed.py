"""What the host refused of a profile blocks no change of something else; what is new is refused still."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import Invalid, WrongState
from core.records import Profile
from core.state import keys
from core.state.store import Txn
from services.runtime.domain.expand import Expanded
from services.runtime.kernel.cgroups import LinuxCgroups
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.instances.follow import Follow
from services.runtime.usecases.running import unchanged
from tests.unit.runtime.conftest import MEMBER, World

NULL = {"type": "unix-char", "path": "/dev/null"}
LAN = {"type": "nic", "network": "b"}
ID = "c1"


@pytest.fixture
async def follow(world: World) -> AsyncIterator[Follow]:
    await world.made()
    await world.changed("start")
    follow = Follow(world.host, world.changes, MEMBER)
    await follow.start()
    yield follow
    await follow.stop()


async def _edit(world: World, follow: Follow, **changes: Any) -> None:
    key = keys.profile("default", "default")
    entry = world.host.store.profiles.get(key)
    assert entry
    record: Profile = replace(entry.record, **changes)
    await follow.settle("default", "default", await world.host.store.commit(Txn().put(key, record)))


async def _set(world: World, **config: str) -> str:
    """Change keys of the instance and return what hindered it."""
    wanted = Update(config={name.replace("_", "."): value for name, value in config.items()}, merge=True)
    operation = await world.changes.update("default", "web", wanted, expected_revision=0)
    return (await world.done(operation)).error_message


def _devices(world: World, **more: dict[str, str]) -> dict[str, dict[str, str]]:
    entry = world.host.store.profiles.get(keys.profile("default", "default"))
    assert entry
    return {**entry.record.devices, **more}


async def test_a_limit_that_the_kernel_refuses_blocks_no_other_change(world: World, follow: Follow) -> None:
    """The profile is saved, as with LXD; the refusal is told to who changed it, and to nobody else."""
    world.host.cgroups.refuses = "1MiB"  # type: ignore[attr-defined]
    with pytest.raises(WrongState, match="refused 1MiB"):
        await _edit(world, follow, config={"limits.memory": "1MiB"})
    assert await _set(world, user_a="b") == ""
    await _edit(world, follow, config={"limits.memory": "1MiB", "user.c": "d"})


async def test_a_limit_of_its_own_that_the_kernel_refuses_is_refused(world: World, follow: Follow) -> None:
    world.host.cgroups.refuses = "2MiB"  # type: ignore[attr-defined]
    assert "refused 2MiB" in await _set(world, limits_memory="2MiB")
    assert "limits.memory" not in world.host.store.instance("default", "web").record.config
    assert await _set(world, user_a="b") == ""


async def test_a_device_that_cannot_be_plugged_blocks_no_other_change(world: World, follow: Follow) -> None:
    world.host.devices.refuses = "null"  # type: ignore[attr-defined]
    with pytest.raises(WrongState, match="null"):
        await _edit(world, follow, devices=_devices(world, null=NULL))
    assert await _set(world, user_a="b") == ""


async def test_a_nic_that_cannot_be_made_blocks_no_other_change(world: World, follow: Follow) -> None:
    """Neither a key nor another NIC, which is plugged."""
    id = world.host.store.instance("default", "web").record.id
    world.networks.refused = "bad"
    with pytest.raises(WrongState, match="bad"):
        await _edit(world, follow, devices=_devices(world, bad=LAN))
    assert await _set(world, user_a="b") == ""
    await _edit(world, follow, devices=_devices(world, other=LAN))
    assert world.networks.reserved[id] == ["eth0", "other"]
    world.networks.refused = ""
    assert await _set(world, user_a="c") == ""
    assert world.networks.reserved[id] == ["bad", "eth0", "other"], "it comes once it can be made"


class _Kernel(LinuxCgroups):
    """Files of a kernel that takes no bound on processes."""

    def _write(self, path: Path, value: str) -> None:
        if path.name == "pids.max" and value != "max":
            raise Invalid("LIMIT_REFUSED", "no")
        super()._write(path, value)


@pytest.fixture
def kernel(tmp_path: Path) -> LinuxCgroups:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    for name in ("pids.max", "memory.max"):
        (tmp_path / "podium" / ID).mkdir(parents=True, exist_ok=True)
        (tmp_path / "podium" / ID / name).write_text("max")
    return _Kernel(tmp_path)


def test_other_limits_are_written_beside_one_that_was_refused(kernel: LinuxCgroups, tmp_path: Path) -> None:
    had = {"limits.processes": "5"}
    kernel.apply(ID, {**had, "limits.memory": "4096"}, had)
    assert (tmp_path / "podium" / ID / "memory.max").read_text() == "4096"


@pytest.mark.parametrize("had", [None, {}, {"limits.processes": "6"}])
def test_a_limit_that_is_new_is_not_passed_over(kernel: LinuxCgroups, had: dict[str, str] | None) -> None:
    with pytest.raises(Invalid):
        kernel.apply(ID, {"limits.processes": "5"}, had)


def test_what_no_host_has_is_passed_over_only_where_it_was_so(kernel: LinuxCgroups) -> None:
    none = {"limits.disk.priority": "5"}
    assert kernel.plan({**none, "limits.processes": "5"}, none) == {"pids.max": "5"}
    with pytest.raises(Invalid):
        kernel.plan(none, {"limits.disk.priority": ""})


def test_only_devices_with_all_options_as_they_were_are_unchanged() -> None:
    had = Expanded({}, {"a": NULL, "b": LAN})
    assert unchanged.devices({"a": NULL, "b": {**LAN, "mtu": "1400"}, "c": LAN}, had) == {"a"}
    assert unchanged.devices({"a": NULL}, None) == set()
