"""Hear of devices that come and go: the kernel's uevents, and names that appear in folders of /dev."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
from pathlib import Path

from core.logs import get_logger

log = get_logger(__name__)
_KINDS = (b"add@", b"remove@", b"bind@", b"unbind@")
_libc = ctypes.CDLL(None, use_errno=True)
# Source: linux/netlink.h, inotify(7).
_KOBJECT_UEVENT, _KERNEL_GROUP = 15, 1
_IN_CREATE, _IN_DELETE, _IN_MOVED = 0x100, 0x200, 0xC0
_MOST = 1 << 16


class HostEvents:
    """Implements ports.HostEvents."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._inotify = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._uevents = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _KOBJECT_UEVENT
        )
        self._uevents.bind((0, _KERNEL_GROUP))
        self._names: dict[int, set[bytes]] = {}
        self._watched: set[str] = set()
        self._told: set[str] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._uevents.fileno(), self._on_uevent)
        if self._inotify >= 0:
            loop.add_reader(self._inotify, self._on_name)

    async def stop(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._uevents.fileno())
        loop.remove_reader(self._inotify)

    def watch(self, path: str) -> None:
        """Hear of *path*, and of the folder that will hold it if there is none yet. Repeatable."""
        if path in self._watched:
            return
        for folder in Path(path).parents:
            name = os.fsencode(Path(path).relative_to(folder).parts[0])
            mask = ctypes.c_uint32(_IN_CREATE | _IN_DELETE | _IN_MOVED)
            if (watch := int(_libc.inotify_add_watch(self._inotify, os.fsencode(folder), mask))) >= 0:
                self._names.setdefault(watch, set()).add(name)
                break
        # A path whose folder is still to come is looked at again when it has.
        if Path(path).parent.is_dir():
            self._watched.add(path)

    def tell(self, id: str) -> None:
        self._told.add(id)
        self._event.set()

    async def changed(self) -> set[str]:
        await self._event.wait()
        self._event.clear()
        told, self._told = self._told, set()
        return told

    def _on_uevent(self) -> None:
        with contextlib.suppress(OSError):  # an overrun too is a reason to look
            data = self._uevents.recv(_MOST)
            if not is_of_device(data):
                return
        self._event.set()

    def _on_name(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data, at = os.read(self._inotify, _MOST), 0
            while at < len(data):
                watch, _, _, length = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + length].rstrip(b"\0")
                at += 16 + length
                # Without a watch the kernel tells of an overrun.
                if watch < 0 or name in self._names.get(watch, ()):
                    self._event.set()


def is_of_device(uevent: bytes) -> bool:
    """Return whether a device with a node comes or goes: interfaces, queues and mounts have none.

    Source: Documentation/ABI/testing/sysfs-uevent, drivers/base/core.c, dev_uevent.
    """
    return uevent.startswith(_KINDS) and b"\0DEVNAME=" in uevent
