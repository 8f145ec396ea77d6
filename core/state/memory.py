"""A store in memory: the verified fake. Same contract suite as etcd.py, used by unit tests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from builtins import list as _List
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from core.errors import Stale
from core.state.store import (
    KV,
    Change,
    Check,
    Commit,
    Lease,
    Listing,
    Resync,
    Txn,
    Unknown,
    compacted,
    lease_lapsed,
    whole_puts,
    yet_to_come,
)


class MemoryStore:
    """Keeps keys in a dict; one revision per commit, as etcd does."""

    def __init__(self, *, member: str = "test", service: str = "test") -> None:
        self._member = member
        self._service = service
        self._kvs: dict[str, KV] = {}
        self._revision = 1
        self._followers: set[tuple[str, asyncio.Queue[Change]]] = set()
        self._log: _List[Commit] = []
        self._oldest = 0
        self._readers: set[asyncio.Event] = set()
        self._lease_ids = itertools.count(1)
        self._ends: dict[int, asyncio.TimerHandle] = {}
        self._bound: dict[str, int] = {}
        self.unknown: Unknown = {}

    async def get(self, key: str) -> KV | None:
        return self._kvs.get(key)

    async def list(self, prefix: str) -> Listing:
        return Listing(self._revision, self._below(prefix))

    async def commit(self, txn: Txn) -> int:
        if not all(self._holds(check) for check in txn.checks):
            raise Stale("CONFLICT", "The state changed meanwhile; read it again and retry")
        if set(txn.leases.values()) - self._ends.keys():
            raise lease_lapsed()
        self._revision += 1
        for key in txn.deletes:
            self._delete(key)
        puts = whole_puts(txn, self.unknown, member=self._member, service=self._service)
        for key, value in puts.items():
            self._put(key, value, txn.leases.get(key, 0))
        return self._revision

    async def follow(self, prefix: str) -> AsyncIterator[Resync | Change]:
        queue: asyncio.Queue[Change] = asyncio.Queue()
        follower = (prefix, queue)
        self._followers.add(follower)
        try:
            yield Resync(self._revision, self._below(prefix))
            while True:
                yield await queue.get()
        finally:
            self._followers.discard(follower)

    async def history(self, prefixes: Sequence[str], since: int | None) -> AsyncGenerator[Commit, None]:
        since = self._revision if since is None else since
        if since > self._revision:
            raise yet_to_come(since, self._revision)
        if since < self._revision:
            self._check_kept(since)
        return self._commits(tuple(prefixes), since)

    async def _commits(self, prefixes: tuple[str, ...], since: int) -> AsyncGenerator[Commit, None]:
        news = asyncio.Event()
        self._readers.add(news)
        try:
            while True:
                news.clear()
                self._check_kept(since)
                later, since = [c for c in self._log if c.revision > since], self._revision
                for commit in later:
                    changes = tuple(c for c in commit.changes if c.key.startswith(prefixes))
                    if changes:
                        yield Commit(commit.revision, changes)
                await news.wait()
        finally:
            self._readers.discard(news)

    def compact(self, revision: int) -> None:
        """Forget the history before *revision*, as an administrator makes etcd do."""
        self._oldest = revision
        self._log = [commit for commit in self._log if commit.revision >= revision]

    def _check_kept(self, since: int) -> None:
        if since + 1 < min(self._oldest, self._revision):
            raise compacted(self._oldest)

    async def grant(self, ttl_s: float) -> Lease:
        lease = Lease(next(self._lease_ids), ttl_s)
        self._start_time(lease)
        return lease

    async def renew(self, lease: Lease) -> bool:
        if lease.id not in self._ends:
            return False
        self._ends.pop(lease.id).cancel()
        self._start_time(lease)
        return True

    async def revoke(self, lease: Lease) -> None:
        if end := self._ends.get(lease.id):
            end.cancel()
            self._lapse(lease.id)

    def _start_time(self, lease: Lease) -> None:
        self._ends[lease.id] = asyncio.get_running_loop().call_later(lease.ttl_s, self._lapse, lease.id)

    def _lapse(self, id: int) -> None:
        self._ends.pop(id, None)
        keys = [key for key, bound in self._bound.items() if bound == id]
        self._revision += bool(keys)
        for key in keys:
            self._delete(key)

    async def close(self) -> None:
        for end in self._ends.values():
            end.cancel()
        with contextlib.suppress(KeyError):
            self._followers.clear()

    def _below(self, prefix: str) -> _List[KV]:
        return [self._kvs[k] for k in sorted(self._kvs) if k.startswith(prefix)]

    def _delete(self, key: str) -> None:
        self._bound.pop(key, None)
        if self._kvs.pop(key, None):
            self._tell(Change(key, None, self._revision))

    def _put(self, key: str, value: bytes, lease: int) -> None:
        self._bound.pop(key, None)
        if lease:
            self._bound[key] = lease
        old = self._kvs.get(key)
        created = old.create_revision if old else self._revision
        self._kvs[key] = KV(key, value, self._revision, created)
        self._tell(Change(key, value, self._revision))

    def _tell(self, change: Change) -> None:
        if not self._log or self._log[-1].revision < change.revision:
            self._log.append(Commit(change.revision, ()))
        self._log[-1] = Commit(change.revision, (*self._log[-1].changes, change))
        for news in self._readers:
            news.set()
        for prefix, queue in self._followers:
            if change.key.startswith(prefix):
                queue.put_nowait(change)

    def _holds(self, check: Check) -> bool:
        old = self._kvs.get(check.key)
        if check.kind == "absent":
            return old is None
        if check.kind == "exists":
            return old is not None
        if check.kind == "unchanged":
            return (old.revision if old else 0) == check.revision
        return all(kv.revision <= check.revision for kv in self._below(check.key))
