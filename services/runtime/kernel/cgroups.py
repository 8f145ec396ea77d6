"""Limits and figures through cgroup files: v1 (pure or hybrid) and v2, detected.

Instances lie in podium/<id> of every hierarchy, their monitors in podium.monitor/<id>.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from core.configkeys.devices.disk import DiskLimits
from core.errors import Invalid, NotFound
from core.logs import get_logger
from services.runtime.domain import limits
from services.runtime.kernel import blocks, usage
from services.runtime.ports import Usage

log = get_logger(__name__)
_ROOT, _CPUS = Path("/sys/fs/cgroup"), Path("/sys/devices/system/cpu")
_PARENT, _MONITORS = "podium", "podium.monitor"
_DEATH_S = 5.0
_V1 = ("memory", "cpu", "cpuacct", "cpuset", "pids", "freezer", "devices", "blkio", "hugetlb", "systemd")


class LinuxCgroups:
    """Implements ports.Cgroups."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        self.is_v2 = (root / "cgroup.controllers").exists()
        self._total = _host_memory()
        self._facts = self._look()

    def plan(self, config: Mapping[str, str], had: Mapping[str, str] | None = None) -> dict[str, str]:
        return limits.plan(config, self._facts, had=had)

    def cpus(self) -> frozenset[int]:
        return self._facts.cpus

    def set_cpus(self, id: str, cpus: frozenset[int]) -> None:
        path, wanted = self._file(id, "cpuset.cpus"), limits.spans(cpus)
        with contextlib.suppress(FileNotFoundError):
            if path.read_text().strip() != wanted:
                self._write(path, wanted)

    def apply(self, id: str, config: Mapping[str, str], had: Mapping[str, str] | None = None) -> None:
        wanted, kept = self.plan(config, had), self._same(config, had)
        if limits.count_of(config):
            wanted["cpuset.cpus"] = self._balanced(id, config)
        for name, unlimited in limits.unlimited(self._facts).items():
            try:
                self._ensure(self._file(id, name), wanted.get(name, unlimited))
            except Invalid as exc:
                if name not in kept:
                    raise
                log.warning("limit_without_effect", id=id, error=exc.message)

    def _same(self, config: Mapping[str, str], had: Mapping[str, str] | None) -> frozenset[str]:
        """Return the files that *config* wants as *had* wanted them."""
        if had is None:
            return frozenset()
        now, before = self.plan(config, had), limits.plan(had, self._facts, had=had)
        return frozenset(n for n in limits.unlimited(self._facts) if now.get(n) == before.get(n))

    def _ensure(self, path: Path, value: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if path.read_text().strip() != value:
                self._write(path, value)

    def limit_disks(self, id: str, limits: Mapping[str, DiskLimits]) -> None:
        folder = self._file(id, "io.max" if self.is_v2 else "blkio.weight").parent
        blocks.throttle(folder, limits, is_v2=self.is_v2)

    def usage(self, id: str) -> Usage:
        read = usage.read_v2 if self.is_v2 else usage.read_v1
        return read(self._root, f"{_PARENT}/{id}", total=self._total)

    def details(self, id: str) -> Usage:
        read = usage.details_v2 if self.is_v2 else usage.details_v1
        return read(self._root, f"{_PARENT}/{id}", total=self._total)

    def freeze(self, id: str) -> None:
        self._set_frozen(id, frozen=True)

    def thaw(self, id: str) -> None:
        self._set_frozen(id, frozen=False)

    def is_frozen(self, id: str) -> bool:
        path = self._file(id, "cgroup.freeze" if self.is_v2 else "freezer.state")
        with contextlib.suppress(OSError):
            return path.read_text().strip() in ("1", "FROZEN", "FREEZING")
        return False

    def remove(self, id: str) -> None:
        for hierarchy in self._hierarchies():
            _kill_all(hierarchy / _PARENT / id)
        for hierarchy in self._hierarchies():
            for parent in (_PARENT, _MONITORS):
                _remove_tree(hierarchy / parent / id)

    def _balanced(self, id: str, config: Mapping[str, str]) -> str:
        """Return its CPUs while they are as many as asked for: which ones is the balancer's choice."""
        has = limits.parse_spans(_text(self._file(id, "cpuset.cpus")))
        fits = len(has) == limits.count_of(config) and has <= self._facts.cpus
        return limits.spans(has) if fits else self.plan(config)["cpuset.cpus"]

    def _look(self) -> limits.Facts:
        """Ask the kernel once what it has; some of its files are only in cgroups below the first."""
        below = self._root / _PARENT if self.is_v2 else self._root / "blkio" / _PARENT
        if below.parent.is_dir() and below.parent.is_mount():
            below.mkdir(exist_ok=True)
        weights = ("io.weight", "io.bfq.weight") if self.is_v2 else ("blkio.weight", "blkio.bfq.weight")
        huge = self._root / _PARENT if self.is_v2 else self._root / "hugetlb"
        end = "max" if self.is_v2 else "limit_in_bytes"
        return limits.Facts(
            is_v2=self.is_v2,
            total_bytes=self._total,
            cpus=_cpus(),
            swappiness=int(_text(self._root / "memory" / "memory.swappiness") or 60),
            disk_weight=next((name for name in weights if (below / name).exists()), ""),
            hugepages=frozenset(n for n in limits.HUGEPAGES if (huge / f"hugetlb.{n}.{end}").exists()),
        )

    def _hierarchies(self) -> list[Path]:
        if self.is_v2:
            return [self._root]
        return [p for p in self._root.iterdir() if p.is_dir()]

    def _file(self, id: str, name: str) -> Path:
        if self.is_v2:
            return self._root / _PARENT / id / name
        return self._root / name.split(".", 1)[0] / _PARENT / id / name

    def _write(self, path: Path, value: str) -> None:
        try:
            path.write_text(value)
        except OSError as exc:
            raise Invalid(
                "LIMIT_REFUSED", f"The kernel refused {path.name}={value}: {exc.strerror}", about=path.name
            ) from exc

    def _set_frozen(self, id: str, *, frozen: bool) -> None:
        try:
            if self.is_v2:
                self._file(id, "cgroup.freeze").write_text("1" if frozen else "0")
            else:
                self._file(id, "freezer.state").write_text("FROZEN" if frozen else "THAWED")
        except FileNotFoundError:
            raise NotFound("NO_CGROUP", "The instance is not running", about=id) from None


def _cpus() -> frozenset[int]:
    """Return the processors that are online and not set aside for other work."""
    online = limits.parse_spans(_text(_CPUS / "online"))
    return (online - limits.parse_spans(_text(_CPUS / "isolated"))) or frozenset({0})


def _host_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no MemTotal in /proc/meminfo")


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _remove_tree(folder: Path) -> None:
    """Remove cgroups from the leaves up; those that still hold processes stay."""
    for path in reversed(folders(folder)):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def folders(top: Path) -> list[str]:
    """Return *top* and all folders in it, outer ones first; nothing when it is not there.

    Not by os.walk, which calls itself for each level: guests decide how deep their cgroups go.
    """
    found = [str(top)] if top.exists() else []
    for path in found:
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return found


def _kill_all(folder: Path) -> None:
    """Kill what is left in a cgroup: an init whose monitor was killed lives on, and nobody owns it."""
    with contextlib.suppress(OSError):
        (folder / "cgroup.kill").write_text("1")  # v2, since Linux 5.14
    end = time.monotonic() + _DEATH_S
    while (pids := _processes(folder)) and time.monotonic() < end:
        for path in folders(folder):
            with contextlib.suppress(OSError):
                # What cgroup v1 has frozen takes no signal, not even SIGKILL.
                Path(path, "freezer.state").write_text("THAWED")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _processes(folder: Path) -> list[int]:
    found = list[int]()
    for path in folders(folder):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in Path(path, "cgroup.procs").read_text().split()]
    return [pid for pid in found if pid]
