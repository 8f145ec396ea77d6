"""What btrfs is asked by ioctl instead of by its tool: subvolumes, their bounds and their figures.

Source: include/uapi/linux/btrfs.h and btrfs_tree.h.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUBVOL_CREATE, _SNAP_DESTROY = 0x5000940E, 0x5000940F
_SNAP_CREATE_V2, _QGROUP_LIMIT = 0x50009417, 0x8030942B
_INO_LOOKUP, _TREE_SEARCH_V2 = 0xD0009412, 0xC0709411
_NAME_BYTES = 4088
_LIMIT_REFERENCED = 1
FIRST_INODE = 256
_QUOTA_TREE, _QGROUP_INFO = 8, 242
_SEARCH_KEY = struct.Struct("7Q4I4Q")
_HEADER = struct.Struct("=3Q2I")
_SEARCH_BYTES = 256 << 10
_ANY = (1 << 64) - 1


def create_subvolume(path: Path) -> None:
    _on_name(path, _SUBVOL_CREATE)


def snapshot(source: Path, target: Path) -> None:
    """Make the subvolume *target* what *source* is at this moment. Raises: OSError EXDEV, EINVAL ..."""
    with _opened(source) as old, _opened(target.parent) as folder:
        # struct btrfs_ioctl_vol_args_v2: fd, transid, flags, four unused words, name
        argument = bytearray(struct.pack("qQQ32x4040s", old, 0, 0, target.name.encode()))
        fcntl.ioctl(folder, _SNAP_CREATE_V2, argument)


def limit(path: Path, size: int) -> None:
    """Bound what a subvolume may refer to; 0 for no bound.

    Asked of the folder that it is in: a subvolume that is full has no room for the change of its own bound.
    """
    if not (number := subvolume_id(path)):
        raise FileNotFoundError(errno.ENOENT, "There is no such subvolume", str(path))
    with _opened(path.parent) as fd:
        # struct btrfs_ioctl_qgroup_limit_args: qgroup, flags, max_rfer ...
        fcntl.ioctl(fd, _QGROUP_LIMIT, struct.pack("6Q", number, _LIMIT_REFERENCED, size or _ANY, 0, 0, 0))


def destroy_subvolume(path: Path) -> None:
    _on_name(path, _SNAP_DESTROY)


def nested_subvolumes(path: Path) -> list[Path]:
    """Return the subvolumes below *path*, each after those within it. Walks all of it; follows no link.

    Guests decide how deep their folders go: what lies too deep for a path is left out.
    """
    found, folders = list[Path](), [path]
    while folders:
        folder = folders.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            inner = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
            folders += inner
            found += [below for below in inner if os.lstat(below).st_ino == FIRST_INODE]
    return found[::-1]


def subvolume_id(path: Path) -> int:
    """Return the id, which names the qgroup as well; 0 for what is no subvolume."""
    buffer = array.array("B", struct.pack("QQ", 0, FIRST_INODE) + bytes(4080))
    try:
        with _opened(path) as fd:
            fcntl.ioctl(fd, _INO_LOOKUP, buffer)
    except OSError:
        return 0
    return int(struct.unpack_from("Q", buffer)[0])


def exclusive_bytes(path: Path, first: int = 0, last: int = (1 << 48) - 1) -> dict[int, int]:
    """Return what each subvolume of the file system holds alone, by id; empty without quotas.

    As of the last commit of the file system, as `btrfs qgroup show` tells it.
    """
    found: dict[int, int] = {}
    with _opened(path) as fd:
        while first <= last:
            try:
                page = _qgroups(fd, first, last)
            except OSError as exc:
                if exc.errno in (errno.ENOENT, errno.ENOTTY):
                    return {}
                raise
            if not page:
                break
            found.update(page)
            first = max(page) + 1
    return found


def _qgroups(fd: int, first: int, last: int) -> dict[int, int]:
    key = _SEARCH_KEY.pack(
        _QUOTA_TREE, 0, 0, first, last, 0, _ANY, _QGROUP_INFO, _QGROUP_INFO, (1 << 32) - 1, *(0,) * 5
    )
    buffer = bytearray(key + struct.pack("Q", _SEARCH_BYTES) + bytes(_SEARCH_BYTES))
    fcntl.ioctl(fd, _TREE_SEARCH_V2, buffer)
    count = _SEARCH_KEY.unpack_from(buffer)[9]
    found, at = {}, len(key) + 8
    for _ in range(count):
        _, _, id, _, length = _HEADER.unpack_from(buffer, at)
        at += _HEADER.size
        # btrfs_qgroup_info_item: generation, rfer, rfer_cmpr, excl, excl_cmpr
        found[id] = struct.unpack_from("<5Q", buffer, at)[3]
        at += length
    return found


def _on_name(path: Path, request: int) -> None:
    # A bytearray: as plain bytes the argument may have 1024 at most.
    argument = bytearray(struct.pack(f"q{_NAME_BYTES}s", 0, path.name.encode()))
    with _opened(path.parent) as fd:
        fcntl.ioctl(fd, request, argument)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
