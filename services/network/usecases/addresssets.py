"""Address sets: recorded, and put into the rules of every network whose ACLs name them."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from core.errors import AlreadyExists, NotFound, PodiumError, WrongState
from core.events import Event
from core.failpoints import declare, failpoint
from core.names import acl_name, in_project
from core.netrecords import AddressSet
from core.rpc.identity import current_identity
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.network.domain import acls as domain
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.rulebooks import NONE, Changes, Rulebooks

_POINTS = ("addressset.update.up", "addressset.update.recorded")


class AddressSets:
    """Changes wait for each other, and for those of ACLs and networks: all write the same rules."""

    def __init__(self, store: NetworkStore, networks: Networks, host: Host) -> None:
        self._store = store
        self._networks = networks
        self._host = host
        self._books = Rulebooks(store)
        declare(*_POINTS)

    def get(self, project: str, name: str) -> Entry[AddressSet]:
        entry = self._store.sets.get(keys.address_set(project, name))
        if entry is None:
            raise NotFound("NO_ADDRESS_SET", "Network address set not found", about=name)
        return entry

    def entries(self, project: str) -> list[Entry[AddressSet]]:
        return self._store.sets.entries(keys.address_sets(project))

    async def create(self, wanted: AddressSet) -> Entry[AddressSet]:
        acl_name(wanted.name)
        key = keys.address_set(wanted.project, wanted.name)
        async with self._networks.changing:
            if self._store.sets.get(key):
                raise AlreadyExists("EXISTS", "The network address set already exists", about=wanted.name)
            return await self._commit(Txn().absent(key), domain.checked_set(wanted), "created")

    async def update(
        self, project: str, name: str, wanted: AddressSet, *, expected_revision: int
    ) -> Entry[AddressSet]:
        """Put it in force, then record it; where a network refuses the rules, all have the old ones again."""
        async with self._networks.changing:
            entry, key = self.get(project, name), keys.address_set(project, name)
            entry.expect(expected_revision, "address set", name)
            found = domain.checked_set(replace(wanted, project=project, name=name))
            try:
                await self._apply(found, {key: found})
                failpoint("addressset.update.up")
                made = await self._commit(Txn().unchanged(key, entry.revision), found, "updated")
            except Exception:
                with contextlib.suppress(PodiumError):
                    await self._apply(entry.record, NONE)
                raise
            failpoint("addressset.update.recorded")
            return made

    async def rename(self, project: str, name: str, new_name: str) -> Entry[AddressSet]:
        async with self._networks.changing:
            old = self.get(project, name).record
            self._refuse_used(old, "rename")
            acl_name(new_name)
            key, new_key = keys.address_set(project, name), keys.address_set(project, new_name)
            if self._store.sets.get(new_key):
                raise AlreadyExists("EXISTS", "An address set by that name exists already", about=new_name)
            txn = Txn().exists(key).absent(new_key).delete(key)
            made = await self._commit(txn, replace(old, name=new_name), "renamed")
            self._store.sets.apply(key, None, made.revision)
            return made

    async def delete(self, project: str, name: str) -> None:
        async with self._networks.changing:
            found, key = self.get(project, name).record, keys.address_set(project, name)
            self._refuse_used(found, "delete")
            txn = Txn().exists(key).delete(key).emit(_event("deleted", found))
            self._store.sets.apply(key, None, await self._store.store.commit(txn))

    def users(self, found: AddressSet) -> list[str]:
        acls = (e.record for e in self._store.acls.entries(keys.network_acls(found.project)))
        named = (acl.name for acl in acls if found.name in domain.sets_in(acl))
        return [in_project(f"network-acls/{name}", found.project) for name in named]

    def _refuse_used(self, found: AddressSet, verb: str) -> None:
        if users := self.users(found):
            said = f"Cannot {verb} an address set that is in use"
            raise WrongState("ADDRESS_SET_IN_USE", said, about=", ".join(users[:3]))

    async def _apply(self, found: AddressSet, changes: Changes) -> None:
        if self.users(found):
            for network in self._books.bounded():
                nics = self._store.nics_on(network.name)
                await self._host.ensure_rules(network, nics, self._books.of(network, changes))

    async def _commit(self, txn: Txn, found: AddressSet, verb: str) -> Entry[AddressSet]:
        key = keys.address_set(found.project, found.name)
        revision = await self._store.store.commit(txn.put(key, found).emit(_event(verb, found)))
        self._store.sets.apply(key, found, revision)
        return Entry(found, revision)


def _event(verb: str, found: AddressSet) -> Event:
    who = current_identity().as_dict()
    return Event(f"network-address-set-{verb}", "network-address-sets", found.project, found.name, who)
