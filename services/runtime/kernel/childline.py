"""A program of ours that is spoken with over one socket: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from services.runtime.kernel.processes import Child

PIECE = 1 << 18


class ChildLine:
    """*line* is our end; it does not block."""

    def __init__(self, child: Child, line: socket.socket) -> None:
        self._child, self._line = child, line
        self.pid = child.pid

    async def read(self) -> bytes:
        """Return the next bytes; none once it has said all."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._line, PIECE)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Raises: OSError when it has ended."""
        await asyncio.get_running_loop().sock_sendall(self._line, data)

    def end_input(self) -> None:
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        self._child.kill()

    def hang_up(self) -> None:
        """End it, without waiting for that."""
        self._child.kill()
        self._line.close()
