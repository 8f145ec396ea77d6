"""Let running instances follow the devices of the host, and look after their devices when we start."""

from __future__ import annotations

import asyncio
import contextlib

from core.errors import PodiumError
from core.logs import get_logger
from core.records import Instance
from core.tasks import cancelled
from services.runtime.domain.devices.registry import follows_host
from services.runtime.domain.lifecycle import UP
from services.runtime.ports import HostEvents
from services.runtime.usecases.host import Host

log = get_logger(__name__)
# A device of several nodes comes as several events.
_SETTLE_S = 0.1
_PAUSE_S = 1.0


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
        await cancelled(self._task)
        await self._events.stop()

    async def _run(self) -> None:
        await self.look(None)
        while True:
            told = await self._events.changed()
            await asyncio.sleep(_SETTLE_S)
            await self.look(told)
            # What ends at once must not be started again and again.
            await asyncio.sleep(_PAUSE_S if told else 0)

    async def look(self, told: set[str] | None) -> None:
        """Compare devices with the host: of those that follow it and of *told*, or of all if that is None."""
        for entry in self._host.store.instances.entries():
            if entry.record.member == self._member:
                with contextlib.suppress(PodiumError):
                    if told is None or entry.record.id in told or self._follows(entry.record):
                        await self._look_at(entry.record)

    def _follows(self, instance: Instance) -> bool:
        return follows_host(self._host.expanded(instance).devices)

    async def _look_at(self, instance: Instance) -> None:
        observed = self._host.store.observed_of(instance).record
        # While an operation owns it, that sees to its devices.
        if observed.status in UP and not observed.operation and (pid := self._host.engine.pid(instance.id)):
            self._host.engine.release(instance.id)
            try:
                await self._host.ensure_devices(instance, pid, had=self._host.expanded(instance))
            except PodiumError as exc:
                log.warning("devices_not_followed", instance=instance.name, error=exc.message)
