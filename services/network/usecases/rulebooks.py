"""Gather what decides the rules of a network besides itself: ACLs, and who has them."""

from __future__ import annotations

from collections.abc import Iterable

from core.records import Network, NetworkAcl, NicReservation
from core.state import keys
from services.network.domain import acls as domain
from services.network.domain.aclrules import has_acls
from services.network.domain.addresses import link_local
from services.network.domain.filters import has_filters
from services.network.domain.rulebook import EMPTY, Rulebook
from services.network.store import NetworkStore

# Bridges are the default project's, and so are the ACLs that they and the NICs on them name.
HOME = "default"


class Rulebooks:
    def __init__(self, store: NetworkStore) -> None:
        self._store = store

    def of(self, network: Network, changed: NetworkAcl | None = None) -> Rulebook:
        """Return it as it is, or with an ACL as it is about to be *changed* to. Cheap without ACLs."""
        if network.type != "bridge" or not has_acls(network, self._store.nics_on(network.name)):
            return EMPTY
        acls = {e.record.name: e.record for e in self._store.acls.entries(keys.network_acls(HOME))}
        if changed:
            acls[changed.name] = changed
        named = {name for acl in acls.values() for name in domain.names_in(acl)}
        return Rulebook(acls, {name: self._members(name, network) for name in sorted(named & set(acls))})

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
        return [n for n in networks if n.type == "bridge" and has_acls(n, self._store.nics_on(n.name))]

    def touched(self, nics: Iterable[NicReservation]) -> set[str]:
        """Return the networks whose rules may be others after a change of *nics*."""
        found = {nic.network for nic in nics if has_filters(nic)}
        if any(domain.names_in(entry.record) for entry in self._store.acls.entries()):
            found |= {network.name for network in self.bounded()}
        return found - {""}
