"""What a device needs on the host and inside, as data; and what deciding that needs to know of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.errors import WrongState

Options = Mapping[str, str]


@dataclass(frozen=True)
class Node:
    """A device node inside. kind: "c" or "b"; owner as the guest sees it; path absolute."""

    path: str
    kind: str
    major: int
    minor: int
    uid: int = 0
    gid: int = 0
    mode: int = 0o660

    @property
    def rule(self) -> str:
        """The line by which a devices cgroup allows it."""
        return f"{self.kind} {self.major}:{self.minor} rwm"


@dataclass(frozen=True)
class Bind:
    """A file or folder of the host at *path* inside. shifted: its owners are those the guest has there.

    propagation: as mount(8) calls it, "" for private. recursive: with what is mounted below it.
    beneath: a folder of the host that no link on the way to *source* may lead out of; "" for none.
    is_volume: of a pool, whose own mount takes power from setuid files; inside they are the guest's.
    options: as mount(8) calls them, of those in disk.MOUNT_OPTIONS.
    """

    source: str
    path: str
    read_only: bool = False
    recursive: bool = False
    shifted: bool = False
    propagation: str = ""
    beneath: str = ""
    is_volume: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class End:
    """One end of a forward. host: an address, a path, or "@name"; ports is empty for unix sockets.

    is_inside: whether it lies in the guest. For unix sockets that listen, owner and mode are those of the
    file; for those that connect, uid and gid say as whom. Ids are the guest's where it is inside.
    """

    protocol: str
    host: str
    ports: tuple[int, ...] = ()
    is_inside: bool = False
    uid: int = 0
    gid: int = 0
    mode: int = 0o644


@dataclass(frozen=True)
class Forward:
    """What arrives at *listen* goes to *connect*; its ports in order, or all to a single one."""

    listen: End
    connect: End
    proxy_protocol: bool = False


@dataclass(frozen=True)
class Translation:
    """A forward by address translation, which needs no process: ports in order, or all to a single one."""

    protocol: str
    listen: str
    listen_ports: tuple[int, ...]
    connect: str
    connect_ports: tuple[int, ...]


@dataclass(frozen=True)
class DevicePlan:
    """All that plugging one device takes. Two equal plans are the same device: nothing is to be done.

    watched: paths of the host whose coming and going changes this plan. announced: udev inside is told
    when it comes and goes.
    """

    device: str
    nodes: tuple[Node, ...] = ()
    binds: tuple[Bind, ...] = ()
    forward: Forward | None = None
    translation: Translation | None = None
    watched: tuple[str, ...] = ()
    announced: bool = field(default=False, compare=False)

    @property
    def rules(self) -> frozenset[str]:
        return frozenset(node.rule for node in self.nodes)


@dataclass(frozen=True)
class HostNode:
    """A device node of the host."""

    kind: str
    major: int
    minor: int
    uid: int = 0
    gid: int = 0
    mode: int = 0o660


@dataclass(frozen=True)
class HostDevice:
    """A device that may come and go: its ids, its node, and what the kernel calls its subsystem."""

    subsystem: str
    vendor: str
    product: str
    path: str
    node: HostNode
    pci: str = ""


@dataclass(frozen=True)
class VolumeFolder:
    """A custom volume. is_unmapped: its owners are shown as they are on the host."""

    folder: str
    is_unmapped: bool = False


class Facts(Protocol):
    """The host, as it is at this moment."""

    def node(self, path: str) -> HostNode | None:
        """Return the device node at *path*, links followed; None when there is none."""
        ...

    def is_there(self, path: str) -> bool: ...

    def devices(self) -> Sequence[HostDevice]:
        """Return what has a node in /dev and the ids of a vendor and a product."""
        ...

    def card_nodes(self, card: HostDevice) -> Sequence[str]:
        """Return the nodes that the driver of a graphics card has beside those of the kernel."""
        ...

    def infiniband_nodes(self, interface: str) -> Sequence[str]:
        """Return the nodes of the InfiniBand device of an interface; none when it has no such device."""
        ...

    def has_program(self, name: str) -> bool: ...

    def has_interface(self, name: str) -> bool: ...

    def volume(self, device: str, pool: str, name: str) -> VolumeFolder:
        """Return a custom volume of the instance's project. Raises: WrongState, which names *device*."""
        ...

    def bound(self, source: str) -> str:
        """Return the folder that a path of the host must not lead out of; "" where it may lead anywhere."""
        ...

    def block(self, path: str) -> str:
        """Return "major:minor" of the disk that holds *path*; "" when none does."""
        ...


Planner = Callable[[str, Options, Facts], DevicePlan]


def cannot_start(device: str, why: str) -> WrongState:
    return WrongState("DEVICE_NOT_STARTED", f'Failed to start device "{device}": {why}', about=device)


def not_startable(device: str, why: str) -> WrongState:
    """As cannot_start, of what can be seen before anything is done."""
    words = f'Failed start validation for device "{device}": {why}'
    return WrongState("DEVICE_NOT_STARTED", words, about=device)


def rules_of(plans: Iterable[DevicePlan]) -> tuple[str, ...]:
    """Return the cgroup rules of all *plans*, each once."""
    return tuple(sorted({rule for plan in plans for rule in plan.rules}))
