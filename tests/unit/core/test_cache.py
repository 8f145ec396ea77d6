"""A cache keeps what is worth keeping, and keeps it up to date."""

from __future__ import annotations

import orjson

from core.records import Profile
from core.state import keys
from core.state.cache import Cache
from core.state.memory import MemoryStore
from core.state.store import Txn


async def test_a_folder_is_found_without_a_look_at_the_others() -> None:
    """What is deleted, or only forgotten, is not in it any more."""
    store = MemoryStore()
    for project, name in (("a", "2"), ("a", "1"), ("ab", "3")):
        await store.commit(Txn().put(keys.profile(project, name), Profile(project, name)))
    cache = Cache(store, Profile, keys.PROFILES)
    await cache.start()

    assert [entry.record.name for entry in cache.below(keys.profiles("a"))] == ["1", "2"]

    await cache.wait_for(await store.commit(Txn().delete(keys.profile("a", "2"))), timeout_s=5)
    cache.forget(keys.profile("ab", "3"))
    assert [entry.record.name for entry in cache.below(keys.profiles("a"))] == ["1"]
    assert cache.below(keys.profiles("ab")) == []
    await cache.stop()


async def test_what_is_left_out_of_a_listing_is_not_held() -> None:
    """A gateway that starts need not hold days of ended operations."""
    store = MemoryStore()
    for name in ("old", "new"):
        await store.commit(Txn().put(keys.profile("default", name), Profile(name=name)))
    cache = Cache(store, Profile, keys.PROFILES, leave_out=lambda profile: profile.name == "old")
    await cache.start()

    assert [entry.record.name for entry in cache.entries()] == ["new"]

    revision = await store.commit(Txn().put(keys.profile("default", "old"), Profile(name="old")))
    await cache.wait_for(revision, timeout_s=5)
    assert len(cache.entries()) == 2, "a change from now on is taken, whatever it is"
    await cache.stop()


async def test_fields_of_a_newer_version_survive_whoever_writes_the_record() -> None:
    """Services are replaced one by one: an older one that changes a record must not take from it."""
    store, key = MemoryStore(), keys.profile("a", "p")
    newer = {"project": "a", "name": "p", "colour": "red", "description": "old"}
    await store.commit(Txn().put(key, orjson.dumps(newer)))
    cache = Cache(store, Profile, keys.PROFILES)
    await cache.start()

    for text in ("one", "two"):
        revision = await store.commit(Txn().put(key, Profile("a", "p", text)))
        cache.apply(key, Profile("a", "p", text), revision)

    found = await store.get(key)
    assert found
    assert orjson.loads(found.value) | {"colour": "red", "description": "two"} == orjson.loads(found.value)

    await cache.wait_for(await store.commit(Txn().delete(key)), timeout_s=5)
    await store.commit(Txn().put(key, Profile("a", "p")))
    found = await store.get(key)
    assert found
    assert b"colour" not in found.value
    await cache.stop()
