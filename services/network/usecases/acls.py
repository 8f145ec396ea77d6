"""ACLs: who names them, and the rules of which networks they are in."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace

from core.names import in_project
from core.netrecords import AclRule, NetworkAcl
from core.records import Network
from core.state import keys
from core.state.store import Txn
from services.network.domain import acls as domain
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.named import Kind, NamedRules
from services.network.usecases.networks import Networks
from services.network.usecases.rulebooks import HOME


class Acls(NamedRules[NetworkAcl]):
    def __init__(self, store: NetworkStore, networks: Networks, host: Host) -> None:
        kind = Kind("ACL", "acl", store.acls, keys.network_acl, keys.network_acls)
        super().__init__(store, networks, host, kind)

    def users(self, record: NetworkAcl) -> list[str]:
        name, project = record.name, record.project
        others = (e.record for e in self.entries(project) if e.record.name != name)
        found = [("network-acls", o.project, o.name) for o in others if name in domain.names_in(o)]
        if project == HOME:
            found = self._networks_with(name) + found + self._devices_with(name)
        return [in_project(f"{k}/{n}", p) for k, p, n in found]

    def _networks_with(self, acl: str) -> list[tuple[str, str, str]]:
        networks = (e.record for e in self._store.networks.entries())
        return [("networks", HOME, n.name) for n in networks if acl in domain.named_in(n.config)]

    def _devices_with(self, acl: str) -> list[tuple[str, str, str]]:
        nics = (e.record for e in self._store.nics.entries())
        found = {("instances", n.project, n.instance_name) for n in nics if acl in domain.named_in(n.options)}
        for entry in self._store.profiles.entries():
            devices = entry.record.devices.values()
            if any(d.get("type") == "nic" and acl in domain.named_in(d) for d in devices):
                found.add(("profiles", entry.record.project, entry.record.name))
        return sorted(found)

    def _checked(self, wanted: NetworkAcl, old: NetworkAcl | None) -> NetworkAcl:
        names = {wanted.name, *(e.record.name for e in self.entries(wanted.project))}
        sets = self._store.sets.below(keys.address_sets(wanted.project))
        found = domain.checked(wanted, names | {f"{domain.SET}{e.record.name}" for e in sets})
        return replace(found, id=old.id if old else secrets.token_hex(4))

    def _holding(self, txn: Txn, record: NetworkAcl) -> Txn:
        for name in domain.sets_in(record):
            txn.exists(keys.address_set(record.project, name))
        return txn

    def _unused(self, record: NetworkAcl) -> Txn:
        return super()._unused(record).prefix_unchanged(keys.NICS, self._store.nics.revision)

    def _renamed(self, record: NetworkAcl, name: str) -> NetworkAcl:
        ingress, egress = (
            tuple(_renamed(rule, record.name, name) for rule in rules)
            for rules in (record.ingress, record.egress)
        )
        return replace(record, name=name, ingress=ingress, egress=egress)

    async def _forget(self, record: NetworkAcl) -> None:
        await self._host.forget_log(record.id)

    def _concerned(self, record: NetworkAcl) -> Iterable[Network]:
        bounded = self._books.bounded() if record.project == HOME else []
        return [network for network in bounded if record.name in self._names_on(network)]

    def _names_on(self, network: Network) -> set[str]:
        configs = [network.config, *(nic.options for nic in self._store.nics_on(network.name))]
        return {name for config in configs for name in domain.named_in(config)}


def _renamed(rule: AclRule, old: str, new: str) -> AclRule:
    """An ACL may name itself."""

    def swap(text: str) -> str:
        return ",".join(new if item == old else item for item in domain.items(text))

    return replace(rule, source=swap(rule.source), destination=swap(rule.destination))
