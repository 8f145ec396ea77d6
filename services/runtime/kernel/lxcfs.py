"""Files of lxcfs in the guests: /proc and /sys there tell of their own limits and load, not of the host's.

They are put in from outside, once init has begun: liblxc would look each of them up through FUSE and ask
for the flags of its file system, every time, before init may begin. That takes 5 ms; clones of mounts
that are kept by descriptor take less than one. So files of one that died can be replaced too, in guests
that run.
"""

from __future__ import annotations

import contextlib
import errno
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
_MOST_DEAD = 8
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

    def serving(self) -> int:
        """Return the number of the file system that serves now, 0 if none does. Another lxcfs has another."""
        return self._find()[1]

    def attach(self, guest: int) -> None:
        """Put its files into the guest that *guest* (its /proc folder) stands for, in place of a dead one's.

        Repeatable. Blocks, as long as the guest's own file systems like. A guest without them sees
        the host's figures: that is logged and ends nothing.
        """
        with mountapi.descriptors() as fds:
            try:
                trees, device = self._clones(fds)
                inside.within_reach(guest, lambda root, proc: _put(root, proc, trees, device))
            except OSError as exc:
                log.warning("lxcfs_not_attached", error=str(exc))

    def _clones(self, fds: list[int]) -> tuple[dict[str, int], int]:
        trees: dict[str, int] = {}
        with self._lock:
            for name, fd in self._files().items():
                trees[name] = mountapi.open_tree_at(fd)
                fds.append(trees[name])
                # Where the host shares its mounts, what a guest mounts upon it would reach all others.
                mountapi.set_attributes(trees[name], propagation="private")
            return trees, self._device

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _files(self) -> dict[str, int]:
        """Return descriptors of what the lxcfs of this moment serves; none where there is none."""
        folder, device = self._find()
        if device != self._device:
            self._forget()
            self._device = device
            for name in FILES if folder else ():
                with contextlib.suppress(FileNotFoundError):
                    self._kept[name] = os.open(f"{folder}/{name}", os.O_PATH | os.O_CLOEXEC)
        return self._kept

    def _find(self) -> tuple[Path | None, int]:
        return next(((f, d) for f in self._folders if (d := _device(f))), (None, 0))

    def _forget(self) -> None:
        for fd in self._kept.values():
            os.close(fd)
        self._kept, self._device = {}, 0


def _device(folder: Path) -> int:
    """Return the number of the file system that answers there, 0 if none does.

    A dead lxcfs leaves a mount in which nothing can be opened.
    """
    try:
        place = os.open(folder / FILES[0], os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        mountapi.ask(place)
        return os.fstat(place).st_dev
    except OSError:
        return 0
    finally:
        os.close(place)


def _put(root: int, proc: int, trees: dict[str, int], device: int) -> None:
    for name in FILES:
        try:
            target = _living_place(root, proc, name)
        except (OSError, Invalid):
            continue  # this kernel, or this guest, has no such file
        try:
            if name in trees and _is_free(target, device, is_folder=name.startswith("sys")):
                mountapi.move(trees[name], target)
        finally:
            os.close(target)


def _living_place(root: int, proc: int, name: str) -> int:
    """Return the place of a file of the guest's, without what a dead lxcfs left there. Raises: OSError."""
    for _ in range(_MOST_DEAD):
        place = kernel_place(root, name)
        if not _is_dead(place):
            return place
        try:
            mountapi.unmount_place(proc, place)
        finally:
            os.close(place)
    raise OSError(errno.ENOTCONN, "what is mounted there is dead")


def _is_dead(place: int) -> bool:
    try:
        mountapi.ask(place)
    except OSError as exc:
        return exc.errno == errno.ENOTCONN
    return False


def _is_free(target: int, device: int, *, is_folder: bool) -> bool:
    """Say whether our file can go there and is not there yet."""
    found = os.fstat(target)
    return found.st_dev != device and stat.S_ISDIR(found.st_mode) == is_folder
