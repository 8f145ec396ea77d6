"""What every store promises. One body; etcd and the fake must both pass."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.errors import AlreadyExists, Gone, Invalid, NotFound, Stale, Unavailable
from core.events import Event, EventBatch
from core.records import Profile
from core.state import codec, keys
from core.state.cache import Cache
from core.state.etcd import EtcdStore
from core.state.etcd3_compat import client
from core.state.memory import MemoryStore
from core.state.repository import Repository
from core.state.store import Change, Commit, HistoryStore, LeaseStore, Resync, Store, Txn


@pytest.fixture(params=["memory", "etcd"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = MemoryStore(member="m", service="s")
    else:
        made = EtcdStore(request.getfixturevalue("etcd_endpoint"), member="m", service="s")
    yield made
    await made.close()


@pytest.fixture
def prefix() -> str:
    return f"/test/{uuid.uuid4().hex}/"


async def test_absent_key_is_none_and_present_key_has_its_revision(store: Store, prefix: str) -> None:
    assert await store.get(prefix + "a") is None

    revision = await store.commit(Txn().put(prefix + "a", b"1"))

    kv = await store.get(prefix + "a")
    assert kv is not None
    assert (kv.value, kv.revision) == (b"1", revision)


async def test_failed_check_writes_nothing(store: Store, prefix: str) -> None:
    """A transaction is all or nothing, whichever check fails."""
    revision = await store.commit(Txn().put(prefix + "a", b"1"))
    for txn in (
        Txn().absent(prefix + "a"),
        Txn().exists(prefix + "b"),
        Txn().unchanged(prefix + "a", revision - 1),
        Txn().unchanged(prefix + "b", revision),
        Txn().prefix_unchanged(prefix, revision - 1),
    ):
        with pytest.raises(Stale):
            await store.commit(txn.put(prefix + "x", b"no").delete(prefix + "a"))

    assert await store.get(prefix + "x") is None
    assert await store.get(prefix + "a") is not None


async def test_checks_that_hold_let_the_write_through(store: Store, prefix: str) -> None:
    revision = await store.commit(Txn().absent(prefix + "a").put(prefix + "a", b"1"))
    txn = Txn().exists(prefix + "a").unchanged(prefix + "a", revision).prefix_unchanged(prefix, revision)

    await store.commit(txn.absent(prefix + "b").delete(prefix + "a").put(prefix + "b", b"2"))

    listing = await store.list(prefix)
    assert [kv.key for kv in listing.kvs] == [prefix + "b"]


async def test_prefix_check_sees_a_key_created_later(store: Store, prefix: str) -> None:
    """So a profile cannot be deleted while an instance that uses it is being created."""
    seen = (await store.list(prefix)).revision
    await store.commit(Txn().put(prefix + "new", b"1"))

    with pytest.raises(Stale):
        await store.commit(Txn().prefix_unchanged(prefix, seen).put(prefix + "y", b"1"))


async def test_follow_yields_everything_then_each_change_once(store: Store, prefix: str) -> None:
    await store.commit(Txn().put(prefix + "old", b"0"))
    follower = store.follow(prefix)
    first = await anext(follower)
    assert isinstance(first, Resync)
    assert [kv.key for kv in first.kvs] == [prefix + "old"]

    for i in range(5):
        await store.commit(Txn().put(prefix + "k", str(i).encode()))
    await store.commit(Txn().delete(prefix + "k"))

    changes = [await asyncio.wait_for(anext(follower), 5) for _ in range(6)]
    assert all(isinstance(c, Change) for c in changes)
    assert [c.value for c in changes if isinstance(c, Change)] == [b"0", b"1", b"2", b"3", b"4", None]
    revisions = [c.revision for c in changes]
    assert revisions == sorted(set(revisions))
    await follower.aclose()  # type: ignore[attr-defined]


async def test_events_are_written_in_the_transaction_of_their_change(store: Store, prefix: str) -> None:
    revision = await store.commit(Txn().put(prefix + "a", b"1").emit(Event("a-created", name="a")))

    kv = await store.get(keys.events("m", "s"))
    assert kv is not None
    assert kv.revision == revision
    batch = codec.decode(EventBatch, kv.value)
    assert [e.action for e in batch.events] == ["a-created"]


def profiles(store: Store) -> Repository[Profile]:
    return Repository(
        store, Profile, lambda p: keys.profile(p.project, p.name), keys.PROFILES, noun="Profile"
    )


async def test_repository_creates_once_and_replaces_only_what_it_saw(store: Store) -> None:
    repo, project = profiles(store), uuid.uuid4().hex
    entry = await repo.create(Profile(project, "p"))
    with pytest.raises(AlreadyExists):
        await repo.create(Profile(project, "p"))
    await repo.replace(entry, Profile(project, "p", "new"))

    with pytest.raises(Stale):
        await repo.replace(entry, Profile(project, "p", "lost update"))

    assert (await repo.get(keys.profile(project, "p"))).record.description == "new"


async def test_concurrent_updates_lose_nothing(store: Store) -> None:
    repo, project = profiles(store), uuid.uuid4().hex
    key = keys.profile(project, "p")
    await repo.create(Profile(project, "p"))

    async def add(i: int) -> None:
        await repo.update(key, lambda p: Profile(project, "p", config={**p.config, f"user.{i}": "x"}))

    await asyncio.gather(*(add(i) for i in range(8)))

    assert len((await repo.get(key)).record.config) == 8


async def test_fields_of_a_newer_version_survive_a_rewrite(store: Store) -> None:
    """Services of two versions work on the same records."""
    repo, project = profiles(store), uuid.uuid4().hex
    key = keys.profile(project, "p")
    await store.commit(Txn().put(key, {"project": project, "name": "p", "colour": "red"}))

    await repo.update(key, lambda p: Profile(project, "p", "changed"))

    kv = await store.get(key)
    assert kv is not None
    assert b'"colour":"red"' in kv.value


async def test_deleting_what_is_gone_says_so(store: Store) -> None:
    with pytest.raises(NotFound):
        await profiles(store).delete(keys.profile(uuid.uuid4().hex, "p"))


async def test_cache_reflects_writes_of_others_and_its_own_at_once(store: Store) -> None:
    project = uuid.uuid4().hex
    cache = Cache(store, Profile, keys.PROFILES)
    await cache.start()
    key = keys.profile(project, "p")

    entry = await profiles(store).create(Profile(project, "p"))
    cache.apply(key, entry.record, entry.revision)
    assert cache.get(key) == entry

    await profiles(store).delete(key)
    other = await profiles(store).create(Profile(project, "q"))
    await cache.wait_for(other.revision, timeout_s=5)
    assert cache.get(key) is None
    assert cache.get(keys.profile(project, "q")) is not None
    await cache.stop()


async def test_a_store_that_is_away_answers_at_once_with_unavailable() -> None:
    away = EtcdStore("127.0.0.1:1")
    with pytest.raises(Unavailable):
        await asyncio.wait_for(away.get("/x"), 5)
    await away.close()


def leases(store: Store) -> LeaseStore:
    assert isinstance(store, MemoryStore | EtcdStore)
    return store


async def next_change(follower: AsyncIterator[Resync | Change]) -> tuple[str, bytes | None]:
    change = await asyncio.wait_for(anext(follower), 10)
    assert isinstance(change, Change)
    return change.key.rsplit("/", 1)[-1], change.value


async def test_a_bound_key_goes_with_its_lease_and_followers_are_told(store: Store, prefix: str) -> None:
    """Nobody has to clean up after a process that died."""
    lease = await leases(store).grant(1)
    follower = store.follow(prefix)
    await anext(follower)
    await store.commit(Txn().put(prefix + "a", b"1", lease=lease.id).put(prefix + "free", b"1"))
    assert {await next_change(follower), await next_change(follower)} == {("a", b"1"), ("free", b"1")}

    assert await next_change(follower) == ("a", None)

    assert [kv.key for kv in (await store.list(prefix)).kvs] == [prefix + "free"]
    assert not await leases(store).renew(lease)
    await follower.aclose()  # type: ignore[attr-defined]


async def test_a_key_cannot_be_bound_to_a_lease_that_lapsed(store: Store, prefix: str) -> None:
    lease = await leases(store).grant(60)
    await leases(store).revoke(lease)

    with pytest.raises(NotFound):
        await store.commit(Txn().put(prefix + "a", b"1", lease=lease.id))

    assert await store.get(prefix + "a") is None


async def test_a_renewed_lease_keeps_its_keys(store: Store, prefix: str) -> None:
    lease = await leases(store).grant(2)
    await store.commit(Txn().put(prefix + "a", b"1", lease=lease.id))

    for _ in range(3):
        await asyncio.sleep(lease.ttl_s / 2)
        assert await leases(store).renew(lease)

    assert await store.get(prefix + "a") is not None


async def test_a_revoked_lease_takes_its_keys_at_once(store: Store, prefix: str) -> None:
    lease = await leases(store).grant(60)
    await store.commit(Txn().put(prefix + "a", b"1", lease=lease.id))

    await leases(store).revoke(lease)
    await leases(store).revoke(lease)

    assert await store.get(prefix + "a") is None
    assert not await leases(store).renew(lease)


async def test_a_key_follows_the_lease_of_its_last_write(store: Store, prefix: str) -> None:
    """So a new owner can take a key over before the old owner's lease has lapsed."""
    old, new = await leases(store).grant(60), await leases(store).grant(60)
    await store.commit(Txn().put(prefix + "a", b"1", lease=old.id).put(prefix + "b", b"1", lease=old.id))
    await store.commit(Txn().put(prefix + "a", b"2", lease=new.id).put(prefix + "b", b"2"))

    await leases(store).revoke(old)
    assert {kv.key for kv in (await store.list(prefix)).kvs} == {prefix + "a", prefix + "b"}

    await leases(store).revoke(new)
    assert {kv.key for kv in (await store.list(prefix)).kvs} == {prefix + "b"}


async def taken(commits: AsyncIterator[Commit], count: int) -> list[Commit]:
    return [await asyncio.wait_for(anext(commits), 5) for _ in range(count)]


def told(commits: list[Commit], prefix: str) -> list[list[tuple[str, bytes | None]]]:
    return [[(c.key.removeprefix(prefix), c.value) for c in commit.changes] for commit in commits]


async def test_history_tells_what_was_and_then_what_comes_once_and_in_order(
    store: HistoryStore, prefix: str
) -> None:
    """Commits are whole, other prefixes are left out, and there is no seam between past and present."""
    since = await store.commit(Txn().put(prefix + "a/0", b"seen"))
    first = await store.commit(
        Txn().put(prefix + "a/1", b"1").put(prefix + "c/1", b"1").put(prefix + "b", b"")
    )
    await store.commit(Txn().put(prefix + "b", b"no"))
    await store.commit(Txn().delete(prefix + "a/1"))

    commits = await store.history((prefix + "a/", prefix + "c/"), since)
    past = await taken(commits, 2)
    await store.commit(Txn().put(prefix + "b", b"no"))
    last = await store.commit(Txn().put(prefix + "c/2", b"2"))
    past += await taken(commits, 1)

    assert told(past, prefix) == [[("a/1", b"1"), ("c/1", b"1")], [("a/1", None)], [("c/2", b"2")]]
    assert [past[0].revision, past[2].revision] == [first, last]
    await commits.aclose()


async def test_history_from_now_on_tells_nothing_of_the_past(store: HistoryStore, prefix: str) -> None:
    await store.commit(Txn().put(prefix + "old", b""))

    commits = await store.history((prefix,), None)
    await store.commit(Txn().put(prefix + "new", b""))

    assert told(await taken(commits, 1), prefix) == [[("new", b"")]]
    await commits.aclose()


async def test_a_reader_far_behind_misses_nothing(store: HistoryStore, prefix: str) -> None:
    """etcd tells a thousand revisions at a time, in replies whose header is ahead of them."""
    since = await store.commit(Txn().put(prefix + "k", b""))
    for part in range(13):
        await asyncio.gather(
            *(store.commit(Txn().put(prefix + "k", f"{part}.{i}".encode())) for i in range(100))
        )

    commits = await store.history((prefix,), since)

    found = await taken(commits, 1300)
    revisions = [commit.revision for commit in found]
    assert revisions == sorted(set(revisions))
    assert len({commit.changes[0].value for commit in found}) == 1300
    await commits.aclose()


async def compact(store: Store, revision: int, request: pytest.FixtureRequest) -> None:
    if isinstance(store, MemoryStore):
        store.compact(revision)
        return
    other = client(request.getfixturevalue("etcd_endpoint"))
    await asyncio.to_thread(other.compact, revision)
    other.close()


async def test_history_that_was_compacted_is_said_to_be_gone(
    store: HistoryStore, prefix: str, request: pytest.FixtureRequest
) -> None:
    """With the oldest revision left; what is kept can still be read to the last commit."""
    revisions = [await store.commit(Txn().put(prefix + "k", str(i).encode())) for i in range(4)]
    await compact(store, revisions[2], request)

    with pytest.raises(Gone) as gone:
        await store.history((prefix,), revisions[0])
    assert gone.value.about == str(revisions[2])
    assert str(revisions[2]) in gone.value.message

    commits = await store.history((prefix,), revisions[1])
    assert [commit.revision for commit in await taken(commits, 2)] == revisions[2:]
    await commits.aclose()


async def test_a_reader_that_comes_too_late_is_told_so(
    store: HistoryStore, prefix: str, request: pytest.FixtureRequest
) -> None:
    """History may be compacted between the question and the first answer."""
    since = await store.commit(Txn().put(prefix + "k", b""))
    for _ in range(3):
        last = await store.commit(Txn().put(prefix + "k", b"x"))
    commits = await store.history((prefix,), since)
    await compact(store, last, request)

    with pytest.raises(Gone):
        await taken(commits, 1)


async def test_a_compaction_of_what_was_told_ends_no_reader(
    store: HistoryStore, prefix: str, request: pytest.FixtureRequest
) -> None:
    commits = await store.history((prefix,), None)
    last = await store.commit(Txn().put(prefix + "k", b"1"))
    await taken(commits, 1)
    await store.commit(Txn().put("/test/other", b""))
    await compact(store, last + 1, request)
    await store.commit(Txn().put(prefix + "k", b"2"))

    assert told(await taken(commits, 1), prefix) == [[("k", b"2")]]
    await commits.aclose()


async def test_a_revision_yet_to_come_has_no_history(store: HistoryStore, prefix: str) -> None:
    newest = await store.commit(Txn().put(prefix + "k", b""))
    with pytest.raises(Invalid, match=str(newest + 1000)):
        await store.history((prefix,), newest + 1000)
    commits = await store.history((prefix,), newest)
    await commits.aclose()


class CutOnce(EtcdStore):
    """Loses its watch after the first reply that told something."""

    is_cut = False

    async def _watched(self, start: bytes, end: bytes, revision: int) -> AsyncIterator[Any]:
        async for reply in super()._watched(start, end, revision):
            yield reply
            if reply.events and not self.is_cut:
                self.is_cut = True
                return


async def test_a_reader_far_behind_that_loses_its_watch_goes_on_where_it_was(
    etcd_endpoint: str, prefix: str
) -> None:
    """The header of what it was told is ahead of the events in it, and must not be taken for the place."""
    store = CutOnce(etcd_endpoint)
    since = await store.commit(Txn().put(prefix + "k", b""))
    for _ in range(13):
        await asyncio.gather(*(store.commit(Txn().put(prefix + "k", b"")) for _ in range(100)))

    commits = await store.history((prefix,), since)

    revisions = [commit.revision for commit in await taken(commits, 1300)]
    assert store.is_cut and revisions == list(range(since + 1, since + 1301))
    await commits.aclose()
    await store.close()
