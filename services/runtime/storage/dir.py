"""Driver "dir": volumes are folders; copies by what differs.

Nothing bounds a folder, so sizes are taken and not enforced, as by LXD on a file system without project
quotas; `usecases/unbounded.py` tells of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from core.errors import Invalid
from services.runtime.ports import PoolSpace, VolumeKind
from services.runtime.storage import folders, notes
from services.runtime.storage.tree import remove_tree, sync

_CONTAINERS = VolumeKind.CONTAINERS


class DirDriver:
    """Implements ports.StorageDriver in <state>/pools/POOL/KIND/ID; a folder of the user's is bound there."""

    name = "dir"
    version = "1"
    is_instant = False
    has_quotas = False

    def __init__(self, state_dir: Path) -> None:
        self._pools = state_dir / "pools"
        self._pools.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pools.chmod(0o700)

    def folder(self, pool: str) -> Path:
        return self._pools / pool

    def volume(self, pool: str, id: str, kind: VolumeKind = _CONTAINERS) -> Path:
        return folders.volume_folder(self.folder(pool), id, kind)

    async def check_pool(self, pool: str, config: dict[str, str]) -> None:
        if source := config.get("source"):
            await asyncio.to_thread(_check_source, Path(source))
        elif self.folder(pool).exists():
            raise folders.left_over(self.folder(pool))

    async def create_pool(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        filled = {**config, "source": config.get("source") or str(self.folder(pool))}
        await self.ensure_open(pool, filled)
        return filled

    async def ensure_open(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._open, self.folder(pool), Path(config["source"]))

    async def change_pool(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None:
        return None

    async def close_pool(self, pool: str, config: dict[str, str]) -> None:
        if Path(config["source"]) != self.folder(pool):
            await asyncio.to_thread(folders.unmount, self.folder(pool))

    async def delete_pool(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(self._delete, self.folder(pool))

    async def undo_create(self, pool: str, config: dict[str, str]) -> None:
        await self.delete_pool(pool, config)

    def _open(self, pool: Path, source: Path) -> None:
        if source != pool:
            folders.mount(source, pool, "bind")
        else:
            pool.mkdir(mode=0o700, exist_ok=True)
            pool.chmod(0o700)
        folders.ensure_kinds(pool)
        folders.remove_unfinished(pool, remove_tree)

    def _delete(self, pool: Path) -> None:
        if folders.is_mounted(pool):
            for name in (*VolumeKind, notes.FOLDER):
                remove_tree(pool / name)
            folders.unmount(pool)
        else:
            remove_tree(pool)

    async def space(self, pool: str) -> PoolSpace:
        return await asyncio.to_thread(folders.space_of, self.folder(pool))

    async def ensure_volume(
        self, pool: str, id: str, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        return await asyncio.to_thread(folders.make_volume, self.volume(pool, id, kind), kind)

    async def clone_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        volume = self.volume(pool, id, kind)
        if not volume.exists():
            await asyncio.to_thread(_replace, volume, source, kind)
        return volume

    async def replace_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        volume = self.volume(pool, id, kind)
        await asyncio.to_thread(_replace, volume, source, kind)
        return volume

    async def refresh_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        volume = await self.ensure_volume(pool, id, kind=kind, size=size)
        await asyncio.to_thread(folders.bring_up, volume, source, kind)
        return volume

    async def set_quota(self, pool: str, id: str, size: int, *, kind: VolumeKind = _CONTAINERS) -> None:
        return None

    async def delete_volume(self, pool: str, id: str, *, kind: VolumeKind = _CONTAINERS) -> None:
        await asyncio.to_thread(remove_tree, self.volume(pool, id, kind))

    async def usage(self, pool: str, ids: Sequence[str], *, kind: VolumeKind = _CONTAINERS) -> dict[str, int]:
        return {}

    async def settle(self, pool: str) -> None:
        return None

    async def volumes(self, pool: str, *, kind: VolumeKind = _CONTAINERS) -> list[str]:
        return folders.volumes_in(self.folder(pool), kind)


def _check_source(source: Path) -> None:
    """Raises: Invalid in LXD's words."""
    if not source.is_absolute() or not source.is_dir():
        raise Invalid("NO_SOURCE", f"Source path '{source}' doesn't exist", about=str(source))
    if any(source.iterdir()):
        raise Invalid("SOURCE_USED", f"Source path '{source}' isn't empty", about=str(source))


def _replace(volume: Path, source: Path, kind: VolumeKind) -> None:
    made = folders.unfinished(volume)
    remove_tree(made)
    folders.bring_up(made, source, kind)
    sync(made)  # else a host that loses power could have the name without the content
    folders.put_in_place(made, volume, remove_tree)
