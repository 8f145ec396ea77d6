"""Driver "dir": volumes are folders; no quota, usage by a walk."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from core.errors import Invalid, Unsupported
from services.runtime.ports import PoolSpace

_CONTAINERS = "containers"


class DirDriver:
    """Implements ports.StorageDriver in <state>/pools/POOL/containers/ID."""

    name = "dir"
    version = "1"

    def __init__(self, state_dir: Path) -> None:
        self._pools = state_dir / "pools"
        self._pools.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pools.chmod(0o700)

    def folder(self, pool: str) -> Path:
        return self._pools / pool

    async def create_pool(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        if config.get("source"):
            raise Invalid("NO_SOURCE", "A dir pool lies in Podium's own folder; leave source out", about=pool)
        await self.ensure_open(pool, config)
        return {**config, "source": str(self.folder(pool))}

    async def ensure_open(self, pool: str, config: dict[str, str]) -> None:
        for folder in (self.folder(pool), self.folder(pool) / _CONTAINERS):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)

    async def delete_pool(self, pool: str, config: dict[str, str]) -> None:
        await asyncio.to_thread(shutil.rmtree, self.folder(pool), ignore_errors=True)

    async def undo_create(self, pool: str, config: dict[str, str]) -> None:
        await self.delete_pool(pool, config)

    async def space(self, pool: str) -> PoolSpace:
        return await asyncio.to_thread(space_of, self.folder(pool))

    async def ensure_volume(self, pool: str, id: str, *, size: int = 0) -> Path:
        if size:
            raise Unsupported(
                "NO_QUOTA",
                f"Pool {pool!r} (dir) cannot bound sizes; use a btrfs pool or drop size",
                about=pool,
            )
        return await asyncio.to_thread(make_volume, self._volume(pool, id))

    async def set_quota(self, pool: str, id: str, size: int) -> None:
        if size:
            raise Unsupported("NO_QUOTA", f"Pool {pool!r} (dir) cannot bound sizes", about=pool)

    async def delete_volume(self, pool: str, id: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._volume(pool, id), ignore_errors=True)

    async def usage(self, pool: str, ids: Sequence[str]) -> dict[str, int]:
        return {}

    async def volumes(self, pool: str) -> list[str]:
        folder = self.folder(pool) / _CONTAINERS
        return sorted(p.name for p in folder.iterdir()) if folder.exists() else []

    def _volume(self, pool: str, id: str) -> Path:
        return self.folder(pool) / _CONTAINERS / id


def make_volume(folder: Path) -> Path:
    """Make the layers of an overlay; their content belongs to the guest, the folder to us alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in ("upper", "work"):
        (folder / name).mkdir(mode=0o755, exist_ok=True)
    return folder


def space_of(folder: Path) -> PoolSpace:
    found = os.statvfs(folder)
    return PoolSpace(
        used=(found.f_blocks - found.f_bfree) * found.f_frsize,
        total=found.f_blocks * found.f_frsize,
        inodes_used=found.f_files - found.f_ffree,
        inodes_total=found.f_files,
    )
