"""Make the pools of other members here too, and remove what is left of those that are gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from core.errors import PodiumError
from core.logs import get_logger
from core.records import Pool
from core.state import keys
from core.state.store import Txn
from core.tasks import cancelled
from services.runtime.memberpools import BROKEN
from services.runtime.usecases.host import Host

log = get_logger(__name__)
# Whose places are found by name alone; others need a device or a cluster of the operator's choice.
_DRIVERS = ("dir", "btrfs")
_PRIVATE = ("source", "volatile.initial_source")


class PoolCopies:
    """Recorded as Pending before and as Created after, so that a crash leaves a name to finish by."""

    def __init__(self, host: Host, member: str) -> None:
        self._host = host
        self._store = host.store
        self._pools = host.store.pools
        self._member = member
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._pools.on_change(lambda key, entry: self._changed.set())
        # Owned by this object until stop().
        self._task = asyncio.create_task(self._run(), name="pools of other members")

    async def stop(self) -> None:
        await cancelled(self._task)

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.settle()
            except PodiumError as exc:
                log.warning("pools_not_settled", error=exc.message)

    async def settle(self) -> None:
        """Make what is missing and remove what is too much; open() what is there."""
        recorded = {pool.name: pool for pool in self._pools.recorded()}
        for pool in recorded.values():
            copy = self._pools.copy(pool.name)
            if not self._pools.is_ours(pool) and pool.status == "Created" and not _is_made(copy):
                await self._make(pool, copy)
        for entry in self._pools.copies.entries(keys.pool_copies(self._member)):
            if entry.record.name not in recorded:
                await self._remove(entry.record)

    async def open(self) -> None:
        """Mount again what was made here, as after a reboot."""
        for entry in self._pools.copies.entries(keys.pool_copies(self._member)):
            if _is_made(entry.record):
                await self._open(entry.record)
        await self.settle()

    async def _make(self, pool: Pool, was: Pool | None) -> None:
        config = {key: value for key, value in pool.config.items() if key not in _PRIVATE}
        copy = replace(pool, member=self._member, config=config, status="Pending", error="")
        if pool.driver not in _DRIVERS:
            why = f"pools of {pool.driver} lie on the member that made them, {pool.member!r}"
            await self._write(replace(copy, status="Errored", error=why))
            return
        try:
            driver = self._host.driver(pool.driver)
            if was:
                await driver.undo_create(pool.name, was.config)
            await self._write(copy)
            made = await driver.create_pool(pool.name, config)
            await self._write(replace(copy, config=made, status="Created"))
            log.info("pool_made_here", pool=pool.name)
        except (PodiumError, OSError) as exc:
            log.error("pool_not_made_here", pool=pool.name, error=str(exc))
            await self._write(replace(copy, status="Errored", error=str(exc)))

    async def _open(self, copy: Pool) -> None:
        error = ""
        try:
            await self._host.driver(copy.driver).ensure_open(copy.name, copy.config)
        except (PodiumError, OSError) as exc:
            error = str(exc)
            log.error("pool_not_open", pool=copy.name, error=error)
        await self._write(replace(copy, status=BROKEN if error else "Created", error=error))

    async def _remove(self, copy: Pool) -> None:
        try:
            await self._host.driver(copy.driver).delete_pool(copy.name, copy.config)
        except (PodiumError, OSError) as exc:
            log.error("pool_not_removed_here", pool=copy.name, error=str(exc))
            return
        await self._store.commit(Txn().delete(keys.pool_copy(self._member, copy.name)))

    async def _write(self, copy: Pool) -> None:
        if copy != self._pools.copy(copy.name):
            await self._store.commit(Txn().put(keys.pool_copy(self._member, copy.name), copy))


def _is_made(copy: Pool | None) -> bool:
    return copy is not None and copy.status in ("Created", BROKEN)
