"""Forwards and load balancers: recorded, and put into the rules of their network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from core.errors import AlreadyExists, NotFound, PodiumError, Unsupported
from core.events import Event
from core.failpoints import declare, failpoint
from core.netrecords import NetworkForward, NetworkLoadBalancer
from core.records import Network
from core.rpc.identity import current_identity
from core.state import keys
from core.state.cache import Cache
from core.state.repository import Entry
from core.state.store import Txn
from services.network.domain import balancers
from services.network.domain import listeners as domain
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.rulebooks import HOME, Rulebooks

T = TypeVar("T", bound=NetworkForward | NetworkLoadBalancer)
_POINTS = ("listener.change.up", "listener.change.recorded")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """noun: as sentences and events name one. folder: below which all of a network lie."""

    noun: str
    cache: Cache[T]
    key: Callable[[str, str], str]
    folder: Callable[[str], str]
    checked: Callable[[T, Network], T]

    @property
    def capital(self) -> str:
        return f"Network {self.noun}"


def forward_kind(store: NetworkStore) -> Kind[NetworkForward]:
    key, folder = keys.network_forward, keys.network_forwards
    return Kind("forward", store.forwards, key, folder, domain.checked)


def balancer_kind(store: NetworkStore) -> Kind[NetworkLoadBalancer]:
    key, folder = keys.load_balancer, keys.load_balancers
    return Kind("load balancer", store.balancers, key, folder, balancers.checked)


class Listeners(Generic[T]):
    def __init__(self, store: NetworkStore, networks: Networks, host: Host, kind: Kind[T]) -> None:
        self._store = store
        self._networks = networks
        self._host = host
        self._kind = kind
        self._books = Rulebooks(store)
        declare(*_POINTS)

    def get(self, network: str, address: str) -> Entry[T]:
        self._network(network)
        entry = self._kind.cache.get(self._kind.key(network, _plain(address)))
        if entry is None:
            raise NotFound("NO_LISTENER", f"{self._kind.capital} not found", about=address)
        return entry

    def entries(self, network: str) -> list[Entry[T]]:
        self._network(network)
        return self._kind.cache.below(self._kind.folder(network))

    async def create(self, wanted: T) -> Entry[T]:
        async with self._networks.changing:
            network = self._network(wanted.network)
            address = str(domain.listen_address(wanted.listen_address))
            key = self._kind.key(network.name, address)
            if self._kind.cache.get(key):
                said = f"A {self._kind.noun} for that listen address already exists"
                raise AlreadyExists("EXISTS", said, about=address)
            record = self._kind.checked(wanted, network)
            self._refuse_taken(network, address)
            return await self._change(network, key, None, record, "created")

    async def update(self, network: str, address: str, wanted: T, *, expected_revision: int) -> Entry[T]:
        async with self._networks.changing:
            entry, found = self.get(network, address), self._network(network)
            entry.expect(expected_revision, self._kind.noun, address)
            old = entry.record
            record = self._kind.checked(
                replace(wanted, network=network, listen_address=old.listen_address), found
            )
            key = self._kind.key(network, old.listen_address)
            return await self._change(found, key, entry, record, "updated")

    async def delete(self, network: str, address: str) -> None:
        async with self._networks.changing:
            entry, found = self.get(network, address), self._network(network)
            key = self._kind.key(network, entry.record.listen_address)
            await self._change(found, key, entry, None, "deleted")

    def _network(self, name: str) -> Network:
        network = self._networks.get(name).record
        if not network.has_bridge:
            said = f'Network driver "{network.type}" does not support {self._kind.noun}s'
            raise Unsupported("NO_LISTENERS", said, about=name)
        return network

    def _refuse_taken(self, network: Network, address: str) -> None:
        networks = [e.record for e in self._store.networks.entries()]
        nics = [e.record for e in self._store.nics.entries()]
        others = [e.record.listen_address for e in self._store.forwards.entries()]
        others += [e.record.listen_address for e in self._store.balancers.entries()]
        if address in others or domain.is_taken(address, network, networks, nics):
            raise domain.taken(address)

    async def _change(
        self, network: Network, key: str, old: Entry[T] | None, record: T | None, verb: str
    ) -> Entry[T]:
        """Put it in force, then record it; what was in force before is so again when either fails."""
        subject = record or (old.record if old else None)
        assert subject
        txn = Txn().unchanged(key, old.revision) if old else Txn().absent(key)
        txn.exists(keys.network(network.name)).emit(self._event(verb, network.name, subject.listen_address))
        (txn.put(key, record) if record else txn.delete(key))
        try:
            await self._apply(network, {key: record})
            failpoint("listener.change.up")
            revision = await self._store.store.commit(txn)
        except Exception:
            with contextlib.suppress(PodiumError):
                await self._apply(network, {})
            raise
        self._kind.cache.apply(key, record, revision)
        failpoint("listener.change.recorded")
        return Entry(subject, revision)

    async def _apply(self, network: Network, changes: dict[str, T | None]) -> None:
        nics = self._store.local_on(network.name)
        await self._host.ensure_rules(network, nics, self._books.of(network, changes))

    def _event(self, verb: str, network: str, address: str) -> Event:
        noun = self._kind.noun.replace(" ", "-")
        who, kind = current_identity().as_dict(), f"networks/{network}/{noun}s"
        return Event(f"network-{noun}-{verb}", kind, HOME, address, who)


def _plain(address: str) -> str:
    """Return an address as it is recorded; nonsense is nowhere to be found."""
    try:
        return str(domain.listen_address(address))
    except PodiumError:
        return address
