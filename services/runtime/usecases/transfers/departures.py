"""Instances that go to other servers by rsync, which LXD knows too: whole, or what differs."""

from __future__ import annotations

from core.records import Snapshot
from services.runtime.domain.arrivals import ArrivedEntry
from services.runtime.domain.offers import Answer, Offer, offer_from, wanted_of
from services.runtime.store import RuntimeStore
from services.runtime.usecases.transfers.archive import Archives
from services.runtime.usecases.transfers.voyages import Source
from services.runtime.usecases.transfers.wire import Transit, Wire, through


class Departures:
    def __init__(self, store: RuntimeStore, archives: Archives, transit: Transit) -> None:
        self._store = store
        self._archives = archives
        self._transit = transit

    def offer(self, source: Source, *, instance_only: bool) -> Offer:
        snapshots = [] if instance_only or source.snapshot else self._store.whole_snapshots(source.instance)
        told = tuple(_entry(snapshot) for snapshot in snapshots)
        return offer_from(self._store.pool(source.instance.pool).record.config, told)

    async def send(self, source: Source, offer: Offer, answer: Answer, wire: Wire) -> None:
        """Send what was answered to *offer*. Raises: Invalid, Unsupported, Unavailable, NotFound."""
        for name in wanted_of(offer, answer):
            snapshot = self._store.snapshot(source.instance, name).record
            await self._send(source, snapshot, offer, answer, wire)
        await self._send(source, source.snapshot, offer, answer, wire)

    async def _send(
        self, source: Source, snapshot: Snapshot | None, offer: Offer, answer: Answer, wire: Wire
    ) -> None:
        features = answer.features & offer.features
        async with (
            self._archives.spread(source.instance, snapshot) as (files, roots),
            self._transit.sending(files, roots, "", features, bound=offer.bound) as end,
        ):
            await through(wire, end, is_sender=True)


def _entry(snapshot: Snapshot) -> ArrivedEntry:
    was = snapshot.instance
    return ArrivedEntry(
        name=snapshot.name,
        base_dir="",
        architecture=was.architecture,
        ephemeral=was.ephemeral,
        profiles=was.profiles,
        config={**was.config, **snapshot.volatile},
        devices={name: dict(options) for name, options in was.devices.items()},
        created_at=snapshot.created_at,
        last_used_at=snapshot.last_used_at,
        expires_at=snapshot.expires_at,
    )
