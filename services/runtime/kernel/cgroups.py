"""Limits and figures through cgroup files: v1 (pure or hybrid) and v2, detected.

Instances lie in podium/<id> of every hierarchy, their monitors in podium.monitor/<id>.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from core.configkeys.instance import INSTANCE
from core.errors import Invalid, NotFound
from core.units import parse_allowance, parse_bool, parse_cpus, parse_memory
from services.runtime.kernel import usage
from services.runtime.ports import Usage

_ROOT = Path("/sys/fs/cgroup")
_PARENT, _MONITORS = "podium", "podium.monitor"
_PERIOD_US = 100_000
_DEATH_S = 5.0
_V1 = ("memory", "cpu", "cpuacct", "cpuset", "pids", "freezer", "devices", "blkio", "hugetlb", "systemd")


class LinuxCgroups:
    """Implements ports.Cgroups."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        self.is_v2 = (root / "cgroup.controllers").exists()
        self._total = _host_memory()
        self._cpus = os.cpu_count() or 1

    def plan(self, config: dict[str, str]) -> dict[str, str]:
        lines: dict[str, str] = {}
        if value := config.get("limits.memory"):
            lines |= self._memory(value, INSTANCE.get(config, "limits.memory.enforce"))
        if value := config.get("limits.processes"):
            lines["pids.max"] = str(int(value))
        if value := config.get("limits.cpu"):
            lines["cpuset.cpus"] = self._cpuset(value)
        if value := config.get("limits.cpu.allowance"):
            lines |= self._allowance(value)
        if not parse_bool(INSTANCE.get(config, "limits.memory.swap")):
            lines |= {"memory.swap.max": "0"} if self.is_v2 else {"memory.swappiness": "0"}
        return lines

    def apply(self, id: str, config: dict[str, str]) -> None:
        wanted = self.plan(config)
        for name, unlimited in self._unlimited().items():
            value = wanted.get(name, unlimited)
            path = self._file(id, name)
            with contextlib.suppress(FileNotFoundError):
                if path.read_text().strip() != value:
                    self._write(path, value)

    def usage(self, id: str, *, detailed: bool = False) -> Usage:
        read = usage.read_v2 if self.is_v2 else usage.read_v1
        return read(self._root, f"{_PARENT}/{id}", total=self._total, detailed=detailed)

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

    # --- how each version says it ----------------------------------------------------------------

    def _memory(self, value: str, enforce: str) -> dict[str, str]:
        size = str(parse_memory(value, total_bytes=self._total))
        if self.is_v2:
            return {"memory.high" if enforce == "soft" else "memory.max": size}
        soft = "memory.soft_limit_in_bytes"
        return {soft if enforce == "soft" else "memory.limit_in_bytes": size}

    def _cpuset(self, value: str) -> str:
        cpus = parse_cpus(value)
        if isinstance(cpus, int):
            return f"0-{max(1, min(cpus, self._cpus)) - 1}"
        if max(cpus) >= self._cpus:
            raise Invalid("NO_SUCH_CPU", f"limits.cpu {value!r}: this host has CPUs 0-{self._cpus - 1}")
        return ",".join(str(cpu) for cpu in sorted(cpus))

    def _allowance(self, value: str) -> dict[str, str]:
        share = parse_allowance(value)
        if isinstance(share, int):
            weight = max(1, min(share, 100))
            return {"cpu.weight": str(weight)} if self.is_v2 else {"cpu.shares": str(weight * 1024 // 100)}
        quota, period = share[0] * 1000, share[1] * 1000
        if self.is_v2:
            return {"cpu.max": f"{quota} {period}"}
        return {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": str(quota)}

    def _unlimited(self) -> dict[str, str]:
        """What each file of plan() says without a limit; in the order in which they may be written."""
        all_cpus = f"0-{self._cpus - 1}" if self._cpus > 1 else "0"
        if self.is_v2:
            return {"memory.max": "max", "memory.high": "max", "memory.swap.max": "max", "pids.max": "max",
                    "cpuset.cpus": all_cpus, "cpu.max": f"max {_PERIOD_US}", "cpu.weight": "100"}  # fmt: skip
        swappiness = _text(self._root / "memory" / "memory.swappiness") or "60"
        return {"memory.limit_in_bytes": "-1", "memory.soft_limit_in_bytes": "-1",
                "memory.swappiness": swappiness, "pids.max": "max", "cpuset.cpus": all_cpus,
                "cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": "-1",
                "cpu.shares": "1024"}  # fmt: skip

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
