"""Notice the end of instances, whoever ended them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from core.errors import Busy, NotFound, PodiumError, WrongState
from core.logs import get_logger
from core.records import Instance
from services.runtime.domain.lifecycle import UP
from services.runtime.ports import Engine, ExitRecord
from services.runtime.store import RuntimeStore

log = get_logger(__name__)
_PAUSE_S = 0.1


async def _nothing(instance: Instance, record: ExitRecord) -> None:
    return None


class Watch:
    """One waiting task per running instance; each ends with its instance."""

    def __init__(self, store: RuntimeStore, engine: Engine) -> None:
        self._store = store
        self._engine = engine
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.on_exit: Callable[[Instance, ExitRecord], Awaitable[None]] = _nothing

    def follow(self, id: str) -> None:
        """Watch instance *id*, which runs. Repeatable."""
        if old := self._tasks.get(id):
            old.cancel()
        # Owned by this object until stop(): it must outlive the operation that started the instance.
        self._tasks[id] = asyncio.create_task(self._wait(id), name=f"watch {id}")

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, id: str) -> None:
        record = await self._engine.wait_exit(id)
        while instance := self._is_recorded_up(id):
            try:
                await self.on_exit(instance, record)
                return
            except (Busy, WrongState, NotFound):
                await asyncio.sleep(_PAUSE_S)
            except PodiumError as exc:
                log.warning("exit_not_recorded", id=id, error=str(exc))
                await asyncio.sleep(1)

    def _is_recorded_up(self, id: str) -> Instance | None:
        """Return the instance while its record says that it is up, or an operation is changing it."""
        for entry in self._store.instances.entries():
            if entry.record.id == id:
                observed = self._store.observed_of(entry.record).record
                is_up = observed.status in UP and not self._engine.pid(id)
                return entry.record if is_up or observed.operation else None
        return None
