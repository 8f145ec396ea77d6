"""The names in a folder, followed with inotify(7): who comes and who goes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

from core.libc import libc, or_raise

_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE, _OVERFLOW = 0x40, 0x80, 0x100, 0x200, 0x4000
_EVENT = struct.Struct("iIII")


class Folder:
    """Calls *changed* with all names there are: at the start, and after every change."""

    def __init__(self, path: Path, changed: Callable[[set[str]], None]) -> None:
        self._path = path
        self._changed = changed
        self._fd = -1
        self._names: set[str] = set()

    def start(self) -> None:
        """Raises: OSError."""
        self._fd = or_raise(libc.inotify_init1(_NONBLOCK_CLOEXEC))
        mask = ctypes.c_uint32(_MOVED_FROM | _MOVED_TO | _CREATE | _DELETE)
        or_raise(libc.inotify_add_watch(self._fd, os.fsencode(self._path), mask))
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        self._look()

    def stop(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        self._names = {name for name in os.listdir(self._path) if not name.startswith(".")}
        self._changed(set(self._names))

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            if mask & _OVERFLOW:
                self._look()
                return
            self._take(name, is_there=bool(mask & (_CREATE | _MOVED_TO)))
        self._changed(set(self._names))

    def _take(self, name: str, *, is_there: bool) -> None:
        if name.startswith("."):
            return
        if is_there:
            self._names.add(name)
        else:
            self._names.discard(name)
