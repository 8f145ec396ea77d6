"""What rules name, ACLs and address sets: recorded, and put into the rules of every network they concern."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from core.errors import AlreadyExists, NotFound, PodiumError, WrongState
from core.events import Event
from core.failpoints import declare, failpoint
from core.names import acl_name
from core.netrecords import AddressSet, NetworkAcl
from core.records import Network
from core.rpc.identity import current_identity
from core.state.cache import Cache
from core.state.repository import Entry
from core.state.store import Txn
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.rulebooks import Rulebooks

T = TypeVar("T", bound=NetworkAcl | AddressSet)


@dataclass(frozen=True)
class Kind(Generic[T]):
    """noun: as sentences name one. slug: as events do. folder: below which all of a project lie."""

    noun: str
    slug: str
    cache: Cache[T]
    key: Callable[[str, str], str]
    folder: Callable[[str], str]

    @property
    def reason(self) -> str:
        return self.noun.upper().replace(" ", "_")


class NamedRules(ABC, Generic[T]):
    """Changes wait for each other, and for those of networks: all write the same rules."""

    def __init__(self, store: NetworkStore, networks: Networks, host: Host, kind: Kind[T]) -> None:
        self._store = store
        self._networks = networks
        self._host = host
        self._kind = kind
        self._books = Rulebooks(store)
        point = f"{kind.slug.replace('-', '')}.update"
        self._up, self._recorded = f"{point}.up", f"{point}.recorded"
        declare(self._up, self._recorded)

    def get(self, project: str, name: str) -> Entry[T]:
        entry = self._kind.cache.get(self._kind.key(project, name))
        if entry is None:
            raise NotFound(f"NO_{self._kind.reason}", f"Network {self._kind.noun} not found", about=name)
        return entry

    def entries(self, project: str) -> list[Entry[T]]:
        return self._kind.cache.below(self._kind.folder(project))

    async def create(self, wanted: T) -> Entry[T]:
        acl_name(wanted.name)
        key = self._key(wanted)
        async with self._networks.changing:
            if self._kind.cache.get(key):
                said = f"The network {self._kind.noun} already exists"
                raise AlreadyExists("EXISTS", said, about=wanted.name)
            record = self._checked(wanted, None)
            return await self._commit(self._holding(Txn().absent(key), record), record, "created")

    async def update(self, project: str, name: str, wanted: T, *, expected_revision: int) -> Entry[T]:
        """Put it in force, then record it; where a network refuses the rules, all have the old ones again."""
        async with self._networks.changing:
            entry = self.get(project, name)
            entry.expect(expected_revision, self._kind.noun, name)
            record = self._checked(replace(wanted, project=project, name=name), entry.record)
            try:
                await self._apply(record)
                failpoint(self._up)
                txn = self._holding(Txn().unchanged(self._key(record), entry.revision), record)
                made = await self._commit(txn, record, "updated")
            except Exception:
                with contextlib.suppress(PodiumError):
                    await self._apply(entry.record)
                raise
            failpoint(self._recorded)
            return made

    async def rename(self, project: str, name: str, new_name: str) -> Entry[T]:
        async with self._networks.changing:
            old = self.get(project, name).record
            self._refuse_used(old, "rename")
            acl_name(new_name)
            key, new_key = self._key(old), self._kind.key(project, new_name)
            if self._kind.cache.get(new_key):
                said = f"An {self._kind.noun} by that name exists already"
                raise AlreadyExists("EXISTS", said, about=new_name)
            txn = self._unused(old).absent(new_key).delete(key)
            made = await self._commit(txn, self._renamed(old, new_name), "renamed")
            self._kind.cache.apply(key, None, made.revision)
            return made

    async def delete(self, project: str, name: str) -> None:
        async with self._networks.changing:
            record = self.get(project, name).record
            self._refuse_used(record, "delete")
            key = self._key(record)
            txn = self._unused(record).delete(key).emit(self._event("deleted", record))
            self._kind.cache.apply(key, None, await self._store.store.commit(txn))
            await self._forget(record)

    @abstractmethod
    def users(self, record: T) -> list[str]:
        """Return who names it, as used_by does."""

    @abstractmethod
    def _checked(self, wanted: T, old: T | None) -> T:
        """Return what is to be recorded. Raises: Invalid."""

    @abstractmethod
    def _concerned(self, record: T) -> Iterable[Network]:
        """Return the networks in whose rules it is."""

    def _holding(self, txn: Txn, record: T) -> Txn:
        """Let *txn* fail when something that *record* names is gone."""
        return txn

    def _unused(self, record: T) -> Txn:
        """Return a transaction that fails when somebody began to name it after we looked."""
        return Txn().exists(self._key(record))

    def _renamed(self, record: T, name: str) -> T:
        return replace(record, name=name)

    async def _forget(self, record: T) -> None:
        """Drop what the host still has of one that was deleted."""

    def _refuse_used(self, record: T, verb: str) -> None:
        if users := self.users(record):
            said = f"Cannot {verb} an {self._kind.noun} that is in use"
            raise WrongState(f"{self._kind.reason}_IN_USE", said, about=", ".join(users[:3]))

    async def _apply(self, record: T) -> None:
        """Put *record* in force wherever it matters."""
        for network in self._concerned(record):
            book = self._books.of(network, {self._key(record): record})
            await self._host.ensure_rules(network, self._store.local_on(network.name), book)

    async def _commit(self, txn: Txn, record: T, verb: str) -> Entry[T]:
        key = self._key(record)
        revision = await self._store.store.commit(txn.put(key, record).emit(self._event(verb, record)))
        self._kind.cache.apply(key, record, revision)
        return Entry(record, revision)

    def _event(self, verb: str, record: T) -> Event:
        slug, who = f"network-{self._kind.slug}", current_identity().as_dict()
        return Event(f"{slug}-{verb}", f"{slug}s", record.project, record.name, who)

    def _key(self, record: T) -> str:
        return self._kind.key(record.project, record.name)
