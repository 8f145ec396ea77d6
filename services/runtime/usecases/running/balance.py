"""Spread instances that asked for a number of CPUs over those that the host has.

Follows the records: whatever starts, stops or changes an instance, the sets are worked out anew a
moment later. Nothing is remembered, so a restart of this service changes no set.
"""

from __future__ import annotations

import asyncio
import contextlib

from core.configkeys.instance import INSTANCE
from core.errors import PodiumError
from core.logs import get_logger
from core.tasks import cancelled
from core.units import parse_cpus
from services.runtime.domain import limits
from services.runtime.domain.lifecycle import UP
from services.runtime.usecases.host import Host

log = get_logger(__name__)
_PAUSE_S = 0.1


class Balance:
    def __init__(self, host: Host, member: str) -> None:
        self._host = host
        self._member = member
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        store = self._host.store
        for cache in (store.observed, store.instances, store.profiles):
            cache.on_change(lambda _key, _entry: self._wanted.set())
        self._wanted.set()
        # Owned by this object until stop(): it follows the records as long as the service lives.
        self._task = asyncio.create_task(self._run(), name="balance")

    async def stop(self) -> None:
        await cancelled(self._task)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            await asyncio.sleep(_PAUSE_S)  # many starts at once are one change
            self._wanted.clear()
            if chosen := self._plan():
                await asyncio.to_thread(self._apply, chosen)

    def _plan(self) -> dict[str, frozenset[int]]:
        pinned: list[frozenset[int]] = []
        counts: dict[str, int] = {}
        for id, value in self._values().items():
            wanted = parse_cpus(value)
            if isinstance(wanted, int):
                counts[id] = wanted
            else:
                pinned.append(wanted)
        return limits.balance(self._host.cgroups.cpus(), pinned, counts)

    def _values(self) -> dict[str, str]:
        """Return limits.cpu of what runs here and has one."""
        store, found = self._host.store, dict[str, str]()
        for entry in store.instances.entries():
            instance = entry.record
            if instance.member == self._member and store.observed_of(instance).record.status in UP:
                with contextlib.suppress(PodiumError):
                    found[instance.id] = INSTANCE.get(self._host.expanded(instance).config, "limits.cpu")
        return {id: value for id, value in found.items() if value}

    def _apply(self, chosen: dict[str, frozenset[int]]) -> None:
        for id, cpus in chosen.items():
            try:
                self._host.cgroups.set_cpus(id, cpus)
            except (PodiumError, OSError) as exc:
                log.warning("cpus_not_set", id=id, error=str(exc))
