"""Sizes in pools without quotas: accepted, told of by a warning, and forgotten with the last of them."""

from __future__ import annotations

import pytest

from services.runtime.domain import unbounded
from services.runtime.domain.unbounded import Unenforced
from services.runtime.domain.volumes import VolumeRef
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.unbounded import Unbounded
from services.runtime.usecases.volumes.claims import VolumeClaims
from services.runtime.usecases.volumes.custom import NewVolume, Volumes
from tests.unit.runtime.conftest import World


@pytest.fixture
def volumes(world: World) -> Volumes:
    return Volumes(world.host, Policy(world.host, "m"), VolumeClaims(world.host.store, world.runner))


class Told:
    """A fake of the cluster service's warnings."""

    def __init__(self) -> None:
        self.active_now: dict[str, Unenforced] = {}
        self.raised = 0

    async def active(self) -> dict[tuple[str, str], str]:
        return {(w.type, w.subject): id for id, w in self.active_now.items()}

    async def raise_warning(self, trouble: Unenforced) -> str:
        self.raised += 1
        self.active_now[trouble.subject] = trouble
        return trouble.subject

    async def resolve(self, id: str) -> None:
        del self.active_now[id]


async def test_a_size_that_nothing_enforces_is_told_as_long_as_it_is_there(
    world: World, volumes: Volumes
) -> None:
    told = Told()
    unbounded = Unbounded(world.host, told, "m1")
    await unbounded.look()
    assert not told.active_now

    ref = VolumeRef("default", "default", "data")
    await volumes.create(NewVolume(ref, config={"size": "1MiB"}))
    await unbounded.look()
    await unbounded.look()
    assert told.raised == 1
    assert "data" in told.active_now["storage-pools/default"].message

    again = Unbounded(world.host, told, "m1")  # after a restart it knows what was told
    await volumes.delete(ref)
    await again.look()
    assert not told.active_now


def test_a_set_of_cpus_is_told_by_what_is_missing_and_other_limits_of_cpus_are_not() -> None:
    (trouble,) = unbounded.find_limits({"limits.cpu": ["web"]})
    assert "No CPU of limits.cpu is on this host" in trouble.message and "web" in trouble.message
    assert unbounded.is_optional("limits.cpu", "7-9")
    assert not unbounded.is_optional("limits.cpu.allowance", "100%")


def test_a_warning_names_a_few_of_many() -> None:
    (trouble,) = unbounded.find({"p": ["e", "d", "c", "b", "a"], "empty": []})
    assert trouble.subject == "storage-pools/p"
    assert "a, b, c and 2 more" in trouble.message


async def test_a_limit_that_the_kernel_has_no_control_for_is_told_too(world: World) -> None:
    """What LXD says of its controllers at each start; here it says whom it concerns."""
    told = Told()
    looking = Unbounded(world.host, told, "m1")
    await world.made()
    update = Update(config={"limits.network.priority": "5", "limits.hugepages.2MB": "4MiB"}, merge=True)
    await world.done(await world.changes.update("default", "web", update, expected_revision=0))
    await looking.look()
    assert set(told.active_now) == {"limits.network.priority", "limits.hugepages.2MB"}
    assert "web" in told.active_now["limits.hugepages.2MB"].message
