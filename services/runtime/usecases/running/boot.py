"""After a boot of the host: start the instances that start with it."""

from __future__ import annotations

import asyncio
import contextlib

from core.errors import Kind, PodiumError
from core.logs import get_logger
from core.tasks import cancelled
from services.runtime.domain import autostart
from services.runtime.domain.autostart import Candidate
from services.runtime.ports import Boots
from services.runtime.usecases.host import Host
from services.runtime.usecases.running.power import Power

log = get_logger(__name__)
_ATTEMPTS = 30


class Boot:
    """Starts them one after another in the background, so that the service answers meanwhile."""

    def __init__(self, host: Host, power: Power, boots: Boots, member: str) -> None:
        self._host = host
        self._power = power
        self._boots = boots
        self._member = member
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Call when the records say what the host does. Does nothing unless the host was booted."""
        if self._boots.is_new():
            # Owned by this object until stop(): it outlives the start of the service.
            self._task = asyncio.create_task(self._run(), name="boot")

    async def stop(self) -> None:
        await cancelled(self._task)

    async def _run(self) -> None:
        for candidate in autostart.plan(self._candidates()):
            await self._start(candidate)
            await asyncio.sleep(candidate.delay_s)
        # Last: killed before this, the next one starts those that are still missing.
        await asyncio.to_thread(self._boots.seen)

    def _candidates(self) -> list[Candidate]:
        store, found = self._host.store, list[Candidate]()
        for entry in store.instances.entries():
            if entry.record.member == self._member:
                with contextlib.suppress(PodiumError):
                    config = self._host.expanded(entry.record).config
                    found.append(Candidate(entry.record, store.observed_of(entry.record).record, config))
        return found

    async def _start(self, candidate: Candidate) -> None:
        """Start one; services that are not up yet are waited for, one that fails holds up no other."""
        project, name = candidate.instance.project, candidate.instance.name
        error: PodiumError | None = None
        for _ in range(_ATTEMPTS):
            try:
                operation = await self._power.change(project, name, "start", timeout_s=0, force=False)
                error = (await self._power.wait(operation.id)).error()
            except PodiumError as exc:
                error = exc
            if error is None or error.kind is not Kind.UNAVAILABLE:
                break
            await asyncio.sleep(1)
        if error:
            log.warning("not_started_at_boot", instance=name, error=error.message)
