"""What cgroup files tell of an instance's use of the host; version 1 and 2 in the same words.

A file that is absent (an option of the kernel, a moment after the end) reads as zero.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from services.runtime.ports import DiskUsage, Usage, UsageDetails

# Our name, the row of memory.stat of version 1 (with "total_", which counts descendants too), of version 2.
_MEMORY = (
    ("active_anon", "active_anon", "active_anon"),
    ("active_file", "active_file", "active_file"),
    ("inactive_anon", "inactive_anon", "inactive_anon"),
    ("inactive_file", "inactive_file", "inactive_file"),
    ("unevictable", "unevictable", "unevictable"),
    ("writeback", "writeback", "file_writeback"),
    ("dirty", "dirty", "file_dirty"),
    ("mapped", "mapped_file", "file_mapped"),
    ("rss", "rss", "anon"),
    ("shmem", "shmem", "shmem"),
    ("cached", "cache", "file"),
)


def read_v1(root: Path, group: str, *, total: int, detailed: bool) -> Usage:
    """Return the figures of *group* in the hierarchies below *root*. total: the host's memory in bytes."""
    memory, cpu = root / "memory" / group, root / "cpuacct" / group
    used, swapped = _number(memory / "memory.usage_in_bytes"), _number(memory / "memory.memsw.usage_in_bytes")
    peak = _number(memory / "memory.max_usage_in_bytes")
    return Usage(
        memory=used,
        memory_peak=peak,
        memory_limit=min(_number(memory / "memory.limit_in_bytes") or total, total),
        swap=max(0, swapped - used),
        swap_peak=max(0, _number(memory / "memory.memsw.max_usage_in_bytes") - peak),
        cpu_ns=_number(cpu / "cpuacct.usage"),
        processes=_number(root / "pids" / group / "pids.current"),
        details=_details_v1(root, group) if detailed else UsageDetails(),
    )


def _details_v1(root: Path, group: str) -> UsageDetails:
    memory, blkio = root / "memory" / group, root / "blkio" / group
    stat = _stat(memory / "memory.stat")
    rows = _rows(root / "cpuacct" / group / "cpuacct.usage_all")[1:]
    disks: dict[str, dict[str, int]] = {}
    for file, suffix in (("io_service_bytes", "bytes"), ("io_serviced", "count")):
        for row in _rows(blkio / f"blkio.throttle.{file}_recursive"):
            if len(row) == 3 and row[1] in ("Read", "Write"):
                disks.setdefault(row[0], {})[f"{row[1]}_{suffix}"] = int(row[2])
    return UsageDetails(
        cpus=tuple((int(user), int(system)) for _, user, system in rows),
        memory={ours: stat.get(f"total_{name}", 0) for ours, name, _ in _MEMORY},
        oom_kills=_stat(memory / "memory.oom_control").get("oom_kill", 0),
        disks={
            _device(number): DiskUsage(
                found.get("Read_bytes", 0),
                found.get("Read_count", 0),
                found.get("Write_bytes", 0),
                found.get("Write_count", 0),
            )
            for number, found in disks.items()
        },
    )


def read_v2(root: Path, group: str, *, total: int, detailed: bool) -> Usage:
    folder = root / group
    return Usage(
        memory=_number(folder / "memory.current"),
        memory_peak=_number(folder / "memory.peak"),
        memory_limit=_number(folder / "memory.max") or total,
        swap=_number(folder / "memory.swap.current"),
        swap_peak=_number(folder / "memory.swap.peak"),
        cpu_ns=_stat(folder / "cpu.stat").get("usage_usec", 0) * 1000,
        processes=_number(folder / "pids.current"),
        details=_details_v2(folder) if detailed else UsageDetails(),
    )


def _details_v2(folder: Path) -> UsageDetails:
    cpu, stat = _stat(folder / "cpu.stat"), _stat(folder / "memory.stat")
    disks = {}
    for number, *pairs in _rows(folder / "io.stat"):
        found = {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        disks[_device(number)] = DiskUsage(
            found.get("rbytes", 0), found.get("rios", 0), found.get("wbytes", 0), found.get("wios", 0)
        )
    return UsageDetails(
        # Version 2 does not tell one processor from another.
        cpus=((cpu.get("user_usec", 0) * 1000, cpu.get("system_usec", 0) * 1000),),
        memory={ours: stat.get(name, 0) for ours, _, name in _MEMORY},
        oom_kills=_stat(folder / "memory.events").get("oom_kill", 0),
        disks=disks,
    )


@lru_cache(256)
def _device(number: str) -> str:
    """Return the name of block device MAJOR:MINOR; the numbers when it is gone."""
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    except OSError:
        return number


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _rows(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return []


def _stat(path: Path) -> dict[str, int]:
    return {row[0]: int(row[1]) for row in _rows(path) if len(row) == 2}
