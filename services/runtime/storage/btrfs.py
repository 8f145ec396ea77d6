"""Driver "btrfs": a volume is a subvolume that holds the overlay's layers; its qgroup is the quota.

The pool is a loop file that we make, an existing block device, or a folder on an existing btrfs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from core.errors import Invalid, WrongState
from core.units import parse_bytes
from services.runtime.ports import PoolSpace
from services.runtime.storage import btrfs_ioctl as ioctl
from services.runtime.storage.dir import make_volume, space_of

_GIB = 1 << 30
_CONTAINERS = "containers"
_NEARLY_FULL = 8


class BtrfsDriver:
    """Implements ports.StorageDriver in <state>/pools/POOL, loop files in <state>/disks."""

    name = "btrfs"

    def __init__(self, state_dir: Path) -> None:
        self._pools = state_dir / "pools"
        self._disks = state_dir / "disks"
        for folder, mode in ((self._pools, 0o700), (self._disks, 0o700)):
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
            folder.chmod(mode)
        self.version = _version()
        self._numbers: dict[str, int] = {}

    def folder(self, pool: str) -> Path:
        return self._pools / pool

    async def create_pool(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        filled = dict(config)
        if not config.get("source"):
            filled["source"] = str(self._disks / f"{pool}.img")
            size = parse_bytes(config["size"]) if config.get("size") else _default_size(self._disks)
            filled["size"] = config.get("size") or f"{size // _GIB}GiB"
            await asyncio.to_thread(_make_loop_file, Path(filled["source"]), size)
        else:
            await asyncio.to_thread(_check_source, Path(filled["source"]))
        await self.ensure_open(pool, filled)
        if found := await self.volumes(pool):
            raise Invalid(
                "SOURCE_USED", f"{filled['source']} holds {len(found)} containers already; use another source"
            )
        await _btrfs("quota", "enable", str(self.folder(pool)))
        return filled

    async def ensure_open(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._open, pool, Path(config["source"]))

    async def delete_pool(self, pool: str, config: dict[str, str]) -> None:
        for id in await self.volumes(pool):
            await self.delete_volume(pool, id)
        await asyncio.to_thread(self._close, pool, config)

    async def undo_create(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._close, pool, config)

    async def space(self, pool: str) -> PoolSpace:
        return await asyncio.to_thread(space_of, self.folder(pool))

    async def ensure_volume(self, pool: str, id: str, *, size: int = 0) -> Path:
        volume = self._volume(pool, id)
        await asyncio.to_thread(_ensure_subvolume, volume)
        if size:
            await self.set_quota(pool, id, size)
        return await asyncio.to_thread(make_volume, volume)

    async def set_quota(self, pool: str, id: str, size: int) -> None:
        await _btrfs("qgroup", "limit", str(size) if size else "none", str(self._volume(pool, id)))

    async def delete_volume(self, pool: str, id: str) -> None:
        self._numbers.pop(id, None)
        needs_room = await asyncio.to_thread(_is_nearly_full, self.folder(pool))
        await asyncio.to_thread(_remove_subvolume, self._volume(pool, id))
        if needs_room:
            # btrfs gives room back in the background, half a minute later; who deletes for room needs it now.
            await _btrfs("filesystem", "sync", str(self.folder(pool)))
            await _btrfs("subvolume", "sync", str(self.folder(pool)))

    async def usage(self, pool: str, ids: Sequence[str]) -> dict[str, int]:
        return await asyncio.to_thread(self._usage, pool, ids)

    async def volumes(self, pool: str) -> list[str]:
        folder = self.folder(pool) / _CONTAINERS
        return sorted(p.name for p in folder.iterdir()) if folder.exists() else []

    def _usage(self, pool: str, ids: Sequence[str]) -> dict[str, int]:
        """One subvolume is looked up, of many the whole table is read: it is one call to the kernel."""
        numbers = {id: self._number(pool, id) for id in ids}
        bounds = (number := next(iter(numbers.values())), number) if len(numbers) == 1 else ()
        held = ioctl.exclusive_bytes(self.folder(pool), *bounds) if numbers else {}
        return {id: held[number] for id, number in numbers.items() if number in held}

    def _number(self, pool: str, id: str) -> int:
        """Return the volume's subvolume id, kept: btrfs gives none twice. 0 when there is no such volume."""
        number = self._numbers.get(id) or ioctl.subvolume_id(self._volume(pool, id))
        if number:
            self._numbers[id] = number
        return number

    def _volume(self, pool: str, id: str) -> Path:
        return self.folder(pool) / _CONTAINERS / id

    def _open(self, pool: str, source: Path) -> None:
        target = self.folder(pool)
        target.mkdir(mode=0o700, exist_ok=True)
        if not os.path.ismount(target):
            _run(["mount", "-o", _mount_options(source), str(source), str(target)])
        if _fstype(target) != "btrfs":
            _run(["umount", str(target)])
            raise Invalid("NOT_BTRFS", f"{source} holds no btrfs; make one or leave source out", about=pool)
        (target / _CONTAINERS).mkdir(mode=0o700, exist_ok=True)
        for folder in (target / _CONTAINERS,) if source.is_dir() else (target, target / _CONTAINERS):
            folder.chmod(0o700)  # but not somebody's own folder: its owner decides

    def _close(self, pool: str, config: dict[str, str]) -> None:
        target = self.folder(pool)
        if os.path.ismount(target):
            with contextlib.suppress(OSError):
                (target / _CONTAINERS).rmdir()
            _run(["umount", str(target)])
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()  # never more than the empty mount point: the source may be somebody's own
        own = self._disks / f"{pool}.img"
        if config.get("source", str(own)) == str(own):
            own.unlink(missing_ok=True)


def _mount_options(source: Path) -> str:
    """Return options that hold for this mount, not for the overlays of guests above it."""
    kind = "loop," if source.is_file() else "bind," if source.is_dir() else ""
    return f"{kind}nosuid,nodev"


def unavailable_because() -> str:
    """Return why this host cannot run the driver; empty when it can."""
    if not shutil.which("mkfs.btrfs"):
        return "btrfs-progs is not installed"
    filesystems = Path("/proc/filesystems").read_text().split()
    return "" if "btrfs" in filesystems else "the kernel has no btrfs"


def _version() -> str:
    done = subprocess.run(["btrfs", "--version"], capture_output=True, text=True, timeout=10, check=False)
    match = re.search(r"v([0-9.]+)", done.stdout)
    return match[1] if match else ""


def _default_size(folder: Path) -> int:
    free = shutil.disk_usage(folder).free
    return min(max(free // 5, 5 * _GIB), 30 * _GIB) // _GIB * _GIB


def _make_loop_file(path: Path, size: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)
    try:
        _run(["mkfs.btrfs", "-q", str(path)])
    except WrongState:
        path.unlink()
        raise


def _check_source(source: Path) -> None:
    """See that a source given by the user is fit, and make a file system on a blank device.

    Raises: Invalid; what is on the source stays as it is.
    """
    if not source.is_absolute() or not source.exists():
        raise Invalid("NO_SOURCE", f"{source} does not exist here; give a whole path", about=str(source))
    if source.is_block_device() and not (found := _signature(source)):
        _run(["mkfs.btrfs", "-q", str(source)])
    elif source.is_block_device() and found != "btrfs":
        raise Invalid(
            "SOURCE_USED", f"{source} holds {found}; wipe it first if that may go", about=str(source)
        )


def _signature(device: Path) -> str:
    """Return the type of what a device holds; empty when it is blank. Source: blkid(8), exit status 2."""
    done = subprocess.run(
        ["blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE", str(device)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode not in (0, 2):
        raise WrongState("STORAGE_FAILED", f"blkid could not read {device}: {done.stderr.strip()[:200]}")
    return done.stdout.strip().replace("\n", ", ")


def _is_nearly_full(folder: Path) -> bool:
    found = os.statvfs(folder)
    return found.f_bavail < found.f_blocks // _NEARLY_FULL


def _fstype(path: Path) -> str:
    return _run(["stat", "-f", "-c", "%T", str(path)]).strip()


def _run(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as exc:
        raise WrongState("STORAGE_FAILED", f"{argv[0]} did not end in 120 s", about=argv[0]) from exc
    if done.returncode:
        raise WrongState("STORAGE_FAILED", f"{argv[0]} failed: {done.stderr.strip()[:300]}", about=argv[0])
    return done.stdout


async def _btrfs(*args: str) -> str:
    return await asyncio.to_thread(_run, ["btrfs", *args])


def _ensure_subvolume(path: Path) -> None:
    if not path.exists():
        ioctl.create_subvolume(path)
        path.chmod(0o700)


def _remove_subvolume(path: Path) -> None:
    if not path.exists():
        return
    qgroup = ioctl.subvolume_id(path)
    try:
        ioctl.destroy_subvolume(path)
    except OSError as exc:
        if exc.errno != errno.ENOTEMPTY:
            raise
        for nested in ioctl.nested_subvolumes(path):
            _remove_subvolume(nested)
        ioctl.destroy_subvolume(path)
    if qgroup:
        subprocess.run(
            ["btrfs", "qgroup", "destroy", f"0/{qgroup}", str(path.parent)], capture_output=True, check=False
        )
