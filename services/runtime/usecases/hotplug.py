"""Let running instances follow the devices of the host, and look after their devices when we start."""

from __future__ import annotations

import asyncio
import contextlib

from core.errors import PodiumError
from core.logs import get_logger
from core.records import Instance
from services.runtime.domain.devices.registry import follows_host
from services.runtime.domain.lifecycle import UP
from services.runtime.ports import HostEvents
from services.runtime.usecases.host import Host

log = get_logger(__name__)
# A device of several nodes comes as several events.
_SETTLE_S = 0.1


class Hotplug:
    def __init__(self, host: Host, events: HostEvents, member: str) -> None:
        self._host = host
        self._events = events
        self._member = member
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Give running instances what they lack, such as the processes of proxies, and follow from now on."""
        await self._events.start()
        # Owned by this object until stop(): it outlives the start of the service.
        self._task = asyncio.create_task(self._run(), name="hotplug")

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._events.stop()

    async def _run(self) -> None:
        await self.look(every=True)
        while True:
            await self._events.changed()
            await asyncio.sleep(_SETTLE_S)
            await self.look(every=False)

    async def look(self, *, every: bool) -> None:
        """Compare devices with the host: of *every* running instance, or of those that follow it."""
        for entry in self._host.store.instances.entries():
            if entry.record.member == self._member:
                with contextlib.suppress(PodiumError):
                    if every or follows_host(self._host.expanded(entry.record).devices):
                        await self._look_at(entry.record)

    async def _look_at(self, instance: Instance) -> None:
        observed = self._host.store.observed_of(instance).record
        # While an operation owns it, that sees to its devices.
        if observed.status in UP and not observed.operation and (pid := self._host.engine.pid(instance.id)):
            self._host.engine.release(instance.id)
            try:
                await self._host.ensure_devices(instance, pid, lenient=True)
            except PodiumError as exc:
                log.warning("devices_not_followed", instance=instance.name, error=exc.message)
