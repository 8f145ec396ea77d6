"""Hold an instance still while its volume is copied by a driver that cannot do so in one moment.

A running one is frozen. Nobody else is kept off: who stops, starts, restores or deletes the instance
meanwhile may do so, and the copy fails instead, since nobody could say what it holds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from core.errors import NotFound, WrongState
from core.records import Instance
from core.state import keys
from services.runtime.domain.lifecycle import DELETING, FROZEN
from services.runtime.usecases.host import Host


class Stillness:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._holders: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, instance: Instance, pool: str) -> AsyncIterator[None]:
        """Let the block copy the volume of *instance* into *pool*. Raises: WrongState if it was not still."""
        if pool == instance.pool and self._host.driver_of(pool).is_instant:
            yield
            return
        pid = self._host.engine.pid(instance.id)
        volume = _inode(self._host.volume_of(instance))
        await self._hold(instance.id, pid)
        try:
            yield
            is_still = not pid or self._host.cgroups.is_frozen(instance.id)
        finally:
            await self._release(instance.id, pid)
        is_same = (self._host.engine.pid(instance.id), _inode(self._host.volume_of(instance))) == (
            pid,
            volume,
        )
        if not (is_still and is_same and self._is_there(instance.id)):
            raise WrongState(
                "NOT_STILL", "The instance changed while it was copied; try again", about=instance.name
            )

    @asynccontextmanager
    async def of_snapshot(self, source: Instance, id: str) -> AsyncIterator[None]:
        """Let the block copy the volume of a snapshot, which only a deletion could change."""
        yield
        if all(snapshot.id != id for snapshot in self._host.store.whole_snapshots(source)):
            why = "A snapshot was deleted while it was copied; try again"
            raise WrongState("NOT_STILL", why, about=source.name)

    async def _hold(self, id: str, pid: int) -> None:
        self._holders[id] += 1
        if pid:
            await asyncio.to_thread(self._host.cgroups.freeze, id)

    async def _release(self, id: str, pid: int) -> None:
        """Let it go on, unless another copy is being made, or somebody asked for it to be frozen."""
        self._holders[id] -= 1
        if self._holders[id]:
            return
        del self._holders[id]
        observed = self._host.store.observed.get(keys.observed(id))
        if pid and observed and observed.record.status != FROZEN:
            try:
                await asyncio.to_thread(self._host.cgroups.thaw, id)
            except NotFound:
                return  # it was stopped

    def _is_there(self, id: str) -> bool:
        observed = self._host.store.observed.get(keys.observed(id))
        return observed is not None and observed.record.status != DELETING


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
