"""Custom volumes that come from other servers by rsync; see ../transfers/landings.py."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from core.errors import Unsupported, WrongState
from core.failpoints import declare, failpoint
from core.names import volume_snapshot_name
from core.records import Volume
from services.runtime.domain.arrivals import ArrivedEntry
from services.runtime.domain.offers import FEATURES, Answer, Offer, missing
from services.runtime.ports import VolumeKind
from services.runtime.usecases.host import Host
from services.runtime.usecases.transfers.renew import Staged
from services.runtime.usecases.transfers.voyages import Voyage, Voyages
from services.runtime.usecases.transfers.wire import Transit, Wire, through
from services.runtime.usecases.volumes.copies import VolumeCopies
from services.runtime.usecases.volumes.custom import Volumes, bound_of
from services.runtime.usecases.volumes.imports import VolumeImports, WantedVolume

_CUSTOM = VolumeKind.CUSTOM
_LANDED, _RENEWED = "volume.land.staged", "volume.renew.staged"
declare(_LANDED, _RENEWED)
_IDS = "volatile.idmap.last"


class VolumeLandings:
    def __init__(
        self,
        host: Host,
        volumes: Volumes,
        copies: VolumeCopies,
        imports: VolumeImports,
        voyages: Voyages,
        transit: Transit,
    ) -> None:
        self._host = host
        self._store = host.store
        self._volumes = volumes
        self._copies = copies
        self._imports = imports
        self._voyages = voyages
        self._transit = transit

    async def receive(self, voyage: Voyage, wanted: WantedVolume, offer: Offer, wire: Wire) -> bool:
        """Receive by rsync and make a volume of it; say whether the archive is to be sent instead.

        Raises: Unavailable, Invalid, NotFound, AlreadyExists, WrongState, Unsupported.
        """
        if wanted.only:
            offer = replace(offer, snapshots=())
        for snapshot in offer.snapshots:
            volume_snapshot_name(snapshot.name)
        target = self._copies.find(wanted.ref) if wanted.refresh else None
        if target is None and offer.has_archive:
            await wire.answer(Answer(archive=True, by_rsync=False))
            return False
        if not offer.by_rsync or (wanted.config or {}).get(_IDS, "[]") != "[]":
            why = "The volume cannot be sent as it lies on the other server; move it by export and import"
            raise Unsupported("NO_WAY", why)
        if target:
            await self._renew(voyage, wanted, target.record, offer, wire)
        else:
            await self._land(voyage, wanted, offer, wire)
        return True

    async def _land(self, voyage: Voyage, wanted: WantedVolume, offer: Offer, wire: Wire) -> None:
        with self._imports.expected(wanted) as plan:
            await self._land_as(plan, voyage, wanted, offer, wire)

    async def _land_as(
        self, plan: Volume, voyage: Voyage, wanted: WantedVolume, offer: Offer, wire: Wire
    ) -> None:
        staged = Staged(plan.id, _ids(offer.snapshots))
        driver = self._host.driver_of(plan.pool)
        async with self._cleared(plan.pool, staged):
            folder = await driver.ensure_volume(plan.pool, plan.id, kind=_CUSTOM, size=bound_of(plan))
            answer = Answer(features=offer.features & FEATURES, snapshots=offer.snapshots)
            await wire.answer(answer)
            await self._received(plan, folder, staged, answer, wire)
            failpoint(_LANDED)
            accepting = self._imports.accept_staged(wanted, offer.snapshots, staged)
            await self._voyages.landed(voyage, accepting)

    async def _renew(
        self, voyage: Voyage, wanted: WantedVolume, target: Volume, offer: Offer, wire: Wire
    ) -> None:
        if self._volumes.users(target).running:
            raise WrongState("IN_USE", "Volume is still in use by running instances", about=target.name)
        has = [(snapshot.name, snapshot.created_at) for snapshot in self._copies.snapshots(target)]
        wants = tuple(missing(offer.snapshots, has))
        staged = Staged(str(uuid.uuid4()), _ids(wants))
        driver = self._host.driver_of(target.pool)
        async with self._cleared(target.pool, staged):
            source = driver.volume(target.pool, target.id, _CUSTOM)
            folder = await driver.clone_volume(
                target.pool, staged.id, source, kind=_CUSTOM, size=bound_of(target)
            )
            answer = Answer(features=offer.features & FEATURES, refresh=True, snapshots=wants)
            await wire.answer(answer)
            await self._received(target, folder, staged, answer, wire)
            failpoint(_RENEWED)
            accepting = self._imports.accept_staged(wanted, offer.snapshots, staged)
            await self._voyages.landed(voyage, accepting)

    async def _received(self, plan: Volume, folder: Path, staged: Staged, answer: Answer, wire: Wire) -> None:
        driver = self._host.driver_of(plan.pool)
        for snapshot in answer.snapshots:
            await self._receive(folder, answer, wire)
            id = staged.snapshots[snapshot.name]
            await driver.clone_volume(plan.pool, id, folder, kind=_CUSTOM)
        await self._receive(folder, answer, wire)

    async def _receive(self, folder: Path, answer: Answer, wire: Wire) -> None:
        async with self._transit.receiving(folder, "", answer.features) as end:
            await through(wire, end)

    @asynccontextmanager
    async def _cleared(self, pool: str, staged: Staged) -> AsyncIterator[None]:
        """Remove afterwards what of *staged* no record has taken."""
        try:
            yield
        finally:
            await asyncio.shield(self._clear(pool, staged))

    async def _clear(self, pool: str, staged: Staged) -> None:
        taken = self._imports.taken_ids()
        for id in (staged.id, *staged.snapshots.values()):
            if id not in taken:
                await self._host.driver_of(pool).delete_volume(pool, id, kind=_CUSTOM)


def _ids(snapshots: Sequence[ArrivedEntry]) -> dict[str, str]:
    return {snapshot.name: str(uuid.uuid4()) for snapshot in snapshots}
