"""Driver "lvm": a volume is a thin volume with a file system, a copy its snapshot, the bound its size.

The pool is a thin pool in a volume group: an existing one, or one made in a file or on a blank device.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from core.errors import Invalid, Unsupported, WrongState
from core.units import parse_bytes
from services.runtime.ports import PoolSpace, VolumeKind
from services.runtime.storage import folders, lvm_plan, sources
from services.runtime.storage.folders import run
from services.runtime.storage.lvm_plan import Place
from services.runtime.storage.mounted import ManagedDriver

_CONTAINERS = VolumeKind.CONTAINERS
_TOOLS = ("lvm", "lvcreate", "vgcreate", "thin_check", "mkfs.ext4")
_MODULES = Path("/sys/module")
_PER_VOLUME = "volume.size"


class LvmDriver(ManagedDriver[Place]):
    """Implements ports.StorageDriver: its root volume is mounted at <state>/pools/POOL."""

    name = "lvm"
    version = "2"

    async def usage(self, pool: str, ids: Sequence[str], *, kind: VolumeKind = _CONTAINERS) -> dict[str, int]:
        table = await asyncio.to_thread(_table, self._opened(pool)[0])
        found = {lvm_plan.name_of(row[0]): lvm_plan.held(row[2], row[3]) for row in table}
        return {id: found[f"{kind}/{id}"] for id in ids if f"{kind}/{id}" in found}

    # --- pools ---

    def _check(self, pool: str, config: dict[str, str]) -> None:
        place = lvm_plan.place_of(pool, config, self._disks)
        if place.disk and place.is_file and place.disk.exists():
            raise folders.left_over(place.disk)
        if place.disk and not place.is_file:
            if not place.disk.is_block_device():
                raise Invalid("NO_SOURCE", f"{place.disk} is no block device here", about=str(place.disk))
            if found := sources.signature(place.disk):
                raise sources.used(place.disk, found)
        has = place.group in _groups()
        if place.disk and has:
            why = f"There is a volume group {place.group} already; give another lvm.vg_name"
            raise Invalid("SOURCE_USED", why, about=place.group)
        if not place.disk and not has:
            raise Invalid("NO_SOURCE", f"There is no volume group {place.group} here", about=place.group)
        if has and any(row[0] == place.thin for row in _table(place)):
            raise Invalid("SOURCE_USED", f"{place.pool} is there already; give another lvm.thinpool_name")

    def _make(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        self._check(pool, config)
        place, mark = lvm_plan.place_of(pool, config, self._disks), lvm_plan.mark_of(self.folder(pool))
        filled = {
            **config,
            "source": place.source,
            "lvm.vg_name": place.group,
            "lvm.thinpool_name": place.thin,
        }
        if place.disk and place.is_file:
            size = parse_bytes(config["size"]) if config.get("size") else sources.default_size(self._disks)
            filled["size"] = config.get("size") or f"{size // sources.GIB}GiB"
            sources.make_file(place.disk, size)
        if place.disk:
            run(["vgcreate", "--addtag", mark, place.group, _attached(place)])
        run(lvm_plan.make_pool(place, mark))
        run(lvm_plan.make_volume(place, place.root, lvm_plan.ROOT_SIZE, mark))
        run(lvm_plan.make_filesystem("ext4", place.device(place.root)))
        self._open(pool, filled)
        return filled

    def _open(self, pool: str, config: dict[str, str]) -> None:
        place, target = lvm_plan.place_of(pool, config, self._disks), self.folder(pool)
        if place.is_file:
            _attached(place)
        if place.disk:
            run(["vgchange", "--activate", "y", place.group])
        target.mkdir(mode=0o700, exist_ok=True)
        if not folders.is_mounted(target):
            run(lvm_plan.mount("ext4", place.device(place.root), target))
        target.chmod(0o700)
        self._open_pools[pool] = (place, config)
        self._show_all(pool)

    def _change(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None:
        place = lvm_plan.place_of(pool, old, self._disks)
        for key, has in (("lvm.vg_name", place.group), ("lvm.thinpool_name", place.thin)):
            if new.get(key, has) != has:
                raise Unsupported("FIXED", f"{key} cannot be changed; make another pool", about=key)
        if _size_of(new) < _size_of(old):
            raise Invalid(
                "SHRINKS", "Volumes of lvm can only grow; give a larger volume.size", about=_PER_VOLUME
            )
        if old.get("size") != new.get("size"):
            _grow(place, parse_bytes(new.get("size") or "0"))
        self._open_pools[pool] = (place, new)

    def _close(self, pool: str, config: dict[str, str]) -> None:
        place = lvm_plan.place_of(pool, config, self._disks)
        self._hide_all(pool)
        if place.disk and place.group in _groups():
            run(["vgchange", "--activate", "n", place.group])
            _detach(place)
        self._open_pools.pop(pool, None)

    def _remove(self, pool: str, config: dict[str, str]) -> None:
        """Remove what bears our mark, and nothing else. Repeatable, and after any half of _make."""
        place, mark = lvm_plan.place_of(pool, config, self._disks), lvm_plan.mark_of(self.folder(pool))
        self._hide_all(pool)
        if place.is_file and place.disk and place.disk.exists():
            _attached(place)
        if place.group in _groups():
            if any(row[0] == place.thin and mark in row[4:] for row in _table(place)):
                run(["lvremove", "--yes", place.pool])
            if place.disk and any(
                mark in row for row in lvm_plan.rows(run(lvm_plan.group_tags(place.group)))
            ):
                run(["vgremove", place.group])
                run(["pvremove", _attached(place)])
        _detach(place)
        if place.is_file and place.disk:
            place.disk.unlink(missing_ok=True)
        self._open_pools.pop(pool, None)

    def _space(self, pool: str) -> PoolSpace:
        place = self._opened(pool)[0]
        row = next(row for row in _table(place) if row[0] == place.thin)
        held = lvm_plan.held(row[2], row[3])
        return replace(folders.space_of(self.folder(pool)), used=held, total=int(row[2]))

    # --- volumes ---

    def _names(self, pool: str) -> set[str]:
        place = self._opened(pool)[0]
        ours = {row[0] for row in _table(place) if row[1] == place.thin} - {place.root}
        return {lvm_plan.name_of(name) for name in ours} - {""}

    def _create(self, pool: str, name: str, size: int) -> None:
        place, config = self._opened(pool)
        run(lvm_plan.make_volume(place, name, size or _size_of(config), lvm_plan.mark_of(self.folder(pool))))
        run(lvm_plan.make_filesystem(config.get("volume.block.filesystem") or "ext4", place.device(name)))

    def _copy(self, pool: str, source: str, name: str) -> None:
        mark = lvm_plan.mark_of(self.folder(pool))
        run(lvm_plan.make_snapshot(self._opened(pool)[0], source, name, mark))

    def _rename(self, pool: str, old: str, new: str) -> None:
        place = self._opened(pool)[0]
        run(["lvrename", place.group, lvm_plan.volume_name(old), lvm_plan.volume_name(new)])

    def _destroy(self, pool: str, name: str) -> None:
        run(["lvremove", "--yes", self._opened(pool)[0].volume(name)])

    def _limit(self, pool: str, name: str, size: int) -> None:
        """Let a volume and its file system grow, mounted or not; 0 leaves it. Raises: Invalid for less."""
        place = self._opened(pool)[0]
        if not size:
            return
        has = next((int(row[2]) for row in _table(place) if lvm_plan.name_of(row[0]) == name), 0)
        extent = int(lvm_plan.rows(run(lvm_plan.group_free(place.group)))[0][1])
        if wanted := lvm_plan.growth(size, has, extent):
            run(["lvextend", "--size", f"{wanted}b", place.volume(name)])
        self._stretch(pool, name, place.device(name))

    def _stretch(self, pool: str, name: str, device: Path) -> None:
        """Let the file system fill its volume; also where one died after that had grown."""
        kind, _, id = name.partition("/")
        target = self.volume(pool, id.removeprefix("new:"), VolumeKind(kind))
        target = folders.unfinished(target) if id.startswith("new:") else target
        if folders.is_mounted(target):
            run(lvm_plan.grow_filesystem(sources.signature(device), device, target))

    def _mount(self, pool: str, name: str, target: Path) -> None:
        device = self._opened(pool)[0].device(name)
        kind = sources.signature(device)
        run(lvm_plan.mount(kind, device, target))
        run(lvm_plan.grow_filesystem(kind, device, target))


def unavailable_because() -> str:
    """Return what this host lacks for the driver; empty when it has all."""
    has_module = (_MODULES / "dm_thin_pool").exists()
    return "; ".join(lvm_plan.lacks({tool: shutil.which(tool) for tool in _TOOLS}, has_module=has_module))


def _size_of(config: dict[str, str]) -> int:
    """Return the size of volumes that have none of their own: every volume of lvm needs one."""
    return parse_bytes(config.get(_PER_VOLUME) or "0") or lvm_plan.DEFAULT_SIZE


def _groups() -> set[str]:
    return {row[0] for row in lvm_plan.rows(run(lvm_plan.groups()))}


def _table(place: Place) -> list[list[str]]:
    return lvm_plan.rows(run(lvm_plan.volumes(place)))


def _loops(file: Path) -> list[str]:
    return run(["losetup", "--noheadings", "--output=NAME", "-j", str(file)]).split()


def _attached(place: Place) -> str:
    """Return the device that the volume group is on; a file is given one."""
    if not place.is_file or place.disk is None:
        return str(place.disk)
    return next(iter(_loops(place.disk)), "") or run(["losetup", "--find", "--show", str(place.disk)]).strip()


def _detach(place: Place) -> None:
    if place.is_file and place.disk and place.disk.exists():
        for device in _loops(place.disk):
            with suppress(WrongState):  # it goes with the last who holds it
                run(["losetup", "--detach", device])


def _grow(place: Place, size: int) -> None:
    """Let the file, its device, the volume group and the thin pool grow. Repeatable."""
    if not place.is_file or place.disk is None:
        raise Unsupported("NOT_OURS", f"{place.source} is not Podium's to resize; leave size out")
    if size < place.disk.stat().st_size:
        raise Invalid("SHRINKS", "A pool in a file can only grow; give a larger size", about="size")
    os.truncate(place.disk, size)
    device = _attached(place)
    run(["losetup", "--set-capacity", device])
    run(["pvresize", device])
    free, extent = lvm_plan.rows(run(lvm_plan.group_free(place.group)))[0]
    if int(free) >= int(extent):
        run(["lvextend", "--extents", "+100%FREE", place.pool])
