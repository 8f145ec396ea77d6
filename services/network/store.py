"""The records this service writes, and the caches it answers from."""

from __future__ import annotations

from typing import Any

from core.membership import is_here
from core.netrecords import (
    AddressSet,
    NetworkAcl,
    NetworkForward,
    NetworkHealth,
    NetworkLoadBalancer,
    NetworkZone,
    TunnelEnd,
    VniClaim,
    ZoneRecord,
)
from core.records import (
    AddressClaim,
    Instance,
    Member,
    Network,
    NicReservation,
    Presence,
    Profile,
    ServerConfig,
)
from core.state import keys
from core.state.cache import Cache
from core.state.store import Store


class NetworkStore:
    """*member*: whose network service this is; what lives on others is theirs to do."""

    def __init__(self, store: Store, member: str = "") -> None:
        self.store = store
        self.member = member
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
        self.members = Cache(store, Member, keys.MEMBERS)
        self.ends = Cache(store, TunnelEnd, keys.TUNNEL_ENDS)
        self.vnis = Cache(store, VniClaim, keys.VNIS)
        self.health = Cache(store, NetworkHealth, keys.NETWORK_HEALTH)
        self.presence = Cache(store, Presence, keys.PRESENCE)

    async def start(self) -> None:
        for cache in self._caches():
            await cache.start()

    async def stop(self) -> None:
        for cache in self._caches():
            await cache.stop()

    def _caches(self) -> tuple[Cache[Any], ...]:
        return tuple(cache for cache in vars(self).values() if isinstance(cache, Cache))

    def nics_of(self, instance_id: str) -> list[NicReservation]:
        return [entry.record for entry in self.nics.below(keys.nics(instance_id))]

    def nics_on(self, network: str) -> list[NicReservation]:
        return [e.record for e in self.nics.entries() if e.record.network == network]

    def is_local(self, nic: NicReservation) -> bool:
        """Return whether a NIC is this member's to plug, filter and serve."""
        return is_here(nic.member, self.member)

    def local_on(self, network: str) -> list[NicReservation]:
        return [nic for nic in self.nics_on(network) if self.is_local(nic)]

    def far_on(self, network: Network) -> list[NicReservation]:
        """Return the NICs that a network leads to on other members; bridges end where their host does."""
        if network.type != "overlay":
            return []
        return [nic for nic in self.nics_on(network.name) if not self.is_local(nic)]

    def others(self) -> list[str]:
        """Return the names of the other members; none where this host is alone."""
        return [e.record.name for e in self.members.entries() if e.record.name != self.member]

    def taken_on(self, network: str) -> set[str]:
        return {e.record.address for e in self.addresses.below(keys.addresses(network))}

    def listening_on(self, network: str) -> set[str]:
        """Return the addresses that lead to instances of a network; no instance may have them."""
        found = {e.record.listen_address for e in self.forwards.below(keys.network_forwards(network))}
        return found | {e.record.listen_address for e in self.balancers.below(keys.load_balancers(network))}
