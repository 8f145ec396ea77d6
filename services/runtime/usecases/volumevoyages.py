"""Custom volumes on their way to and from other servers; see voyages.py."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from core.records import Volume, VolumeSnapshot
from services.runtime.domain.volumes import VolumeRef
from services.runtime.usecases.pack import streamed
from services.runtime.usecases.volumearchives import VolumeArchives
from services.runtime.usecases.volumeimports import VolumeImports, WantedVolume
from services.runtime.usecases.volumes import Volumes
from services.runtime.usecases.volumesnapshots import VolumeSnapshots
from services.runtime.usecases.voyages import COMPRESSION, Voyage, Voyages


@dataclass(frozen=True)
class VolumeSource:
    volume: Volume
    snapshot: VolumeSnapshot | None


class VolumeVoyages:
    def __init__(
        self,
        voyages: Voyages,
        volumes: Volumes,
        snapshots: VolumeSnapshots,
        archives: VolumeArchives,
        imports: VolumeImports,
    ) -> None:
        self._voyages = voyages
        self._volumes = volumes
        self._snapshots = snapshots
        self._archives = archives
        self._imports = imports

    def source(self, ref: VolumeRef) -> VolumeSource:
        """Return what is to be sent. Raises: NotFound."""
        snapshot = self._snapshots.find(ref).record if ref.snapshot else None
        return VolumeSource(self._volumes.find(ref).record, snapshot)

    def out(self, source: VolumeSource, *, passive: bool) -> AbstractAsyncContextManager[Voyage]:
        volume, words = source.volume, "Migrating storage volume"
        there = {"storage_volumes": (volume.name,)}
        return self._voyages.opened("volume.send", words, volume.project, there, passive=passive)

    def into(self, ref: VolumeRef, *, passive: bool) -> AbstractAsyncContextManager[Voyage]:
        here = {"storage_volumes": (ref.name,)}
        return self._voyages.opened(
            "volume.receive", "Creating storage volume", ref.project, here, passive=passive
        )

    def archive(self, source: VolumeSource, *, only: bool) -> AsyncGenerator[bytes, None]:
        """Yield the archive. Raises: NotFound, Internal."""

        async def write(target: int) -> None:
            if source.snapshot:
                await self._archives.write_snapshot(source.volume, source.snapshot, target, COMPRESSION)
            else:
                await self._archives.write(source.volume, target, COMPRESSION, only=only)

        return streamed(write)

    async def land(self, voyage: Voyage, wanted: WantedVolume) -> None:
        """Make a volume of what arrived. Raises: NotFound, Invalid, AlreadyExists."""
        await self._voyages.landed(voyage, self._imports.accept(wanted))
