"""Managed networks: create, change, delete, and keep them as recorded."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from core.configkeys import uplink
from core.configkeys.network import ALLOWS_RAW, NETWORK, RAW
from core.configkeys.schema import without_empty
from core.configkeys.uplink import UPLINKS
from core.errors import AlreadyExists, Invalid, NotFound, PodiumError, Unsupported
from core.events import Event
from core.failpoints import declare, failpoint
from core.logs import get_logger
from core.names import in_project, network_name
from core.netrecords import NetworkForward, NetworkLoadBalancer
from core.records import PASSING, Network
from core.rpc.identity import current_identity
from core.state import keys
from core.state.cache import Cache
from core.state.repository import Entry
from core.state.store import Txn
from core.units import parse_bool
from services.network.domain import addresses, balancers, listeners
from services.network.domain.acls import named_in
from services.network.domain.bridge import check_together
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.rulebooks import HOME, Rulebooks

log = get_logger(__name__)
_FAMILIES = ("ipv4", "ipv6")
_POINTS = (
    *("network.create.recorded", "network.create.up", "network.update.up"),
    *("network.rename.down", "network.rename.recorded"),
    *("network.delete.recorded", "network.delete.down"),
)


def event(action: str, name: str) -> Event:
    return Event(action, "networks", "default", name, current_identity().as_dict())


class Networks:
    def __init__(self, store: NetworkStore, host: Host, member: str = "") -> None:
        self._store = store
        self._host = host
        self._member = member
        self._books = Rulebooks(store)
        self._random = random.Random()  # noqa: S311 - addresses are no secret
        # Without it the reconcile loop would take a create in progress for one a crash left behind.
        self.changing = asyncio.Lock()
        declare(*_POINTS)

    def find(self, name: str) -> Entry[Network] | None:
        return self._store.networks.get(keys.network(name))

    def get(self, name: str) -> Entry[Network]:
        entry = self.find(name)
        if entry is None:
            raise NotFound("NO_NETWORK", "Network not found", about=name)
        return entry

    def loaded(self, name: str) -> Network:
        if entry := self.find(name):
            return entry.record
        raise NotFound("NO_NETWORK", "Failed loading network: Network not found", about=name)

    def entries(self) -> list[Entry[Network]]:
        return self._store.networks.entries()

    def users(self, name: str) -> list[str]:
        nics = {(n.project, n.instance_name) for n in self._store.nics_on(name)}
        used = [("instances", project, instance) for project, instance in sorted(nics)]
        for entry in self._store.profiles.entries():
            devices = entry.record.devices.values()
            if any(name in (d.get("network"), d.get("parent")) for d in devices if d.get("type") == "nic"):
                used.append(("profiles", entry.record.project, entry.record.name))
        return [in_project(f"{k}/{n}", p) for k, p, n in used]

    async def create(self, wanted: Network) -> Entry[Network]:
        """Record as Pending, bring up, record as Created; take everything back when that fails."""
        async with self.changing:
            return await self._create(wanted)

    async def _create(self, wanted: Network) -> Entry[Network]:
        network_name(wanted.name)
        wanted = replace(wanted, type=wanted.type or "bridge")
        _refuse_type(wanted.type)
        links = {link.name for link in await self._host.links()}
        if self.find(wanted.name) or wanted.name in links:
            raise AlreadyExists("EXISTS", "The network already exists", about=wanted.name)
        filled = await self._filled(wanted, {})
        network = replace(wanted, status="Pending", config=filled, member=self._member)
        if wanted.type in UPLINKS:
            self._refuse_parent(network, links)
        key = keys.network(network.name)
        revision = await self._store.store.commit(Txn().absent(key).put(key, network))
        self._store.networks.apply(key, network, revision)
        try:
            failpoint("network.create.recorded")
            await self._bring_up(network)
            failpoint("network.create.up")
        except Exception:
            await self._forget(network.name)
            raise
        return await self._save(replace(network, status="Created", member=""), "network-created")

    async def update(
        self, name: str, config: dict[str, str], description: str, *, merge: bool, expected_revision: int
    ) -> Entry[Network]:
        """Apply, then record; what was applied is taken back when the host refuses."""
        async with self.changing:
            return await self._update(name, config, description, merge, expected_revision)

    async def _update(
        self, name: str, config: dict[str, str], description: str, merge: bool, expected_revision: int
    ) -> Entry[Network]:
        entry = self.get(name)
        entry.expect(expected_revision, "network", name)
        old = entry.record
        asked = {**old.config, **config} if merge else config
        text = (description or old.description) if merge else description
        filled = await self._filled(replace(old, config=asked), old.config)
        new = replace(old, config=filled, description=text)
        try:
            await self._bring_up(new)
            failpoint("network.update.up")
        except Exception:
            with contextlib.suppress(PodiumError):
                await self._bring_up(old)
            raise
        entry = await self._save(replace(new, status="Created", error=""), "network-updated")
        if named_in(old.config) != named_in(new.config):
            await self._tell_others(name)
        return entry

    async def ensure_rules(self, name: str) -> None:
        """Write the rules of a network anew where they differ."""
        async with self.changing:
            if (entry := self.find(name)) and entry.record.type == "bridge":
                nics = self._store.nics_on(name)
                await self._host.ensure_rules(entry.record, nics, self._books.of(entry.record))

    async def _tell_others(self, changed: str) -> None:
        """ACLs may name who has other ACLs, so one network's choice matters to the rules of the others."""
        for network in self._books.bounded():
            if network.name != changed:
                nics = self._store.nics_on(network.name)
                await self._host.ensure_rules(network, nics, self._books.of(network))

    async def _bring_up(self, network: Network) -> None:
        if network.type != "bridge":
            return
        nics = self._store.nics_on(network.name)
        await self._host.ensure_up(network, nics, self._books.of(network))
        await self._host.write_nics(network, nics)

    async def rename(self, name: str, new_name: str) -> Entry[Network]:
        async with self.changing:
            return await self._rename(name, new_name)

    async def _rename(self, name: str, new_name: str) -> Entry[Network]:
        old = self.loaded(name)
        if not new_name:
            raise Invalid("BAD_NAME", "New network name not provided")
        network_name(new_name)
        if self.users(name):
            raise Invalid("NETWORK_IN_USE", "Network is currently in use", about=name)
        if self.find(new_name):
            raise AlreadyExists("EXISTS", f'Network "{new_name}" already exists', about=new_name)
        if new_name in {link.name for link in await self._host.links()}:
            raise AlreadyExists("EXISTS", f'Network interface "{new_name}" already exists', about=new_name)
        new = replace(old, name=new_name)
        txn = Txn().absent(keys.network(new_name)).delete(keys.network(name)).put(keys.network(new_name), new)
        moved = [(cache, old_key, replace(r, network=new_name)) for cache, old_key, r in self._owned(name)]
        for _, old_key, record in moved:
            txn.delete(old_key).put(_key_of(record), record)
        try:
            await self._down(name)
            failpoint("network.rename.down")
            revision = await self._store.store.commit(txn.emit(event("network-renamed", new_name)))
        except Exception:
            with contextlib.suppress(PodiumError):
                await self._bring_up(old)
            raise
        self._store.networks.apply(keys.network(name), None, revision)
        self._store.networks.apply(keys.network(new_name), new, revision)
        for cache, old_key, record in moved:
            cache.apply(old_key, None, revision)
            cache.apply(_key_of(record), record, revision)
        failpoint("network.rename.recorded")
        await self._bring_up(new)
        return Entry(new, revision)

    async def delete(self, name: str) -> None:
        async with self.changing:
            await self._delete(name)

    async def _delete(self, name: str) -> None:
        """Record that it goes, take it down, forget it: so a crash in between leaves a name to finish by."""
        old = self.loaded(name)
        self._refuse_used(name)
        seen = self._store.nics.revision
        key, going = keys.network(name), replace(old, status="Deleting", member=self._member)
        txn = Txn().exists(key).prefix_unchanged(keys.NICS, seen).put(key, going)
        self._store.networks.apply(key, going, await self._store.store.commit(txn))
        try:
            failpoint("network.delete.recorded")
            await self._down(name)
            failpoint("network.delete.down")
        except Exception:
            await self._bring_up(old)
            await self._save(old, "")
            raise
        await self._forget(name, "network-deleted")

    def all_serve(self) -> bool:
        """Return whether every network that should has its DHCP and DNS server. Cheap."""
        wanted = [e.record for e in self.entries() if e.record.status == "Created"]
        return all(self._host.is_serving(n.name) for n in wanted if _has_address(n))

    async def reconcile(self) -> None:
        """Bring every recorded network to what its record says; take back what no record knows."""
        async with self.changing:
            await self._reconcile()
            for name in await self._host.made():
                if not self.find(name):
                    log.warning("stray_network_removed", network=name)
                    await self._host.ensure_down(name)

    async def _reconcile(self) -> None:
        for entry in self.entries():
            network = entry.record
            if network.status in PASSING:
                if network.member not in ("", self._member):
                    continue  # another member is at it, or finishes it when it is back
                await self._forget(network.name)
                continue
            try:
                await self._bring_up(network)
                if network.type == "bridge":
                    await self._host.remove_strays(network.name, self._store.nics_on(network.name))
                error = ""
            except Exception as exc:  # the kernel's errors too: one bad network must not stop the others
                error = exc.message if isinstance(exc, PodiumError) else str(exc) or repr(exc)
                log.error("network_not_up", network=network.name, error=error)
            if error != network.error:
                await self._save(replace(network, status="Errored" if error else "Created", error=error), "")

    def _refuse_parent(self, network: Network, links: set[str]) -> None:
        parent = network.config["parent"]
        if parent not in links:
            raise NotFound("NO_PARENT", f'Parent interface "{parent}" not found', about=parent)
        for entry in self.entries():
            is_shared = network.type != "physical" and entry.record.type != "physical"
            if entry.record.config.get("parent") == parent and not is_shared:
                raise Invalid(
                    "PARENT_IN_USE", f'Parent interface "{parent}" in use by another network', about=parent
                )

    async def _filled(self, wanted: Network, old: dict[str, str]) -> dict[str, str]:
        """Return the config of *wanted* checked, with automatic addresses chosen. Raises: Invalid."""
        filled = without_empty(wanted.config)
        if wanted.type in UPLINKS:
            uplink.check(wanted.name, wanted.type, filled)
            return filled
        NETWORK.check(filled, of=wanted.name)
        check_together(filled)
        self._refuse_raw(filled, old)
        self._refuse_unknown_acls(filled)
        self._refuse_unknown_zones(wanted.name, filled)
        self._check_listeners(replace(wanted, config=filled))
        taken = await self._host.taken_subnets()
        for family in _FAMILIES:
            key = f"{family}.address"
            if filled.get(key, "none" if old else "auto") != "auto":
                continue
            if family == "ipv4":
                filled[key] = addresses.free_ipv4_subnet(taken[0], self._random)
            else:
                filled[key] = addresses.free_ipv6_subnet(taken[1], self._random)
            filled.setdefault(f"{family}.nat", "true")
        _refuse_overlap(filled, addresses.without(taken, addresses.subnets_of(old)))
        return filled

    def _refuse_raw(self, config: dict[str, str], old: dict[str, str]) -> None:
        """What there is stays when it is no longer allowed: it may be what a network lives on."""
        entry = self._store.server.get(keys.server_config())
        is_allowed = parse_bool((entry.record.config if entry else {}).get(ALLOWS_RAW) or "false")
        if config.get(RAW, "") not in ("", old.get(RAW)) and not is_allowed:
            why = f"whoever sets it is root of this host; lxc config set {ALLOWS_RAW}=true allows it"
            raise Invalid("KEY_REFUSED", f"{RAW} is not supported unless it is allowed: {why}", about=RAW)

    def _refuse_unknown_acls(self, config: dict[str, str]) -> None:
        for name in named_in(config):
            if self._store.acls.get(keys.network_acl(HOME, name)) is None:
                raise Invalid("NO_ACL", f'Network ACL "{name[:64]}" does not exist', about=name)

    def _refuse_unknown_zones(self, network: str, config: dict[str, str]) -> None:
        for key in ("dns.zone.forward", "dns.zone.reverse.ipv4", "dns.zone.reverse.ipv6"):
            name = config.get(key)
            entry = self._store.zones.get(keys.network_zone(name)) if name else None
            if name and (entry is None or entry.record.project != HOME):
                why = f'Network zone "{name[:64]}" doesn\'t exist'
                raise Invalid(
                    "NO_ZONE", f'Invalid value for network "{network}" option "{key}": {why}', about=key
                )

    def _check_listeners(self, network: Network) -> None:
        """Raises: Invalid when what listens for it would lead out of its subnet."""
        for _, _, record in self._owned(network.name):
            try:
                if isinstance(record, NetworkForward):
                    listeners.checked(record, network)
                else:
                    balancers.checked(record, network)
            except Invalid as exc:
                where = f'for listen address "{record.listen_address}"'
                said = f"Failed validating firewall address forward {where}: {exc.message}"
                raise Invalid("HAS_LISTENERS", said, about=record.listen_address) from None

    async def _save(self, network: Network, action: str) -> Entry[Network]:
        key = keys.network(network.name)
        txn = Txn().exists(key).put(key, network)
        if action:
            txn.emit(event(action, network.name))
        revision = await self._store.store.commit(txn)
        self._store.networks.apply(key, network, revision)
        return Entry(network, revision)

    async def _down(self, name: str) -> None:
        """Take a bridge down; the interfaces that other networks name are not ours."""
        entry = self.find(name)
        if entry is None or entry.record.type == "bridge":
            await self._host.ensure_down(name)

    async def _forget(self, name: str, action: str = "") -> None:
        await self._down(name)
        key, txn = keys.network(name), Txn()
        if action:
            txn.emit(event(action, name))
        owned = self._owned(name)
        for _, old, _ in owned:
            txn.delete(old)
        revision = await self._store.store.commit(txn.delete(key))
        self._store.networks.apply(key, None, revision)
        for cache, old, _ in owned:
            cache.apply(old, None, revision)

    def _owned(self, name: str) -> list[tuple[Cache[Any], str, Any]]:
        """Return what is a network's own besides its record: caches, keys and records of its listeners."""
        own = ((self._store.forwards, keys.network_forward), (self._store.balancers, keys.load_balancer))
        return [
            (cache, key(name, entry.record.listen_address), entry.record)
            for cache, key in own
            for entry in cache.entries()
            if entry.record.network == name
        ]

    def _refuse_used(self, name: str) -> None:
        if users := self.users(name):
            log.info("network_in_use", network=name, users=users[:3])
            raise Invalid("NETWORK_IN_USE", "The network is currently in use", about=name)


def _refuse_type(type: str) -> None:
    if type == "ovn":
        raise Unsupported("NO_DRIVER", "OVN networks are not available in this version")
    if type not in ("bridge", *UPLINKS):
        raise Invalid("NO_DRIVER", "Unknown driver", about=type)


def _key_of(record: NetworkForward | NetworkLoadBalancer) -> str:
    key = keys.network_forward if isinstance(record, NetworkForward) else keys.load_balancer
    return key(record.network, record.listen_address)


def _has_address(network: Network) -> bool:
    if network.type != "bridge":
        return False
    subnets = addresses.subnets_of(network.config)
    return bool(subnets.ipv4 or subnets.ipv6)


def _refuse_overlap(config: dict[str, str], taken: tuple[list[IPv4Network], list[IPv6Network]]) -> None:
    subnets = addresses.subnets_of(config)
    for own, others in ((subnets.ipv4, taken[0]), (subnets.ipv6, taken[1])):
        for other in others:
            if own and own.network.overlaps(other):
                raise Invalid(
                    "SUBNET_TAKEN",
                    f"{own.network} overlaps {other}, which this host uses already; choose another",
                    about=str(own.network),
                )
