"""Driver "btrfs": a volume is a subvolume that holds the overlay's layers; its qgroup is the quota.

The pool is a loop file that we make, an existing block device, or a folder on an existing btrfs.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from core.errors import Invalid, Unsupported, WrongState
from core.units import parse_bytes
from services.runtime.ports import PoolSpace, VolumeKind
from services.runtime.storage import btrfs_ioctl as ioctl
from services.runtime.storage import folders, notes, sources
from services.runtime.storage.tree import copy_tree, remove_tree, sync

_CONTAINERS = VolumeKind.CONTAINERS
_NEARLY_FULL = 8


class BtrfsDriver:
    """Implements ports.StorageDriver in <state>/pools/POOL, loop files in <state>/disks."""

    name = "btrfs"
    is_instant = True
    has_quotas = True

    def __init__(self, state_dir: Path) -> None:
        self._pools = state_dir / "pools"
        self._disks = state_dir / "disks"
        for folder, mode in ((self._pools, 0o700), (self._disks, 0o700)):
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
            folder.chmod(mode)
        self.version = _version()
        self._numbers: dict[tuple[str, VolumeKind, str], int] = {}

    def folder(self, pool: str) -> Path:
        return self._pools / pool

    def volume(self, pool: str, id: str, kind: VolumeKind = _CONTAINERS) -> Path:
        return folders.volume_folder(self.folder(pool), id, kind)

    async def check_pool(self, pool: str, config: dict[str, str]) -> None:
        own = self._disks / f"{pool}.img"
        if not config.get("source") and own.exists():
            raise folders.left_over(own)

    async def create_pool(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        filled = dict(config)
        if not config.get("source"):
            filled["source"] = str(self._disks / f"{pool}.img")
            size = parse_bytes(config["size"]) if config.get("size") else sources.default_size(self._disks)
            filled["size"] = config.get("size") or f"{size // sources.GIB}GiB"
            await asyncio.to_thread(_make_loop_file, Path(filled["source"]), size)
        else:
            filled["volatile.initial_source"] = filled["source"]
            await asyncio.to_thread(_check_source, Path(filled["source"]))
        await self.ensure_open(pool, filled)
        for kind in VolumeKind:
            if found := await self.volumes(pool, kind=kind):
                raise Invalid(
                    "SOURCE_USED",
                    f"{filled['source']} holds {len(found)} {kind} already; use another source",
                )
        await _btrfs("quota", "enable", str(self.folder(pool)))
        return filled

    async def ensure_open(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._open, pool, config)

    async def change_pool(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None:
        await asyncio.to_thread(self._change, pool, old, new)

    async def close_pool(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(folders.unmount, self.folder(pool))

    async def delete_pool(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._ensure_writable, pool)
        for kind in VolumeKind:
            for id in await self.volumes(pool, kind=kind):
                await self.delete_volume(pool, id, kind=kind)
        await asyncio.to_thread(remove_tree, self.folder(pool) / notes.FOLDER)
        await asyncio.to_thread(self._close, pool, config)

    async def undo_create(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._close, pool, config)

    async def space(self, pool: str) -> PoolSpace:
        return await asyncio.to_thread(folders.space_of, self.folder(pool))

    async def ensure_volume(
        self, pool: str, id: str, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        volume = self.volume(pool, id, kind)
        await asyncio.to_thread(_ensure_subvolume, volume, kind)
        if size:
            await self.set_quota(pool, id, size, kind=kind)
        return volume

    async def clone_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        volume = self.volume(pool, id, kind)
        if not volume.exists():
            await asyncio.to_thread(_replace, volume, source, kind, size)
        return volume

    async def replace_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        volume = self.volume(pool, id, kind)
        await asyncio.to_thread(_replace, volume, source, kind, size)
        self._numbers.pop((pool, kind, id), None)
        return volume

    async def refresh_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        if source.is_relative_to(self.folder(pool)):
            return await self.replace_volume(pool, id, source, kind=kind, size=size)
        volume = await self.ensure_volume(pool, id, kind=kind, size=size)
        await asyncio.to_thread(folders.bring_up, volume, source, kind)
        return volume

    async def set_quota(self, pool: str, id: str, size: int, *, kind: VolumeKind = _CONTAINERS) -> None:
        await asyncio.to_thread(ioctl.limit, self.volume(pool, id, kind), size)

    async def delete_volume(self, pool: str, id: str, *, kind: VolumeKind = _CONTAINERS) -> None:
        volume = self.volume(pool, id, kind)
        self._numbers.pop((pool, kind, id), None)
        needs_room = await asyncio.to_thread(_is_nearly_full, self.folder(pool))
        await asyncio.to_thread(_remove_subvolume, volume)
        if needs_room:
            # btrfs gives room back in the background, half a minute later; who deletes for room needs it now.
            await _btrfs("filesystem", "sync", str(self.folder(pool)))
            await _btrfs("subvolume", "sync", str(self.folder(pool)))

    async def usage(self, pool: str, ids: Sequence[str], *, kind: VolumeKind = _CONTAINERS) -> dict[str, int]:
        return await asyncio.to_thread(self._usage, pool, ids, kind)

    async def settle(self, pool: str) -> None:
        await asyncio.to_thread(sync, self.folder(pool))

    async def volumes(self, pool: str, *, kind: VolumeKind = _CONTAINERS) -> list[str]:
        return folders.volumes_in(self.folder(pool), kind)

    def _usage(self, pool: str, ids: Sequence[str], kind: VolumeKind) -> dict[str, int]:
        """One subvolume is looked up, of many the whole table is read: it is one call to the kernel."""
        numbers = {id: self._number(pool, id, kind) for id in ids}
        bounds = (number := next(iter(numbers.values())), number) if len(numbers) == 1 else ()
        held = ioctl.exclusive_bytes(self.folder(pool), *bounds) if numbers else {}
        return {id: held[number] for id, number in numbers.items() if number in held}

    def _number(self, pool: str, id: str, kind: VolumeKind) -> int:
        """Return the volume's subvolume id, kept: btrfs gives none twice. 0 when there is no such volume."""
        number = self._numbers.get((pool, kind, id)) or ioctl.subvolume_id(self.volume(pool, id, kind))
        if number:
            self._numbers[pool, kind, id] = number
        return number

    def _open(self, pool: str, config: dict[str, str]) -> None:
        target, source = self.folder(pool), Path(config["source"])
        kind = "loop" if source.is_file() else "bind" if source.is_dir() else ""
        folders.mount(source, target, kind, "" if kind == "bind" else _options(config))
        if _fstype(target) != "btrfs":
            folders.run(["umount", str(target)])
            raise Invalid("NOT_BTRFS", f"{source} holds no btrfs; make one or leave source out", about=pool)
        if not source.is_dir():  # but not somebody's own folder: its owner decides
            target.chmod(0o700)
        folders.ensure_kinds(target)
        folders.remove_unfinished(target, _remove_subvolume)

    def _change(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None:
        if _options(old) != _options(new) and not Path(new["source"]).is_dir():
            # "rw" first: a remount would else keep what an option that is gone had made of it.
            options = ",".join(filter(None, ("remount,rw", _options(new), "nosuid,nodev")))
            folders.run(["mount", "-o", options, str(self.folder(pool))])
        if old.get("size") != new.get("size"):
            self._resize(pool, new)

    def _ensure_writable(self, pool: str) -> None:
        """A pool that its mount options made read-only can still be deleted."""
        target = self.folder(pool)
        if folders.is_mounted(target) and os.statvfs(target).f_flag & os.ST_RDONLY:
            folders.run(["mount", "-o", "remount,rw,nosuid,nodev", str(target)])

    def _resize(self, pool: str, config: dict[str, str]) -> None:
        """Let the loop file, its device and the file system grow. Repeatable."""
        own, size = self._disks / f"{pool}.img", parse_bytes(config.get("size") or "0")
        if config["source"] != str(own):
            raise Unsupported("NOT_OURS", f"{config['source']} is not Podium's to resize; leave size out")
        if size < own.stat().st_size:
            raise Invalid("SHRINKS", "A pool in a file can only grow; give a larger size", about="size")
        os.truncate(own, size)
        for device in folders.run(["losetup", "--noheadings", "--output=NAME", "-j", str(own)]).split():
            folders.run(["losetup", "--set-capacity", device])
        folders.run(["btrfs", "filesystem", "resize", "max", str(self.folder(pool))])

    def _close(self, pool: str, config: dict[str, str]) -> None:
        target = self.folder(pool)
        if folders.is_mounted(target):
            folders.forget_kinds(target)
        folders.unmount(target)
        own = self._disks / f"{pool}.img"
        if config.get("source", str(own)) == str(own):
            own.unlink(missing_ok=True)


def _options(config: dict[str, str]) -> str:
    return config.get("btrfs.mount_options") or ""


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


def _make_loop_file(path: Path, size: int) -> None:
    sources.make_file(path, size)
    try:
        folders.run(["mkfs.btrfs", "-q", str(path)])
    except WrongState:
        path.unlink()
        raise


def _check_source(source: Path) -> None:
    """See that a source given by the user is fit, and make a file system on a blank device.

    Raises: Invalid; what is on the source stays as it is.
    """
    if not source.is_absolute() or not source.exists():
        raise Invalid("NO_SOURCE", f"{source} does not exist here; give a whole path", about=str(source))
    if source.is_block_device() and not (found := sources.signature(source)):
        folders.run(["mkfs.btrfs", "-q", str(source)])
    elif source.is_block_device() and found != "btrfs":
        raise sources.used(source, found)


def _is_nearly_full(folder: Path) -> bool:
    found = os.statvfs(folder)
    return found.f_bavail < found.f_blocks // _NEARLY_FULL


def _fstype(path: Path) -> str:
    return folders.run(["stat", "-f", "-c", "%T", str(path)]).strip()


async def _btrfs(*args: str) -> str:
    return await asyncio.to_thread(folders.run, ["btrfs", *args])


def _ensure_subvolume(path: Path, kind: VolumeKind) -> None:
    if not path.exists():
        _make_subvolume(path, kind)
    folders.with_layers(path, kind)


def _make_subvolume(path: Path, kind: VolumeKind) -> None:
    ioctl.create_subvolume(path)
    path.chmod(0o700 if kind is _CONTAINERS else 0o711)


def _replace(volume: Path, source: Path, kind: VolumeKind, size: int) -> None:
    made = folders.unfinished(volume)
    _remove_subvolume(made)
    if not _is_snapshot(source, made):
        _make_subvolume(made, kind)
        copy_tree(source, made)
        sync(made)
    ioctl.limit(made, 0)  # a snapshot has the bound of its source, which may be full
    folders.forget_work(made, kind)
    ioctl.limit(made, size)
    folders.put_in_place(made, volume, _remove_subvolume)


def _is_snapshot(source: Path, made: Path) -> bool:
    """Make a snapshot; say whether *source* lies where there can be one."""
    if not ioctl.subvolume_id(source) or source.stat().st_ino != ioctl.FIRST_INODE:
        return False
    try:
        ioctl.snapshot(source, made)
    except OSError as exc:
        if exc.errno == errno.EXDEV:
            return False
        raise
    return True


def _destroy_with_all(path: Path) -> None:
    """Destroy a subvolume, also where others lie so deep in it that no path leads there."""
    try:
        ioctl.destroy_subvolume(path)
    except OSError as exc:
        if exc.errno != errno.ENOTEMPTY:
            raise
        remove_tree(path)  # goes down folder by folder, and removes a subvolume that is empty as a folder


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
        _destroy_with_all(path)
    if qgroup:
        subprocess.run(
            ["btrfs", "qgroup", "destroy", f"0/{qgroup}", str(path.parent)], capture_output=True, check=False
        )
