"""Driver "zfs": a volume is a dataset, a copy a clone of a snapshot, the bound its quota.

The pool is a zpool in a file or on a blank device that we make, or lies below an existing zpool or dataset.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from core.errors import Invalid, Unsupported, WrongState
from core.units import parse_bool, parse_bytes
from services.runtime.ports import PoolSpace, VolumeKind
from services.runtime.storage import folders, sources, zfs_plan
from services.runtime.storage.folders import run
from services.runtime.storage.mounted import ManagedDriver
from services.runtime.storage.zfs_plan import Place

_CONTAINERS = VolumeKind.CONTAINERS
_VERSION = Path("/sys/module/zfs/version")
_TOOLS = ("zpool", "zfs", "mount.zfs")
_FILESYSTEMS = ["zfs", "list", "-H", "-p", "-t", "filesystem"]
_SNAPSHOTS = ["zfs", "list", "-H", "-p", "-t", "snapshot", "-o", "name,clones"]


class ZfsDriver(ManagedDriver[Place]):
    """Implements ports.StorageDriver: ROOT is mounted at <state>/pools/POOL, ROOT/KIND/ID below it."""

    name = "zfs"

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.version = _version()

    async def usage(self, pool: str, ids: Sequence[str], *, kind: VolumeKind = _CONTAINERS) -> dict[str, int]:
        table = [*_FILESYSTEMS, "-d", "1", "-o", "name,used", f"{self._root(pool)}/{kind}"]
        found = zfs_plan.sizes_in(await asyncio.to_thread(run, table))
        return {id: found[id] for id in ids if id in found}

    # --- pools ---

    def _check(self, pool: str, config: dict[str, str]) -> None:
        place = zfs_plan.place_of(pool, config, self._disks)
        if place.is_file and place.vdev and place.vdev.exists():
            raise folders.left_over(place.vdev)
        if place.vdev and not place.is_file:
            _check_device(place.vdev)
        has = place.zpool in _zpools()
        if place.vdev and has:
            raise Invalid(
                "SOURCE_USED", f"There is a zpool {place.zpool} already; give another zfs.pool_name"
            )
        if not place.vdev and not has:
            raise Invalid("NO_SOURCE", f"There is no zpool {place.zpool} here", about=place.base)
        if not place.vdev and _exists(place.root):
            raise Invalid("SOURCE_USED", f"{place.root} is there already; use another source")

    def _make(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        self._check(pool, config)
        place, mark = zfs_plan.place_of(pool, config, self._disks), str(self.folder(pool))
        filled = {**config, "source": place.source, "zfs.pool_name": place.base}
        if config.get("source"):
            filled["volatile.initial_source"] = config["source"]
        if place.is_file and place.vdev:
            size = parse_bytes(config["size"]) if config.get("size") else sources.default_size(self._disks)
            filled["size"] = config.get("size") or f"{size // sources.GIB}GiB"
            sources.make_file(place.vdev, size)
        if place.vdev:
            run(zfs_plan.make_zpool(place, mark))
        elif not _exists(place.base):
            run(zfs_plan.make_base(place, mark))
        run(zfs_plan.make_root(place, mark))
        self._open(pool, filled)
        return filled

    def _open(self, pool: str, config: dict[str, str]) -> None:
        place, target = zfs_plan.place_of(pool, config, self._disks), self.folder(pool)
        _import(place)
        target.mkdir(mode=0o700, exist_ok=True)
        if not folders.is_mounted(target):
            run(zfs_plan.mount(place.root, target))
        target.chmod(0o700)
        for kind in VolumeKind:
            if not _exists(f"{place.root}/{kind}"):
                run(["zfs", "create", f"{place.root}/{kind}"])
        self._open_pools[pool] = (place, config)
        self._show_all(pool)
        for snapshot in zfs_plan.unused_snapshots(run([*_SNAPSHOTS, "-r", place.root])):
            run(["zfs", "destroy", snapshot])

    def _change(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None:
        place = zfs_plan.place_of(pool, old, self._disks)
        if new.get("zfs.pool_name", place.base) != place.base:
            raise Unsupported("FIXED", "zfs.pool_name cannot be changed; make another pool")
        if old.get("size") != new.get("size"):
            _grow(place, parse_bytes(new.get("size") or "0"))
        self._open_pools[pool] = (place, new)

    def _close(self, pool: str, config: dict[str, str]) -> None:
        place = zfs_plan.place_of(pool, config, self._disks)
        self._hide_all(pool)
        if place.vdev and parse_bool(config.get("zfs.export") or "true") and place.zpool in _zpools():
            run(["zpool", "export", place.zpool])
        self._open_pools.pop(pool, None)

    def _remove(self, pool: str, config: dict[str, str]) -> None:
        """Remove what bears our mark, and nothing else. Repeatable, and after any half of _make."""
        place, mark = zfs_plan.place_of(pool, config, self._disks), str(self.folder(pool))
        self._hide_all(pool)
        with suppress(WrongState):  # there is none to import where it was never made, or is gone
            _import(place)
        if _mark(place.root) == mark:
            run(["zfs", "destroy", "-r", place.root])
        if place.vdev and _mark(place.zpool) == mark:
            run(["zpool", "destroy", place.zpool])
        elif "/" in place.base and _mark(place.base) == mark:
            with suppress(WrongState):  # somebody put something of his own into it
                run(["zfs", "destroy", place.base])
        if place.is_file and place.vdev:
            place.vdev.unlink(missing_ok=True)
        self._open_pools.pop(pool, None)

    def _space(self, pool: str) -> PoolSpace:
        row = run([*_FILESYSTEMS, "-d", "0", "-o", "used,available", self._root(pool)]).split()
        used, free = int(row[0]), int(row[1])
        return replace(folders.space_of(self.folder(pool)), used=used, total=used + free)

    def _root(self, pool: str) -> str:
        return self._opened(pool)[0].root

    # --- volumes ---

    def _names(self, pool: str) -> set[str]:
        root = self._root(pool)
        return zfs_plan.names_in(run([*_FILESYSTEMS, "-d", "2", "-o", "name", root]), root)

    def _create(self, pool: str, name: str, size: int) -> None:
        run(["zfs", "create", f"{self._root(pool)}/{name}"])

    def _copy(self, pool: str, source: str, name: str) -> None:
        place, config = self._opened(pool)
        snapshot = f"{place.root}/{source}@{zfs_plan.SNAPSHOT}{uuid.uuid4().hex}"
        run(["zfs", "snapshot", snapshot])
        if config.get("zfs.clone_copy") != "false":
            run(["zfs", "clone", snapshot, f"{place.root}/{name}"])
            return
        try:
            _send(snapshot, f"{place.root}/{name}")
            run(["zfs", "destroy", f"{place.root}/{name}@{snapshot.partition('@')[2]}"])
        finally:
            run(["zfs", "destroy", snapshot])

    def _rename(self, pool: str, old: str, new: str) -> None:
        run(["zfs", "rename", "-u", f"{self._root(pool)}/{old}", f"{self._root(pool)}/{new}"])

    def _destroy(self, pool: str, name: str) -> None:
        """What was cloned from it becomes the owner of the snapshot between them first."""
        place, config = self._opened(pool)
        dataset = f"{place.root}/{name}"
        while clones := zfs_plan.clones_in(run([*_SNAPSHOTS, "-d", "1", dataset])):
            _promote(clones[0], config)
        origin = _get("origin", dataset)
        run(["zfs", "destroy", "-r", dataset])
        if f"@{zfs_plan.SNAPSHOT}" in origin and zfs_plan.unused_snapshots(run([*_SNAPSHOTS, origin])):
            run(["zfs", "destroy", origin])

    def _limit(self, pool: str, name: str, size: int) -> None:
        place, config = self._opened(pool)
        _bound(f"{place.root}/{name}", size, config)

    def _sync(self, pool: str) -> None:
        run(["zpool", "sync", self._opened(pool)[0].zpool])

    def _mount(self, pool: str, name: str, target: Path) -> None:
        run(zfs_plan.mount(f"{self._root(pool)}/{name}", target))


def _bound(dataset: str, size: int, config: dict[str, str]) -> None:
    """Bound a dataset, by what it holds where that is more: zfs takes no bound below. Raises: WrongState."""
    try:
        run(["zfs", "set", *zfs_plan.bounds(size, config), dataset])
    except WrongState:
        if not size:
            raise
        held = max(int(_get("used", dataset)), int(_get("referenced", dataset)))
        run(["zfs", "set", *zfs_plan.bounds(zfs_plan.least_bound(size, held), config), dataset])


def _promote(clone: str, config: dict[str, str]) -> None:
    """Let a clone own the snapshot it was made of; what that adds to it must not meet its bound.

    Who dies in between leaves no bound, until the volume is next brought up.
    """
    size = max(int(_get("quota", clone)), int(_get("refquota", clone)))
    _bound(clone, 0, config)
    run(["zfs", "promote", clone])
    if size:
        _bound(clone, size, config)


def unavailable_because() -> str:
    """Return what this host lacks for the driver; empty when it has all."""
    return "; ".join(zfs_plan.lacks({tool: shutil.which(tool) for tool in _TOOLS}, _version()))


def _version() -> str:
    """Return the version of the loaded module; empty when there is none."""
    return _VERSION.read_text().strip() if _VERSION.exists() else ""


def _check_device(device: Path) -> None:
    if not device.is_block_device():
        raise Invalid("NO_SOURCE", f"{device} is no block device here", about=str(device))
    if found := sources.signature(device):
        raise sources.used(device, found)


def _zpools() -> list[str]:
    return run(["zpool", "list", "-H", "-o", "name"]).split()


def _import(place: Place) -> None:
    if place.zpool not in _zpools():
        run(zfs_plan.import_zpool(place))


def _exists(dataset: str) -> bool:
    zpool, depth = dataset.partition("/")[0], dataset.count("/")
    if zpool not in _zpools():
        return False
    return dataset in run([*_FILESYSTEMS, "-d", str(depth), "-o", "name", zpool]).splitlines()


def _get(name: str, dataset: str) -> str:
    return run(["zfs", "get", "-H", "-p", "-o", "value", name, dataset]).strip()


def _mark(dataset: str) -> str:
    """Return whose the dataset is by itself; empty when it is not there or nobody's."""
    if not _exists(dataset):
        return ""
    return run(["zfs", "get", "-H", "-o", "value", "-s", "local", zfs_plan.MARK, dataset]).strip()


def _grow(place: Place, size: int) -> None:
    """Let the file and the zpool in it grow. Repeatable."""
    if not place.is_file or place.vdev is None:
        raise Unsupported("NOT_OURS", f"{place.source} is not Podium's to resize; leave size out")
    if size < place.vdev.stat().st_size:
        raise Invalid("SHRINKS", "A pool in a file can only grow; give a larger size", about="size")
    os.truncate(place.vdev, size)
    run(["zpool", "online", "-e", place.zpool, str(place.vdev)])


def _send(snapshot: str, target: str) -> None:
    """Copy a snapshot's content to a new dataset; as long as it takes. Raises: WrongState."""
    with subprocess.Popen(
        ["zfs", "send", snapshot], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as sent:
        done = subprocess.run(
            ["zfs", "receive", "-u", target], stdin=sent.stdout, capture_output=True, text=True, check=False
        )
        if sent.stdout:
            sent.stdout.close()
    if done.returncode or sent.returncode:
        raise WrongState("STORAGE_FAILED", f"zfs could not copy {snapshot}: {done.stderr.strip()[:300]}")
