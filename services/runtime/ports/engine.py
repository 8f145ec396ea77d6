"""What starts and ends instances, and enters them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from services.runtime.domain.applications import Application
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
    ipvlan one has inside. host_side: it is to be plugged also when the engine made it. volatile: what
    the instance's keys tell of it while it runs.
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
    hears_of_devices: bool = False
    """Whether it has devices of the host, of which its udev is told. Without, a boot needs no udev."""
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
