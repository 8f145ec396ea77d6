"""A line between two processes of one host that carries short messages, and descriptors with them.

What moves bytes in bulk need not pass a service: that one hands over the pipe. Source: unix(7),
SOCK_SEQPACKET and SCM_RIGHTS. Messages are words; an end that stops reading loses the line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

_MAX_MESSAGE = 16384
_MAX_FDS = 8
Heard = Callable[[list[str], list[int]], None]


class Line:
    """One end of a line. *heard* owns the descriptors it is given; *lost* is called once."""

    def __init__(self, end: socket.socket, heard: Heard, lost: Callable[[], None]) -> None:
        end.setblocking(False)
        self._end = end
        self._heard = heard
        self._lost = lost
        self.is_open = True
        asyncio.get_running_loop().add_reader(end.fileno(), self.hear)

    def tell(self, *words: str, fds: Sequence[int] = ()) -> bool:
        """Send a message with copies of *fds*; say whether it went out. When not, the line is lost."""
        if not self.is_open:
            return False
        try:
            socket.send_fds(self._end, [" ".join(words).encode()], fds)
        except OSError:
            self.close()
            return False
        return True

    def hear(self) -> None:
        """Take what has come."""
        while self.is_open:
            try:
                data, fds, _, _ = socket.recv_fds(self._end, _MAX_MESSAGE, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self.close()
                return
            self._heard(data.decode(errors="replace").split(), fds)

    def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        asyncio.get_running_loop().remove_reader(self._end.fileno())
        self._end.close()
        self._lost()


def dial(path: Path, heard: Heard, lost: Callable[[], None]) -> Line:
    """Raises: OSError when nobody answers at *path*."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        end.setblocking(False)
        end.connect(str(path))
    except OSError:
        end.close()
        raise
    return Line(end, heard, lost)


class Exchange:
    """Where lines are answered at *path*. Callers say "hello NAME"; `named` holds those that did.

    *heard* is told what else they say, *lost* of a line that ended. Descriptors are not taken from callers.
    """

    def __init__(
        self,
        path: Path,
        heard: Callable[[Line, list[str]], None] = lambda line, words: None,
        lost: Callable[[Line], None] = lambda line: None,
    ) -> None:
        self._path = path
        self._heard = heard
        self._lost = lost
        self._lines: list[Line] = []
        self.named: dict[str, Line] = {}
        self._door: socket.socket | None = None

    async def start(self) -> None:
        """Only root and the group of the folder's owner may call, as with the services' other sockets."""
        self._path.unlink(missing_ok=True)
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.setblocking(False)
        self._door.bind(str(self._path))
        os.chmod(self._path, 0o660)
        with contextlib.suppress(PermissionError):
            os.chown(self._path, -1, self._path.parent.stat().st_gid)
        self._door.listen()
        asyncio.get_running_loop().add_reader(self._door.fileno(), self._accept)

    async def stop(self) -> None:
        if self._door:
            asyncio.get_running_loop().remove_reader(self._door.fileno())
            self._door.close()
            self._door = None
        for line in self._lines:
            line.close()

    def _accept(self) -> None:
        assert self._door
        with contextlib.suppress(OSError):
            end, _ = self._door.accept()
            line = Line(end, lambda words, fds: self._hear(line, words, fds), lambda: self._lose(line))
            self._lines = [*(other for other in self._lines if other.is_open), line]

    def _hear(self, line: Line, words: list[str], fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        match words:
            case ["hello", name]:
                self.named[name] = line
            case _:
                self._heard(line, words)

    def _lose(self, line: Line) -> None:
        for name in [name for name, other in self.named.items() if other is line]:
            del self.named[name]
        self._lost(line)
