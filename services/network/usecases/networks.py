"""Managed networks: create, change, delete, and keep them as recorded."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from core.configkeys.uplink import UPLINKS
from core.errors import AlreadyExists, Busy, Invalid, NotFound, PodiumError, Stale
from core.events import Event
from core.failpoints import declare, failpoint
from core.logs import get_logger
from core.membership import is_here
from core.names import in_project, network_name
from core.netrecords import NetworkHealth, VniClaim
from core.records import PASSING, Network, NicReservation
from core.rpc.identity import current_identity
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.network.domain import addresses
from services.network.domain.acls import named_in
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.belongings import key_of, owned, vni_of
from services.network.usecases.configs import Configs, refuse_type
from services.network.usecases.ends import Ends
from services.network.usecases.rulebooks import Rulebooks

log = get_logger(__name__)
_ATTEMPTS = 5
_POINTS = (
    *("network.create.recorded", "network.create.up", "network.update.up"),
    *("network.rename.down", "network.rename.recorded"),
    *("network.delete.recorded", "network.delete.down"),
)


def event(action: str, name: str) -> Event:
    return Event(action, "networks", "default", name, current_identity().as_dict())


class Networks:
    def __init__(self, store: NetworkStore, host: Host, underlay: str = "") -> None:
        """*underlay*: address of this host where other members reach it; empty for none."""
        self._store = store
        self._host = host
        self._books = Rulebooks(store)
        self._configs = Configs(store, host)
        self.ends = Ends(store, host, underlay)
        # What is wrong with networks here, and which revisions of them are in force here.
        self.errors: dict[str, str] = {}
        self._in_force: dict[str, int] = {}
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

    def shown(self, network: Network) -> Network:
        """Return a network as clients see it: with what is wrong here, or else on another member."""
        error = self.errors.get(network.name, "")
        for entry in self._store.health.below(keys.network_healths(network.name)):
            other = entry.record
            if not error and other.error and other.member != self._store.member:
                error = f"{other.member}: {other.error}"
        is_bad = error and network.status not in PASSING
        return replace(network, error=error, status="Errored" if is_bad else network.status)

    def here(self, network: Network) -> Network:
        """Return a network with what is wrong on this member alone."""
        return replace(network, error=self.errors.get(network.name, ""))

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
        refuse_type(wanted.type)
        links = await self._host.names()
        if self.find(wanted.name):
            raise AlreadyExists("EXISTS", "The network already exists", about=wanted.name)
        if wanted.name in links:
            raise _interface_exists(wanted.name)
        pending = await self._record(wanted, links)
        network = pending.record
        try:
            failpoint("network.create.recorded")
            await self._bring_up(network)
            failpoint("network.create.up")
        except Exception:
            await self._down(network.name)
            await self._forget(network.name)
            raise
        created = replace(network, status="Created", member="")
        return await self._save(created, "network-created", pending.revision)

    async def _record(self, wanted: Network, links: set[str]) -> Entry[Network]:
        """Record it as Pending, with what is chosen for it: another member may choose the same meanwhile."""
        key = keys.network(wanted.name)
        for _ in range(_ATTEMPTS):
            seen, config = self._store.networks.revision, await self._configs.filled(wanted, None)
            network = replace(wanted, status="Pending", config=config, member=self._store.member)
            if wanted.type in UPLINKS:
                self._configs.refuse_parent(network, links)
            txn = Txn().absent(key).prefix_unchanged(keys.NETWORKS, seen).put(key, network)
            vni = vni_of(network)
            if vni and self._store.vnis.get(keys.vni(vni)):
                raise AlreadyExists(
                    "VNI_TAKEN", f"overlay.id {vni} is that of another network", about="overlay.id"
                )
            if vni:
                txn.absent(keys.vni(vni)).put(keys.vni(vni), VniClaim(network.name))
            try:
                revision = await self._store.store.commit(txn)
            except Stale:
                if self.find(wanted.name):
                    raise AlreadyExists("EXISTS", "The network already exists", about=wanted.name) from None
                await asyncio.sleep(0.02)
                continue
            self._store.networks.apply(key, network, revision)
            if vni:
                self._store.vnis.apply(keys.vni(vni), VniClaim(network.name), revision)
            return Entry(network, revision)
        raise Busy("BUSY", "Other networks are being changed; try again", about=wanted.name)

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
        filled = await self._configs.filled(replace(old, config=asked), old.config)
        new = replace(old, config=filled, description=text)
        try:
            await self._bring_up(new)
            failpoint("network.update.up")
        except Exception:
            with contextlib.suppress(PodiumError):
                await self._bring_up(old)
            raise
        self.errors.pop(name, None)
        recorded = replace(new, status="Created", error="")
        entry = await self._save(recorded, "network-updated", entry.revision)
        if named_in(old.config) != named_in(new.config):
            await self._tell_others(name)
        return entry

    async def ensure_rules(self, name: str) -> None:
        """Write the rules of a network anew where they differ."""
        async with self.changing:
            if (entry := self.find(name)) and entry.record.has_bridge:
                nics = self._store.local_on(name)
                await self._host.ensure_rules(entry.record, nics, self._books.of(entry.record))

    async def _tell_others(self, changed: str) -> None:
        """ACLs may name who has other ACLs, so one network's choice matters to the rules of the others."""
        for network in self._books.bounded():
            if network.name != changed:
                nics = self._store.local_on(network.name)
                await self._host.ensure_rules(network, nics, self._books.of(network))

    async def _bring_up(self, network: Network) -> None:
        if not network.has_bridge:
            return
        await self.ends.claim(network)
        nics = self._store.local_on(network.name)
        await self._host.ensure_up(network, nics, self._books.of(network))
        await self._host.write_nics(network, nics, self._store.far_on(network))

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
        if new_name in await self._host.names():
            raise _interface_exists(new_name)
        new = replace(old, name=new_name)
        txn = Txn().absent(keys.network(new_name)).delete(keys.network(name)).put(keys.network(new_name), new)
        moved = [(c, old_key, replace(r, network=new_name)) for c, old_key, r in owned(self._store, old)]
        renamed = {old_key: key_of(record, vni_of(new)) for _, old_key, record in moved}
        for _, old_key, record in moved:
            if renamed[old_key] != old_key:
                txn.delete(old_key)
            txn.put(renamed[old_key], record)
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
            if renamed[old_key] != old_key:
                cache.apply(old_key, None, revision)
            cache.apply(renamed[old_key], record, revision)
        failpoint("network.rename.recorded")
        await self._bring_up(new)
        self._in_force[new_name] = revision
        return Entry(new, revision)

    async def delete(self, name: str) -> None:
        async with self.changing:
            await self._delete(name)

    async def _delete(self, name: str) -> None:
        """Record that it goes, take it down, forget it: so a crash in between leaves a name to finish by."""
        old = self.loaded(name)
        self._refuse_used(name)
        seen = self._store.nics.revision
        key, going = keys.network(name), replace(old, status="Deleting", member=self._store.member)
        txn = Txn().exists(key).prefix_unchanged(keys.NICS, seen).put(key, going)
        revision = await self._store.store.commit(txn)
        self._store.networks.apply(key, going, revision)
        try:
            failpoint("network.delete.recorded")
            await self._down(name)
            failpoint("network.delete.down")
        except Exception:
            await self._bring_up(old)
            await self._save(old, "", revision)
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

    async def follow(self, name: str) -> None:
        """Do here what another member did to a network; nothing where it was this one."""
        async with self.changing:
            entry = self.find(name)
            if entry is None and name in await self._host.made():
                await self._host.ensure_down(name)
            elif entry and entry.revision != self._in_force.get(name):
                await self._reconcile_one(entry)

    async def ensure_here(self, name: str) -> None:
        """Return when a network is up on this member, which another may just have made."""
        if name in self._in_force:
            return
        async with self.changing:
            if (entry := self.find(name)) and name not in self._in_force:
                await self._reconcile_one(entry)

    def outdated(self, name: str) -> None:
        """What is in force here rests on what changed meanwhile."""
        self._in_force.pop(name, None)

    async def follow_far(self, name: str, changed: list[NicReservation]) -> None:
        """Tell kernel and DNS what became of NICs of other members; *changed* are those there still are."""
        async with self.changing:
            entry = self.find(name)
            if entry is None or entry.record.type != "overlay" or name not in self._in_force:
                return
            network = entry.record
            if mesh := self._books.of(network).mesh:
                await self._host.follow(network, mesh)
            far = [nic for nic in changed if nic.network == name]
            await self._host.write_nics(network, [], far)
            if len(far) < len(changed):
                near = self._store.local_on(name)
                await self._host.remove_strays(name, near, self._store.far_on(network))

    async def _reconcile(self) -> None:
        await self.ends.publish()
        for entry in self.entries():
            await self._reconcile_one(entry)
        for name in self.errors.keys() - {entry.record.name for entry in self.entries()}:
            self.errors.pop(name)

    async def _reconcile_one(self, entry: Entry[Network]) -> None:
        network = entry.record
        if network.status in PASSING:
            await self._end_passing(network)
            return
        try:
            await self._bring_up(network)
            if network.has_bridge:
                near, far = self._store.local_on(network.name), self._store.far_on(network)
                await self._host.remove_strays(network.name, near, far)
            error = ""
        except Exception as exc:  # the kernel's errors too: one bad network must not stop the others
            error = exc.message if isinstance(exc, PodiumError) else str(exc) or repr(exc)
            log.error("network_not_up", network=network.name, error=error)
        self._in_force[network.name] = entry.revision
        if network.error:  # written when there was one member only, for whom it was
            await self._save(replace(network, status="Created", error=""), "", entry.revision)
        await self._tell_health(network.name, error)

    async def _end_passing(self, network: Network) -> None:
        """Finish what a crash of ours left, or of a member that is no more; else its maker is at it."""
        if is_here(network.member, self._store.member) or network.member not in self._store.others():
            await self._down(network.name)
            await self._forget(network.name)
        elif network.status == "Deleting":
            await self._host.ensure_down(network.name)

    async def _tell_health(self, name: str, error: str) -> None:
        """Keep in mind what is wrong here, and tell the other members."""
        if error:
            self.errors[name] = error
        else:
            self.errors.pop(name, None)
        key, mine = (
            keys.network_health(name, self._store.member),
            NetworkHealth(name, self._store.member, error),
        )
        known = self._store.health.get(key)
        if not self._store.others() or (known and known.record == mine):
            return
        with contextlib.suppress(Stale):  # deleted meanwhile
            txn = Txn().exists(keys.network(name)).put(key, mine)
            self._store.health.apply(key, mine, await self._store.store.commit(txn))

    async def _save(self, network: Network, action: str, before: int) -> Entry[Network]:
        """Record a change of what had revision *before*. Raises: Stale when another member was quicker."""
        key = keys.network(network.name)
        txn = Txn().unchanged(key, before).put(key, network)
        if action:
            txn.emit(event(action, network.name))
        revision = await self._store.store.commit(txn)
        self._in_force[network.name] = revision
        self._store.networks.apply(key, network, revision)
        return Entry(network, revision)

    async def _down(self, name: str) -> None:
        """Take a bridge down; the interfaces that other networks name are not ours."""
        entry = self.find(name)
        if entry is None or entry.record.has_bridge:
            await self._host.ensure_down(name)

    async def _forget(self, name: str, action: str = "") -> None:
        key, txn = keys.network(name), Txn()
        if action:
            txn.emit(event(action, name))
        entry = self.find(name)
        going = owned(self._store, entry.record) if entry else []
        for _, old, _ in going:
            txn.delete(old)
        revision = await self._store.store.commit(txn.delete(key))
        self._store.networks.apply(key, None, revision)
        for cache, old, _ in going:
            cache.apply(old, None, revision)

    def _refuse_used(self, name: str) -> None:
        if users := self.users(name):
            log.info("network_in_use", network=name, users=users[:3])
            raise Invalid("NETWORK_IN_USE", "The network is currently in use", about=name)


def _interface_exists(name: str) -> AlreadyExists:
    return AlreadyExists("EXISTS", f'Network interface "{name}" already exists', about=name)


def _has_address(network: Network) -> bool:
    if not network.has_bridge:
        return False
    subnets = addresses.subnets_of(network.config)
    return bool(subnets.ipv4 or subnets.ipv6)
