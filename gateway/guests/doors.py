"""One listening socket for each running guest, and no more connections than a guest may have.

The runtime makes a folder for each guest and mounts it inside; here the socket in it is served. Which
socket a connection came through says whose it is, and the kernel says which user of the host its
other end is. A guest has neither in its hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from core.logs import get_logger
from gateway.guests.folder import Folder

log = get_logger(__name__)
# A guest's programs connect for one question. Who opens many more waits for those to be closed.
MOST_PER_GUEST = 16
# With that many in all, one for each must do.
MOST_IN_ALL = 2048
_BACKLOG = 16
_CREDENTIALS = struct.Struct("3i")

# Makes the protocol of a connection: (instance id, host user id, what to call at its end).
Serve = Callable[[str, int, Callable[[], None]], asyncio.BaseProtocol]


class Doors:
    """All guests of this host."""

    def __init__(self, root: Path, serve: Serve) -> None:
        self._root = root
        self._serve = serve
        self._doors: dict[str, _Door] = {}
        self._folder = Folder(root, self._changed)
        self.connections = 0

    def start(self) -> None:
        """A host where this does not work has guests without the API; all else goes on."""
        try:
            self._folder.start()
        except OSError as exc:
            log.error("guest_api_not_served", error=str(exc))

    def stop(self) -> None:
        self._folder.stop()
        self._changed(set())

    def _changed(self, names: set[str]) -> None:
        for name in self._doors.keys() - names:
            self._doors.pop(name).close()
        for name in names - self._doors.keys():
            door = _Door(name, self._root / name / "lxd" / "sock", self)
            try:
                door.open()
            except OSError as exc:
                # The folder may be gone again, and then its removal is the next that is heard.
                log.warning("guest_door_not_opened", id=name, error=str(exc))
                continue
            self._doors[name] = door

    def make(self, door: _Door, uid: int) -> asyncio.BaseProtocol:
        return self._serve(door.id, uid, door.left)


class _Door:
    def __init__(self, id: str, path: Path, all: Doors) -> None:
        self.id = id
        self._path = path
        self._all = all
        self._inside = 0
        self._listener: socket.socket | None = None
        self._is_heard = False
        self._tasks: set[asyncio.Task[object]] = set()

    def open(self) -> None:
        """Put a listening socket in place of whatever is there, without a moment of none. Raises: OSError."""
        new = f"{self._path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.bind(new)
            os.chmod(new, 0o666)  # noqa: S103 - all users of the guest may connect; its root is answered
            self._listener.listen(_BACKLOG)
            os.rename(new, self._path)
        except OSError:
            self._listener.close()
            self._listener = None
            raise
        self._hear()

    def close(self) -> None:
        if self._listener:
            self._ignore()
            self._listener.close()
            self._listener = None

    def left(self) -> None:
        """A connection has ended."""
        self._inside -= 1
        self._all.connections -= 1
        if self._listener:
            self._hear()

    def _hear(self) -> None:
        if not self._is_heard and self._listener:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)
            self._is_heard = True

    def _ignore(self) -> None:
        if self._is_heard and self._listener:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._is_heard = False

    def _is_full(self) -> bool:
        return self._inside >= (MOST_PER_GUEST if self._all.connections < MOST_IN_ALL else 1)

    def _accept(self) -> None:
        """Take one; who is one too many stays in the kernel's queue, which is short."""
        assert self._listener
        if self._is_full():
            self._ignore()
            return
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        uid = _CREDENTIALS.unpack(credentials)[1]
        self._inside += 1
        self._all.connections += 1
        loop = asyncio.get_running_loop()
        # Owned by this door until the transport exists, which is at once.
        task = loop.create_task(loop.connect_accepted_socket(partial(self._all.make, self, uid), connection))
        self._tasks.add(task)
        task.add_done_callback(partial(self._connected, connection))

    def _connected(self, connection: socket.socket, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception():
            connection.close()
            self.left()
