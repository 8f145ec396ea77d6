"""Custom volumes on their way to and from other servers; see ../transfers/voyages.py."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from core.errors import NotFound
from core.records import Volume, VolumeSnapshot
from services.runtime.domain.arrivals import ArrivedEntry
from services.runtime.domain.offers import Answer, Offer, offer_from, wanted_of
from services.runtime.domain.volumes import VolumeRef
from services.runtime.usecases.transfers.pack import streamed
from services.runtime.usecases.transfers.voyages import COMPRESSION, Voyage, Voyages
from services.runtime.usecases.transfers.wire import Transit, Wire, through
from services.runtime.usecases.volumes.archives import VolumeArchives
from services.runtime.usecases.volumes.custom import Volumes
from services.runtime.usecases.volumes.imports import VolumeImports, WantedVolume
from services.runtime.usecases.volumes.landings import VolumeLandings
from services.runtime.usecases.volumes.snapshots import VolumeSnapshots

_TOP = "volume"


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
        landings: VolumeLandings,
        transit: Transit,
    ) -> None:
        self._voyages = voyages
        self._volumes = volumes
        self._snapshots = snapshots
        self._archives = archives
        self._imports = imports
        self._landings = landings
        self._transit = transit

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

    def offer(self, source: VolumeSource, *, only: bool) -> Offer:
        snapshots = [] if only or source.snapshot else self._archives.snapshots(source.volume)
        told = tuple(_entry(snapshot) for snapshot in snapshots)
        return offer_from(self._archives.pool(source.volume), told)

    async def send(self, source: VolumeSource, offer: Offer, answer: Answer, wire: Wire) -> None:
        """Send by rsync what was answered to *offer*. Raises: Invalid, Unsupported, Unavailable, NotFound."""
        taken = {snapshot.name: snapshot for snapshot in self._archives.snapshots(source.volume)}
        for name in wanted_of(offer, answer):
            if name not in taken:
                raise NotFound("NO_SNAPSHOT", "A snapshot was deleted meanwhile; try again", about=name)
            await self._send(source.volume, taken[name], offer, answer, wire)
        await self._send(source.volume, source.snapshot, offer, answer, wire)

    async def _send(
        self, volume: Volume, snapshot: VolumeSnapshot | None, offer: Offer, answer: Answer, wire: Wire
    ) -> None:
        features = answer.features & offer.features
        async with (
            self._archives.spread(volume, snapshot) as root,
            self._transit.sending({}, {_TOP: root}, _TOP, features, bound=offer.bound) as end,
        ):
            await through(wire, end, is_sender=True)

    async def receive(self, voyage: Voyage, wanted: WantedVolume, offer: Offer, wire: Wire) -> bool:
        """See VolumeLandings.receive."""
        return await self._landings.receive(voyage, wanted, offer, wire)

    async def land(self, voyage: Voyage, wanted: WantedVolume) -> None:
        """Make a volume of what arrived. Raises: NotFound, Invalid, AlreadyExists."""
        await self._voyages.landed(voyage, self._imports.accept(wanted))


def _entry(snapshot: VolumeSnapshot) -> ArrivedEntry:
    return ArrivedEntry(
        name=snapshot.name,
        base_dir="",
        config=dict(snapshot.config),
        created_at=snapshot.created_at,
        expires_at=snapshot.expires_at,
    )
