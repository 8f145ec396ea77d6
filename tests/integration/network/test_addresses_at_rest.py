"""Instances that do not run use up no addresses of a network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.errors import LimitReached
from core.records import InstanceObserved
from core.state import keys
from core.state.store import Txn
from services.network.usecases.nics import Owner, Wanted
from tests.integration.network.test_real_bridge import Bench, bench
from tests.subnets import net4

__all__ = ["bench"]
SMALL = f"{net4(3)}.1/29"  # five addresses beside the bridge's own


async def record(bench: Bench, id: str, status: str) -> None:
    observed = InstanceObserved(id, "default", id, status)
    await bench.store.store.commit(Txn().put(keys.observed(id), observed))


async def start(bench: Bench, id: str) -> str:
    """Reserve for a start and return the address."""
    [nic] = await bench.nics.reserve(Owner(id, "default", id), [Wanted("eth0", {"network": bench.name})])
    return nic.ipv4


async def test_an_instance_that_was_only_made_has_no_address_yet(bench: Bench) -> None:
    """A thousand of them must fit on a network for two hundred."""
    await bench.create(**{"ipv4.address": SMALL})
    wanted = [Wanted("eth0", {"network": bench.name})]

    made = [(await bench.nics.reserve(Owner(f"i{n}", "default", f"c{n}", True), wanted))[0] for n in range(9)]

    assert {nic.ipv4 for nic in made} == {""}
    assert len({nic.hwaddr for nic in made}) == 9
    started = await start(bench, "i3")
    assert started.startswith(f"{net4(3)}.")
    [again] = await bench.nics.reserve(Owner("i3", "default", "i3", True), wanted)
    assert again.ipv4 == started, "what it has it keeps while nobody needs it"


async def test_a_static_address_is_reserved_at_once(bench: Bench) -> None:
    await bench.create(**{"ipv4.address": SMALL})
    options = {"network": bench.name, "ipv4.address": f"{net4(3)}.4"}

    [nic] = await bench.nics.reserve(Owner("i1", "default", "c1", True), [Wanted("eth0", options)])

    assert nic.ipv4 == f"{net4(3)}.4"


async def test_a_full_network_takes_addresses_back_from_the_stopped(bench: Bench) -> None:
    """And from nobody else: what runs, or is on its way, keeps its own."""
    await bench.create(**{"ipv4.address": SMALL})
    before = {id: await start(bench, id) for id in ("up", "going", "a", "b", "c")}
    await record(bench, "up", "running")
    await bench.store.store.commit(
        Txn().put(keys.observed("going"), replace(InstanceObserved("going", status="stopped"), operation="o"))
    )
    for id in ("a", "b", "c"):
        await record(bench, id, "stopped")

    got = await start(bench, "new")

    assert got in {before["a"], before["b"], before["c"]}
    await record(bench, "new", "running")
    assert await start(bench, "up") == before["up"]
    assert await start(bench, "going") == before["going"]
    assert len({await start(bench, "a"), await start(bench, "b")} - {got}) == 2
    for id in ("a", "b"):
        await record(bench, id, "running")
    with pytest.raises(LimitReached):
        await start(bench, "c")
