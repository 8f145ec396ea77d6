"""A prefix of the state kept in memory by following it: what the request path reads.

A cache never blocks a reader and never asks etcd. It says which revision it reflects. A process
that wrote something applies its own write at once, so it reads what it wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from operator import itemgetter
from typing import Generic, TypeVar

from core.logs import get_logger
from core.state.repository import Entry, entry_of
from core.state.store import KV, Change, Resync, Store
from core.tasks import cancelled

T = TypeVar("T")
Callback = Callable[[str, Entry[T] | None], None]
log = get_logger(__name__)
_CATCH_UP_S = 2.0


class Cache(Generic[T]):
    """The records below *prefix*, by key."""

    def __init__(
        self,
        store: Store,
        cls: type[T],
        prefix: str,
        *,
        leave_out: Callable[[T], bool] = lambda record: False,
    ) -> None:
        """*leave_out* says which records of a listing are not worth keeping."""
        self._store = store
        self._cls = cls
        self._prefix = prefix
        self._leave_out = leave_out
        self._entries: dict[str, Entry[T]] = {}
        self._folders: dict[str, set[str]] = {}
        self._gone: dict[str, int] = {}
        self._callbacks: list[Callback[T]] = []
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self.revision = 0

    async def start(self) -> None:
        """Begin to follow; return when the first listing is in."""
        # Owned by this cache until stop(); a TaskGroup would tie its life to the caller's block.
        self._task = asyncio.create_task(self._run(), name=f"cache {self._prefix}")
        await self.wait_for(1)

    async def stop(self) -> None:
        await cancelled(self._task)

    def get(self, key: str) -> Entry[T] | None:
        return self._entries.get(key)

    def entries(self, prefix: str = "") -> list[Entry[T]]:
        """Return the entries below *prefix*, sorted by key."""
        items = [(key, entry) for key, entry in self._entries.items() if key.startswith(prefix)]
        return [entry for _, entry in sorted(items, key=itemgetter(0))]

    def below(self, folder: str) -> list[Entry[T]]:
        """Return the entries right in *folder*, sorted by key, without a look at all others."""
        return [entry for _, entry in self.items_below(folder)]

    def items_below(self, folder: str) -> list[tuple[str, Entry[T]]]:
        """Return the same, with their keys."""
        return [(key, self._entries[key]) for key in sorted(self._folders.get(folder, ()))]

    def find(self, holds: Callable[[T], bool]) -> Entry[T] | None:
        """Return an entry whose record *holds*; which one, where several do, is not said."""
        return next((entry for entry in self._entries.values() if holds(entry.record)), None)

    def items(self) -> list[tuple[str, Entry[T]]]:
        return sorted(self._entries.items())

    def on_change(self, callback: Callback[T]) -> None:
        """Call *callback* with key and entry (None when deleted) on every change from now on."""
        self._callbacks.append(callback)

    def apply(self, key: str, record: T | None, revision: int) -> None:
        """Take over a write of this process without waiting for the watch to tell."""
        self._take(key, None if record is None else Entry(record, revision), revision)

    def forget(self, key: str) -> None:
        """Drop an entry that will not change again from memory; nobody is told, etcd still has it."""
        if entry := self._pop(key):
            self._remember_gone(key, entry.revision)

    async def wait_for(self, revision: int, *, timeout_s: float | None = None) -> None:
        """Return when this cache reflects *revision*. Raises: TimeoutError."""
        async with asyncio.timeout(timeout_s), self._moved:
            await self._moved.wait_for(lambda: self.revision >= revision)

    async def catch_up(self, revision: int) -> None:
        """Wait a moment for *revision*, so that whoever wrote it through another process reads it here."""
        with contextlib.suppress(TimeoutError):
            await self.wait_for(revision, timeout_s=_CATCH_UP_S)

    async def _run(self) -> None:
        async for item in self._store.follow(self._prefix):
            if isinstance(item, Resync):
                self._resync(item)
            else:
                self._change(item)
            async with self._moved:
                self._moved.notify_all()

    def _resync(self, item: Resync) -> None:
        seen = {kv.key for kv in item.kvs}
        for key in [k for k, e in self._entries.items() if k not in seen and e.revision <= item.revision]:
            self._take(key, None, item.revision)
        for kv in item.kvs:
            entry = self._decode(kv)
            if entry and kv.key not in self._entries and self._leave_out(entry.record):
                continue
            self._take(kv.key, entry, kv.revision)
        self.revision = max(self.revision, item.revision)

    def _change(self, item: Change) -> None:
        if not self._is_known(item.key, item.revision):  # what we wrote ourselves mostly is
            entry = None
            if item.value is not None:
                entry = self._decode(KV(item.key, item.value, item.revision))
            self._take(item.key, entry, item.revision)
        self.revision = max(self.revision, item.revision)

    def _decode(self, kv: KV) -> Entry[T] | None:
        try:
            entry = entry_of(self._cls, kv)
        except ValueError as exc:
            log.error("record_unreadable", key=kv.key, error=str(exc))
            return None
        if entry.extra:
            self._store.unknown[kv.key] = entry.extra
        return entry

    def _take(self, key: str, entry: Entry[T] | None, revision: int) -> None:
        """Take a change unless it or a newer one of this key is known already."""
        if self._is_known(key, revision):
            return
        if entry is None:
            self._store.unknown.pop(key, None)
            if self._pop(key) is None:
                return
            self._remember_gone(key, revision)
        else:
            self._gone.pop(key, None)
            self._entries[key] = entry
            self._folders.setdefault(_folder(key), set()).add(key)
        for callback in self._callbacks:
            callback(key, entry)

    def _is_known(self, key: str, revision: int) -> bool:
        old = self._entries.get(key)
        return revision <= max(old.revision if old else 0, self._gone.get(key, 0))

    def _pop(self, key: str) -> Entry[T] | None:
        if key in self._entries:
            keys = self._folders[_folder(key)]
            keys.discard(key)
            if not keys:
                del self._folders[_folder(key)]
        return self._entries.pop(key, None)

    def _remember_gone(self, key: str, revision: int) -> None:
        # Bounded: only the newest deletions can still be overtaken by an older put in flight.
        self._gone[key] = revision
        while len(self._gone) > 1024:
            self._gone.pop(next(iter(self._gone)))


def _folder(key: str) -> str:
    return key[: key.rfind("/") + 1]
