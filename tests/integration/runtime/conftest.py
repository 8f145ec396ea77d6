"""A real Debian root as squashfs, built once a machine, and hosts to boot it on."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.runtime.domain.idmaps import id_map
from services.runtime.engine.lxc import LxcEngine
from services.runtime.kernel.cgroups import LinuxCgroups
from services.runtime.kernel.rootfs import LinuxRootFs
from services.runtime.ports import EnginePlan, ExecPlan, NicPlan
from services.runtime.storage.dir import DirDriver

CACHE = Path("/var/cache/podium/test-images")
PACKAGES = "systemd-sysv,dbus,iproute2,ifupdown"


@pytest.fixture(scope="session")
def debian() -> Path:
    """Return a squashfs of Debian 12 with systemd. Built once; needs Debian's mirror then."""
    built = CACHE / "runtime-debian-12.squashfs"
    if not built.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="podium-runtime-", dir="/var/tmp") as work:
            _build(Path(work))
            Path(work, "root.squashfs").rename(built)
    return built


def _build(work: Path) -> None:
    tar, squashfs = work / "root.tar", work / "root.squashfs"
    argv = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(tar)]
    subprocess.run(argv, check=True, timeout=300, capture_output=True)
    with tar.open("rb") as file:
        pack = ["tar2sqfs", "-q", "-c", "zstd", str(squashfs)]
        subprocess.run(pack, stdin=file, check=True, timeout=120, capture_output=True)


async def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


@dataclass
class Box:
    """The parts that run one instance, on a state folder of their own."""

    state: Path
    image: Path
    engine: LxcEngine
    rootfs: LinuxRootFs
    storage: DirDriver
    cgroups: LinuxCgroups
    id: str
    limits: dict[str, str] = field(default_factory=dict)

    async def plan(self, nics: tuple[NicPlan, ...] = ()) -> EnginePlan:
        lower = await self.rootfs.ensure_image("f" * 64, self.image, "")
        volume = await self.storage.ensure_volume("p", self.id)
        await self.rootfs.seed(volume, {"etc/hostname": "web\n"})
        root = await self.rootfs.ensure_mounted(self.id, lower, volume, id_map(2_000_000))
        return EnginePlan(self.id, "web", root, id_map(2_000_000), nics=nics, limits=self.limits)

    async def run(self, *command: str) -> tuple[int, str]:
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "A": "b c"}
        argv = self.engine.exec_argv(self.id, ExecPlan(command, env), terminal=False)
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 20)
        return process.returncode or 0, output.decode()

    async def booted(self) -> str:
        """Wait for systemd's end of boot; "running" or "degraded"."""
        for _ in range(100):
            _, output = await self.run("systemctl", "is-system-running")
            if output.strip() in ("running", "degraded"):
                break
            await asyncio.sleep(0.1)
        return output.strip()

    async def clean(self) -> None:
        await self.engine.kill(self.id)
        await self.rootfs.ensure_unmounted(self.id)
        self.cgroups.remove(self.id)


@pytest.fixture
async def box(debian: Path) -> AsyncIterator[Box]:
    state = Path(tempfile.mkdtemp(prefix="podium-runtime-", dir="/var/tmp"))
    state.chmod(0o711)
    storage = DirDriver(state)
    await storage.create_pool("p", {})
    id = f"t{uuid.uuid4().hex[:12]}"
    made = Box(state, debian, LxcEngine(state), LinuxRootFs(state), storage, LinuxCgroups(), id)
    yield made
    with contextlib.suppress(OSError):
        made.cgroups.thaw(id) if made.cgroups.is_frozen(id) else None
    await made.clean()
    await made.rootfs.drop_image("f" * 64)
    if str(state) not in Path("/proc/self/mounts").read_text():
        shutil.rmtree(state, ignore_errors=True)
