"""Address sets: which ACLs name them, so in the rules of which networks they may be."""

from __future__ import annotations

from collections.abc import Iterable

from core.names import in_project
from core.netrecords import AddressSet
from core.records import Network
from core.state import keys
from services.network.domain import acls as domain
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.named import Kind, NamedRules
from services.network.usecases.networks import Networks


class AddressSets(NamedRules[AddressSet]):
    def __init__(self, store: NetworkStore, networks: Networks, host: Host) -> None:
        kind = Kind("address set", "address-set", store.sets, keys.address_set, keys.address_sets)
        super().__init__(store, networks, host, kind)

    def users(self, record: AddressSet) -> list[str]:
        acls = (e.record for e in self._store.acls.below(keys.network_acls(record.project)))
        named = (acl.name for acl in acls if record.name in domain.sets_in(acl))
        return [in_project(f"network-acls/{name}", record.project) for name in named]

    def _checked(self, wanted: AddressSet, old: AddressSet | None) -> AddressSet:
        return domain.checked_set(wanted)

    def _concerned(self, record: AddressSet) -> Iterable[Network]:
        return self._books.bounded() if self.users(record) else []
