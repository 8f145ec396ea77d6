"""What comes as an archive is checked like any request; on a host without a kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from core.errors import AlreadyExists, NotFound, PodiumError
from core.operations.operation import SUCCEEDED, Operation
from core.records import Pool
from core.state import keys
from core.state.store import Txn
from services.runtime.domain.arrivals import Arrived, ArrivedEntry
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.transfers.arrive import Arrivals, WantedArrival
from tests.unit.runtime.conftest import MEMBER, World

BASE = "cd" * 32
ENTRY = ArrivedEntry(
    "came",
    "backup/container/rootfs",
    shift=1000000,
    architecture="x86_64",
    profiles=("default",),
    config={"user.a": "1", "volatile.eth0.hwaddr": "00:16:3e:00:00:09", "volatile.uuid": "of the other"},
    created_at=5.0,
)
SNAPSHOT = replace(ENTRY, name="s1", base_dir="backup/snapshots/s1/rootfs", shift=0, expires_at=9.0)


@dataclass
class Quay:
    world: World
    arrivals: Arrivals

    def arrived(self, entry: ArrivedEntry = ENTRY, *snapshots: ArrivedEntry, pool: str = "default") -> None:
        self.world.host.images.arrived["t"] = Arrived(BASE, pool, entry, snapshots)  # type: ignore[attr-defined]

    async def take(self, **wanted: str) -> Operation:
        return await self.world.done(await self.arrivals.accept(WantedArrival("default", "t", **wanted)))


@pytest.fixture
def quay(world: World) -> Quay:
    claims = world.create._claims
    return Quay(world, Arrivals(world.host, Policy(world.host, MEMBER), claims, world.create, MEMBER))


async def test_an_archive_becomes_an_instance_with_its_snapshots(quay: Quay) -> None:
    """Roots lie in the base; what is of the other host alone is left behind."""
    quay.arrived(ENTRY, SNAPSHOT)

    done = await quay.take()

    assert done.state == SUCCEEDED
    store = quay.world.host.store
    instance = store.instance("default", "came").record
    assert (instance.image, instance.base_dir, instance.base_shift) == (BASE, ENTRY.base_dir, 1000000)
    assert (instance.config, instance.created_at) == ({"user.a": "1"}, 5.0)
    volatile = store.observed_of(instance).record.volatile
    assert volatile["volatile.eth0.hwaddr"] == "00:16:3e:00:00:09"
    assert volatile["volatile.uuid"] == instance.id
    snapshot = store.snapshot(instance, "s1").record
    assert (snapshot.status, snapshot.created_at, snapshot.expires_at) == ("Created", 5.0, 9.0)
    assert (snapshot.instance.image, snapshot.instance.base_dir) == (BASE, SNAPSHOT.base_dir)
    assert {instance.id, snapshot.id} <= quay.world.driver.made


@pytest.mark.parametrize(
    ("entry", "snapshots"),
    [
        (replace(ENTRY, config={"raw.lxc": "lxc.hook.pre-start=/bin/sh"}), ()),
        (replace(ENTRY, config={"no.such.key": "1"}), ()),
        (replace(ENTRY, config={"environment.A": "x\nlxc.hook.pre-start=/x"}), ()),
        (replace(ENTRY, devices={"x": {"type": "no such type"}}), ()),
        (replace(ENTRY, profiles=("default", "default")), ()),
        (replace(ENTRY, profiles=("nope",)), ()),
        (replace(ENTRY, name="../../etc"), ()),
        (replace(ENTRY, name=""), ()),
        (ENTRY, (replace(SNAPSHOT, config={"raw.lxc": "x"}),)),
        (ENTRY, (replace(SNAPSHOT, devices={"x": {"type": "no such type"}}),)),
        (ENTRY, (replace(SNAPSHOT, profiles=("nope",)),)),
        (ENTRY, (replace(SNAPSHOT, name="a b"),)),
    ],
)
async def test_what_no_request_may_ask_for_no_archive_may_bring(
    quay: Quay, entry: ArrivedEntry, snapshots: tuple[ArrivedEntry, ...]
) -> None:
    """CVE-2026-34178 (crafted backup), CVE-2026-9640 (key hidden in a snapshot inside it)."""
    quay.arrived(entry, *snapshots)

    with pytest.raises(PodiumError):
        await quay.take()

    assert not quay.world.host.store.instances.entries()
    assert not quay.world.driver.made


async def test_volatile_keys_of_a_stranger_are_not_believed(quay: Quay) -> None:
    """Only what has the shape of an address, an image or a trigger is kept."""
    odd = {"volatile.base_image": "../x", "volatile.apply_template": "{{x}}", "volatile.idmap.base": "0"}
    quay.arrived(replace(ENTRY, config={**odd, "volatile.last_state.power": "RUNNING"}))

    await quay.take()

    instance = quay.world.host.store.instance("default", "came").record
    volatile = quay.world.host.store.observed_of(instance).record.volatile
    assert volatile["volatile.base_image"] == BASE
    assert "volatile.apply_template" not in volatile
    assert "volatile.last_state.power" not in volatile


async def test_the_root_goes_to_the_pool_asked_for(quay: Quay) -> None:
    """Else to that of the archive if it is here, else to the default profile's; LXD does the same."""
    store = quay.world.host.store
    await store.commit(Txn().put(keys.pool("fast"), Pool("fast", "dir")))
    quay.arrived(ENTRY, pool="gone")

    await quay.take(name="a", pool="fast")
    await quay.take(name="b")

    a, b = (store.instance("default", name).record for name in "ab")
    assert (a.pool, a.devices["root"]["pool"]) == ("fast", "fast")
    assert (b.pool, b.devices) == ("default", {})
    with pytest.raises(NotFound, match="Storage pool not found"):
        await quay.take(name="c", pool="nope")


async def test_a_name_that_is_taken_is_refused_as_lxd_does(quay: Quay) -> None:
    """An import never replaces what is there."""
    quay.arrived()
    await quay.take()

    with pytest.raises(AlreadyExists, match="Cannot restore volume, already exists on target"):
        await quay.take()


async def test_what_was_not_uploaded_cannot_be_taken(quay: Quay) -> None:
    """A ticket names an upload of this project; no caller can name a base of another."""
    with pytest.raises(NotFound):
        await quay.arrivals.accept(WantedArrival("default", "guessed"))
