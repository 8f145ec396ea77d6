"""Keep the schedules of custom volumes and the expiry of their snapshots, whenever those of instances are."""

from __future__ import annotations

from datetime import datetime

from core.configkeys.schedule import is_due, parse_schedule
from core.errors import PodiumError
from core.logs import get_logger
from core.records import Volume, VolumeSnapshot
from services.runtime.domain.volumes import VolumeRef
from services.runtime.store import RuntimeStore
from services.runtime.usecases.volumes.claims import VolumeClaims
from services.runtime.usecases.volumes.snapshots import VolumeSnapshots

log = get_logger(__name__)


class VolumeSchedules:
    def __init__(
        self, store: RuntimeStore, claims: VolumeClaims, snapshots: VolumeSnapshots, member: str
    ) -> None:
        self._store = store
        self._runner = claims.runner
        self._snapshots = snapshots
        self._member = member

    async def keep(self, minutes: list[datetime], now: float) -> None:
        """Take what was due in *minutes*, once for each volume, and delete what has expired by *now*."""
        for volume in self._own():
            if at := _due(volume, minutes):
                await self._take(volume, at)
            await self._prune(volume, now)

    def _own(self) -> list[Volume]:
        pools = {p.name for p in self._store.pools.recorded() if p.member == self._member}
        return [entry.record for entry in self._store.volumes.entries() if entry.record.pool in pools]

    async def _take(self, volume: Volume, at: datetime) -> None:
        # One that was taken since is that of a run which died before it could say so.
        taken = [entry.record.created_at for entry in self._store.snapshots_of_volume(volume)]
        if any(created_at >= at.timestamp() for created_at in taken):
            return
        try:
            operation = await self._snapshots.take(_ref(volume), expires_at=None)
            await self._runner.wait(operation.id)
        except PodiumError as exc:
            log.warning("scheduled_snapshot_failed", volume=volume.name, error=exc.message)

    async def _prune(self, volume: Volume, now: float) -> None:
        for snapshot in [entry.record for entry in self._store.snapshots_of_volume(volume)]:
            if not (snapshot.status == "Created" and 0 < snapshot.expires_at <= now):
                continue
            try:
                operation = await self._snapshots.delete(_ref(volume, snapshot))
                await self._runner.wait(operation.id)
            except PodiumError as exc:
                log.warning("expired_snapshot_kept", volume=volume.name, error=exc.message)


def _due(volume: Volume, minutes: list[datetime]) -> datetime | None:
    schedule = parse_schedule(volume.config.get("snapshots.schedule") or "@never")
    return next((at for at in reversed(minutes) if is_due(schedule, at)), None)


def _ref(volume: Volume, snapshot: VolumeSnapshot | None = None) -> VolumeRef:
    return VolumeRef(volume.pool, volume.project, volume.name, snapshot.name if snapshot else "")
