"""Start again what ended by itself, as restart.* asks for, with a pause that doubles.

Follows the records, which hold all that decides: a restart of this service changes no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from core.errors import PodiumError
from core.logs import get_logger
from core.records import Instance, InstanceObserved
from core.tasks import cancelled
from services.runtime.domain import revival
from services.runtime.usecases.host import Host
from services.runtime.usecases.running.power import Power

log = get_logger(__name__)
_LEAST_S, _MOST_S = 0.05, 3600.0
_AT_ONCE = 8


class Revive:
    def __init__(self, host: Host, power: Power, member: str) -> None:
        self._host = host
        self._power = power
        self._member = member
        self._wake = asyncio.Event()
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        store = self._host.store
        for cache in (store.observed, store.instances, store.profiles):
            cache.on_change(lambda _key, _entry: self._wake.set())
        # Owned by this object until stop(): it follows the records as long as the service lives.
        self._task = asyncio.create_task(self._run(), name="revive")

    async def stop(self) -> None:
        await cancelled(self._task)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            waiting = self._waiting()
            now = time.time()
            await asyncio.gather(*(self._revive(i, o) for at, i, o in waiting if at <= now))
            later = min((at for at, _, _ in waiting if at > now), default=now + _MOST_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(later - now, _MOST_S))
            await asyncio.sleep(_LEAST_S)  # many changes at once are looked at once

    def _waiting(self) -> list[tuple[float, Instance, InstanceObserved]]:
        store, found = self._host.store, []
        for entry in store.instances.entries():
            instance, observed = entry.record, store.observed_of(entry.record).record
            # Most are down because somebody wanted it; that is told without looking at their keys.
            is_down = observed.status == "stopped" and observed.ended not in ("", revival.ASKED)
            if instance.member != self._member or not is_down:
                continue
            with contextlib.suppress(PodiumError):
                policy = revival.policy(self._host.expanded(instance).config)
                if (at := revival.due(policy, observed)) is not None:
                    found.append((at, instance, observed))
        return found

    async def _revive(self, instance: Instance, observed: InstanceObserved) -> None:
        async with self._free:
            try:
                operation = await self._power.revive(instance, observed)
                error = operation.error_message
            except PodiumError as exc:
                error = exc.message
                await asyncio.sleep(1)  # another operation has it, or etcd is away
        log.info(
            "instance_revived", instance=instance.name, restarts=observed.restarts + 1, error=error or None
        )
