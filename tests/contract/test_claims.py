"""The claim on operations, over the fake and over a real etcd: who may take it, and who finds it lost."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import pytest

from core.errors import Stale, Unavailable
from core.operations.operation import Context, Operation, Step, Story
from core.operations.runner import Runner
from core.records import Presence
from core.state import codec, keys
from core.state.claims import Fenced, Holder
from core.state.etcd import EtcdStore
from core.state.memory import MemoryStore
from core.state.store import LeaseStore, Txn

TTL_S = 2.0
PATIENCE_S = 10.0
Make = Callable[..., Holder]


@pytest.fixture(params=["memory", "etcd"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LeaseStore]:
    in_memory = request.param == "memory"
    made: LeaseStore = MemoryStore() if in_memory else EtcdStore(request.getfixturevalue("etcd_endpoint"))
    yield made
    await made.close()


@pytest.fixture
def member() -> str:
    return uuid.uuid4().hex


@pytest.fixture
async def make(store: LeaseStore, member: str) -> AsyncIterator[Make]:
    made: list[Holder] = []

    def a_holder(lock: str = "this host", on_lost: Callable[[], object] = lambda: None) -> Holder:
        holder = Holder(store, service="s", member=member, lock=lock, on_lost=on_lost, ttl_s=TTL_S)
        made.append(holder)
        return holder

    yield a_holder
    for holder in made:
        await holder.stop()


async def presence(store: LeaseStore, member: str) -> Presence | None:
    kv = await store.get(keys.presence(member, "s"))
    return codec.decode(Presence, kv.value) if kv else None


async def vanish(holder: Holder) -> None:
    """Be gone as after SIGKILL: nothing is renewed and nothing is given back."""
    assert holder._task
    holder._task.cancel()


async def test_a_start_on_the_same_host_takes_over_at_once(make: Make, store: LeaseStore) -> None:
    """After `kill -9` the file lock proves the old process dead: nobody waits for its lease."""
    first, second = make(), make()
    await first.start()
    await vanish(first)

    await asyncio.wait_for(second.start(), 1)

    assert second.epoch > first.epoch
    with pytest.raises(Stale):
        await store.commit(first.fence(Txn().put("/x", b"late")))
    await store.commit(second.fence(Txn().put("/x", b"ours")))


async def test_another_host_waits_for_the_lease(make: Make) -> None:
    first, second = make("host a"), make("host b")
    await first.start()
    taking = asyncio.create_task(second.start())
    await asyncio.sleep(TTL_S * 1.5)
    assert not taking.done()

    await vanish(first)

    await asyncio.wait_for(taking, PATIENCE_S)
    assert second.epoch > first.epoch


async def test_a_clean_end_lets_another_host_go_on_at_once(make: Make) -> None:
    first, second = make("host a"), make("host b")
    await first.start()
    await first.stop()

    await asyncio.wait_for(second.start(), 1)


async def test_a_lease_that_lapsed_is_made_again_and_the_epoch_holds(
    make: Make, store: LeaseStore, member: str
) -> None:
    """etcd away for longer than the lease, or a frozen process: running operations go on."""
    holder = make()
    await holder.start()
    await holder.announce("127.0.0.1:9")
    epoch = holder.epoch
    assert holder._lease
    await store.revoke(holder._lease)
    assert await presence(store, member) is None

    async with asyncio.timeout(PATIENCE_S):
        while await presence(store, member) is None:
            await asyncio.sleep(0.05)

    found = await presence(store, member)
    assert found
    assert (found.address, holder.epoch, holder.is_lost) == ("127.0.0.1:9", epoch, False)
    await store.commit(holder.fence(Txn().put("/x", b"1")))


async def test_a_service_starts_although_its_lease_lapsed_meanwhile(
    make: Make, store: LeaseStore, member: str
) -> None:
    """etcd may be away between the claim and the moment in which the service listens."""
    holder = make()
    await holder.start()
    assert holder._lease
    await store.revoke(holder._lease)

    await holder.announce("127.0.0.1:1")

    async with asyncio.timeout(PATIENCE_S):
        while not (found := await presence(store, member)) or found.address != "127.0.0.1:1":
            await asyncio.sleep(0.05)


async def test_a_holder_that_was_frozen_finds_its_claim_taken(make: Make, store: LeaseStore) -> None:
    """It must stop, and not take back what another runs now."""
    lost = asyncio.Event()
    frozen, other = make("host a", lost.set), make("host b")
    await frozen.start()
    assert frozen._lease
    await store.revoke(frozen._lease)
    await other.start()

    await asyncio.wait_for(lost.wait(), PATIENCE_S)

    assert frozen.is_lost
    await store.commit(other.fence(Txn().put("/x", b"1")))


async def test_a_runner_without_its_claim_writes_no_outcome(make: Make, store: LeaseStore) -> None:
    """The second process resumes the operation; the first, unfrozen, must not end it as well."""
    gate, frozen, other = asyncio.Event(), make(), make()
    await frozen.start()
    old, new = a_runner(store, frozen, gate), a_runner(store, other, asyncio.Event())
    operation = await old.accept("t.wait")
    await vanish(frozen)
    await other.start()
    await new.start()

    gate.set()
    await asyncio.sleep(0.3)

    kv = await store.get(keys.operation(operation.id))
    assert kv
    assert codec.decode(Operation, kv.value).state == "running"
    assert frozen.is_lost
    with pytest.raises(Unavailable, match="took this service over"):
        await old.accept("t.wait")
    for runner in (old, new):
        await runner.stop()
    await store.commit(Txn().delete(keys.operation(operation.id)))


def a_runner(store: LeaseStore, claim: Holder, gate: asyncio.Event) -> Runner:
    async def wait(ctx: Context) -> None:
        await gate.wait()

    runner = Runner(Fenced(store, claim), service="s", member=claim._key.split("/")[-2])
    runner.register(Story("t.wait", "Waiting", (Step("wait", wait),)))
    return runner
