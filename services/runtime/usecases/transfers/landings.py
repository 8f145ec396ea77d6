"""Instances that come from other servers by rsync, which LXD knows too: whole, or what differs.

What comes is received into a volume of its own, as a copy of what is here where that is to be brought up
to date. Only when all of it is there does a record tell of it; until then a failure, or a death, leaves
nothing but volumes that nothing is recorded of.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from core.errors import Unsupported, WrongState
from core.failpoints import declare, failpoint
from core.records import Instance
from services.runtime.domain.arrivals import Arrived, ArrivedEntry
from services.runtime.domain.criu import not_live
from services.runtime.domain.idmaps import PRIVILEGED, IdMap, Range
from services.runtime.domain.lifecycle import UP
from services.runtime.domain.offers import FEATURES, Answer, Offer, missing
from services.runtime.domain.snapshots import snapshot_name
from services.runtime.ports import RootFs
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.abouts import AboutInstances
from services.runtime.usecases.transfers.arrive import Arrivals, WantedArrival
from services.runtime.usecases.transfers.pack import ROOT
from services.runtime.usecases.transfers.renew import Staged
from services.runtime.usecases.transfers.voyages import Voyage, Voyages
from services.runtime.usecases.transfers.wire import Transit, Wire, through

_WIDE = 1 << 30
_LANDED, _RENEWED = "instance.land.staged", "instance.renew.staged"
declare(_LANDED, _RENEWED)
_NO_WAY = (
    "The other server offers no way of migration that is known here; "
    "move instances by lxc export and lxc import"
)


class Landings:
    def __init__(
        self, host: Host, arrivals: Arrivals, voyages: Voyages, transit: Transit, abouts: AboutInstances
    ) -> None:
        self._host = host
        self._abouts = abouts
        self._store = host.store
        self._arrivals = arrivals
        self._voyages = voyages
        self._transit = transit

    async def receive(self, voyage: Voyage, wanted: WantedArrival, offer: Offer, wire: Wire) -> bool:
        """Receive by rsync and make an instance of it; say whether the archive is to be sent instead.

        Raises: Unavailable, Invalid, NotFound, AlreadyExists, WrongState, Unsupported ...
        """
        if offer.is_live:
            raise Unsupported("NO_CRIU", not_live(await self._host.checkpoints.obstacle(), "destination"))
        if wanted.instance_only:
            offer = replace(offer, snapshots=())
        for snapshot in offer.snapshots:
            snapshot_name(snapshot.name)
        target = self._arrivals.renewable(wanted)
        if target is None and offer.has_archive:
            await wire.answer(Answer(archive=True, by_rsync=False))
            return False
        if not offer.by_rsync:
            raise Unsupported("NO_WAY", _NO_WAY)
        if target:
            await self._renew(voyage, wanted, target, offer, wire)
        else:
            await self._land(voyage, wanted, offer, wire)
        return True

    async def _land(self, voyage: Voyage, wanted: WantedArrival, offer: Offer, wire: Wire) -> None:
        with self._arrivals.expected(wanted) as plan:
            await self._land_as(plan, voyage, wanted, offer, wire)

    async def _land_as(
        self, plan: Instance, voyage: Voyage, wanted: WantedArrival, offer: Offer, wire: Wire
    ) -> None:
        staged = Staged(plan.id, _ids(offer.snapshots))
        async with self._cleared(plan, staged):
            await self._host.volume(plan)
            answer = Answer(features=offer.features & FEATURES, snapshots=offer.snapshots)
            await wire.answer(answer)
            await self._received(plan, staged, answer, offer.shift, wire)
            failpoint(_LANDED)
            arrived = _arrived(plan, offer)
            await self._voyages.landed(voyage, self._arrivals.accept_staged(wanted, arrived, staged))

    async def _renew(
        self, voyage: Voyage, wanted: WantedArrival, target: Instance, offer: Offer, wire: Wire
    ) -> None:
        if self._store.observed_of(target).record.status in UP:
            raise WrongState("RUNNING", "Cannot refresh a running instance", about=target.name)
        has = [(e.record.name, e.record.created_at) for e in self._store.instance_snapshots(target)]
        wants = tuple(missing(offer.snapshots, has))
        staged = Staged(str(uuid.uuid4()), _ids(wants))
        plan = replace(target, id=staged.id)
        async with self._cleared(plan, staged):
            driver = self._host.driver_of(target.pool)
            size, source = self._host.root_size(target), self._host.volume_of(target)
            await driver.clone_volume(target.pool, staged.id, source, size=size)
            answer = Answer(features=offer.features & FEATURES, refresh=True, snapshots=wants)
            await wire.answer(answer)
            await self._received(plan, staged, answer, offer.shift, wire)
            failpoint(_RENEWED)
            arrived = _arrived(target, offer)
            await self._voyages.landed(voyage, self._arrivals.accept_staged(wanted, arrived, staged))

    async def _received(self, plan: Instance, staged: Staged, answer: Answer, shift: int, wire: Wire) -> None:
        """Receive the snapshots, oldest first, and then what is now; each is what differs from the last."""
        driver = self._host.driver_of(plan.pool)
        for snapshot in answer.snapshots:
            await self._receive_root(plan, answer, snapshot.shift, wire)
            id = staged.snapshots[snapshot.name]
            await driver.clone_volume(plan.pool, id, self._host.volume_of(plan))
        await self._receive_root(plan, answer, shift, wire)

    async def _receive_root(self, plan: Instance, answer: Answer, shift: int, wire: Wire) -> None:
        layers = await self._host.lower(plan), await self._host.volume(plan)
        async with (
            _mounted(self._host.rootfs, plan, layers, shift) as root,
            self._transit.receiving(root, ROOT, answer.features) as end,
        ):
            await through(wire, end)
            beside = await asyncio.to_thread(end.beside)
        await self._abouts.received(plan.project, layers[1], beside)

    @asynccontextmanager
    async def _cleared(self, plan: Instance, staged: Staged) -> AsyncIterator[None]:
        """Remove afterwards what of *staged* no record has taken."""
        try:
            yield
        finally:
            await asyncio.shield(self._clear(plan, staged))

    async def _clear(self, plan: Instance, staged: Staged) -> None:
        await self._host.rootfs.ensure_unmounted(plan.id)
        taken = self._arrivals.taken_ids()
        if plan.id not in taken:
            await self._host.engine.remove(plan.id)
        for id in (plan.id, *staged.snapshots.values()):
            if id not in taken:
                await self._host.remove_volume(plan.pool, id)


@asynccontextmanager
async def _mounted(
    rootfs: RootFs, plan: Instance, layers: tuple[Path | None, Path], shift: int
) -> AsyncIterator[Path]:
    """Give the root with the ids that the other side sends, for root alone to see."""
    lower, volume = layers
    try:
        yield await rootfs.ensure_mounted(plan.id, lower, volume, _shifted(shift), shift=plan.base_shift)
    finally:
        await rootfs.ensure_unmounted(plan.id)


def _arrived(plan: Instance, offer: Offer) -> Arrived:
    """Return what was received as if it were an archive: all of it lies above what *plan* lies on."""
    folder, shift = plan.base_dir, plan.base_shift
    snapshots = tuple(replace(snapshot, base_dir=folder, shift=shift) for snapshot in offer.snapshots)
    return Arrived(plan.image, plan.pool, ArrivedEntry("", folder, shift), snapshots)


def _shifted(shift: int) -> IdMap:
    """Return the map of who sends ids to which *shift* was added."""
    ranges = (Range(0, shift, _WIDE),)
    return IdMap(ranges, ranges) if shift else PRIVILEGED


def _ids(snapshots: Sequence[ArrivedEntry]) -> dict[str, str]:
    return {snapshot.name: str(uuid.uuid4()) for snapshot in snapshots}
