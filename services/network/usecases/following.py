"""Do here, at once, what other members changed: networks, their rules, and what lives where.

The rounds of the reconcile loop would find it as well, but guests cannot wait for one to reach each other.
A host that is alone follows nobody, and its own writes are in force before they are recorded.
"""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

from core.logs import get_logger
from core.netrecords import TunnelEnd
from core.records import AddressClaim, Member, Network, NicReservation
from core.state.repository import Entry
from services.network.domain.filters import has_filters
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks

log = get_logger(__name__)
# Changes come in crowds: the NICs of many instances, the records of one transaction.
_GATHER_S = 0.02


class Following:
    def __init__(self, store: NetworkStore, networks: Networks) -> None:
        self._store = store
        self._networks = networks
        self._changed = asyncio.Event()
        self._due: set[str] = set()
        self._ruled: set[str] = set()
        # Of overlays: what became of NICs on other members, the gone ones among them as without a network.
        self._moved: dict[str, list[NicReservation]] = {}
        self._far = {k: e.record for k, e in store.nics.items() if not store.is_local(e.record)}
        store.networks.on_change(self._network_changed)
        store.nics.on_change(self._nic_changed)
        store.addresses.on_change(self._address_changed)
        store.ends.on_change(self._end_changed)
        store.members.on_change(self._member_changed)
        for cache in (store.acls, store.sets, store.forwards, store.balancers):
            cache.on_change(self._rules_changed)

    async def run(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER_S)
            self._changed.clear()
            try:
                await self._catch_up()
            except Exception as exc:  # etcd away, nft hung: the reconcile loop finds the rest
                log.warning("not_followed", error=str(exc) or repr(exc))

    async def _catch_up(self) -> None:
        moved, self._moved = self._moved, {}
        due, self._due = self._due, set()
        ruled, self._ruled = self._ruled, set()
        for name in sorted(due):
            await self._networks.follow(name)
        for name, nics in moved.items():
            await self._networks.follow_far(name, nics)
        for name in sorted(ruled - due):
            await self._networks.ensure_rules(name)

    def _wake(self, due: set[str], found: set[str]) -> None:
        due |= found
        self._changed.set()

    def _network_changed(self, key: str, entry: Entry[Network] | None) -> None:
        name = unquote(key.rpartition("/")[2])
        if entry is None:
            self._networks.outdated(name)  # the next one of that name is another
        if self._store.others():
            self._wake(self._due, {name})

    def _nic_changed(self, key: str, entry: Entry[NicReservation] | None) -> None:
        """Cheap where it is ours: this is in the way of every start."""
        nic = entry.record if entry else None
        was = self._far.pop(key, None)
        if nic is not None and self._store.is_local(nic):
            nic = None
        if nic is not None:
            self._far[key] = nic
        for found in (was, nic):
            if found is not None and found.network:
                self._moved.setdefault(found.network, []).append(nic or NicReservation())
                self._changed.set()
                if has_filters(found):
                    self._ruled.add(found.network)

    def _address_changed(self, key: str, entry: Entry[AddressClaim] | None) -> None:
        if entry and not entry.record.instance_id and entry.record.device != self._store.member:
            self._moved.setdefault(entry.record.network, [])
            self._changed.set()

    def _end_changed(self, key: str, entry: Entry[TunnelEnd] | None) -> None:
        self._overlays_changed()

    def _member_changed(self, key: str, entry: Entry[Member] | None) -> None:
        self._overlays_changed()

    def _overlays_changed(self) -> None:
        found = {e.record.name for e in self._store.networks.entries() if e.record.type == "overlay"}
        if found:
            for name in found:
                self._networks.outdated(name)
            self._wake(self._due, found)

    def _rules_changed(self, key: str, entry: object) -> None:
        if self._store.others():
            networks = (entry.record for entry in self._store.networks.entries())
            self._wake(self._ruled, {network.name for network in networks if network.has_bridge})
