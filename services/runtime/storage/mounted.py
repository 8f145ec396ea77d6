"""What drivers share whose volumes are file systems of their own, each mounted where its folder is.

A volume has a name in its pool, KIND/ID. It is put together as KIND/new:ID and renamed when it is whole;
what it replaces is KIND/old:ID meanwhile. Whatever died half-way tells by these names how to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from core.errors import WrongState
from services.runtime.ports import PoolSpace, VolumeKind
from services.runtime.storage import folders
from services.runtime.storage.tree import sync

_CONTAINERS = VolumeKind.CONTAINERS
P = TypeVar("P")
_NEW, _OLD = "new:", "old:"


def new_name(name: str) -> str:
    kind, _, id = name.partition("/")
    return f"{kind}/{_NEW}{id}"


def old_name(name: str) -> str:
    kind, _, id = name.partition("/")
    return f"{kind}/{_OLD}{id}"


def is_whole(name: str) -> bool:
    return not name.partition("/")[2].startswith((_NEW, _OLD))


def wanted_names(names: Sequence[str]) -> set[str]:
    """Return the volumes that there are, or are once replacing them is finished."""
    return {name.replace(f"/{_OLD}", "/") for name in names if f"/{_NEW}" not in name}


def settle_steps(name: str, names: set[str]) -> list[tuple[str, ...]]:
    """Return what is left to do of a volume's replacement: ("rename", FROM, TO) and ("destroy", NAME).

    The old one only steps aside for a new one that is whole.
    """
    new, old = new_name(name), old_name(name)
    if old not in names:
        return []
    if name in names:
        return [("destroy", old)]
    if new in names:
        return [("rename", new, name), ("destroy", old)]
    return [("rename", old, name)]


class MountedDriver(ABC):
    """Implements the volumes of ports.StorageDriver upon a few steps of a volume manager, which all block."""

    is_instant = True
    has_quotas = True

    def __init__(self, state_dir: Path) -> None:
        self._pools = state_dir / "pools"
        self._disks = state_dir / "disks"
        for folder in (self._pools, self._disks):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        self._mounting = threading.Lock()

    @abstractmethod
    def _names(self, pool: str) -> set[str]:
        """Return the names of all volumes, whole or not."""

    @abstractmethod
    def _create(self, pool: str, name: str, size: int) -> None: ...

    @abstractmethod
    def _copy(self, pool: str, source: str, name: str) -> None:
        """Make a volume that holds what the mounted *source* holds at one moment."""

    @abstractmethod
    def _rename(self, pool: str, old: str, new: str) -> None: ...

    @abstractmethod
    def _destroy(self, pool: str, name: str) -> None:
        """Remove an unmounted volume, whatever was copied from it."""

    @abstractmethod
    def _limit(self, pool: str, name: str, size: int) -> None: ...

    @abstractmethod
    def _mount(self, pool: str, name: str, target: Path) -> None: ...

    def folder(self, pool: str) -> Path:
        return self._pools / pool

    def volume(self, pool: str, id: str, kind: VolumeKind = _CONTAINERS) -> Path:
        return folders.volume_folder(self.folder(pool), id, kind)

    async def ensure_volume(
        self, pool: str, id: str, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        return await asyncio.to_thread(self._ensure, pool, id, kind, size, None)

    async def clone_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        return await asyncio.to_thread(self._ensure, pool, id, kind, size, source)

    async def replace_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        return await asyncio.to_thread(self._build, pool, id, kind, size, source)

    async def refresh_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        if self._name_of(pool, source):
            return await self.replace_volume(pool, id, source, kind=kind, size=size)
        volume = await self.ensure_volume(pool, id, kind=kind, size=size)
        await asyncio.to_thread(folders.bring_up, volume, source, kind)
        return volume

    async def set_quota(self, pool: str, id: str, size: int, *, kind: VolumeKind = _CONTAINERS) -> None:
        await asyncio.to_thread(self._limit, pool, f"{kind}/{id}", size)

    async def delete_volume(self, pool: str, id: str, *, kind: VolumeKind = _CONTAINERS) -> None:
        await asyncio.to_thread(self._delete, pool, id, kind)

    async def settle(self, pool: str) -> None:
        await asyncio.to_thread(self._sync, pool)

    async def volumes(self, pool: str, *, kind: VolumeKind = _CONTAINERS) -> list[str]:
        names = wanted_names(sorted(await asyncio.to_thread(self._names, pool)))
        return sorted(name.removeprefix(f"{kind}/") for name in names if name.startswith(f"{kind}/"))

    def _sync(self, pool: str) -> None:
        for target in mounted_below(self.folder(pool)):
            with contextlib.suppress(FileNotFoundError):
                sync(target)

    def _ensure(self, pool: str, id: str, kind: VolumeKind, size: int, source: Path | None) -> Path:
        volume, name = self.volume(pool, id, kind), f"{kind}/{id}"
        if not folders.is_mounted(volume):
            if name not in self._finished(pool, name):
                return self._build(pool, id, kind, size, source)
            self._show(pool, name, volume)
        if source is None:
            folders.with_layers(volume, kind)
            if size:
                self._limit(pool, name, size)
        return volume

    def _build(self, pool: str, id: str, kind: VolumeKind, size: int, source: Path | None) -> Path:
        """Put a volume together out of sight, and let it be the volume."""
        volume, name = self.volume(pool, id, kind), f"{kind}/{id}"
        self._drop(pool, new_name(name), folders.unfinished(volume), self._finished(pool, name))
        if source and (origin := self._name_of(pool, source)):
            self._copy(pool, origin, new_name(name))
            self._fill(pool, volume, kind, lambda folder: folders.forget_work(folder, kind))
        else:
            self._create(pool, new_name(name), size)
            self._fill(pool, volume, kind, lambda folder: _begin(folder, kind, source))
        self._limit(pool, new_name(name), size)
        self._swap(pool, name, volume)
        return volume

    def _fill(self, pool: str, volume: Path, kind: VolumeKind, fill: Callable[[Path], None]) -> None:
        made = folders.unfinished(volume)
        self._show(pool, new_name(f"{kind}/{volume.name}"), made)
        fill(made)
        sync(made)  # else a host that loses power could have the name without the content
        folders.unmount(made)

    def _swap(self, pool: str, name: str, volume: Path) -> None:
        if name in self._names(pool):
            folders.unmount(volume)
            self._rename(pool, name, old_name(name))
            self._finished(pool, name)
        else:
            self._rename(pool, new_name(name), name)
        self._show(pool, name, volume)

    def _finished(self, pool: str, name: str) -> set[str]:
        """Bring a volume's replacement to its end, and return the names that there are then."""
        names = self._names(pool)
        if not (steps := settle_steps(name, names)):
            return names
        for step, *about in steps:
            (self._rename if step == "rename" else self._destroy)(pool, *about)
        return self._names(pool)

    def _drop(self, pool: str, name: str, target: Path, names: set[str]) -> None:
        folders.unmount(target)
        if name in names:
            self._destroy(pool, name)

    def _delete(self, pool: str, id: str, kind: VolumeKind) -> None:
        volume, name = self.volume(pool, id, kind), f"{kind}/{id}"
        names = self._finished(pool, name)
        self._drop(pool, new_name(name), folders.unfinished(volume), names)
        self._drop(pool, name, volume, names)

    def _show(self, pool: str, name: str, target: Path) -> None:
        with self._mounting:
            target.mkdir(mode=0o700, exist_ok=True)
            if not folders.is_mounted(target):
                self._mount(pool, name, target)

    def _show_all(self, pool: str) -> None:
        """Mount all volumes of a pool that is mounted itself, free of what died half-way."""
        folders.ensure_kinds(self.folder(pool))
        names = self._names(pool)
        for name in wanted_names(sorted(names)):
            if old_name(name) in names:
                self._finished(pool, name)
        for name in sorted(self._names(pool)):
            kind, _, id = name.partition("/")
            if is_whole(name):
                self._show(pool, name, self.volume(pool, id, VolumeKind(kind)))
            else:
                whole = self.volume(pool, id.removeprefix(_NEW), VolumeKind(kind))
                self._drop(pool, name, folders.unfinished(whole), {name})

    def _hide_all(self, pool: str) -> None:
        """Unmount the volumes and then the pool. Repeatable."""
        for target in mounted_below(self.folder(pool)):
            folders.run(["umount", str(target)])
        folders.unmount(self.folder(pool))

    def _name_of(self, pool: str, source: Path) -> str:
        """Return the name of the volume of this pool whose folder *source* is; empty when it is none."""
        try:
            kind, id = source.relative_to(self.folder(pool)).parts
        except ValueError:
            return ""
        return f"{kind}/{id}" if kind in set(VolumeKind) and folders.is_mounted(source) else ""


def mounted_below(folder: Path) -> list[Path]:
    """Return what is mounted below a folder, the deepest first."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    paths = (Path(point.replace("\\040", " ").replace("\\134", "\\")) for point in points)
    return sorted((p for p in paths if folder in p.parents), key=lambda p: len(p.parts), reverse=True)


def _begin(folder: Path, kind: VolumeKind, source: Path | None) -> None:
    folder.chmod(0o700 if kind is _CONTAINERS else 0o711)
    with contextlib.suppress(OSError):
        (folder / "lost+found").rmdir()
    if source:
        folders.bring_up(folder, source, kind)
    folders.with_layers(folder, kind)


class ManagedDriver(MountedDriver, Generic[P]):
    """Implements the pools of ports.StorageDriver upon steps of a volume manager, which all block.

    P: where a pool lies, as the driver's plan describes it.
    """

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self._open_pools: dict[str, tuple[P, dict[str, str]]] = {}

    async def check_pool(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._check, pool, config)

    async def create_pool(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        return await asyncio.to_thread(self._make, pool, config)

    async def ensure_open(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._open, pool, config)

    async def change_pool(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None:
        await asyncio.to_thread(self._change, pool, old, new)

    async def close_pool(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._close, pool, config)

    async def delete_pool(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._remove, pool, config)

    async def undo_create(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._remove, pool, config)

    async def space(self, pool: str) -> PoolSpace:
        return await asyncio.to_thread(self._space, pool)

    def _opened(self, pool: str) -> tuple[P, dict[str, str]]:
        if pool not in self._open_pools:
            raise WrongState("POOL_NOT_READY", f"Storage pool {pool!r} is not open", about=pool)
        return self._open_pools[pool]

    @abstractmethod
    def _check(self, pool: str, config: dict[str, str]) -> None: ...

    @abstractmethod
    def _make(self, pool: str, config: dict[str, str]) -> dict[str, str]: ...

    @abstractmethod
    def _open(self, pool: str, config: dict[str, str]) -> None: ...

    @abstractmethod
    def _change(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None: ...

    @abstractmethod
    def _close(self, pool: str, config: dict[str, str]) -> None: ...

    @abstractmethod
    def _remove(self, pool: str, config: dict[str, str]) -> None: ...

    @abstractmethod
    def _space(self, pool: str) -> PoolSpace: ...
