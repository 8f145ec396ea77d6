"""Gather what decides the rules of a network besides itself: ACLs, and who has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from core.netrecords import NetworkLoadBalancer
from core.records import Network, NicReservation
from core.state import keys
from core.state.cache import Cache
from services.network.domain import acls as domain
from services.network.domain.aclrules import has_acls
from services.network.domain.addresses import link_local
from services.network.domain.filters import has_filters
from services.network.domain.overlay import Mesh, mesh_of
from services.network.domain.rulebook import EMPTY, Rulebook
from services.network.store import NetworkStore

# Bridges are the default project's, and so are the ACLs that they and the NICs on them name.
HOME = "default"
# Keys, and the records that they are about to hold; None for what goes.
Changes = Mapping[str, Any | None]
NONE: Changes = {}
T = TypeVar("T")


class Rulebooks:
    def __init__(self, store: NetworkStore) -> None:
        self._store = store

    def of(self, network: Network, changes: Changes = NONE) -> Rulebook:
        """Return it as it is, or as it will be with *changes*. Cheap for a network without any of it."""
        if not network.has_bridge:
            return EMPTY
        forwards = _below(self._store.forwards, keys.network_forwards(network.name), changes)
        balancers = _below(self._store.balancers, keys.load_balancers(network.name), changes)
        book = Rulebook(forwards=tuple(forwards), balancers=tuple(self._living(b) for b in balancers))
        if network.type == "overlay":
            far = self._store.far_on(network)
            book = replace(book, mesh=self._mesh(network, far), far=tuple(n for n in far if _names_acls(n)))
        if not has_acls(network, self._store.local_on(network.name)):
            return book
        acls = {acl.name: acl for acl in _below(self._store.acls, keys.network_acls(HOME), changes)}
        named = {name for acl in acls.values() for name in domain.names_in(acl)} & set(acls)
        members = {name: self._members(name, network) for name in sorted(named)}
        sets = {
            f"{domain.SET}{s.name}": s.addresses
            for s in _below(self._store.sets, keys.address_sets(HOME), changes)
        }
        return replace(book, acls=acls, members=members, sets=sets)

    def targets(self, network: str) -> set[str]:
        """Return where the listen addresses of a network lead to. Cheap."""
        forwards = _below(self._store.forwards, keys.network_forwards(network), NONE)
        balancers = _below(self._store.balancers, keys.load_balancers(network), NONE)
        if not (forwards or balancers):
            return set()
        return Rulebook(forwards=tuple(forwards), balancers=tuple(balancers)).targets()

    def _mesh(self, network: Network, far: Iterable[NicReservation]) -> Mesh:
        ends = {entry.record.member: entry.record for entry in self._store.ends.entries()}
        own: dict[str, tuple[str, ...]] = {}
        for entry in self._store.addresses.below(keys.addresses(network.name)):
            claim = entry.record
            if not claim.instance_id:
                own[claim.device] = (*own.get(claim.device, ()), claim.address)
        return mesh_of(network, self._store.member, ends, far, own)

    def _living(self, balancer: NetworkLoadBalancer) -> NetworkLoadBalancer:
        """Leave out the backends that are known not to answer."""
        name = balancer.network, balancer.listen_address
        return replace(
            balancer, backends=tuple(b for b in balancer.backends if (*name, b.name) not in self._store.down)
        )

    def _members(self, acl: str, changed: Network) -> tuple[str, ...]:
        """Return the addresses of all NICs that have *acl*, by themselves or by their network."""
        found = set[str]()
        for entry in self._store.nics.entries():
            nic = entry.record
            network = changed if nic.network == changed.name else self._network(nic.network)
            if network and acl in (*domain.named_in(nic.options), *domain.named_in(network.config)):
                found |= {a for a in (nic.ipv4, nic.ipv6, link_local(nic.hwaddr)) if a}
        return tuple(sorted(found))

    def _network(self, name: str) -> Network | None:
        entry = self._store.networks.get(keys.network(name))
        return entry.record if entry else None

    def bounded(self) -> list[Network]:
        """Return the networks whose rules hold ACLs."""
        networks = (entry.record for entry in self._store.networks.entries())
        return [n for n in networks if n.has_bridge and has_acls(n, self._store.nics_on(n.name))]

    def touched(self, nics: Iterable[NicReservation]) -> set[str]:
        """Return the networks whose rules may be others after a change of *nics*."""
        found = {nic.network for nic in nics if has_filters(nic)}
        if any(domain.names_in(entry.record) for entry in self._store.acls.entries()):
            found |= {network.name for network in self.bounded()}
        return found - {""}


def _names_acls(nic: NicReservation) -> bool:
    return bool(domain.named_in(nic.options))


def _below(cache: Cache[T], folder: str, changes: Changes) -> list[T]:
    """Return the records right in *folder* as *changes* make them."""
    found = {key: entry.record for key, entry in cache.items_below(folder)}
    for key, record in changes.items():
        if key.startswith(folder):
            if record is None:
                found.pop(key, None)
            else:
                found[key] = record
    return [found[key] for key in sorted(found)]
