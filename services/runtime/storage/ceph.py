"""Driver "ceph": a volume is an RBD image with a file system, a copy the clone of its snapshot.

The pool lies in an OSD pool: an existing one, or one that is made and marked. It is open on one host only.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from core.errors import Invalid, Unsupported, WrongState
from core.units import parse_bool, parse_bytes
from services.runtime.ports import PoolSpace, VolumeKind
from services.runtime.storage import ceph_plan, folders, sources
from services.runtime.storage.ceph_plan import Place
from services.runtime.storage.folders import run
from services.runtime.storage.lvm_plan import grow_filesystem, make_filesystem, mount
from services.runtime.storage.mounted import ManagedDriver, mounted_below

_CONTAINERS = VolumeKind.CONTAINERS
_TOOLS = ("ceph", "rbd", "mkfs.ext4")
_MODULES = Path("/sys/module")
_MACHINE = Path("/etc/machine-id")
_FREEZE, _THAW = 0xC0045877, 0xC0045878  # FIFREEZE and FITHAW of linux/fs.h
_COPY_S = 24 * 3600
_FIXED = ("source", "ceph.cluster_name", "ceph.user.name", "ceph.osd.pool_name", "ceph.osd.pg_num")


class CephDriver(ManagedDriver[Place]):
    """Implements ports.StorageDriver: its root image is mounted at <state>/pools/POOL."""

    name = "ceph"
    version = "rbd"

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        # A snapshot that nothing is cloned from yet looks like one that nothing needs any more.
        self._linking = threading.Lock()

    async def usage(self, pool: str, ids: Sequence[str], *, kind: VolumeKind = _CONTAINERS) -> dict[str, int]:
        """What the file systems hold: Ceph itself would have to look at every object."""
        volumes = {id: self.volume(pool, id, kind) for id in ids}
        return await asyncio.to_thread(
            lambda: {id: folders.space_of(at).used for id, at in volumes.items() if folders.is_mounted(at)}
        )

    # --- pools ---

    def _check(self, pool: str, config: dict[str, str]) -> None:
        place = ceph_plan.place_of(pool, config)
        ceph_plan.features_of(config)
        if place.osd not in _osd_pools(place):
            return
        has = ceph_plan.applications_in(run(ceph_plan.applications(place)))
        if has and "rbd" not in has:
            why = f"The OSD pool {place.osd} is used for {next(iter(has))}; give another ceph.osd.pool_name"
            raise Invalid("SOURCE_USED", why, about=place.osd)
        if _has(place, ceph_plan.ROOT):
            raise folders.left_over(Path(place.image(ceph_plan.ROOT)))

    def _make(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        """The root image gets its name when it is marked and has its file system: so it is there or not."""
        self._check(pool, config)
        place, mark, root = ceph_plan.place_of(pool, config), self._mark(pool), ceph_plan.NEW_ROOT
        filled = {**config, "source": place.osd, "ceph.osd.pool_name": place.osd}
        filled |= {"ceph.cluster_name": place.cluster, "ceph.user.name": place.user}
        if config.get("source"):
            filled["volatile.initial_source"] = config["source"]
        if place.osd not in _osd_pools(place):
            for step in ceph_plan.make_osd_pool(place, mark):
                run(step)
        run(place.rbd("pool", "init", place.osd))
        self._forget_root(place, mark)
        run(ceph_plan.make_image(place, root, ceph_plan.ROOT_SIZE, ceph_plan.features_of(config)))
        run(place.rbd("image-meta", "set", place.image(root), ceph_plan.OWNER, mark))
        run(make_filesystem("ext4", _mapped(place, root)))
        _rename(place, root, ceph_plan.ROOT)
        self._open(pool, filled)
        return filled

    def _forget_root(self, place: Place, mark: str) -> None:
        """Remove what died before it was the root of anything."""
        if _has(place, ceph_plan.NEW_ROOT) and _owner(place, ceph_plan.NEW_ROOT) in ("", mark):
            _unmap(place, ceph_plan.NEW_ROOT)
            run(place.rbd("rm", "--no-progress", place.image(ceph_plan.NEW_ROOT)))

    def _open(self, pool: str, config: dict[str, str]) -> None:
        place, target, mark = ceph_plan.place_of(pool, config), self.folder(pool), self._mark(pool)
        if _owner(place, ceph_plan.ROOT) != mark:
            command = f"rbd image-meta set {place.image(ceph_plan.ROOT)} {ceph_plan.OWNER} {mark}"
            why = f"Storage pool {pool!r} is another host's; when that lets go of it: {command}"
            raise WrongState("POOL_ELSEWHERE", why, about=pool)
        target.mkdir(mode=0o700, exist_ok=True)
        if not folders.is_mounted(target):
            run(mount("ext4", _mapped(place, ceph_plan.ROOT), target))
        target.chmod(0o700)
        for held in mounted_below(target):
            _thaw(held)  # where one died in the moment of a snapshot
        self._open_pools[pool] = (place, config)
        self._show_all(pool)
        self._sweep(place)

    def _change(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None:
        for key in _FIXED:
            if new.get(key, "") != old.get(key, ""):
                raise Unsupported("FIXED", f"{key} cannot be changed; make another pool", about=key)
        ceph_plan.features_of(new)
        self._open_pools[pool] = (ceph_plan.place_of(pool, old), new)

    def _close(self, pool: str, config: dict[str, str]) -> None:
        self._hide_all(pool)
        place = ceph_plan.place_of(pool, config)
        if _is_ours(place, self._mark(pool)):
            for image in _devices(place):
                if name := ceph_plan.name_of(pool, image):
                    _unmap(place, name)
        self._open_pools.pop(pool, None)

    def _remove(self, pool: str, config: dict[str, str]) -> None:
        """Remove what bears our mark, and nothing else. Repeatable, and after any half of _make."""
        place, mark = ceph_plan.place_of(pool, config), self._mark(pool)
        self._close(pool, config)
        if place.osd not in _osd_pools(place):
            return
        if _is_ours(place, mark):
            for name in sorted(ceph_plan.volumes_in(pool, _images(place))):
                _rename(place, name, f"gone/{uuid.uuid4().hex}")
            self._sweep(place)
            run(place.rbd("rm", "--no-progress", place.image(ceph_plan.ROOT)))
        self._forget_root(place, mark)
        made = ceph_plan.applications_in(run(ceph_plan.applications(place))).get("rbd", {})
        if made.get(ceph_plan.MADE) == mark and not _images(place):
            run(ceph_plan.remove_osd_pool(place))

    def _space(self, pool: str) -> PoolSpace:
        place = self._opened(pool)[0]
        used, total = ceph_plan.space_in(run(place.ceph("df", "--format", "json")), place.osd)
        return replace(folders.space_of(self.folder(pool)), used=used, total=total)

    def _mark(self, pool: str) -> str:
        return ceph_plan.mark_of(self.folder(pool), _MACHINE.read_text() if _MACHINE.exists() else "")

    def _sweep(self, place: Place) -> None:
        with self._linking:
            for step in ceph_plan.sweep(place, ceph_plan.rows_in(run(ceph_plan.table(place)), place.osd)):
                run(step, timeout_s=_COPY_S)

    # --- volumes ---

    def _names(self, pool: str) -> set[str]:
        return ceph_plan.volumes_in(pool, _images(self._opened(pool)[0]))

    def _create(self, pool: str, name: str, size: int) -> None:
        place, config = self._opened(pool)
        size = size or parse_bytes(config.get("volume.size") or "0") or ceph_plan.DEFAULT_SIZE
        run(ceph_plan.make_image(place, name, size, ceph_plan.features_of(config)))
        run(make_filesystem(config.get("volume.block.filesystem") or "ext4", _mapped(place, name)))

    def _copy(self, pool: str, source: str, name: str) -> None:
        place, config = self._opened(pool)
        snapshot = f"{place.image(source)}@{ceph_plan.SNAPSHOT}{uuid.uuid4().hex}"
        with self._linking:
            with _frozen(self._folder_of(pool, source)):
                run(place.rbd("snap", "create", "--no-progress", snapshot))
            if parse_bool(config.get("ceph.rbd.clone_copy") or "true"):
                run(place.rbd("snap", "protect", snapshot))
                run(ceph_plan.clone(place, snapshot, name, ceph_plan.features_of(config)))
                return
            try:
                run(place.rbd("cp", "--no-progress", snapshot, place.image(name)), timeout_s=_COPY_S)
            finally:
                run(place.rbd("snap", "rm", "--no-progress", snapshot))

    def _rename(self, pool: str, old: str, new: str) -> None:
        _rename(self._opened(pool)[0], old, new)

    def _destroy(self, pool: str, name: str) -> None:
        """What was cloned from it needs its objects: it goes with the last of those."""
        place = self._opened(pool)[0]
        _rename(place, name, f"gone/{uuid.uuid4().hex}")
        self._sweep(place)

    def _limit(self, pool: str, name: str, size: int) -> None:
        """Let a volume and its file system grow, mounted or not; 0 leaves it. Raises: Invalid for less."""
        place = self._opened(pool)[0]
        if not size:
            return
        has = ceph_plan.size_in(run(place.rbd("info", "--format", "json", place.image(name))))
        if wanted := ceph_plan.growth(size, has):
            run(place.rbd("resize", "--no-progress", "--size", f"{wanted}B", place.image(name)))
        target = self._folder_of(pool, name)
        if folders.is_mounted(target):  # also where one died after the image had grown
            device = _mapped(place, name)
            run(grow_filesystem(sources.signature(device), device, target))

    def _folder_of(self, pool: str, name: str) -> Path:
        kind, _, id = name.partition("/")
        target = self.volume(pool, id.removeprefix("new:"), VolumeKind(kind))
        return folders.unfinished(target) if id.startswith("new:") else target

    def _mount(self, pool: str, name: str, target: Path) -> None:
        device = _mapped(self._opened(pool)[0], name)
        kind = sources.signature(device)
        run(mount(kind, device, target))
        run(grow_filesystem(kind, device, target))


def unavailable_because() -> str:
    """Return what this host lacks for the driver; empty when it has all."""
    has_module = (_MODULES / "rbd").exists()
    return "; ".join(ceph_plan.lacks({tool: shutil.which(tool) for tool in _TOOLS}, has_module=has_module))


def _osd_pools(place: Place) -> list[str]:
    return ceph_plan.strings(run(place.ceph("osd", "pool", "ls", "--format", "json")))


def _images(place: Place) -> list[str]:
    return ceph_plan.strings(run(ceph_plan.images(place)))


def _has(place: Place, name: str) -> bool:
    return ceph_plan.image_name(place.pool, name) in _images(place)


def _owner(place: Place, name: str) -> str:
    words = place.rbd("image-meta", "list", "--format", "json", place.image(name))
    return ceph_plan.metadata_in(run(words)).get(ceph_plan.OWNER, "")


def _is_ours(place: Place, mark: str) -> bool:
    is_there = place.osd in _osd_pools(place) and _has(place, ceph_plan.ROOT)
    return is_there and _owner(place, ceph_plan.ROOT) == mark


def _devices(place: Place) -> dict[str, str]:
    return ceph_plan.devices_in(run(place.rbd("device", "list", "--format", "json")), place.osd)


def _mapped(place: Place, name: str) -> Path:
    """Return the device of an image, which is mapped if need be."""
    device = _devices(place).get(ceph_plan.image_name(place.pool, name), "")
    return Path(device or ceph_plan.device_in(run(place.rbd("map", place.image(name)))))


def _unmap(place: Place, name: str) -> None:
    if device := _devices(place).get(ceph_plan.image_name(place.pool, name)):
        run(place.rbd("unmap", device))


def _rename(place: Place, old: str, new: str) -> None:
    """A mapped image would be listed by its old name for ever."""
    _unmap(place, old)
    run(place.rbd("rename", place.image(old), place.image(new)))


@contextmanager
def _frozen(folder: Path) -> Iterator[None]:
    """Hold writes to a file system, all of it on its device: a snapshot of RBD knows nothing of either."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _FREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(fd, _THAW, 0)
    finally:
        os.close(fd)


def _thaw(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # mostly it is not frozen
            fcntl.ioctl(fd, _THAW, 0)
    finally:
        os.close(fd)
