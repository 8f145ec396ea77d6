"""What is asked of running guests, and done inside them: figures, limits, network, devices, the guest API."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from core.configkeys.devices.disk import DiskLimits
from services.runtime.domain.devices.plan import DevicePlan
from services.runtime.domain.idmaps import IdMap
from services.runtime.ports.engine import NicPlan


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
    """Limits and figures of instances, cgroup v1, hybrid or v2.

    is_v2: there is no v1 on this host, not even beside it.
    """

    is_v2: bool

    def plan(self, config: Mapping[str, str], had: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return engine lines (controller.file to value) for limits.* keys.

        *had*: the configuration that this one follows; what was impossible there already is left out.

        Raises: Invalid, Unsupported.
        """
        ...

    def apply(self, id: str, config: Mapping[str, str], had: Mapping[str, str] | None = None) -> None:
        """Write the same to a running instance's cgroup.

        A limit that is as it was with *had* is tried, and stays without effect where the kernel refuses it.

        Raises: Invalid for one that the kernel refuses.
        """
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

    def usage(self, id: str) -> Usage:
        """Return its figures without the details."""
        ...

    def details(self, id: str) -> Usage:
        """Return what metrics show: the details too, but neither peaks nor the sum of processor time."""
        ...

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

    async def ensure(
        self,
        guest: Guest,
        plans: tuple[DevicePlan, ...],
        *,
        starting: bool = False,
        optional: Container[str] = (),
    ) -> None:
        """Plug what is missing and unplug what is not planned. Repeatable, also after half of it.

        *starting*: init has not begun, and the rules of the cgroup are the engine's. *optional*: devices
        that are left out when they cannot be plugged.

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
