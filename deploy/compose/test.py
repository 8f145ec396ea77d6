"""`make compose-test`: bring compose.yaml up in a Docker of its own, launch inside it, leave nothing.

Docker runs in network, mount and process namespaces made for it, so it touches neither the rules nor
the bridges of this machine, and the kernel ends all of it when the test ends, however that is.
What the namespaces do not hold, a folder and cgroups, is removed and checked for here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy import host
from deploy.compose import image
from deploy.privileges import ROOT
from services.image.build import build

_PROGRAMS = {"dockerd": "docker.io", "docker-compose": "docker-compose", "iptables": "iptables"}
_UNITS = ("docker.service", "docker.socket", "containerd.service")
_TIMEOUT_S = 600.0
_REMOVED_S = 20.0
_OWN = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]


def ensure_docker() -> None:
    missing = [package for program, package in _PROGRAMS.items() if not shutil.which(program)]
    if missing:
        host.ensure_packages(missing, units=_UNITS)


def run_apart(work: Path) -> int:
    """Run the trial in namespaces of its own and return its exit code; 1 when it takes too long."""
    argv = ["unshare", *_OWN, "--", sys.executable, "-m", "deploy.compose.trial", str(work)]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        return process.wait(_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        print(f"The test did not end within {_TIMEOUT_S:.0f} s", file=sys.stderr)
        return 1
    finally:
        # With --kill-child the namespaces' first process goes too, and with it all that they hold.
        process.kill()
        process.wait()


def remove(work: Path, loops: set[str]) -> list[str]:
    """Remove what the namespaces did not hold; return a line for everything that stays.

    *loops* are the devices that had lost their file before the test.
    """
    deadline = time.monotonic() + _REMOVED_S
    while True:
        for cgroup in _cgroups(work):
            _remove_cgroup(cgroup)
        shutil.rmtree(work, ignore_errors=True)
        left = [*leftovers(work), *sorted(lost_loops() - loops)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)


def leftovers(work: Path) -> list[str]:
    """Return what this machine still has of a test in *work*: files, cgroups, processes, mounts."""
    found = [f"folder {work}"] if work.exists() else []
    found += [f"cgroup {path}" for path in _cgroups(work)]
    found += [f"process {pid}" for pid in _processes(work)]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return found + [f"mount {line}" for line in mounts if str(work) in line]


def lost_loops() -> set[str]:
    """Return the loop devices whose file is gone; inside a container its path says nothing of *work*."""
    found = set()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if path.read_text().strip().endswith(" (deleted)"):
                found.add(f"device {path.parts[3]}")
    return found


def _cgroups(work: Path) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    return [p for p in (root / work.name, *root.glob(f"*/{work.name}")) if p.is_dir()]


def _remove_cgroup(top: Path) -> None:
    for path, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def _processes(work: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(work).encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def main() -> int:
    if os.geteuid():
        print("Starting Docker needs root; run it with sudo.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code, loops = 1, lost_loops()
    work = Path(tempfile.mkdtemp(prefix="podium-compose-", dir="/var/tmp"))
    try:
        ensure_docker()
        image.stage()
        build("12", work / "debian-12.tar.gz")
        code = run_apart(work)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    finally:
        left = remove(work, loops)
    for line in left:
        print("left behind:", line, file=sys.stderr)
    if left or code:
        return 1
    print("==> Nothing is left; compose.yaml works.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
