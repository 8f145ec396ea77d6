"""The cluster service's use cases on a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from core.operations.runner import Runner
from core.records import Network, Profile, Project
from core.state import keys
from core.state.store import Txn
from services.cluster.store import ClusterStore
from services.cluster.usecases.admission import Admission
from services.cluster.usecases.profiles import Profiles
from services.cluster.usecases.projects import Projects
from services.cluster.usecases.server import Server
from services.cluster.usecases.trust import Trust
from tests.fakes.late_store import LateStore


@dataclass
class Cluster:
    memory: LateStore
    store: ClusterStore
    runner: Runner
    profiles: Profiles
    projects: Projects
    server: Server
    trust: Trust


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    memory = LateStore()
    txn = Txn().put(keys.project("default"), Project("default", "", {"features.images": "true"}))
    txn.put(keys.network("b"), Network("b"))
    await memory.commit(txn.put(keys.profile("default", "default"), Profile("default", "default")))
    store, runner = ClusterStore(memory), Runner(memory, service="cluster", member="m1")
    await store.start()
    trust = Trust(store, runner, "f" * 64)
    admission = Admission(store)
    profiles, projects = Profiles(store, admission), Projects(store, admission, runner)
    await runner.start()
    yield Cluster(memory, store, runner, profiles, projects, Server(store), trust)
    await runner.stop()
    await store.stop()
