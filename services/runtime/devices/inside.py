"""Mount things into a running instance, and take them out: in its mount namespace, beneath its root.

A thread of its own enters; the process stays where it is. Inside, no path of the host can be reached:
targets are opened by openat2 as the guest's root sees them, and held by descriptor until the mount is
there. What the guest swaps meanwhile changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from core.libc import libc, or_raise
from services.runtime.kernel import mountapi
from services.runtime.kernel.beneath import open_beneath
from services.runtime.kernel.fsids import acting_as

T = TypeVar("T")
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
_PASSAGE, _INNER = "/dev/.podium", "passage"
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def attach(guest: int, owner: tuple[int, int], tree: int, path: str) -> None:
    """Put *tree*, a detached mount, at *path* in the guest that *guest* (its /proc folder) stands for.

    What is missing of the path is made and owned by the guest's root. Raises: OSError, Invalid.
    """
    is_folder = stat.S_ISDIR(os.fstat(tree).st_mode)

    def work(root: int, proc: int) -> None:
        with acting_as(*owner):
            target = _target(root, path, is_folder=is_folder)
        try:
            mountapi.move(tree, target)
        finally:
            os.close(target)

    _inside(guest, work)


def attach_locked(guest: int, owner: tuple[int, int], tree: int, path: str, folder: Path) -> None:
    """Do the same with a mount whose flags the guest's root cannot change, as read-only ones need it.

    The kernel locks the flags of what propagates into a mount namespace of other owners, so *tree* goes
    through *folder*: an empty folder of the host's that guests may not enter. Source: mount_namespaces(7).
    """
    with ThreadPoolExecutor(1) as alone:
        alone.submit(_attach_locked, guest, owner, tree, path, folder).result()


def _attach_locked(guest: int, owner: tuple[int, int], tree: int, path: str, folder: Path) -> None:
    is_folder = stat.S_ISDIR(os.fstat(tree).st_mode)
    inner = folder / _INNER
    inner.mkdir() if is_folder else inner.touch()
    with mountapi.descriptors() as fds:
        fds.append(os.open("/proc", _FOLDER))
        # A namespace of our own, which ends with this thread: nothing of this is seen by the host.
        or_raise(libc.unshare(_CLONE_NEWNS))
        mountapi.make_private()
        fds.append(os.open("thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fds[0]))
        fds.append(mountapi.open_tree(folder))
        mountapi.set_attributes(fds[2], propagation="shared")
        fds.append(os.open(folder, _FOLDER))
        mountapi.move(fds[2], fds[3])
        fds.append(mountapi.open_tree(folder))
        mountapi.set_attributes(fds[4], propagation="slave")
        fds.append(os.open(inner, os.O_PATH | os.O_CLOEXEC))
        fds.append(os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=guest))
        _pass_through(fds, owner, tree, path, is_folder=is_folder)


def _pass_through(fds: list[int], owner: tuple[int, int], tree: int, path: str, *, is_folder: bool) -> None:
    proc, own, _, _, passage, inner, theirs = fds
    _join(theirs)
    fds.append(os.open("/", _FOLDER))
    with acting_as(*owner):
        fds.append(_target(fds[-1], path, is_folder=is_folder))
        fds.append(_target(fds[-2], _PASSAGE, is_folder=True))
    target = fds[-2]
    mountapi.move(passage, fds[-1])
    try:
        # Guests share their mounts (systemd does), which made it shared; nothing moves out of such a one.
        mountapi.set_attributes(passage, propagation="slave")
        _join(own)
        mountapi.move(tree, inner)
        _join(theirs)
        fds.append(mountapi.open_place(passage, _INNER))
        mountapi.move(fds[-1], target)
    finally:
        _join(theirs)
        mountapi.unmount_place(proc, passage)


def _join(namespace: int) -> None:
    or_raise(libc.setns(namespace, _CLONE_NEWNS))


def within(guest: int, work: Callable[[int], T]) -> T:
    """Return what *work* does with a descriptor of the guest's root, inside its mount namespace."""
    return _inside(guest, lambda root, proc: work(root))


def within_reach(guest: int, work: Callable[[int, int], T]) -> T:
    """Do the same with a descriptor of the host's /proc besides, as mountapi.unmount_place wants it."""
    return _inside(guest, work)


def is_attached(guest: int, path: str, source: tuple[int, int]) -> bool:
    """Say whether *source* (device and inode) is mounted at *path*."""
    return _inside(guest, lambda root, proc: _is_at(root, path, source))


def detach(guest: int, path: str, source: tuple[int, int]) -> None:
    """Unmount what is at *path* if it is *source* (device and inode), and remove an empty place, as LXD does.

    Repeatable; what the guest has put there instead stays.
    """

    def work(root: int, proc: int) -> None:
        while _is_at(root, path, source):
            place = open_beneath(root, path, os.O_PATH)
            try:
                mountapi.unmount_place(proc, place)
            finally:
                os.close(place)
        _remove_empty(root, path)

    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ProcessLookupError):
        _inside(guest, work)


def _is_at(root: int, path: str, source: tuple[int, int]) -> bool:
    try:
        place = open_beneath(root, path, os.O_PATH)
    except OSError:
        return False
    try:
        found = os.fstat(place)
        return (found.st_dev, found.st_ino) == source and mountapi.is_mount_root(place)
    finally:
        os.close(place)


def _remove_empty(root: int, path: str) -> None:
    """Remove what was mounted upon, unless there is something in it."""
    folder, _, name = path.rpartition("/")
    parent = open_beneath(root, folder or "/", _FOLDER)
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and not found.st_size:
            os.unlink(name, dir_fd=parent)
        elif stat.S_ISDIR(found.st_mode):
            os.rmdir(name, dir_fd=parent)
    except OSError:
        pass  # busy, or not there any more
    finally:
        os.close(parent)


def _target(root: int, path: str, *, is_folder: bool) -> int:
    """Return a descriptor of the place at *path*, made if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        return open_beneath(root, path, os.O_PATH)
    parent, name = _parent(root, path)
    try:
        with contextlib.suppress(FileExistsError):
            if is_folder:
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=parent))
        return open_beneath(root, path, os.O_PATH)
    finally:
        os.close(parent)


def _parent(root: int, path: str) -> tuple[int, str]:
    """Return the folder of *path*, made if need be, and the last part."""
    parts = [part for part in path.split("/") if part]
    folder = "/"
    for part in parts[:-1]:
        above, folder = folder, f"{folder}{part}/"
        try:
            os.close(open_beneath(root, folder, _FOLDER))
        except FileNotFoundError:
            _make_folder(root, above, part)
    return open_beneath(root, folder, _FOLDER), parts[-1]


def _make_folder(root: int, above: str, name: str) -> None:
    parent = open_beneath(root, above, _FOLDER)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
    finally:
        os.close(parent)


def _inside(guest: int, work: Callable[[int, int], T]) -> T:
    with ThreadPoolExecutor(1) as alone:
        return alone.submit(_enter, guest, work).result()


def _enter(guest: int, work: Callable[[int, int], T]) -> T:
    with mountapi.descriptors() as fds:
        # /proc inside tells of the guest's processes; ours is found through the host's.
        fds.append(os.open("/proc", _FOLDER))
        fds.append(os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=guest))
        or_raise(libc.unshare(_CLONE_FS))
        _join(fds[1])
        fds.append(os.open("/", _FOLDER))
        return work(fds[2], fds[0])
