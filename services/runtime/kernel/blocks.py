"""Block devices below folders, and what an instance may read and write there in a second.

v1: blkio.throttle.*, of which only reads and direct writes are held; v2: io.max. Source:
Documentation/admin-guide/cgroup-v1/blkio-controller.rst and cgroup-v2.rst, "IO Interface Files".
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from core.configkeys.devices.disk import DiskLimits
from core.errors import Invalid

_V1 = ("read_bps", "read_iops", "write_bps", "write_iops")
_V2 = ("rbps", "riops", "wbps", "wiops")


def block_of(path: str, *, mountinfo: str = "/proc/self/mountinfo", sys: Path = Path("/sys")) -> str:
    """Return "major:minor" of the whole device that holds *path*; "" where there is none (tmpfs, nfs)."""
    try:
        device = os.stat(path).st_dev
    except OSError:
        return ""
    if not os.major(device):  # btrfs gives each subvolume a number of its own
        device = _mounted_from(os.path.realpath(path), Path(mountinfo).read_text())
    return _whole(device, sys) if os.major(device) else ""


def _mounted_from(path: str, mountinfo: str) -> int:
    """Return the device number of what is mounted nearest above *path*; 0 when it is no block device."""
    found, length = 0, -1
    for line in mountinfo.splitlines():
        words = line.split()
        point, source = words[4], words[words.index("-") + 2]
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= length:
            found, length = _number(source), len(point)
    return found


def _number(source: str) -> int:
    with contextlib.suppress(OSError):
        found = os.stat(source)
        return found.st_rdev if stat.S_ISBLK(found.st_mode) else 0
    return 0


def _whole(device: int, sys: Path) -> str:
    """Limits of partitions are refused: they are those of their disk."""
    folder = (sys / "dev/block" / f"{os.major(device)}:{os.minor(device)}").resolve()
    if (folder / "partition").exists():
        return (folder.parent / "dev").read_text().strip()
    return f"{os.major(device)}:{os.minor(device)}"


def throttle(folder: Path, limits: Mapping[str, DiskLimits], *, is_v2: bool) -> None:
    """Bound what the cgroup in *folder* may do on each device, and on no other. Raises: Invalid."""
    has = _limited(folder, is_v2=is_v2)
    wanted = dict.fromkeys(has, DiskLimits()) | dict(limits)
    for block, bound in sorted(wanted.items()):
        for file, line in _lines(block, bound, is_v2=is_v2):
            _write(folder / file, line)


def _values(bound: DiskLimits) -> tuple[int, int, int, int]:
    return bound.read_bytes, bound.read_operations, bound.write_bytes, bound.write_operations


def _lines(block: str, bound: DiskLimits, *, is_v2: bool) -> Iterator[tuple[str, str]]:
    if is_v2:
        words = (f"{name}={value or 'max'}" for name, value in zip(_V2, _values(bound), strict=True))
        yield "io.max", f"{block} {' '.join(words)}"
        return
    for name, value in zip(_V1, _values(bound), strict=True):
        yield f"blkio.throttle.{name}_device", f"{block} {value}"


def _limited(folder: Path, *, is_v2: bool) -> set[str]:
    """Return the devices on which something is bounded now."""
    files = ["io.max"] if is_v2 else [f"blkio.throttle.{name}_device" for name in _V1]
    found = set[str]()
    for file in files:
        with contextlib.suppress(OSError):
            found |= {line.split()[0] for line in (folder / file).read_text().splitlines() if line.strip()}
    return found


def _write(path: Path, line: str) -> None:
    try:
        path.write_text(line)
    except FileNotFoundError:
        return  # it does not run any more, or this kernel has no such controller
    except OSError as exc:
        raise Invalid("LIMIT_REFUSED", f"The kernel refused {path.name}={line}: {exc.strerror}") from exc
