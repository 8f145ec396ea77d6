"""The host as the stories use it: bring up, take down and remove one instance. All repeatable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from core.configkeys.instance import INSTANCE
from core.configkeys.nic import BRIDGED, MACVLAN, PHYSICAL
from core.configkeys.values import parse_modules
from core.errors import Invalid, NotFound, PodiumError, Unsupported, WrongState
from core.logs import get_logger
from core.policy.expansion import Expanded
from core.records import Instance, InstanceObserved, Snapshot, Volume
from core.units import parse_bool, parse_bytes
from services.runtime.domain import applications, idmaps, seccomp
from services.runtime.domain.devices.disk import limits as disk_limits
from services.runtime.domain.devices.plan import DevicePlan, Facts, rules_of
from services.runtime.domain.devices.registry import has_nodes
from services.runtime.domain.expand import find_root, nics_of
from services.runtime.domain.lifecycle import DELETING, UP
from services.runtime.ports import (
    GUEST_FOLDER,
    Cgroups,
    Checkpoints,
    Doors,
    Engine,
    EnginePlan,
    Guest,
    GuestDevices,
    Guests,
    Kernel,
    Mount,
    NicPlan,
    RootFs,
    StorageDriver,
    VolumeKind,
)
from services.runtime.store import RuntimeStore
from services.runtime.usecases.instances.disks import InstanceFacts
from services.runtime.usecases.instances.volatile import plugged, with_nics
from services.runtime.usecases.peers import Images, Networks, Reserved
from services.runtime.usecases.running import unchanged
from services.runtime.usecases.running.plugs import Plugs, refuse_cold

log = get_logger(__name__)
_RATE = "limits."
_INSIDE = (MACVLAN, PHYSICAL)
_GUEST_API = "security.devlxd"
# Programs of images are not root and listen on 80: what they could take from others is their own network's.
_APPLICATION_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0"}
_ENVIRONMENT, _SYSCTL, _RLIMIT = "environment.", "linux.sysctl.", "limits.kernel."


@dataclass(frozen=True)
class Host:
    store: RuntimeStore
    engine: Engine
    rootfs: RootFs
    cgroups: Cgroups
    guests: Guests
    kernel: Kernel
    images: Images
    networks: Networks
    drivers: dict[str, StorageDriver]
    devices: GuestDevices
    facts: Facts
    missing_drivers: dict[str, str] = field(default_factory=dict)
    doors: Doors = field(kw_only=True)
    checkpoints: Checkpoints = field(kw_only=True)

    def driver(self, name: str) -> StorageDriver:
        """Raises: Unsupported, NotFound."""
        if name in self.drivers:
            return self.drivers[name]
        if name in self.missing_drivers:
            raise Unsupported("NO_DRIVER", self.missing_drivers[name], about=name)
        raise NotFound("NO_DRIVER", "Unknown driver", about=name)

    def driver_of(self, pool: str) -> StorageDriver:
        """Return the driver of a pool. Raises: Unsupported, NotFound."""
        return self.driver(self.store.pool(pool).record.driver)

    def volume_of(self, instance: Instance) -> Path:
        """Return where the volume of an instance or of a snapshot's is, or would be."""
        return self.driver_of(instance.pool).volume(instance.pool, instance.id)

    def expanded(self, instance: Instance) -> Expanded:
        """Return what it is after its profiles were applied. Raises: NotFound, of a profile or project."""
        return self.store.expanded(instance)

    async def lower(self, instance: Instance) -> Path | None:
        """Return the image's folder for the overlay; None for an instance that began empty."""
        if not instance.image:
            return None
        home = self.store.home_of(instance.project, "images")
        prepared = await self.images.prepare(home, instance.image)
        root = instance.base_dir or prepared.rootfs_dir
        return await self.rootfs.ensure_image(instance.image, prepared.squashfs, root)

    async def volume(self, instance: Instance) -> Path:
        driver = self.driver_of(instance.pool)
        return await driver.ensure_volume(instance.pool, instance.id, size=self.root_size(instance))

    def root_size(self, instance: Instance) -> int:
        """Return the bound of its root in bytes: its own, else what its pool gives to all; 0 for none."""
        root = find_root(self.expanded(instance).devices)
        return (root.size if root else 0) or parse_bytes(
            self.store.pool(instance.pool).record.config.get("volume.size") or "0"
        )

    async def seed(self, instance: Instance, lower: Path | None = None) -> None:
        """Write the files that must carry the instance's own name. Only while it is stopped."""
        name = instance.name
        hosts = f"127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        files = {"etc/hostname": f"{name}\n", "etc/hosts": hosts}
        await self.rootfs.seed(await self.volume(instance), files, lower)

    async def mount(self, instance: Instance) -> Path:
        lower, volume = await asyncio.gather(self.lower(instance), self.volume(instance))
        async with self._roomy(instance):
            return await self.rootfs.ensure_mounted(
                instance.id, lower, volume, idmaps.of(instance), shift=instance.base_shift
            )

    @contextlib.asynccontextmanager
    async def _roomy(self, instance: Instance) -> AsyncIterator[None]:
        """Lift the bound of a volume while it is mounted.

        overlayfs makes a folder of its own then; where there is no room it mounts read-only, and the
        guest could never again delete what filled it.
        """
        size = self.root_size(instance)
        if not size or self.rootfs.is_mounted(instance.id):
            yield
            return
        driver = self.driver_of(instance.pool)
        await driver.set_quota(instance.pool, instance.id, 0)
        try:
            yield
        finally:
            await driver.set_quota(instance.pool, instance.id, size)

    async def reserve(
        self, instance: Instance, observed: InstanceObserved, *, at_rest: bool
    ) -> tuple[NicPlan, ...]:
        """Have its NICs decided; at rest without the addresses that only a running instance needs."""
        return (await self._reserve(instance, observed, at_rest=at_rest)).nics

    async def _reserve(
        self,
        instance: Instance,
        observed: InstanceObserved,
        *,
        at_rest: bool,
        pid: int = 0,
        had: Expanded | None = None,
    ) -> Reserved:
        devices = self.expanded(instance).devices
        nics = nics_of(devices)
        hwaddrs = {device: observed.volatile.get(f"volatile.{device}.hwaddr", "") for device in nics}
        about = (instance.id, instance.project, instance.name)
        ask = partial(self.networks.reserve, *about, hwaddrs=hwaddrs, at_rest=at_rest, pid=pid)
        optional = unchanged.devices(devices, had) - plugged(observed.volatile)
        return await unchanged.reserve(ask, nics, optional=optional)

    async def ensure_nics(
        self, instance: Instance, observed: InstanceObserved, *, had: Expanded | None = None
    ) -> InstanceObserved:
        """Reserve what is wanted now, plug it into a running instance, and return what it is then.

        *had*: what it was; a NIC that it should have had already, and could not be given, is left out.
        """
        is_up = observed.status in UP
        # Asked anew: a pid that was recorded long ago may be another process by now.
        pid = self.engine.pid(instance.id) if is_up else 0
        if pid:
            await self._take_out(instance, pid)
        reserved = await self._reserve(instance, observed, at_rest=not is_up, pid=pid, had=had)
        nics, names = reserved.nics, reserved.made
        if pid:
            refuse_cold(nics, plugged(observed.volatile))
            await self._keep_given(instance.id, pid, nics)
            if names is None:
                names = await self.networks.plug(instance.id, pid)
            if names:
                await asyncio.to_thread(self.guests.set_up, pid, names)
                await self._give_addresses(instance, pid, [nic for nic in nics if nic.name in names])
        return replace(observed, volatile=with_nics(observed.volatile, nics, is_up=is_up))

    async def _give_addresses(self, instance: Instance, pid: int, nics: list[NicPlan]) -> None:
        """Do for new NICs of a running application what the engine does at its start."""
        if applications.of(self.expanded(instance).config):
            for nic in map(_fixed, nics):
                if nic.is_fixed:
                    await asyncio.to_thread(self.guests.give_addresses, pid, nic)

    @property
    def plugs(self) -> Plugs:
        return Plugs(self.devices, self.networks)

    def facts_of(self, project: str) -> InstanceFacts:
        """Return the facts of the host as the devices of an instance in *project* may use them."""
        return InstanceFacts(self.facts, self.store, self.folder_of, project)

    def folder_of(self, volume: Volume) -> Path:
        """Return the folder of a custom volume."""
        return self.driver_of(volume.pool).volume(volume.pool, volume.id, VolumeKind.CUSTOM)

    async def apply_limits(self, instance: Instance, had: Expanded) -> None:
        """Bound the running instance as it says; what *had* wanted as well may stay without effect."""
        expanded = self.expanded(instance)
        await asyncio.to_thread(self.cgroups.apply, instance.id, expanded.config, had.config)
        try:
            await self.limit_disks(instance)
        except Invalid as exc:
            if not unchanged.is_same(expanded, had, type="disk"):
                raise
            log.warning("disks_not_limited", instance=instance.name, error=exc.message)

    async def limit_disks(self, instance: Instance) -> None:
        """Bound what the running instance reads and writes, as its disks say."""
        root = self.driver_of(instance.pool).volume(instance.pool, instance.id)
        devices, facts = self.expanded(instance).devices, self.facts_of(instance.project)
        limits = await asyncio.to_thread(disk_limits, devices, facts, str(root))
        await asyncio.to_thread(self.cgroups.limit_disks, instance.id, limits)

    async def ensure_devices(self, instance: Instance, pid: int, *, had: Expanded) -> None:
        """Give the running instance the devices it should have now, and no others.

        Those that are as in *had* stay as they are where they cannot be started now.
        """
        devices, facts = self.expanded(instance).devices, self.facts_of(instance.project)
        optional = unchanged.devices(devices, had)
        await self.plugs.ensure(_guest(instance, pid), devices, facts, optional=optional)

    async def ensure_door(self, instance: Instance, pid: int) -> None:
        """Give the running instance the guest API, or take it. Raises: WrongState."""
        wanted = has_guest_api(self.expanded(instance).config)
        try:
            change = self.doors.plug if wanted else self.doors.unplug
            await change(_guest(instance, pid))
        except (OSError, Invalid) as exc:
            raise WrongState("NO_GUEST_API", f"/dev/lxd could not be changed: {exc}"[:300]) from exc

    async def _take_out(self, instance: Instance, pid: int) -> None:
        """Take from a running instance what the network service cannot reach: it lies wholly inside."""
        wanted = nics_of(self.expanded(instance).devices)
        for nic in self.store.nics_of(instance.id):
            if nic.nictype in _INSIDE and wanted.get(nic.device) != nic.options:
                parent = nic.parent if nic.nictype == PHYSICAL else ""
                await asyncio.to_thread(self.guests.take_out, pid, nic.name, parent)

    async def _keep_given(self, id: str, pid: int, nics: tuple[NicPlan, ...]) -> None:
        folder = self.engine.folder(id)
        if any(nic.nictype == PHYSICAL for nic in nics):
            await asyncio.to_thread(self.guests.keep, folder, pid)
        else:
            await asyncio.to_thread(self.guests.give_back, folder, {})

    async def start(self, instance: Instance, rootfs: Path, nics: tuple[NicPlan, ...]) -> int:
        expanded = self.expanded(instance)
        config = expanded.config
        devices = await self.plugs.plans(expanded.devices, self.facts_of(instance.project))
        if not self.engine.pid(instance.id):
            await self.devices.clear(instance.id)
        application = applications.of(config)
        plan = EnginePlan(
            id=instance.id,
            hostname=instance.name,
            rootfs=rootfs,
            idmap=idmaps.of(instance),
            nics=tuple(map(_fixed, nics)) if application else nics,
            application=application,
            environment=_below(config, _ENVIRONMENT),
            sysctls={**(_APPLICATION_SYSCTLS if application else {}), **_below(config, _SYSCTL)},
            rlimits=_below(config, _RLIMIT),
            limits=self.cgroups.plan(config),
            mounts=await asyncio.to_thread(self._door, instance, config),
            nesting=parse_bool(INSTANCE.get(config, "security.nesting")),
            seccomp=seccomp.policy(config),
            device_rules=rules_of(devices),
            is_held=bool(devices or application),
            hears_of_devices=has_nodes(expanded.devices),
        )

        async def ready(pid: int) -> None:
            await self.devices.ensure(_guest(instance, pid), devices, starting=True)

        self._fits(config)
        self.need_modules(config)
        pid = await self.engine.start(plan, ready if devices else None)
        if not pid:
            return 0
        if any(key.startswith(_RATE) for d in expanded.devices.values() if d["type"] == "disk" for key in d):
            await self.limit_disks(instance)
        await self._plug_sides(instance.id, pid, nics)
        if any(device.forward or device.translation for device in devices):
            await self._forwarded(instance, pid, devices)
        return pid

    def _door(self, instance: Instance, config: Mapping[str, str]) -> tuple[Mount, ...]:
        """Return the mount of the guest API, where the guest may have it."""
        if not has_guest_api(config):
            return ()
        source = self.doors.ensure(instance.id, idmaps.of(instance).root[1])
        return (Mount(str(source), GUEST_FOLDER, read_only=True),)

    def check(self, config: Mapping[str, str], had: Mapping[str, str] | None = None) -> None:
        """Say no to keys that this host cannot carry out; not to what was so in *had* already.

        Raises: Invalid, Unsupported.
        """
        self.cgroups.plan(config, had)
        for look in (idmaps.wanted, self._check_syscalls):
            unchanged.check(look, config, had)

    def _check_syscalls(self, config: Mapping[str, str]) -> None:
        if unknown := self.kernel.unknown_syscalls(seccomp.names(config)):
            raise Invalid("NO_SYSCALL", f"Unknown system call {unknown[0]!r}", about=unknown[0])

    def _fits(self, config: Mapping[str, str]) -> None:
        """Raises: WrongState in LXD's words, for an image that this host cannot run."""
        if config.get("image.requirements.cgroup") == "v1" and self.cgroups.is_v2:
            words = "The image used by this instance requires a CGroupV1 host system"
            raise WrongState("NO_CGROUP_V1", words)

    def need_modules(self, config: Mapping[str, str]) -> None:
        """Raises: WrongState in LXD's words."""
        if missing := self.kernel.missing_modules(parse_modules(config.get("linux.kernel_modules", ""))):
            why = "none is loaded for a guest; load it on the host"
            raise WrongState(
                "NO_MODULE", f"Failed to load kernel module '{missing[0]}': {why}", about=missing[0]
            )

    async def _forwarded(self, instance: Instance, pid: int, devices: tuple[DevicePlan, ...]) -> None:
        try:
            await self.plugs.make(_guest(instance, pid), devices)
        except PodiumError as exc:
            await self.engine.kill(instance.id)
            raise _of_a_start(exc) from exc

    async def _plug_sides(self, id: str, pid: int, nics: tuple[NicPlan, ...]) -> None:
        """Have made what the engine does not make. It bounds traffic too; without it nothing must run."""
        try:
            await self._keep_given(id, pid, nics)
            if any(nic.host_side for nic in nics):
                await self.networks.plug(id, pid)
        except PodiumError:
            await self.engine.kill(id)
            raise

    async def clean(self, id: str) -> None:
        """Take away what a stopped instance leaves."""
        await self.plugs.clear(id)
        await asyncio.to_thread(self.cgroups.remove, id)
        await asyncio.to_thread(self.doors.remove, id)
        await self.rootfs.ensure_unmounted(id)
        await self._take_back(id)

    async def _take_back(self, id: str) -> None:
        """Give the host back what the NICs of an instance that ended have of it."""
        nics = self.store.nics_of(id)
        given = {nic.name: nic.parent for nic in nics if nic.nictype == PHYSICAL}
        await asyncio.to_thread(self.guests.give_back, self.engine.folder(id), given)
        if any(nic.host_side for nic in nics):
            try:
                await self.networks.unplug(id)
            except PodiumError as exc:  # it is away, and looks itself when it is back
                log.warning("nics_not_unplugged", id=id, error=exc.message)

    async def remove(self, instance: Instance) -> None:
        """Take everything of an instance from the host."""
        await self.engine.kill(instance.id)
        await self.clean(instance.id)
        snapshots = [entry.record for entry in self.store.instance_snapshots(instance)]
        await self.remove_volume(instance.pool, instance.id)
        for snapshot in snapshots:
            await self.remove_volume(snapshot.instance.pool, snapshot.id)
        await self.engine.remove(instance.id)
        gone = {instance.id, *(snapshot.id for snapshot in snapshots)}
        await self.drop_images({instance.image, *(s.instance.image for s in snapshots)}, gone)
        # Last, since only this needs another service: what lies here is gone even if that is away.
        await self.networks.release(instance.id)

    async def remove_snapshot(self, snapshot: Snapshot) -> None:
        await self.remove_volume(snapshot.instance.pool, snapshot.id)
        await self.drop_images({snapshot.instance.image}, {snapshot.id})

    async def remove_volume(self, pool: str, id: str) -> None:
        """Remove a volume; nothing happens where there is none, or no such pool (any more)."""
        with contextlib.suppress(NotFound, Unsupported):
            await self.driver_of(pool).delete_volume(pool, id)

    async def drop_images(self, images: set[str], gone: set[str]) -> None:
        """Unmount those of *images* that nothing uses any more, besides what has an id in *gone*.

        What is being deleted counts as gone: of many at once, the last one would else be nobody. An image
        that is still mounted upon is kept, and dropped by whoever comes after.
        """
        gone = {*gone, *self._being_deleted()}
        for image in sorted(images - self.images_in_use(besides=gone) - {""}):
            try:
                await self.rootfs.drop_image(image)
            except PodiumError as exc:
                log.warning("image_not_dropped", image=image, error=str(exc))

    def _being_deleted(self) -> set[str]:
        observed = (entry.record for entry in self.store.observed.entries())
        instances = {one.id for one in observed if one.status == DELETING}
        snapshots = (entry.record for entry in self.store.snapshots.entries())
        return instances | {s.id for s in snapshots if s.status == "Deleting" or s.instance_id in instances}

    def images_in_use(self, *, besides: Set[str] = frozenset()) -> set[str]:
        """Return what the root file systems of instances and snapshots lie on."""
        found = {e.record.image for e in self.store.instances.entries() if e.record.id not in besides}
        snapshots = (e.record for e in self.store.snapshots.entries())
        return found | {s.instance.image for s in snapshots if s.id not in besides}


def _fixed(nic: NicPlan) -> NicPlan:
    """Return the NIC with the address that DHCP would give, set by the engine; IPv6 the kernel sees to."""
    own = tuple(address for address in nic.addresses if ":" not in address)
    if nic.nictype != BRIDGED or not nic.told.router or not own:
        return nic
    return replace(nic, addresses=own, gateways={"ipv4": nic.told.router}, is_fixed=True)


def has_guest_api(config: Mapping[str, str]) -> bool:
    return parse_bool(INSTANCE.get(config, _GUEST_API))


def _of_a_start(exc: PodiumError) -> PodiumError:
    """LXD does not say which proxy it was that kept an instance from starting."""
    _, _, why = exc.message.partition(": ")
    return type(exc)(exc.reason, why, about=exc.about) if "proxy device" in why else exc


def _guest(instance: Instance, pid: int) -> Guest:
    return Guest(instance.id, instance.project, instance.name, pid, idmaps.of(instance))


def _below(config: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
