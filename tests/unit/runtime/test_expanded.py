"""What an instance is after its profiles is kept, and is never older than the profile, project or record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from core.errors import NotFound
from core.records import Instance, Profile, Project
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from services.runtime.store import RuntimeStore

WEB = Instance(id="1", project="p", name="web", profiles=("small",))
SMALL = keys.profile("default", "small")


@pytest.fixture
async def store() -> AsyncIterator[RuntimeStore]:
    made = RuntimeStore(MemoryStore())
    txn = (
        Txn().put(keys.project("p"), Project("p")).put(SMALL, Profile("default", "small", config={"a": "1"}))
    )
    await made.commit(txn.put(keys.instance("p", "web"), WEB))
    await made.start()
    yield made
    await made.stop()


def _shown(store: RuntimeStore) -> dict[str, str]:
    return dict(store.expanded(store.instance("p", "web").record).config)


async def _commit(store: RuntimeStore, key: str, record: Any) -> None:
    """Write, and wait until the caches of what others write have it too."""
    revision = await store.commit(Txn().put(key, record) if record else Txn().delete(key))
    caches = {keys.PROFILES: store.profiles, keys.PROJECTS: store.projects, keys.INSTANCES: store.instances}
    await caches[next(prefix for prefix in caches if key.startswith(prefix))].wait_for(revision)


async def test_it_is_made_once_for_a_record(store: RuntimeStore) -> None:
    """A thousand instances are asked for with every list; nobody can change what is kept."""
    record = store.instance("p", "web").record

    assert store.expanded(record) is store.expanded(record)
    assert store.expanded(replace(record, config={"b": "2"})).config == {"a": "1", "b": "2"}
    assert store.expanded(record).config == {"a": "1"}


@pytest.mark.parametrize(
    ("key", "record", "shown"),
    [
        (SMALL, Profile("default", "small", config={"a": "2"}), {"a": "2"}),
        (keys.instance("p", "web"), replace(WEB, config={"b": "3"}), {"a": "1", "b": "3"}),
        (keys.instance("p", "web"), replace(WEB, profiles=()), {}),
    ],
)
async def test_a_change_is_seen_at_once(store: RuntimeStore, key: str, record: Any, shown: Any) -> None:
    assert _shown(store) == {"a": "1"}

    await _commit(store, key, record)

    assert _shown(store) == shown


@pytest.mark.parametrize(
    ("key", "record"),
    [
        (SMALL, None),
        (keys.project("p"), None),
        (keys.project("p"), Project("p", config={"features.profiles": "true"})),
    ],
)
async def test_a_profile_that_is_out_of_reach_is_missed(store: RuntimeStore, key: str, record: Any) -> None:
    assert _shown(store) == {"a": "1"}

    await _commit(store, key, record)

    with pytest.raises(NotFound):
        _shown(store)


async def test_instances_that_are_gone_are_forgotten(store: RuntimeStore) -> None:
    """What is kept is bounded by what there is."""
    _shown(store)

    await _commit(store, keys.instance("p", "web"), None)

    assert not store._expanded
