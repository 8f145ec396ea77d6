"""Let running guests see their figures in /proc also when another lxcfs serves them than at their start.

Files of one that died answer nothing: they are taken out at once, and those of the next one put in.
Nothing is remembered: who starts looks at all guests.
"""

from __future__ import annotations

import asyncio

from core.records import Instance
from core.tasks import cancelled
from services.runtime.domain import idmaps
from services.runtime.usecases.host import Host

_LOOK_S = 1.0
_AT_ONCE = 8


class FreshFigures:
    def __init__(self, host: Host, member: str, *, look_s: float = _LOOK_S) -> None:
        self._host = host
        self._member = member
        self._look_s = look_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        # Owned by this object until stop(): it looks for as long as the service lives.
        self._task = asyncio.create_task(self._run(), name="fresh figures")

    async def stop(self) -> None:
        await cancelled(self._task)

    async def _run(self) -> None:
        shown: int | None = None
        while True:
            serving = await asyncio.to_thread(self._host.engine.figures)
            if serving != shown:
                await self._show_all()
                shown = serving
            await asyncio.sleep(self._look_s)

    async def _show_all(self) -> None:
        places = asyncio.Semaphore(_AT_ONCE)

        async def show(instance: Instance) -> None:
            async with places:
                await self._host.engine.show_figures(instance.id, idmaps.of(instance))

        async with asyncio.TaskGroup() as tasks:
            for entry in self._host.store.instances.entries():
                if entry.record.member == self._member and self._host.engine.pid(entry.record.id):
                    tasks.create_task(show(entry.record))
