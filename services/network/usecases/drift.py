"""Put back what others took from our rules."""

from __future__ import annotations

from collections.abc import Set

from core.records import NicReservation
from services.network.domain import render
from services.network.domain.filters import has_filters
from services.network.domain.forwards import table_of
from services.network.ports import Forwards, Host
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks


class Drift:
    def __init__(self, store: NetworkStore, networks: Networks, host: Host, forwards: Forwards) -> None:
        self._store = store
        self._networks = networks
        self._host = host
        self._forwards = forwards

    async def mend(self, tables: Set[str]) -> None:
        """Look after these tables; what is as it should be stays."""
        for entry in self._networks.entries():
            if render.table_name(entry.record.name) in tables:
                await self._networks.ensure_rules(entry.record.name)
        for nic in self._filtered():
            if render.table_name(render.nic_table(nic)) in tables:
                await self._host.ensure_filter(nic)
        for id in self._forwards.known():
            if table_of(id) in tables:
                await self._forwards.ensure(id)

    async def mend_lone(self) -> None:
        """Look after all tables but those of networks, which have their own look."""
        for nic in self._filtered():
            await self._host.ensure_filter(nic)
        for id in self._forwards.known():
            await self._forwards.ensure(id)

    def _filtered(self) -> list[NicReservation]:
        """Return the NICs that have a table of their own while they are plugged in."""
        nics = (entry.record for entry in self._store.nics.entries())
        mine = (nic for nic in nics if self._store.is_local(nic))
        return [nic for nic in mine if not nic.network and has_filters(nic)]
