"""Images and root file systems as mounts. No unpacking, no chown: overlays over a squashfs, id-mapped."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

from core.errors import Invalid, WrongState
from core.logs import get_logger
from services.runtime.domain.idmaps import IdMap
from services.runtime.kernel import mountapi

log = get_logger(__name__)
_MOUNT_TIMEOUT_S = 30
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LinuxRootFs:
    """Implements ports.RootFs below *state_dir*."""

    def __init__(self, state_dir: Path) -> None:
        self._images = state_dir / "mounted"
        self._instances = state_dir / "instances"
        self._image_lock = asyncio.Lock()
        self._namespaces = mountapi.UserNamespaces()
        # Images and layers hold setuid files of strangers with the host's own ids: nobody but root may pass.
        # The ids of an instance must pass to their root, through a folder of their own group.
        for folder, mode in ((self._images, 0o700), (self._instances, 0o711)):
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
            folder.chmod(mode)

    async def ensure_image(self, fingerprint: str, squashfs: Path, rootfs_dir: str) -> Path:
        target = self._images / fingerprint
        async with self._image_lock:
            await asyncio.to_thread(_mount_image, squashfs, target)
        lower = target
        for part in rootfs_dir.split("/") if rootfs_dir else ():
            # Each on its own: a link on the way would lead to a folder of the host.
            lower /= part
            if part in ("", ".", "..") or not _is_folder(lower):
                raise Invalid("NO_ROOTFS", f"The rootfs of image {fingerprint[:12]} is not a folder")
        return lower

    async def drop_image(self, fingerprint: str) -> None:
        async with self._image_lock:
            await asyncio.to_thread(_unmount_image, self._images / fingerprint)

    def images(self) -> set[str]:
        return {path.name for path in self._images.iterdir()}

    async def seed(self, volume: Path, files: dict[str, str], lower: Path | None = None) -> None:
        await asyncio.to_thread(_seed, volume / "upper", files, lower)

    async def ensure_mounted(
        self, id: str, lower: Path | None, volume: Path, idmap: IdMap, *, shift: int = 0
    ) -> Path:
        return await asyncio.to_thread(self._mount, id, lower, volume, idmap, shift)

    async def ensure_unmounted(self, id: str) -> None:
        await asyncio.to_thread(mountapi.unmount, self._instances / id / "rootfs")

    def is_mounted(self, id: str) -> bool:
        return mountapi.is_mount(self._instances / id / "rootfs")

    def _mount(self, id: str, lower: Path | None, volume: Path, idmap: IdMap, shift: int) -> Path:
        folder = self._instances / id
        target = folder / "rootfs"
        target.mkdir(mode=0o711, parents=True, exist_ok=True)
        os.chown(folder, 0, idmap.root[1])
        folder.chmod(0o710)
        if mountapi.is_mount(target):
            return target
        if lower is None:
            lower = volume / "empty"
            lower.mkdir(exist_ok=True)
        os.chmod(volume / "upper", stat.S_IMODE(os.lstat(lower).st_mode))
        _drop_foreign_work(volume, mountapi.host_root(idmap))
        with mountapi.descriptors() as fds:
            own = None if idmap.is_privileged else self._namespaces.get(idmap)
            # Users of the host who are root inside may enter the folder, and meet what the image brings.
            is_apart = shift or idmap.is_of_users
            moved = self._namespaces.get(idmap, shift, with_root=False) if is_apart else None
            fds += [fd for fd in (own, moved) if fd is not None]
            mountapi.mount_overlay(
                lower, volume, target, own, lower_userns=moved, devices=not idmap.is_of_users
            )
        return target


def _drop_foreign_work(volume: Path, owner: int) -> None:
    """Remove overlayfs's own folder where another id map made it: its owner may have no place in this one."""
    inner = volume / "work" / "work"
    if inner.exists() and os.lstat(inner).st_uid != owner:
        shutil.rmtree(inner)


def _is_folder(path: Path) -> bool:
    return path.exists() and stat.S_ISDIR(os.lstat(path).st_mode)


def _mount_image(squashfs: Path, target: Path) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    if mountapi.is_mount(target):
        return
    # nodev would also hold for the overlay above; guests may not make devices anyway. nosuid does not.
    argv = ["mount", "-t", "squashfs", "-o", "loop,ro,nodev,nosuid", str(squashfs), str(target)]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=_MOUNT_TIMEOUT_S, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise WrongState("IMAGE_NOT_MOUNTED", f"The image could not be mounted: {done.stderr.strip()[:200]}")


def _unmount_image(target: Path) -> None:
    if mountapi.is_mount(target):
        subprocess.run(["umount", str(target)], capture_output=True, timeout=_MOUNT_TIMEOUT_S, check=False)
    if target.exists() and not mountapi.is_mount(target):
        target.rmdir()


def _seed(upper: Path, files: dict[str, str], lower: Path | None) -> None:
    """Write into the upper layer what the guest, or its image, has not arranged differently.

    Where a folder on the way is a link, a device or a whiteout (the guest deleted it), the file is left
    out: following it could lead onto the host, replacing it would take away what the guest made.
    """
    for path, text in files.items():
        *parents, name = [part for part in path.split("/") if part]
        folder: int | None = os.open(upper, _FOLDER)
        for depth, part in enumerate(parents):
            below = lower.joinpath(*parents[: depth + 1]) if lower else None
            if folder is not None:
                folder = _enter(folder, part, below)
        if folder is None:
            log.info("file_not_seeded", path=path)
            continue
        try:
            _write_new(folder, name, text)
        finally:
            os.close(folder)


def _write_new(folder: int, name: str, text: str) -> None:
    """Replace whatever *name* is, without opening it; a folder of the guest's stays."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        log.info("file_not_seeded", path=name)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o644, dir_fd=folder), "w") as file:
        os.fchmod(file.fileno(), 0o644)  # whatever the umask
        file.write(text)


def _enter(folder: int, name: str, below: Path | None) -> int | None:
    """Close *folder* and return its child *name*, made if need be; None if that is not a folder.

    *below* is what the image has in this place: a folder of ours above its link would hide that.
    """
    try:
        if not _exists(folder, name):
            if below and below.is_symlink():
                return None
            os.mkdir(name, 0o755, dir_fd=folder)
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as exc:
        if exc.errno in (errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    finally:
        os.close(folder)


def _exists(folder: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True
