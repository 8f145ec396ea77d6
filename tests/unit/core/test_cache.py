"""A cache keeps what is worth keeping, and keeps it up to date."""

from __future__ import annotations

from core.records import Profile
from core.state import keys
from core.state.cache import Cache
from core.state.memory import MemoryStore
from core.state.store import Txn


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
