"""What the use cases need from the host: engine, storage, root file systems, cgroups, guests' files.

Implemented by engine/, storage/ and kernel/; fakes serve the unit tests. Everything named ensure_ may
be repeated; everything that blocks runs in a thread inside the implementation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from core.configkeys.devices.disk import DiskLimits
from services.runtime.domain.applications import Application
from services.runtime.domain.devices.plan import DevicePlan
from services.runtime.domain.idmaps import IdMap


@dataclass(frozen=True)
class Told:
    """What DHCP tells a guest on a network: its router, "" for none, servers of names, domains to search."""

    router: str = ""
    name_servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True)
class NicPlan:
    """A NIC as the network service decided it. An mtu of 0 is that of what it hangs on.

    addresses, with prefix, and gateways ("ipv4" or "ipv6" to address or "dev") are what a routed or
    ipvlan one has inside. host_side: it is to be
    plugged also when the engine made it. volatile: what the instance's keys tell of it while it runs.
    """

    device: str
    name: str
    host_name: str
    hwaddr: str
    mtu: int
    bridge: str
    nictype: str = "bridged"
    parent: str = ""
    addresses: tuple[str, ...] = ()
    gateways: Mapping[str, str] = field(default_factory=dict)
    mode: str = ""
    host_side: bool = False
    volatile: Mapping[str, str] = field(default_factory=dict)
    told: Told = Told()
    is_fixed: bool = False
    """Whether the engine sets its addresses; else they are the guest's own business."""


@dataclass(frozen=True)
class Mount:
    """A host path bound into the instance at start."""

    source: str
    path: str
    read_only: bool = False
    optional: bool = False
    is_file: bool = False


@dataclass(frozen=True)
class EnginePlan:
    """All the engine needs to start an instance. Values are checked again when rendered.

    limits: cgroup files by logical name, see Cgroups.plan. environment and sysctls: name to value.
    is_held: whether init waits until the caller has made ready what it needs, see Engine.start.
    """

    id: str
    hostname: str
    rootfs: Path
    idmap: IdMap
    nics: tuple[NicPlan, ...] = ()
    mounts: tuple[Mount, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    rlimits: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    nesting: bool = False
    device_rules: tuple[str, ...] = ()
    is_held: bool = False
    application: Application | None = None
    """The program to run below an init of ours; None for the init of the guest."""
    seccomp: str = ""
    """Its own filter of system calls as liblxc reads it; empty for that of all instances."""


@dataclass(frozen=True)
class ExitRecord:
    """How an instance ended: target is "stop" or "reboot"; time in unix seconds.

    is_failure: whether its init crashed, was killed or left with a code; None when nobody saw it.
    code: what it left with, 128 and more for a signal; None as well.
    """

    target: str
    time: float
    is_failure: bool | None = None
    code: int | None = None


@dataclass(frozen=True)
class ExecPlan:
    """A command to run inside. env is the whole environment of it."""

    command: tuple[str, ...]
    env: dict[str, str]
    uid: int = 0
    gid: int = 0
    cwd: str = "/"


class Engine(Protocol):
    """Starts instances and finds them again; each is owned by a monitor process of its own."""

    version: str

    async def start(self, plan: EnginePlan, ready: Callable[[int], Awaitable[None]] | None = None) -> int:
        """Start and return the host pid of its init. Idempotent: a running one is returned.

        It is 0 when the program of an application has ended already.

        A plan that is held calls *ready* with that pid when its namespaces are complete and its init has
        not begun; a running one that is not held any more calls it too. What it raises ends the start.

        Raises: WrongState with the engine's own words.
        """
        ...

    def release(self, id: str) -> None:
        """Let go an init that waits since whoever held it was killed. Idempotent."""
        ...

    def figures(self) -> int:
        """Return what shows guests their own figures in /proc: another one, another number; 0 for none."""
        ...

    async def show_figures(self, id: str, idmap: IdMap) -> None:
        """Let a running instance see the figures of what shows them now, not of what died. Idempotent.

        A start does it too. A guest that hinders it sees the host's.
        """
        ...

    def pid(self, id: str) -> int:
        """Return the host pid of init; 0 when it does not run. Cheap."""
        ...

    def known(self) -> set[str]:
        """Return the ids that have a folder here, running or not."""
        ...

    def running(self) -> set[str]:
        """Return the ids of all instances whose monitor lives."""
        ...

    async def kill(self, id: str) -> None:
        """Kill at once and wait until the monitor is gone. Idempotent."""
        ...

    async def shutdown(self, id: str) -> bool:
        """Ask init to power off; does not wait for that. Return whether it is sure to have heard it."""
        ...

    async def wait_exit(self, id: str) -> ExitRecord:
        """Return when the monitor is gone (at once when it does not run)."""
        ...

    def exec_config(self, id: str) -> bytes:
        """Return what a program must read to enter a running instance; see exec_argv."""
        ...

    def exec_argv(self, id: str, plan: ExecPlan, *, terminal: bool, config: Path | None = None) -> list[str]:
        """Return the host command that runs *plan* inside, confined as init is.

        *config* is where it reads exec_config from, before it enters; None for the engine's own file.

        With *terminal* its stdio must be a terminal; it becomes the controlling one.
        """
        ...

    def program(self, argv: list[str]) -> str:
        """Return the file to execute for a command of this engine."""
        ...

    def console_argv(self, id: str) -> list[str]:
        """Return the host command that attaches its terminal to the console."""
        ...

    def folder(self, id: str) -> Path:
        """Return <state>/instances/ID: lxc.conf, console.log, lxc.log, rootfs/ (mount point), logs/."""
        ...

    async def remove(self, id: str) -> None:
        """Remove the folder and what else the engine keeps of a stopped instance. Idempotent."""
        ...


@dataclass(frozen=True)
class PoolSpace:
    used: int
    total: int
    inodes_used: int = 0
    inodes_total: int = 0


class VolumeKind(StrEnum):
    """What a volume is for; each kind has a folder of its own in a pool.

    CONTAINERS: upper/ and work/ of an overlay, of instances and of their snapshots, by id. CUSTOM: a
    folder that is the volume's root, of volumes and of their snapshots.
    """

    CONTAINERS = "containers"
    CUSTOM = "custom"


_CONTAINERS = VolumeKind.CONTAINERS


class StorageDriver(Protocol):
    """One kind of pool. A volume is a folder, named by the id it has among those of its kind.

    Drivers keep volumes; they never mount root file systems. Files in volumes have the ids that the guest
    sees, so a copy is never chowned. *size* is a bound in bytes, 0 for none.
    """

    name: str
    version: str
    is_instant: bool
    """Whether a clone of a volume of the same pool is what that was at one moment."""
    has_quotas: bool
    """Whether *size* bounds a volume; where not, it is taken and nothing else."""

    async def check_pool(self, pool: str, config: dict[str, str]) -> None:
        """See that a new pool would take nothing that is in use. Raises: Invalid, WrongState."""
        ...

    async def create_pool(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        """Make the pool and return its config with source (and size) filled in. Undone by delete_pool."""
        ...

    async def ensure_open(self, pool: str, config: dict[str, str]) -> None:
        """Make the pool usable, as after a reboot, and free of what died half-copied."""
        ...

    async def change_pool(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None:
        """Let an open pool be as *new* says, or raise Invalid or Unsupported and leave it. Repeatable."""
        ...

    async def close_pool(self, pool: str, config: dict[str, str]) -> None:
        """Let go of the pool; all that is in it stays. Repeatable."""
        ...

    async def delete_pool(self, pool: str, config: dict[str, str]) -> None:
        """Remove the pool with all its volumes. Idempotent, also after half of it."""
        ...

    async def undo_create(self, pool: str, config: dict[str, str]) -> None:
        """Take back what create_pool did, none, half or all; what it found there stays. Idempotent."""
        ...

    async def space(self, pool: str) -> PoolSpace: ...

    def folder(self, pool: str) -> Path:
        """Return where an open pool lies; its notes are there beside the volumes."""
        ...

    def volume(self, pool: str, id: str, kind: VolumeKind = _CONTAINERS) -> Path:
        """Return where a volume's folder is, or would be."""
        ...

    async def ensure_volume(
        self, pool: str, id: str, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        """Return the volume's folder, made as its kind wants it if need be."""
        ...

    async def clone_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        """Make a volume that holds what *source*, the folder of a volume of any pool, holds.

        Complete or absent, whenever the process dies; one that is there stays as it is. As of one moment
        where the driver can snapshot; elsewhere whoever writes to *source* must be held meanwhile.
        """
        ...

    async def replace_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        """Do the same for a volume that nobody uses now: it is the old or the new one, never a mixture."""
        ...

    async def refresh_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        """Do the same by what differs, where that is less work. What dies half-way is to be repeated."""
        ...

    async def set_quota(self, pool: str, id: str, size: int, *, kind: VolumeKind = _CONTAINERS) -> None: ...

    async def delete_volume(self, pool: str, id: str, *, kind: VolumeKind = _CONTAINERS) -> None: ...

    async def usage(self, pool: str, ids: Sequence[str], *, kind: VolumeKind = _CONTAINERS) -> dict[str, int]:
        """Return bytes used by volumes; those that only a walk could tell are left out.

        As of the last time that the pool wrote all to its disk.
        """
        ...

    async def settle(self, pool: str) -> None:
        """Have all written that was, so that usage tells of it."""
        ...

    async def volumes(self, pool: str, *, kind: VolumeKind = _CONTAINERS) -> list[str]: ...


class RootFs(Protocol):
    """Images and root file systems as mounts in the host's mount namespace."""

    async def ensure_image(self, fingerprint: str, squashfs: Path, rootfs_dir: str) -> Path:
        """Mount the image once, read-only, and return the folder that is the lower layer."""
        ...

    async def drop_image(self, fingerprint: str) -> None:
        """Unmount an image that nothing uses; busy ones stay."""
        ...

    def images(self) -> set[str]:
        """Return the fingerprints of mounted images."""
        ...

    async def seed(self, volume: Path, files: dict[str, str], lower: Path | None = None) -> None:
        """Write files (path below the root to text) into the upper layer, owned by the guest's root.

        A file is left out where the guest, or the image in *lower*, has no plain folder for it.
        """
        ...

    async def ensure_mounted(
        self, id: str, lower: Path | None, volume: Path, idmap: IdMap, *, shift: int = 0
    ) -> Path:
        """Mount overlay(lower, volume) id-mapped at instances/ID/rootfs and return that path.

        *shift* is what was added to each id in *lower*.
        """
        ...

    async def ensure_unmounted(self, id: str) -> None: ...

    def is_mounted(self, id: str) -> bool: ...


@dataclass(frozen=True)
class DiskUsage:
    """Since the instance started."""

    read_bytes: int
    reads: int
    written_bytes: int
    writes: int


@dataclass(frozen=True)
class UsageDetails:
    """What only metrics ask for. cpus: nanoseconds in user and kernel mode of each processor.

    memory: bytes by active_anon, active_file, inactive_anon, inactive_file, unevictable, writeback,
    dirty, mapped, rss, shmem, cached. disks: by host block device.
    """

    cpus: tuple[tuple[int, int], ...] = ()
    memory: dict[str, int] = field(default_factory=dict)
    oom_kills: int = 0
    disks: dict[str, DiskUsage] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """Figures of a cgroup; bytes and nanoseconds."""

    memory: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    swap: int = 0
    swap_peak: int = 0
    cpu_ns: int = 0
    processes: int = 0
    details: UsageDetails = field(default_factory=UsageDetails)


class Cgroups(Protocol):
    """Limits and figures of instances, cgroup v1, hybrid or v2."""

    def plan(self, config: dict[str, str]) -> dict[str, str]:
        """Return engine lines (controller.file to value) for limits.* keys. Raises: Invalid, Unsupported."""
        ...

    def apply(self, id: str, config: dict[str, str]) -> None:
        """Write the same to a running instance's cgroup."""
        ...

    def cpus(self) -> frozenset[int]:
        """Return the processors that instances may have."""
        ...

    def set_cpus(self, id: str, cpus: frozenset[int]) -> None:
        """Let a running instance have just these; nothing happens when it does not run."""
        ...

    def limit_disks(self, id: str, limits: Mapping[str, DiskLimits]) -> None:
        """Bound what a running instance reads and writes on devices ("8:0"), and on no others."""
        ...

    def usage(self, id: str, *, detailed: bool = False) -> Usage: ...

    def freeze(self, id: str) -> None: ...

    def thaw(self, id: str) -> None: ...

    def is_frozen(self, id: str) -> bool: ...

    def remove(self, id: str) -> None:
        """Remove leftovers of an instance that is gone, killing what its monitor left. Idempotent."""
        ...


@dataclass(frozen=True)
class GuestAddress:
    family: str
    address: str
    prefix: int
    scope: str


@dataclass(frozen=True)
class GuestInterface:
    name: str
    addresses: tuple[GuestAddress, ...]
    counters: dict[str, int]
    """Keys as in network.proto Counters: bytes_received, bytes_sent, packets_..., errors_..."""


class Guests(Protocol):
    """A guest's network, read from /proc without entering it."""

    def interfaces(self, pid: int) -> list[GuestInterface]: ...

    def counters(self, pid: int) -> list[GuestInterface]:
        """Return the interfaces without their addresses, which take most of the time."""
        ...

    def give_addresses(self, pid: int, nic: NicPlan) -> None:
        """Set the addresses and the router of a NIC in a guest that asks nobody for them. Blocks."""
        ...

    def set_up(self, pid: int, names: Sequence[str]) -> None:
        """Set interfaces of the guest up. Blocks shortly. Raises: OSError."""
        ...

    def take_out(self, pid: int, name: str, parent: str) -> None:
        """Remove interface *name* from the guest; one that the host gave goes back to it as *parent*.

        Nothing happens when the guest has no such interface. Blocks shortly.
        """
        ...

    def keep(self, folder: Path, pid: int) -> None:
        """Let the guest's network outlive it, until give_back; the kernel would drop what was given to it.

        Repeatable. Blocks shortly. Raises: WrongState.
        """
        ...

    def give_back(self, folder: Path, given: Mapping[str, str]) -> None:
        """Take what the host gave (inside name to host name) out of the network of a guest that ended.

        Repeatable; free where nothing was kept. Blocks shortly.
        """
        ...


@dataclass(frozen=True)
class Guest:
    """A running instance as its devices see it."""

    id: str
    project: str
    name: str
    pid: int
    idmap: IdMap


class GuestDevices(Protocol):
    """Devices inside running instances. What is plugged is looked up, never remembered."""

    def held(self, id: str) -> AbstractAsyncContextManager[None]:
        """Be the only one who decides on and changes the devices of an instance."""
        ...

    async def ensure(self, guest: Guest, plans: tuple[DevicePlan, ...], *, starting: bool = False) -> None:
        """Plug what is missing and unplug what is not planned. Repeatable, also after half of it.

        *starting*: init has not begun, and the rules of the cgroup are the engine's.

        Raises: WrongState naming the device that could not be plugged.
        """
        ...

    def plugged(self, id: str) -> list[DevicePlan]:
        """Return what is plugged, as a whole or half. Blocks shortly."""
        ...

    async def clear(self, id: str) -> None:
        """Forget the devices of an instance that does not run. Repeatable."""
        ...


GUEST_FOLDER = "/dev/lxd"


class Doors(Protocol):
    """The folders through which guests reach the guest API. All repeatable; what can be awaited may last."""

    def ensure(self, id: str, group: int) -> Path:
        """Return the folder to be mounted inside; *group* is the host's id of the guest root's group."""
        ...

    async def plug(self, guest: Guest) -> None:
        """Give a running guest its folder, if it has not.

        Raises: OSError, Invalid, TooLate or WrongState for a guest whose own file systems do not answer.
        """
        ...

    async def unplug(self, guest: Guest) -> None:
        """Take the folder from a running guest, and its connections with it; else as plug."""
        ...

    def remove(self, id: str) -> None: ...

    def known(self) -> set[str]: ...


class Kernel(Protocol):
    """What the host's kernel knows."""

    def unknown_syscalls(self, names: Iterable[str]) -> list[str]: ...

    def missing_modules(self, names: Iterable[str]) -> list[str]:
        """Return those that are neither loaded nor built in."""
        ...


class HostEvents(Protocol):
    """Devices of the host that come and go."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def watch(self, path: str) -> None:
        """Hear of *path* too. Repeatable."""
        ...

    def tell(self, id: str) -> None:
        """Have the instance *id* looked at."""
        ...

    async def changed(self) -> set[str]:
        """Return when a device may have come or gone, or was told of; with the instances that were told."""
        ...


class Probes(Protocol):
    """Questions to instances. A question that gets no answer in time is answered with no."""

    async def run(self, argv: list[str], program: str, timeout_s: float) -> bool:
        """Run a host command that enters the guest; see Engine.exec_argv and program."""
        ...

    async def connects(self, address: str, port: int, timeout_s: float) -> bool: ...

    async def answers(self, address: str, port: int, path: str, timeout_s: float) -> bool:
        """Say whether a GET of *path* is answered with 2xx or 3xx."""
        ...


class Boots(Protocol):
    """Tells a start of the host from a start of this service."""

    def is_new(self) -> bool:
        """Whether the host was booted since seen() was last called."""
        ...

    def seen(self) -> None: ...

    def forget(self) -> None:
        """Make the next start of this service count as one of the host."""
        ...


class Ticks(Protocol):
    """Remembers until when schedules were kept."""

    def last(self) -> float:
        """Return unix seconds; 0.0 for never."""
        ...

    def seen(self, at: float) -> None: ...
