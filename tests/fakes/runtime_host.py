"""A host without a kernel: what the use cases of runtime ask for, kept in dictionaries."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from core.configkeys.devices.disk import DiskLimits
from core.errors import Invalid, NotFound, Unavailable, Unsupported, WrongState
from services.runtime.domain.applications import Application
from services.runtime.domain.arrivals import Arrived
from services.runtime.domain.devices.plan import (
    DevicePlan,
    HostDevice,
    HostNode,
    Translation,
    VolumeFolder,
    cannot_start,
)
from services.runtime.domain.idmaps import IdMap
from services.runtime.ports import EnginePlan, ExitRecord, Guest, NicPlan, PoolSpace, Told, Usage, VolumeKind
from services.runtime.usecases.peers import (
    About,
    FoundImage,
    PreparedImage,
    RemoteImage,
    Rendering,
    Reserved,
    Tell,
)


class FakeEngine:
    version = "fake"

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}
        self.plans: list[EnginePlan] = []
        self.fails = False
        self.is_stuck = False
        self.figures_of = 0
        self.shown: dict[str, int] = {}
        self.asked = self.deaf_to = 0
        self.target = "stop"
        self.code: int | None = None
        self._gone: dict[str, asyncio.Event] = {}

    async def start(self, plan: EnginePlan, ready: Callable[[int], Awaitable[None]] | None = None) -> int:
        if self.fails:
            raise WrongState("START_FAILED", "The engine said no")
        self.plans.append(plan)
        if ready:
            await ready(4000 + len(self.plans))
        self._gone[plan.id] = asyncio.Event()
        return self.pids.setdefault(plan.id, 4000 + len(self.plans))

    def release(self, id: str) -> None:
        return None

    def figures(self) -> int:
        return self.figures_of

    async def show_figures(self, id: str, idmap: IdMap) -> None:
        self.shown[id] = self.figures_of

    def pid(self, id: str) -> int:
        return self.pids.get(id, 0)

    def known(self) -> set[str]:
        return set(self.pids)

    def running(self) -> set[str]:
        return set(self.pids)

    def end(self, id: str, target: str = "stop") -> None:
        """The instance ends by itself."""
        self.target = target
        self.pids.pop(id, None)
        if gone := self._gone.get(id):
            gone.set()

    async def kill(self, id: str) -> None:
        self.end(id)

    async def shutdown(self, id: str) -> bool:
        self.asked += 1
        if not self.is_stuck and self.asked > self.deaf_to:
            self.end(id)
        return False

    async def wait_exit(self, id: str) -> ExitRecord:
        if id in self.pids:
            await self._gone[id].wait()
        return ExitRecord(
            self.target, time.time(), self.code != 0 if self.code is not None else None, self.code
        )

    def exec_config(self, id: str) -> bytes:
        return b"go"

    def exec_argv(self, id: str, plan: Any, *, terminal: bool, config: Path | None = None) -> list[str]:
        if config is None:
            return list(plan.command)
        return ["sh", "-c", 'test "$(cat "$0")" = go && exec "$@"', str(config), *plan.command]

    def program(self, argv: list[str]) -> str:
        return argv[0]

    def console_argv(self, id: str) -> list[str]:
        return ["cat"]

    def folder(self, id: str) -> Path:
        return Path("/nonexistent") / id

    async def remove(self, id: str) -> None:
        self.pids.pop(id, None)


class FakeKernel:
    def unknown_syscalls(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name == "nonsense"]

    def missing_modules(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name != "overlay"]


class FakeCheckpoints:
    async def obstacle(self) -> str:
        return "CRIU isn't installed"


class FakeRootFs:
    def __init__(self) -> None:
        self.mounted: set[str] = set()
        self._images: set[str] = set()

    async def ensure_image(self, fingerprint: str, squashfs: Path, rootfs_dir: str) -> Path:
        self._images.add(fingerprint)
        return Path("/images") / fingerprint

    def images(self) -> set[str]:
        return set(self._images)

    async def drop_image(self, fingerprint: str) -> None:
        self._images.discard(fingerprint)

    async def seed(self, volume: Path, files: dict[str, str], lower: Path | None = None) -> None:
        return None

    async def ensure_mounted(
        self, id: str, lower: Path | None, volume: Path, idmap: IdMap, *, shift: int = 0
    ) -> Path:
        self.mounted.add(id)
        return Path("/instances") / id

    async def ensure_unmounted(self, id: str) -> None:
        self.mounted.discard(id)

    def is_mounted(self, id: str) -> bool:
        return id in self.mounted


class FakeDriver:
    """Keeps a text per volume in place of its content."""

    name, version, is_instant, has_quotas = "dir", "1", False, False

    def __init__(self) -> None:
        self.content: dict[Path, str] = {}
        self.root = Path("/nonexistent")
        self.refuses = False

    @property
    def made(self) -> set[str]:
        return {path.name for path in self.content if path.parent.name == VolumeKind.CONTAINERS}

    async def check_pool(self, pool: str, config: dict[str, str]) -> None:
        return None

    async def change_pool(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None:
        return None

    async def close_pool(self, pool: str, config: dict[str, str]) -> None:
        return None

    async def create_pool(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        return {**config, "source": f"/pools/{pool}"}

    async def ensure_open(self, pool: str, config: dict[str, str]) -> None:
        return None

    async def delete_pool(self, pool: str, config: dict[str, str]) -> None:
        return None

    async def undo_create(self, pool: str, config: dict[str, str]) -> None:
        return None

    async def space(self, pool: str) -> PoolSpace:
        return PoolSpace(1, 2)

    def folder(self, pool: str) -> Path:
        return self.root / pool

    def volume(self, pool: str, id: str, kind: VolumeKind = VolumeKind.CONTAINERS) -> Path:
        return Path("/pools") / pool / kind / id

    async def ensure_volume(
        self, pool: str, id: str, *, kind: VolumeKind = VolumeKind.CONTAINERS, size: int = 0
    ) -> Path:
        path = self.volume(pool, id, kind)
        self.content.setdefault(path, "")
        return path

    async def clone_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = VolumeKind.CONTAINERS, size: int = 0
    ) -> Path:
        path = self.volume(pool, id, kind)
        self.content.setdefault(path, self.content[source])
        return path

    async def replace_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = VolumeKind.CONTAINERS, size: int = 0
    ) -> Path:
        path = self.volume(pool, id, kind)
        self.content[path] = self.content[source]
        return path

    refresh_volume = replace_volume

    async def set_quota(
        self, pool: str, id: str, size: int, *, kind: VolumeKind = VolumeKind.CONTAINERS
    ) -> None:
        if self.refuses:
            raise Unsupported("NO_QUOTA", "The pool cannot bound sizes")

    async def delete_volume(self, pool: str, id: str, *, kind: VolumeKind = VolumeKind.CONTAINERS) -> None:
        self.content.pop(self.volume(pool, id, kind), None)

    async def usage(
        self, pool: str, ids: Sequence[str], *, kind: VolumeKind = VolumeKind.CONTAINERS
    ) -> dict[str, int]:
        return {}

    async def settle(self, pool: str) -> None:
        return None

    async def volumes(self, pool: str, *, kind: VolumeKind = VolumeKind.CONTAINERS) -> list[str]:
        folder = self.volume(pool, "x", kind).parent
        return sorted(path.name for path in self.content if path.parent == folder)


class FakeCgroups:
    def limit_disks(self, id: str, limits: Mapping[str, DiskLimits]) -> None:
        return None

    def __init__(self) -> None:
        self.is_v2 = False
        self.frozen: set[str] = set()
        self.given: dict[str, frozenset[int]] = {}
        self.applied: dict[str, dict[str, str]] = {}
        self.refuses = "none"

    def cpus(self) -> frozenset[int]:
        return frozenset(range(4))

    def set_cpus(self, id: str, cpus: frozenset[int]) -> None:
        self.given[id] = cpus

    def plan(self, config: Mapping[str, str], had: Mapping[str, str] | None = None) -> dict[str, str]:
        return {}

    def apply(self, id: str, config: Mapping[str, str], had: Mapping[str, str] | None = None) -> None:
        limit = config.get("limits.memory")
        if limit == self.refuses and (had is None or had.get("limits.memory") != limit):
            raise Invalid("LIMIT_REFUSED", f"The kernel refused {limit}")
        self.applied[id] = config

    def usage(self, id: str) -> Usage:
        return Usage()

    def details(self, id: str) -> Usage:
        return Usage()

    def freeze(self, id: str) -> None:
        self.frozen.add(id)

    def thaw(self, id: str) -> None:
        self.frozen.discard(id)

    def is_frozen(self, id: str) -> bool:
        return id in self.frozen

    def remove(self, id: str) -> None:
        self.frozen.discard(id)


class FakeGuests:
    def __init__(self) -> None:
        self.given: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {}
        self.up: list[str] = []

    def interfaces(self, pid: int) -> list[Any]:
        return []

    def counters(self, pid: int) -> list[Any]:
        return []

    def give_addresses(self, pid: int, nic: NicPlan) -> None:
        self.given[nic.name] = (nic.addresses, dict(nic.gateways))

    def set_up(self, pid: int, names: Sequence[str]) -> None:
        self.up += names

    def take_out(self, pid: int, name: str, parent: str) -> None:
        return None

    def keep(self, folder: Path, pid: int) -> None:
        return None

    def give_back(self, folder: Path, given: Mapping[str, str]) -> None:
        return None


class FakeDoors:
    def __init__(self) -> None:
        self.open: set[str] = set()
        self.groups: dict[str, int] = {}

    def ensure(self, id: str, group: int) -> Path:
        self.open.add(id)
        self.groups[id] = group
        return Path(f"/guests/{id}/lxd")

    async def plug(self, guest: Guest) -> None:
        self.open.add(guest.id)

    async def unplug(self, guest: Guest) -> None:
        self.open.discard(guest.id)

    def remove(self, id: str) -> None:
        self.open.discard(id)

    def known(self) -> set[str]:
        return set(self.open)


class FakeDevices:
    """Devices by instance, as they were last ensured."""

    def __init__(self) -> None:
        self.plans: dict[str, list[DevicePlan]] = {}
        self.refuses = ""

    def held(self, id: str) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    async def ensure(
        self,
        guest: Guest,
        plans: tuple[DevicePlan, ...],
        *,
        starting: bool = False,
        optional: Container[str] = (),
    ) -> None:
        if self.refuses in {plan.device for plan in plans if plan.device not in optional}:
            raise cannot_start(self.refuses, "The kernel said no")
        self.plans[guest.id] = list(plans)

    def plugged(self, id: str) -> list[DevicePlan]:
        return self.plans.get(id, [])

    async def clear(self, id: str) -> None:
        self.plans.pop(id, None)


class FakeFacts:
    """A host with the nodes and devices it was given."""

    def __init__(self) -> None:
        self.nodes: dict[str, HostNode] = {}
        self.found: list[HostDevice] = []
        self.programs: set[str] = set()
        self.interfaces: set[str] = set()

    def node(self, path: str) -> HostNode | None:
        return self.nodes.get(path)

    def is_there(self, path: str) -> bool:
        return path in self.nodes

    def devices(self) -> Sequence[HostDevice]:
        return self.found

    def card_nodes(self, card: HostDevice) -> Sequence[str]:
        return ["/dev/kfd"] if card.vendor == "1002" else []

    def infiniband_nodes(self, interface: str) -> Sequence[str]:
        return [path for path in self.nodes if path.startswith("/dev/infiniband/")]

    def has_program(self, name: str) -> bool:
        return name in self.programs

    def has_interface(self, name: str) -> bool:
        return name in self.interfaces

    def volume(self, device: str, pool: str, name: str) -> VolumeFolder:
        return VolumeFolder(f"/pools/{pool}/{name}")

    def bound(self, source: str) -> str:
        return ""

    def block(self, path: str) -> str:
        return "7:0"


class FakeBeside:
    def __init__(self) -> None:
        self.kept: dict[Path, About] = {}

    def read(self, volume: Path) -> About | None:
        return self.kept.get(volume)

    def write(self, volume: Path, about: About) -> None:
        self.kept[volume] = about


class FakePlanting:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def present(self, root: Path, paths: list[str]) -> set[str]:
        return self.files.keys() & set(paths)

    def plant(self, root: Path, files: dict[str, bytes], owner: tuple[int, int]) -> None:
        self.files |= files


class FakeImages:
    def __init__(self) -> None:
        self.application: Application | None = None
        self.arrived: dict[str, Arrived] = {}
        self.abouts: dict[str, About] = {}
        self.rendered: list[tuple[str, str]] = []

    async def about(self, project: str, fingerprint: str, base_dir: str) -> About:
        return self.abouts.get(fingerprint, About())

    async def check_metadata(self, project: str, text: bytes) -> dict[str, Any]:
        return {"properties": {"said": text.decode()}}

    async def render(self, project: str, context: Mapping[str, Any], jobs: list[Rendering]) -> list[bytes]:
        self.rendered += [(job.path, job.trigger) for job in jobs]
        return [f"{job.trigger} of {context['instance']['name']}".encode() for job in jobs]

    async def find(self, project: str, fingerprint: str, alias: str) -> FoundImage:
        if alias and alias != "debian/12":
            raise NotFound("NO_ALIAS", "Image alias not found", about=alias)
        return FoundImage("ab" * 32, "x86_64", {"os": "Debian"}, ("default",), self.application)

    async def match(self, project: str, properties: Mapping[str, str]) -> FoundImage | None:
        return None

    async def prepare(self, project: str, fingerprint: str) -> PreparedImage:
        return PreparedImage(Path("/images") / fingerprint, "rootfs")

    async def take(self, project: str, ticket: str) -> Arrived:
        if ticket not in self.arrived:
            raise NotFound("NO_BACKUP", "What was uploaded is no longer kept; send it again")
        return self.arrived[ticket]

    async def bring(self, project: str, image: RemoteImage, tell: Tell) -> str:
        if image.server == "https://nowhere":
            raise Unavailable("UNREACHABLE", "https://nowhere cannot be read")
        await tell("rootfs: 50% (1.00MB/s)")
        return "ab" * 32


class FakeNetworks:
    def __init__(self) -> None:
        self.fails = False
        self.refused = ""
        self.told = Told()
        self.reserved: dict[str, list[str]] = {}
        self.plugged: dict[str, list[str]] = {}
        self.forwarded: dict[str, list[str]] = {}

    async def reserve(
        self,
        id: str,
        project: str,
        name: str,
        nics: Mapping[str, Mapping[str, str]],
        hwaddrs: Mapping[str, str],
        *,
        at_rest: bool,
        pid: int = 0,
    ) -> Reserved:
        if self.fails:
            raise NotFound("NO_NETWORK", "Network 'x' not found")
        if self.refused in nics:
            raise WrongState("NIC_NOT_MADE", f"Failed to start device {self.refused!r}")
        self.reserved[id] = list(nics)
        made = await self.plug(id, pid) if pid else None
        plans = tuple(
            NicPlan(
                *(d, d, f"veth{d}", hwaddrs.get(d) or "00:16:3e:00:00:01", 1500, "br0"),
                addresses=("10.1.2.3/24", "fd42::3/64") if self.told.router else (),
                told=self.told,
                host_side=any(key.startswith("limits.") for key in options),
                volatile={
                    "host_name": f"veth{d}",
                    "name": d,
                    "hwaddr": hwaddrs.get(d) or "00:16:3e:00:00:01",
                },
            )
            for d, options in nics.items()
        )
        return Reserved(plans, made)

    async def plug(self, id: str, pid: int) -> tuple[str, ...]:
        before, self.plugged[id] = self.plugged.get(id, ["eth0"]), list(self.reserved[id])
        return tuple(name for name in self.plugged[id] if name not in before)

    async def unplug(self, id: str) -> None:
        self.plugged.pop(id, None)

    async def forward(self, id: str, translations: Sequence[Translation]) -> None:
        self.forwarded[id] = [t.listen for t in translations]

    async def release(self, id: str) -> None:
        self.reserved.pop(id, None)


class FakeTicks:
    def __init__(self) -> None:
        self.at = 0.0

    def last(self) -> float:
        return self.at

    def seen(self, at: float) -> None:
        self.at = at
