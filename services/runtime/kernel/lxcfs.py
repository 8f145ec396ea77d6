"""Files of lxcfs in the guests: /proc and /sys there tell of their own limits and load, not of the host's.

They are put in from outside, once init has begun: liblxc would look each of them up through FUSE and ask
for the flags of its file system, every time, before init may begin. That takes 5 ms; clones of mounts
that are kept by descriptor take less than one.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

from core.errors import Invalid
from core.logs import get_logger
from services.runtime.devices import inside
from services.runtime.kernel import mountapi
from services.runtime.kernel.beneath import kernel_place

log = get_logger(__name__)
HOST = Path("/var/lib/lxcfs")
_PROC = ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")
FILES = (*(f"proc/{name}" for name in _PROC), "sys/devices/system/cpu")


class Lxcfs:
    """The files of whichever lxcfs serves: that of this member, else the host's own."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._device = 0
        self._kept: dict[str, int] = {}
        self._lock = threading.Lock()

    def attach(self, guest: int) -> None:
        """Put its files into the guest that *guest* (its /proc folder) stands for. Repeatable. Blocks.

        A guest without them sees the host's figures: that is logged and ends nothing.
        """
        try:
            with self._lock:
                kept = self._files()
                trees, device = {name: mountapi.open_tree_at(fd) for name, fd in kept.items()}, self._device
        except OSError as exc:
            log.warning("lxcfs_gone", error=str(exc))
            return
        try:
            inside.within(guest, lambda root: _put(root, trees, device))
        except OSError as exc:
            log.warning("lxcfs_not_attached", error=str(exc))
        finally:
            for tree in trees.values():
                os.close(tree)

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _files(self) -> dict[str, int]:
        """Return descriptors of what the lxcfs of this moment serves; none where there is none."""
        folder, device = next(((f, d) for f in self._folders if (d := _device(f))), (None, 0))
        if device != self._device:
            self._forget()
            self._device = device
            for name in FILES if folder else ():
                with contextlib.suppress(FileNotFoundError):
                    self._kept[name] = os.open(f"{folder}/{name}", os.O_PATH | os.O_CLOEXEC)
        return self._kept

    def _forget(self) -> None:
        for fd in self._kept.values():
            os.close(fd)
        self._kept, self._device = {}, 0


def _device(folder: Path) -> int:
    """Return the number of the file system that answers there, 0 if none does.

    A dead lxcfs leaves a mount in which nothing can be opened.
    """
    try:
        return os.stat(folder / FILES[0]).st_dev
    except OSError:
        return 0


def _put(root: int, trees: dict[str, int], device: int) -> None:
    for name, tree in trees.items():
        try:
            target = kernel_place(root, name)
        except (OSError, Invalid):
            continue  # this kernel, or this guest, has no such file
        try:
            if _is_free(target, device, is_folder=name.startswith("sys")):
                mountapi.move(tree, target)
        finally:
            os.close(target)


def _is_free(target: int, device: int, *, is_folder: bool) -> bool:
    """Say whether our file can go there and is not there yet; what a dead lxcfs left is covered."""
    try:
        found = os.fstat(target)
    except OSError:
        return True
    return found.st_dev != device and stat.S_ISDIR(found.st_mode) == is_folder
