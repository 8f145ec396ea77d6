"""The use cases of the runtime on a fake host and a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from core.errors import Stale, Unavailable
from core.operations.operation import Operation
from core.operations.runner import Runner
from core.records import Network, Pool, Profile, Project
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import KV, Change, Resync, Txn
from services.runtime.store import RuntimeStore
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.abouts import AboutInstances
from services.runtime.usecases.instances.change import Changes
from services.runtime.usecases.instances.create import Create, Source, Wanted
from services.runtime.usecases.instances.templates import Templates
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.running.power import Power
from services.runtime.usecases.running.watch import Watch
from tests.fakes import runtime_host as fakes

MEMBER = "m"


@dataclass
class World:
    host: Host
    runner: Runner
    create: Create
    power: Power
    changes: Changes
    engine: fakes.FakeEngine
    networks: fakes.FakeNetworks
    driver: fakes.FakeDriver
    late: LateStore

    async def made(self, name: str = "web", *, ephemeral: bool = False) -> Operation:
        source = Source(alias="debian/12")
        return await self.done(await self.create.accept(Wanted("default", name, source, ephemeral=ephemeral)))

    async def done(self, operation: Operation) -> Operation:
        return await self.runner.wait(operation.id)

    async def changed(self, action: str, name: str = "web", *, force: bool = False) -> Operation:
        return await self.done(await self.power.change("default", name, action, timeout_s=5, force=force))

    def status(self, name: str = "web") -> str:
        return self.host.store.observed_of(self.host.store.instance("default", name).record).record.status


class LateStore(MemoryStore):
    """Others can read a commit at once; the process that made it hears of it only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.refused = 0
        self.is_away = False

    async def get(self, key: str) -> KV | None:
        if self.is_away:
            raise Unavailable("ETCD_UNAVAILABLE", "away")
        return await super().get(key)

    async def commit(self, txn: Txn) -> int:
        await asyncio.sleep(0)  # others decide meanwhile
        try:
            revision = await super().commit(txn)
        except Stale:
            self.refused += 1
            raise
        await self.may_answer.wait()
        return revision

    async def follow(self, prefix: str) -> AsyncIterator[Resync | Change]:
        async for item in super().follow(prefix):
            await self.may_answer.wait()
            yield item


@pytest.fixture
async def world() -> AsyncIterator[World]:
    late = LateStore()
    store = RuntimeStore(late)
    devices = {
        "root": {"type": "disk", "path": "/", "pool": "default"},
        "eth0": {"type": "nic", "network": "b"},
    }
    txn = Txn().put(keys.project("default"), Project("default")).put(keys.network("b"), Network("b"))
    txn.put(keys.profile("default", "default"), Profile("default", "default", devices=devices))
    await store.commit(txn.put(keys.pool("default"), Pool("default", "dir")))
    await store.start()
    engine, networks, driver = fakes.FakeEngine(), fakes.FakeNetworks(), fakes.FakeDriver()
    host = Host(
        store, engine, fakes.FakeRootFs(), fakes.FakeCgroups(), fakes.FakeGuests(), fakes.FakeKernel(),
        fakes.FakeImages(), networks, {"dir": driver}, fakes.FakeDevices(), fakes.FakeFacts(),
        doors=fakes.FakeDoors(), checkpoints=fakes.FakeCheckpoints(),
    )  # fmt: skip
    runner, watch = Runner(store, service="runtime", member=MEMBER), Watch(store, engine)
    claims = Claims(store, runner)
    templates = Templates(host, AboutInstances(host, fakes.FakeBeside()), fakes.FakePlanting())
    power = Power(host, claims, watch, templates, MEMBER)
    policy = Policy(host, MEMBER)
    create, changes = Create(host, policy, claims, power, MEMBER), Changes(host, policy, claims, MEMBER)
    yield World(host, runner, create, power, changes, engine, networks, driver, late)
    await watch.stop()
    await runner.stop()
    await store.stop()
