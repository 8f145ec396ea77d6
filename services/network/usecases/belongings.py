"""What is a network's own besides its record, and goes or is renamed with it, in the same transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.netrecords import NetworkForward, NetworkHealth, NetworkLoadBalancer, VniClaim
from core.records import AddressClaim, Network
from core.state import keys
from core.state.cache import Cache
from services.network.store import NetworkStore

Listener = NetworkForward | NetworkLoadBalancer
# Cache, key and record.
Belonging = tuple[Cache[Any], str, Any]


def listening_on(store: NetworkStore, name: str) -> list[Belonging]:
    found: list[Belonging] = []
    for cache, folder in (
        (store.forwards, keys.network_forwards(name)),
        (store.balancers, keys.load_balancers(name)),
    ):
        found += [(cache, key, entry.record) for key, entry in cache.items_below(folder)]
    return found


def owned(store: NetworkStore, network: Network) -> list[Belonging]:
    """Return everything, which instances are no part of: nobody deletes or renames what they use."""
    return [*listening_on(store, network.name), *_of_members(store, network)]


def _of_members(store: NetworkStore, network: Network) -> Iterator[Belonging]:
    for key, health in store.health.items_below(keys.network_healths(network.name)):
        yield store.health, key, health.record
    for key, claim in store.addresses.items_below(keys.addresses(network.name)):
        if not claim.record.instance_id:
            yield store.addresses, key, claim.record
    if vni := vni_of(network):
        found = store.vnis.get(keys.vni(vni))
        if found and found.record.network == network.name:
            yield store.vnis, keys.vni(vni), found.record


def vni_of(network: Network) -> int:
    """Return the number of an overlay; 0 where there is none."""
    return int(network.config.get("overlay.id") or 0) if network.type == "overlay" else 0


def key_of(record: Listener | NetworkHealth | AddressClaim | VniClaim, vni: int) -> str:
    """Return the key that a belonging has by what is in it; *vni* is the number of its network."""
    match record:
        case NetworkForward():
            return keys.network_forward(record.network, record.listen_address)
        case NetworkLoadBalancer():
            return keys.load_balancer(record.network, record.listen_address)
        case NetworkHealth():
            return keys.network_health(record.network, record.member)
        case AddressClaim():
            return keys.address(record.network, record.address)
        case VniClaim():
            return keys.vni(vni)
