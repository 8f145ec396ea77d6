"""The records this service writes, and the caches it answers from."""

from __future__ import annotations

from typing import Any

from core.netrecords import (
    AddressSet,
    NetworkAcl,
    NetworkForward,
    NetworkLoadBalancer,
    NetworkZone,
    ZoneRecord,
)
from core.records import AddressClaim, Instance, Network, NicReservation, Profile, ServerConfig
from core.state import keys
from core.state.cache import Cache
from core.state.store import Store


class NetworkStore:
    def __init__(self, store: Store, member: str = "") -> None:
        self.store = store
        self._member = member
        self.networks = Cache(store, Network, keys.NETWORKS)
        self.acls = Cache(store, NetworkAcl, keys.NETWORK_ACLS)
        self.sets = Cache(store, AddressSet, keys.ADDRESS_SETS)
        self.forwards = Cache(store, NetworkForward, keys.NETWORK_FORWARDS)
        self.balancers = Cache(store, NetworkLoadBalancer, keys.LOAD_BALANCERS)
        self.zones = Cache(store, NetworkZone, keys.NETWORK_ZONES)
        self.records = Cache(store, ZoneRecord, keys.ZONE_RECORDS)
        self.server = Cache(store, ServerConfig, keys.SERVER_CONFIG)
        # Backends of load balancers (network, listen address, name) that did not answer of late.
        self.down: set[tuple[str, str, str]] = set()
        self.nics = Cache(store, NicReservation, keys.NICS)
        self.addresses = Cache(store, AddressClaim, keys.ADDRESSES)
        self.profiles = Cache(store, Profile, keys.PROFILES)
        self.instances = Cache(store, Instance, keys.INSTANCES)

    async def start(self) -> None:
        for cache in self._caches():
            await cache.start()

    async def stop(self) -> None:
        for cache in self._caches():
            await cache.stop()

    def _caches(self) -> tuple[Cache[Any], ...]:
        return tuple(cache for cache in vars(self).values() if isinstance(cache, Cache))

    def instances_elsewhere(self) -> set[str]:
        """Return the ids of other members' instances: what hangs on their hosts is not ours to take away."""
        records = (entry.record for entry in self.instances.entries())
        return {r.id for r in records if self._member and r.member not in ("", self._member)}

    def nics_of(self, instance_id: str) -> list[NicReservation]:
        return [entry.record for entry in self.nics.below(keys.nics(instance_id))]

    def nics_on(self, network: str) -> list[NicReservation]:
        return [e.record for e in self.nics.entries() if e.record.network == network]

    def taken_on(self, network: str) -> set[str]:
        return {e.record.address for e in self.addresses.below(keys.addresses(network))}

    def listening_on(self, network: str) -> set[str]:
        """Return the addresses that lead to instances of a network; no instance may have them."""
        found = {e.record.listen_address for e in self.forwards.below(keys.network_forwards(network))}
        return found | {e.record.listen_address for e in self.balancers.below(keys.load_balancers(network))}
