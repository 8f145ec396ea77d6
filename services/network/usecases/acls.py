"""ACLs: recorded, and put into the rules of every network that they bound."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from dataclasses import replace

from core.errors import AlreadyExists, NotFound, PodiumError, WrongState
from core.events import Event
from core.failpoints import declare, failpoint
from core.names import acl_name, in_project
from core.netrecords import AclRule, NetworkAcl
from core.records import Network
from core.rpc.identity import current_identity
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.network.domain import acls as domain
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.rulebooks import HOME, Rulebooks

_POINTS = ("acl.update.up", "acl.update.recorded")


def event(action: str, acl: NetworkAcl) -> Event:
    return Event(action, "network-acls", acl.project, acl.name, current_identity().as_dict())


class Acls:
    """Changes wait for each other, and for those of networks: both write the same rules."""

    def __init__(self, store: NetworkStore, networks: Networks, host: Host) -> None:
        self._store = store
        self._networks = networks
        self._host = host
        self._books = Rulebooks(store)
        declare(*_POINTS)

    def get(self, project: str, name: str) -> Entry[NetworkAcl]:
        entry = self._store.acls.get(keys.network_acl(project, name))
        if entry is None:
            raise NotFound("NO_ACL", "Network ACL not found", about=name)
        return entry

    def entries(self, project: str) -> list[Entry[NetworkAcl]]:
        return self._store.acls.entries(keys.network_acls(project))

    async def create(self, wanted: NetworkAcl) -> Entry[NetworkAcl]:
        acl_name(wanted.name)
        key = keys.network_acl(wanted.project, wanted.name)
        async with self._networks.changing:
            if self._store.acls.get(key):
                raise AlreadyExists("EXISTS", "The network ACL already exists", about=wanted.name)
            acl = replace(self._checked(wanted), id=secrets.token_hex(4))
            txn = self._with_sets(Txn().absent(key), acl)
            return await self._commit(txn, acl, "network-acl-created")

    async def update(
        self, project: str, name: str, wanted: NetworkAcl, *, expected_revision: int
    ) -> Entry[NetworkAcl]:
        """Put the rules in force, then record; where a network refuses them, all have the old ones again."""
        async with self._networks.changing:
            entry = self.get(project, name)
            entry.expect(expected_revision, "ACL", name)
            old = entry.record
            acl = self._checked(replace(wanted, id=old.id, project=project, name=name))
            try:
                await self._apply(acl)
                failpoint("acl.update.up")
                txn = self._with_sets(Txn().unchanged(keys.network_acl(project, name), entry.revision), acl)
                made = await self._commit(txn, acl, "network-acl-updated")
            except Exception:
                with contextlib.suppress(PodiumError):
                    await self._apply(old)
                raise
            failpoint("acl.update.recorded")
            return made

    async def rename(self, project: str, name: str, new_name: str) -> Entry[NetworkAcl]:
        async with self._networks.changing:
            old = self.get(project, name).record
            self._refuse_used(old, "rename")
            acl_name(new_name)
            key, new_key = keys.network_acl(project, name), keys.network_acl(project, new_name)
            if self._store.acls.get(new_key):
                raise AlreadyExists("EXISTS", "An ACL by that name exists already", about=new_name)
            txn = self._unused(old).absent(new_key).delete(key)
            new = replace(old, name=new_name)
            rules = {d: [_renamed(r, name, new_name) for r in getattr(old, d)] for d in domain.DIRECTIONS}
            new = replace(new, ingress=tuple(rules["ingress"]), egress=tuple(rules["egress"]))
            made = await self._commit(txn, new, "network-acl-renamed")
            self._store.acls.apply(key, None, made.revision)
            return made

    async def delete(self, project: str, name: str) -> None:
        async with self._networks.changing:
            acl = self.get(project, name).record
            self._refuse_used(acl, "delete")
            key = keys.network_acl(project, name)
            txn = self._unused(acl).delete(key).emit(event("network-acl-deleted", acl))
            self._store.acls.apply(key, None, await self._store.store.commit(txn))
            await self._host.forget_log(acl.id)

    def _with_sets(self, txn: Txn, acl: NetworkAcl) -> Txn:
        for name in domain.sets_in(acl):
            txn.exists(keys.address_set(acl.project, name))
        return txn

    def users(self, acl: NetworkAcl) -> list[str]:
        """Return who names *acl*, as used_by does."""
        others = (e.record for e in self.entries(acl.project) if e.record.name != acl.name)
        found = [("network-acls", o.project, o.name) for o in others if acl.name in domain.names_in(o)]
        if acl.project == HOME:
            found = self._networks_with(acl.name) + found + self._devices_with(acl.name)
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

    def _checked(self, acl: NetworkAcl) -> NetworkAcl:
        names = {acl.name, *(e.record.name for e in self.entries(acl.project))}
        sets = self._store.sets.entries(keys.address_sets(acl.project))
        return domain.checked(acl, names | {f"{domain.SET}{e.record.name}" for e in sets})

    def _refuse_used(self, acl: NetworkAcl, verb: str) -> None:
        if users := self.users(acl):
            said = f"Cannot {verb} an ACL that is in use"
            raise WrongState("ACL_IN_USE", said, about=", ".join(users[:3]))

    def _unused(self, acl: NetworkAcl) -> Txn:
        """Return a transaction that fails when somebody began to name it after we looked."""
        txn = Txn().exists(keys.network_acl(acl.project, acl.name))
        return txn.prefix_unchanged(keys.NICS, self._store.nics.revision)

    async def _apply(self, acl: NetworkAcl) -> None:
        """Put the rules of *acl* in force wherever they matter."""
        if acl.project != HOME:
            return
        for network in self._books.bounded():
            if self._concerns(acl, network):
                book = self._books.of(network, {keys.network_acl(acl.project, acl.name): acl})
                await self._host.ensure_rules(network, self._store.nics_on(network.name), book)

    def _concerns(self, acl: NetworkAcl, network: Network) -> bool:
        nics = self._store.nics_on(network.name)
        return acl.name in _all_names([network.config, *(nic.options for nic in nics)])

    async def _commit(self, txn: Txn, acl: NetworkAcl, action: str) -> Entry[NetworkAcl]:
        key = keys.network_acl(acl.project, acl.name)
        revision = await self._store.store.commit(txn.put(key, acl).emit(event(action, acl)))
        self._store.acls.apply(key, acl, revision)
        return Entry(acl, revision)


def _all_names(configs: Iterable[dict[str, str]]) -> set[str]:
    return {name for config in configs for name in domain.named_in(config)}


def _renamed(rule: AclRule, old: str, new: str) -> AclRule:
    """An ACL may name itself."""

    def swap(text: str) -> str:
        return ",".join(new if item == old else item for item in domain.items(text))

    return replace(rule, source=swap(rule.source), destination=swap(rule.destination))
