"""Before the host goes down: stop what runs, in its order, so that it comes back when the host does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from core.errors import PodiumError
from core.logs import get_logger
from services.runtime.domain import shutdown
from services.runtime.domain.lifecycle import UP
from services.runtime.domain.shutdown import Stopping
from services.runtime.ports import Boots
from services.runtime.usecases.host import Host
from services.runtime.usecases.running.power import Power

log = get_logger(__name__)
_AT_ONCE = 16


class HostShutdown:
    def __init__(self, host: Host, power: Power, boots: Boots, member: str) -> None:
        self._host = host
        self._power = power
        self._boots = boots
        self._member = member

    async def run(self) -> list[str]:
        """Stop all instances of this member; return why not, for those that resist.

        Starts are refused meanwhile. The next start of this service counts as one of the host: what
        ran starts again, should the host not go down after all.
        """
        self._power.is_closing = True
        try:
            failed: list[str] = []
            for group in shutdown.plan(self._running()):
                failed += await self._stop_group(group)
            await asyncio.to_thread(self._boots.forget)
            return failed
        finally:
            self._power.is_closing = False

    async def _stop_group(self, group: list[Stopping]) -> list[str]:
        free = asyncio.Semaphore(_AT_ONCE)

        async def stop(one: Stopping) -> str:
            async with free:
                return await self._stop(one)

        return [line for line in await asyncio.gather(*(stop(one) for one in group)) if line]

    async def _stop(self, one: Stopping) -> str:
        instance = one.instance
        try:
            operation = await self._power.stop_with_host(instance, timeout_s=one.timeout_s)
            error = operation.error_message
        except PodiumError as exc:
            error = exc.message
        if error:
            log.warning("not_stopped_at_shutdown", instance=instance.name, error=error)
        return f"{instance.project}/{instance.name}: {error}" if error else ""

    def _running(self) -> list[Stopping]:
        store, found = self._host.store, list[Stopping]()
        for entry in store.instances.entries():
            instance = entry.record
            if instance.member == self._member and store.observed_of(instance).record.status in UP:
                config: Mapping[str, str] = {}
                with contextlib.suppress(PodiumError):  # with a profile that is gone it stops all the same
                    config = self._host.expanded(instance).config
                found.append(Stopping(instance, config))
        return found
