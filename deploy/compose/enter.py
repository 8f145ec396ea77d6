"""First step of the runtime's container: give it a kernel's file systems as a host has them, then run argv.

    unshare --cgroup python3 -m deploy.compose.enter python3 -m services.runtime

Docker's /proc and /sys are masked and read-only, and then the kernel refuses an instance its own. The
container's cgroup becomes the root below which instances have theirs; nothing is bound from the host,
and all of it goes with the container.

Source: mount_too_revealing() in the kernel's fs/namespace.c; cgroup_namespaces(7).
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.host import ensure_sysctls

_CGROUPS = Path("/sys/fs/cgroup")
_SERVICES = "podium.services"
# mount(8) with -o loop makes devices as it needs them on a host; here their nodes must be there before.
_LOOPS = 256
_NODES = {"loop-control": (10, 237), "fuse": (10, 229), "net/tun": (10, 200)}


@dataclass(frozen=True)
class Hierarchy:
    """A cgroup hierarchy: the folder it is mounted at, file system type and option."""

    folder: str
    kind: str
    option: str


def hierarchies(own: str) -> list[Hierarchy]:
    """Return what to mount for a process whose /proc/self/cgroup is *own*; folder "" means the root."""
    names = [line.split(":", 2)[1] for line in own.splitlines() if line.count(":") >= 2]
    v1 = [Hierarchy(name.removeprefix("name="), "cgroup", name) for name in names if name]
    return [*v1, Hierarchy("unified" if v1 else "", "cgroup2", "")]


def mount(kind: str, target: Path, option: str = "") -> None:
    target.mkdir(parents=True, exist_ok=True)
    options = ["-o", option] if option else []
    subprocess.run(["mount", "-t", kind, *options, kind, str(target)], check=True, timeout=30)


def mount_sys() -> None:
    """A network namespace has one sysfs: it does not go over itself, and starts read-only for all."""
    for argv in (["umount", "--recursive"], ["mount", "-t", "sysfs", "sysfs"], ["mount", "-o", "remount,rw"]):
        subprocess.run([*argv, "/sys"], check=True, timeout=30)


def mount_cgroups() -> None:
    found = hierarchies(Path("/proc/self/cgroup").read_text())
    if found[0].kind == "cgroup":
        mount("tmpfs", _CGROUPS, "mode=755,size=1m")
    for one in found:
        mount(one.kind, _CGROUPS / one.folder, one.option)
        for alias in one.folder.split(",") if "," in one.folder else ():
            (_CGROUPS / alias).symlink_to(one.folder)
    if not found[0].folder:
        delegate(_CGROUPS)


def delegate(root: Path) -> None:
    """cgroup v2 shares controllers with children only where no process sits, so all move to a leaf."""
    (root / _SERVICES).mkdir(exist_ok=True)
    for pid in (root / "cgroup.procs").read_text().split():
        (root / _SERVICES / "cgroup.procs").write_text(pid)
    controllers = (root / "cgroup.controllers").read_text().split()
    (root / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def make_nodes() -> None:
    for n in range(_LOOPS):
        _make_node(Path(f"/dev/loop{n}"), stat.S_IFBLK | 0o600, (7, n))
    for name, number in _NODES.items():
        _make_node(Path("/dev") / name, stat.S_IFCHR | 0o666, number)


def _make_node(path: Path, mode: int, number: tuple[int, int]) -> None:
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        os.mknod(path, mode, os.makedev(*number))
        path.chmod(stat.S_IMODE(mode))


def main() -> None:
    mount("proc", Path("/proc"))
    mount_sys()
    mount_cgroups()
    make_nodes()
    ensure_sysctls()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the service takes this process's place


if __name__ == "__main__":
    main()
