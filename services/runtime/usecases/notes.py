"""Note in each pool what is recorded of it and of its volumes, a moment after every change.

The records are the truth; whoever loses them finds the notes (see pools/recover.py). One follower writes
all of them, so no change of a record can be forgotten, and none waits for a disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import NotFound, Unsupported
from core.logs import get_logger
from core.membership import is_here
from core.records import Instance, Pool, Volume
from core.state import keys
from core.state.repository import Entry
from core.tasks import cancelled
from services.runtime.domain import noted
from services.runtime.ports import VolumeKind
from services.runtime.storage import notes
from services.runtime.usecases.host import Host

log = get_logger(__name__)
_PAUSE_S = 1.0
_EVERY = "*"
Content = Callable[[], dict[str, Any]]


class Notes:
    def __init__(self, host: Host, member: str) -> None:
        self._host = host
        self._store = host.store
        self._member = member
        self._changed: set[str] = {_EVERY}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        store = self._store
        for cache in (store.instances, store.volumes, store.observed):
            cache.on_change(self._note_own)
        store.snapshots.on_change(lambda key, entry: self._note(key.split("/")[-2]))
        store.volume_snapshots.on_change(lambda key, entry: self._note(key.split("/")[-2]))
        store.pools.on_change(lambda key, entry: self._note(_EVERY))
        self._wake.set()
        # Owned by this object until stop().
        self._task = asyncio.create_task(self._run(), name="notes")

    async def stop(self) -> None:
        if self._task:
            await cancelled(self._task)
            await self.flush()

    def _note_own(self, key: str, entry: Entry[Any] | None) -> None:
        self._note(entry.record.id if entry else "")

    def _note(self, id: str) -> None:
        self._changed.add(id)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_PAUSE_S)
            await self.flush()

    async def flush(self) -> None:
        """Note what changed since the last time."""
        self._wake.clear()
        changed, self._changed = self._changed, set()
        for pool in [entry.record for entry in self._store.pools.entries()]:
            if pool.status == "Created" and is_here(pool.member, self._member):
                try:
                    await self._flush_pool(pool, changed)
                except (OSError, NotFound, Unsupported) as exc:
                    log.warning("pool_not_noted", pool=pool.name, error=str(exc))

    async def _flush_pool(self, pool: Pool, changed: set[str]) -> None:
        folder = self._host.driver(pool.driver).folder(pool.name)
        wanted = dict(self._wanted(pool))
        has = set(await asyncio.to_thread(notes.names, folder))
        due = [name for name in wanted if name not in has or name in changed or _EVERY in changed]
        await asyncio.to_thread(_write, folder, {name: wanted[name]() for name in due}, has - wanted.keys())

    def _wanted(self, pool: Pool) -> Iterator[tuple[str, Content]]:
        """Yield name and content of the notes that *pool* should have."""
        yield noted.POOL, lambda: noted.of_pool(pool)
        for entry in self._store.instances.entries():
            if entry.record.pool == pool.name and is_here(entry.record.member, self._member):
                yield entry.record.id, partial(self._of_instance, entry.record)
        for own in self._store.volumes.entries(keys.volumes(pool.name)):
            if own.record.status == "Created" and self._store.pools.is_made_here(pool.name):
                yield own.record.id, partial(self._of_volume, own.record)

    def _of_instance(self, instance: Instance) -> dict[str, Any]:
        volatile = self._store.observed_of(instance).record.volatile
        return noted.of_instance(instance, volatile, self._store.whole_snapshots(instance))

    def _of_volume(self, volume: Volume) -> dict[str, Any]:
        return noted.of_volume(volume, [e.record for e in self._store.snapshots_of_volume(volume)])


def lost_ids(folder: Path, known: set[str]) -> set[str]:
    """Return the ids of volumes in a pool that its notes tell of, and no record does. Blocks."""
    found = (noted.parse(note) for note in notes.read_all(folder).values())
    told = [note.ids for note in found if note and note.kind != noted.POOL]
    return set().union(*(ids for ids in told if not ids & known))


def _write(folder: Path, due: dict[str, dict[str, Any]], stale: set[str]) -> None:
    for name, note in due.items():
        notes.write(folder, name, note)
    for name in stale:
        # One whose volume is there is all that is known of it.
        if not any((folder / kind / name).exists() for kind in VolumeKind):
            notes.remove(folder, name)
