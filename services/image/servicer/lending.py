"""Pipes of uploads and files of images, lent to a gateway of this host: their bytes are in no message.

A gateway says:  hello NAME
It is told:      file TICKET (with a pipe to fill, or the file to send)
"""

from __future__ import annotations

import os
from pathlib import Path

from core.descriptors import big_pipe
from core.errors import Unavailable
from core.rpc.line import Exchange


class Lending:
    """Answers lines at *path*."""

    def __init__(self, path: Path) -> None:
        self._exchange = Exchange(path)

    async def start(self) -> None:
        await self._exchange.start()

    async def stop(self) -> None:
        await self._exchange.stop()

    def has(self, name: str) -> bool:
        return name in self._exchange.named

    def pipe(self, name: str, ticket: str) -> int:
        """Return what the gateway fills, not blocking and the caller's to close. Raises: Unavailable."""
        ours, theirs = big_pipe()
        os.set_blocking(ours, False)
        try:
            self._tell(name, ticket, theirs)
        except Unavailable:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return ours

    def lend(self, name: str, ticket: str, path: Path) -> None:
        """Let the gateway read a file. Raises: Unavailable."""
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._tell(name, ticket, file)
        finally:
            os.close(file)

    def _tell(self, name: str, ticket: str, fd: int) -> None:
        line = self._exchange.named.get(name)
        if line is None or not line.tell("file", ticket, fds=[fd]):
            raise Unavailable("NO_LINE", "The gateway cannot be reached; try again")
