"""The archive of a custom volume, as LXD's backups are. Other servers are sent the same."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from core.compression import Compression
from core.records import Config, Volume, VolumeSnapshot
from services.runtime.domain import backupfile
from services.runtime.kernel.archives import pack_tar
from services.runtime.kernel.trees import Root
from services.runtime.ports import VolumeKind
from services.runtime.usecases.host import Host
from services.runtime.usecases.transfers.pack import Packs
from services.runtime.usecases.volumes.custom import Volumes


class VolumeArchives:
    def __init__(self, host: Host, volumes: Volumes, packs: Packs) -> None:
        self._host = host
        self._store = host.store
        self._volumes = volumes
        self._packs = packs

    async def write(self, volume: Volume, target: int, compression: Compression, *, only: bool) -> None:
        """Write the archive of *volume* into descriptor *target*. Raises: NotFound, Internal."""
        snapshots = [] if only else self.snapshots(volume)
        async with self._held(volume) as id:
            await self._pack(volume, id, snapshots, target, compression)

    async def write_snapshot(
        self, volume: Volume, snapshot: VolumeSnapshot, target: int, compression: Compression
    ) -> None:
        """Write the archive of a snapshot as that of a volume without any."""
        was = replace(volume, config=snapshot.config, description=snapshot.description)
        await self._pack(was, snapshot.id, [], target, compression)

    def snapshots(self, volume: Volume) -> list[VolumeSnapshot]:
        """Return the whole ones, oldest first."""
        found = (entry.record for entry in self._store.snapshots_of_volume(volume))
        return [snapshot for snapshot in found if snapshot.status == "Created"]

    def pool(self, volume: Volume) -> Config:
        """Return the configuration of the pool that it lies in."""
        return self._store.pool(volume.pool).record.config

    @asynccontextmanager
    async def spread(self, volume: Volume, snapshot: VolumeSnapshot | None) -> AsyncIterator[Root]:
        """Give what a volume or its snapshot holds, to be read."""
        if snapshot:
            yield self._root(volume, snapshot.id)
            return
        async with self._held(volume) as id:
            yield self._root(volume, id)

    async def _pack(
        self, volume: Volume, id: str, snapshots: list[VolumeSnapshot], target: int, compression: Compression
    ) -> None:
        files = backupfile.volume_files(volume, snapshots, self._store.pool(volume.pool).record)
        roots = {
            f"{backupfile.VOLUME_SNAPSHOTS}/{snapshot.name}": self._root(volume, snapshot.id)
            for snapshot in snapshots
        }
        names = [backupfile.INDEX, *([backupfile.VOLUME_SNAPSHOTS] if snapshots else []), backupfile.VOLUME]
        roots[backupfile.VOLUME] = self._root(volume, id)
        async with self._packs.tree(files, roots) as tree:
            await pack_tar(tree, names, compression, target)

    @asynccontextmanager
    async def _held(self, volume: Volume) -> AsyncIterator[str]:
        """Give the id of what is to be read: as of one moment while instances write, where the pool can."""
        driver = self._host.driver_of(volume.pool)
        if not (driver.is_instant and self._volumes.users(volume).running):
            yield volume.id
            return
        still, source = str(uuid.uuid4()), driver.volume(volume.pool, volume.id, VolumeKind.CUSTOM)
        try:
            await driver.clone_volume(volume.pool, still, source, kind=VolumeKind.CUSTOM)
            yield still
        finally:
            await asyncio.shield(driver.delete_volume(volume.pool, still, kind=VolumeKind.CUSTOM))

    def _root(self, volume: Volume, id: str) -> Root:
        return Root(self._host.driver_of(volume.pool).volume(volume.pool, id, VolumeKind.CUSTOM), None)
