"""Pools, the volumes in them, and the root file systems that are mounted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from services.runtime.domain.idmaps import IdMap


@dataclass(frozen=True)
class PoolSpace:
    used: int
    total: int
    inodes_used: int = 0
    inodes_total: int = 0


class VolumeKind(StrEnum):
    """What a volume is for; each kind has a folder of its own in a pool.

    CONTAINERS: upper/ and work/ of an overlay, of instances and of their snapshots, by id. CUSTOM: a
    folder that is the volume's root, of volumes and of their snapshots.
    """

    CONTAINERS = "containers"
    CUSTOM = "custom"


_CONTAINERS = VolumeKind.CONTAINERS


class StorageDriver(Protocol):
    """One kind of pool. A volume is a folder, named by the id it has among those of its kind.

    Drivers keep volumes; they never mount root file systems. Files in volumes have the ids that the guest
    sees, so a copy is never chowned. *size* is a bound in bytes, 0 for none.
    """

    name: str
    version: str
    is_instant: bool
    """Whether a clone of a volume of the same pool is what that was at one moment."""
    has_quotas: bool
    """Whether *size* bounds a volume; where not, it is taken and nothing else."""

    async def check_pool(self, pool: str, config: dict[str, str]) -> None:
        """See that a new pool would take nothing that is in use. Raises: Invalid, WrongState."""
        ...

    async def create_pool(self, pool: str, config: dict[str, str]) -> dict[str, str]:
        """Make the pool and return its config with source (and size) filled in. Undone by delete_pool."""
        ...

    async def ensure_open(self, pool: str, config: dict[str, str]) -> None:
        """Make the pool usable, as after a reboot, and free of what died half-copied."""
        ...

    async def change_pool(self, pool: str, old: dict[str, str], new: dict[str, str]) -> None:
        """Let an open pool be as *new* says, or raise Invalid or Unsupported and leave it. Repeatable."""
        ...

    async def close_pool(self, pool: str, config: dict[str, str]) -> None:
        """Let go of the pool; all that is in it stays. Repeatable."""
        ...

    async def delete_pool(self, pool: str, config: dict[str, str]) -> None:
        """Remove the pool with all its volumes. Idempotent, also after half of it."""
        ...

    async def undo_create(self, pool: str, config: dict[str, str]) -> None:
        """Take back what create_pool did, none, half or all; what it found there stays. Idempotent."""
        ...

    async def space(self, pool: str) -> PoolSpace: ...

    def folder(self, pool: str) -> Path:
        """Return where an open pool lies; its notes are there beside the volumes."""
        ...

    def volume(self, pool: str, id: str, kind: VolumeKind = _CONTAINERS) -> Path:
        """Return where a volume's folder is, or would be."""
        ...

    async def ensure_volume(
        self, pool: str, id: str, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        """Return the volume's folder, made as its kind wants it if need be."""
        ...

    async def clone_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        """Make a volume that holds what *source*, the folder of a volume of any pool, holds.

        Complete or absent, whenever the process dies; one that is there stays as it is. As of one moment
        where the driver can snapshot; elsewhere whoever writes to *source* must be held meanwhile.
        """
        ...

    async def replace_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        """Do the same for a volume that nobody uses now: it is the old or the new one, never a mixture."""
        ...

    async def refresh_volume(
        self, pool: str, id: str, source: Path, *, kind: VolumeKind = _CONTAINERS, size: int = 0
    ) -> Path:
        """Do the same by what differs, where that is less work. What dies half-way is to be repeated."""
        ...

    async def set_quota(self, pool: str, id: str, size: int, *, kind: VolumeKind = _CONTAINERS) -> None: ...

    async def delete_volume(self, pool: str, id: str, *, kind: VolumeKind = _CONTAINERS) -> None: ...

    async def usage(self, pool: str, ids: Sequence[str], *, kind: VolumeKind = _CONTAINERS) -> dict[str, int]:
        """Return bytes used by volumes; those that only a walk could tell are left out.

        As of the last time that the pool wrote all to its disk.
        """
        ...

    async def settle(self, pool: str) -> None:
        """Have all written that was, so that usage tells of it."""
        ...

    async def volumes(self, pool: str, *, kind: VolumeKind = _CONTAINERS) -> list[str]: ...


class RootFs(Protocol):
    """Images and root file systems as mounts in the host's mount namespace."""

    async def ensure_image(self, fingerprint: str, squashfs: Path, rootfs_dir: str) -> Path:
        """Mount the image once, read-only, and return the folder that is the lower layer."""
        ...

    async def drop_image(self, fingerprint: str) -> None:
        """Unmount an image that nothing uses; busy ones stay."""
        ...

    def images(self) -> set[str]:
        """Return the fingerprints of mounted images."""
        ...

    async def seed(self, volume: Path, files: dict[str, str], lower: Path | None = None) -> None:
        """Write files (path below the root to text) into the upper layer, owned by the guest's root.

        A file is left out where the guest, or the image in *lower*, has no plain folder for it.
        """
        ...

    async def ensure_mounted(
        self, id: str, lower: Path | None, volume: Path, idmap: IdMap, *, shift: int = 0
    ) -> Path:
        """Mount overlay(lower, volume) id-mapped at instances/ID/rootfs and return that path.

        *shift* is what was added to each id in *lower*.
        """
        ...

    async def ensure_unmounted(self, id: str) -> None: ...

    def is_mounted(self, id: str) -> bool: ...
