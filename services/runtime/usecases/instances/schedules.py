"""Keep snapshots.schedule and the expiry of snapshots: look once a minute, and make up for short absences.

A snapshot records the minute it was taken for, so that a death between the two writes doubles none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from core.configkeys.instance import INSTANCE
from core.configkeys.schedule import is_due, parse_schedule
from core.errors import AlreadyExists, NotFound, PodiumError
from core.logs import get_logger
from core.records import Instance
from core.tasks import cancelled
from core.units import parse_bool
from services.runtime.domain.lifecycle import UP
from services.runtime.ports import Ticks
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.snapshots import Snapshots, WantedSnapshot

log = get_logger(__name__)
_AT_ONCE = 2
_MINUTE = timedelta(minutes=1)
# Longer ago is not made up for: who comes back after a day wants no snapshot of last night now.
_LONGEST = timedelta(hours=1)
_STARTUP = "@startup"


def _now() -> datetime:
    return datetime.now().astimezone()


class Schedules:
    def __init__(
        self,
        host: Host,
        claims: Claims,
        snapshots: Snapshots,
        ticks: Ticks,
        member: str,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._host = host
        self._store = host.store
        self._runner = claims.runner
        self._snapshots = snapshots
        self._ticks = ticks
        self._member = member
        self._clock = clock
        self._free = asyncio.Semaphore(_AT_ONCE)
        # What else keeps schedules: given the minutes that passed, and the time.
        self.also: list[Callable[[list[datetime], float], Awaitable[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        # Owned by this object until stop().
        self._task = asyncio.create_task(self._run(), name="schedules")

    async def stop(self) -> None:
        await cancelled(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self.tick()
            except (PodiumError, OSError) as exc:
                log.warning("schedules_not_kept", error=str(exc))
            now = self._clock()
            await asyncio.sleep(60 - now.second - now.microsecond / 1e6)

    async def tick(self) -> None:
        """Take what became due since the last time, and delete what has expired."""
        now = self._clock().replace(second=0, microsecond=0)
        last = datetime.fromtimestamp(self._ticks.last(), now.tzinfo)
        minutes = _minutes(max(last, now - _LONGEST), now)
        due = [(i, at) for i in self._own() if (at := self._due(i, minutes))]
        await asyncio.gather(*(self._take(instance, at) for instance, at in due))
        await self._prune(self._clock().timestamp())
        for keep in self.also:
            await keep(minutes, self._clock().timestamp())
        await asyncio.to_thread(self._ticks.seen, now.timestamp())

    def _own(self) -> list[Instance]:
        records = (entry.record for entry in self._store.instances.entries())
        return [instance for instance in records if instance.member == self._member]

    def _due(self, instance: Instance, minutes: list[datetime]) -> datetime | None:
        """Return the last minute at which *instance* was to be snapshot; None when it was not."""
        config = self._config(instance)
        if not (text := config.get("snapshots.schedule")):
            return None
        also_stopped = parse_bool(INSTANCE.get(config, "snapshots.schedule.stopped"))
        is_up = self._store.observed_of(instance).record.status in UP
        if not (is_up or also_stopped):
            return None
        schedule = parse_schedule(text)
        return next((at for at in reversed(minutes) if is_due(schedule, at)), None)

    def _config(self, instance: Instance) -> Mapping[str, str]:
        try:
            return self._host.expanded(instance).config
        except NotFound:
            return {}

    async def before_start(self, instance: Instance) -> None:
        """Take the snapshot that "@startup" asks for. A start does not wait for more than that."""
        if _STARTUP in parse_schedule(self._config(instance).get("snapshots.schedule") or "@never"):
            await self._take(instance, self._clock())

    async def _take(self, instance: Instance, at: datetime) -> None:
        wanted = WantedSnapshot(scheduled_for=at.timestamp())
        async with self._free:
            try:
                operation = await self._snapshots.take(instance.project, instance.name, wanted)
                await self._runner.wait(operation.id)
            except AlreadyExists:
                return  # taken before this service died
            except PodiumError as exc:
                log.warning("scheduled_snapshot_failed", instance=instance.name, error=exc.message)

    async def _prune(self, now: float) -> None:
        for entry in self._store.snapshots.entries():
            snapshot = entry.record
            if snapshot.status != "Created" or not 0 < snapshot.expires_at <= now:
                continue
            instance = self._store.find_instance(snapshot.instance_id)
            if instance is None or instance.member != self._member:
                continue
            try:
                operation = await self._snapshots.delete(instance.project, instance.name, snapshot.name)
                await self._runner.wait(operation.id)
            except PodiumError as exc:
                log.warning("expired_snapshot_kept", instance=instance.name, error=exc.message)


def _minutes(after: datetime, until: datetime) -> list[datetime]:
    """Return the whole minutes after *after*, up to and with *until*."""
    count = int((until - after) / _MINUTE)
    return [until - _MINUTE * back for back in range(count - 1, -1, -1)]
