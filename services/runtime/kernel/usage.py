"""What cgroup files tell of an instance's use of the host; version 1 and 2 in the same words.

A file that is absent (an option of the kernel, a moment after the end) reads as zero. Paths are text and
files are read by the bare calls: of a thousand instances that is fifteen thousand files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
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


_PIECE = 1 << 16


def read_v1(root: Path, group: str, *, total: int) -> Usage:
    """Return the figures of *group* in the hierarchies below *root*. total: the host's memory in bytes."""
    memory = f"{root}/memory/{group}/memory"
    used, swapped = _number(f"{memory}.usage_in_bytes"), _number(f"{memory}.memsw.usage_in_bytes")
    peak = _number(f"{memory}.max_usage_in_bytes")
    return Usage(
        memory=used,
        memory_peak=peak,
        memory_limit=min(_number(f"{memory}.limit_in_bytes") or total, total),
        swap=max(0, swapped - used),
        swap_peak=max(0, _number(f"{memory}.memsw.max_usage_in_bytes") - peak),
        cpu_ns=_number(f"{root}/cpuacct/{group}/cpuacct.usage"),
        processes=_number(f"{root}/pids/{group}/pids.current"),
    )


def details_v1(root: Path, group: str, *, total: int) -> Usage:
    """Return what metrics show, and no peaks: each file that is opened costs ten microseconds."""
    memory = f"{root}/memory/{group}/memory"
    stat = _stat(f"{memory}.stat")
    return Usage(
        memory=_number(f"{memory}.usage_in_bytes"),
        memory_limit=min(stat.get("hierarchical_memory_limit") or total, total),
        swap=stat.get("total_swap", 0),
        processes=_number(f"{root}/pids/{group}/pids.current"),
        details=_details_v1(root, group, stat),
    )


def _details_v1(root: Path, group: str, stat: Mapping[str, int]) -> UsageDetails:
    memory, blkio = f"{root}/memory/{group}/memory", f"{root}/blkio/{group}/blkio.throttle"
    rows = _rows(f"{root}/cpuacct/{group}/cpuacct.usage_all")[1:]
    disks: dict[str, dict[str, int]] = {}
    for file, suffix in (("io_service_bytes", "bytes"), ("io_serviced", "count")):
        for row in _rows(f"{blkio}.{file}_recursive"):
            if len(row) == 3 and row[1] in ("Read", "Write"):
                disks.setdefault(row[0], {})[f"{row[1]}_{suffix}"] = int(row[2])
    return UsageDetails(
        cpus=tuple((int(user), int(system)) for _, user, system in rows),
        memory={ours: stat.get(f"total_{name}", 0) for ours, name, _ in _MEMORY},
        oom_kills=_stat(f"{memory}.oom_control").get("oom_kill", 0),
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


def read_v2(root: Path, group: str, *, total: int) -> Usage:
    folder = f"{root}/{group}"
    return Usage(
        memory=_number(f"{folder}/memory.current"),
        memory_peak=_number(f"{folder}/memory.peak"),
        memory_limit=_number(f"{folder}/memory.max") or total,
        swap=_number(f"{folder}/memory.swap.current"),
        swap_peak=_number(f"{folder}/memory.swap.peak"),
        cpu_ns=_stat(f"{folder}/cpu.stat").get("usage_usec", 0) * 1000,
        processes=_number(f"{folder}/pids.current"),
    )


def details_v2(root: Path, group: str, *, total: int) -> Usage:
    """Return the same as details_v1()."""
    folder = f"{root}/{group}"
    return Usage(
        memory=_number(f"{folder}/memory.current"),
        memory_limit=_number(f"{folder}/memory.max") or total,
        swap=_number(f"{folder}/memory.swap.current"),
        processes=_number(f"{folder}/pids.current"),
        details=_details_v2(folder),
    )


def _details_v2(folder: str) -> UsageDetails:
    cpu, stat = _stat(f"{folder}/cpu.stat"), _stat(f"{folder}/memory.stat")
    disks = {}
    for number, *pairs in _rows(f"{folder}/io.stat"):
        found = {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        disks[_device(number)] = DiskUsage(
            found.get("rbytes", 0), found.get("rios", 0), found.get("wbytes", 0), found.get("wios", 0)
        )
    return UsageDetails(
        # Version 2 does not tell one processor from another.
        cpus=((cpu.get("user_usec", 0) * 1000, cpu.get("system_usec", 0) * 1000),),
        memory={ours: stat.get(name, 0) for ours, _, name in _MEMORY},
        oom_kills=_stat(f"{folder}/memory.events").get("oom_kill", 0),
        disks=disks,
    )


@lru_cache(256)
def _device(number: str) -> str:
    """Return the name of block device MAJOR:MINOR; the numbers when it is gone."""
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    except OSError:
        return number


def _read(path: str) -> bytes:
    """Return what one read gives, which of these files is all; nothing of one that is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _PIECE)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _number(path: str) -> int:
    try:
        return int(_read(path))
    except ValueError:
        return 0


def _rows(path: str) -> list[list[str]]:
    return [line.split() for line in _read(path).decode().splitlines()]


def _stat(path: str) -> dict[str, int]:
    return {row[0]: int(row[1]) for row in _rows(path) if len(row) == 2}
