"""Open paths that strangers chose, never outside a root: openat2(2) with RESOLVE_IN_ROOT.

Symbolic links are followed as the guest would see them; magic links (/proc/self/root ...) never. What
is found is opened only if it is a file or folder in a store of files: we are root of the host, and what
the guest sees of the kernel (/proc/sys, /sys, devices) would obey us as it never obeys the guest.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from core.errors import Invalid
from core.libc import libc, or_raise, syscall

_OPENAT2 = 437
_IN_ROOT, _NO_MAGICLINKS = 0x10, 0x02
_MAX_PATH = 4096
# What keeps files, by the number statfs(2) gives; all else is the kernel's own (proc, sysfs, cgroup ...).
# Source: linux/magic.h and the file systems' own sources.
_STORES = {
    "btrfs": 0x9123683E, "ext": 0xEF53, "xfs": 0x58465342, "zfs": 0x2FC12FC1, "bcachefs": 0xCA451A4E,
    "f2fs": 0xF2F52010, "jfs": 0x3153464A, "overlay": 0x794C7630, "tmpfs": 0x01021994, "ramfs": 0x858458F6,
    "squashfs": 0x73717368, "erofs": 0xE0F5E1E2, "iso9660": 0x9660, "udf": 0x15013346, "vfat": 0x4D44,
    "exfat": 0x2011BAB0, "ntfs3": 0x7366746E, "nfs": 0x6969, "cifs": 0xFF534D42, "smb2": 0xFE534D42,
    "ceph": 0x00C36400, "9p": 0x01021997, "fuse": 0x65735546, "gfs2": 0x01161970, "ocfs2": 0x7461636F,
}  # fmt: skip
_KINDS = frozenset(_STORES.values())


class _How(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


def checked(path: str) -> str:
    """Return *path* if it can be one. Raises: Invalid."""
    if not path or "\0" in path or len(os.fsencode(path)) >= _MAX_PATH:
        raise Invalid("BAD_PATH", "The path is empty, too long or contains NUL", about=path[:64])
    return path


def open_beneath(root: int, path: str, flags: int) -> int:
    """Open *path* as if *root* (a folder's descriptor) were "/". Raises: OSError, Invalid.

    First as a place only, which wakes no device and waits for no pipe; opened is that very place.
    """
    place = _place(root, path, os.O_PATH | flags & (os.O_NOFOLLOW | os.O_DIRECTORY))
    if flags & os.O_PATH:
        return place
    try:
        if not _is_transferable(os.fstat(place).st_mode):
            raise Invalid("NOT_A_FILE", "It is no regular file", about=path[:128])
        return os.open(f"/proc/self/fd/{place}", flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)
    finally:
        os.close(place)


def _is_transferable(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def has_any(root: Path, paths: Iterable[str]) -> bool:
    """Say whether one of the paths leads to a file or folder in *root*, as who has that as "/" sees it."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return any(_is_there(fd, path) for path in paths)
    finally:
        os.close(fd)


def _is_there(root: int, path: str) -> bool:
    try:
        os.close(open_beneath(root, path, os.O_PATH))
    except (OSError, Invalid):
        return False
    return True


def kernel_place(root: int, path: str) -> int:
    """Return a descriptor of a place in the guest's /proc or /sys, to mount upon and for nothing else.

    Raises: OSError, Invalid.
    """
    return _openat2(root, path, os.O_PATH)


def _place(root: int, path: str, flags: int) -> int:
    fd = _openat2(root, path, flags)
    if is_store(fd):
        return fd
    os.close(fd)
    raise Invalid("KERNEL_FILE", f"{path[:128]!r} is the kernel's own (proc, sys ...)", about=path[:128])


def is_store(fd: int) -> bool:
    """Say whether what *fd* was opened upon lies in a store of files."""
    return _filesystem(fd) in _KINDS


def _filesystem(fd: int) -> int:
    """Return f_type, the first word of struct statfs on 64-bit machines."""
    answer = (ctypes.c_ulong * 32)()
    or_raise(libc.fstatfs(ctypes.c_int(fd), ctypes.byref(answer)))
    return int(answer[0])


def _openat2(root: int, path: str, flags: int) -> int:
    how = _How(flags | os.O_CLOEXEC, 0, _IN_ROOT | _NO_MAGICLINKS)
    name = ctypes.c_char_p(os.fsencode(checked(path)))
    size = ctypes.c_size_t(ctypes.sizeof(how))
    return syscall(_OPENAT2, ctypes.c_int(root), name, ctypes.byref(how), size, path=path)


def is_mounted_on(folder: int, name: str) -> bool:
    """Return whether something is mounted on an entry of *folder*, as seen from where that is mounted.

    The kernel refuses to remove such only in its own mount namespace; in those of others it unmounts.
    """
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        return _mount_id(place) != _mount_id(folder)
    finally:
        os.close(place)


def _mount_id(fd: int) -> str:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return next(line for line in lines if line.startswith("mnt_id:"))


def parent_beneath(root: int, path: str) -> tuple[int, str]:
    """Open the folder that holds *path* and return it with the last component.

    The caller acts on the last component with dir_fd and O_NOFOLLOW, so it cannot be swapped.
    """
    parts = [part for part in checked(path).split("/") if part and part != "."]
    if not parts or parts[-1] == "..":
        raise Invalid("BAD_PATH", f"The path {path[:64]!r} names no entry", about=path[:64])
    folder = "/" + "/".join(parts[:-1])
    return open_beneath(root, folder, os.O_RDONLY | os.O_DIRECTORY), parts[-1]
