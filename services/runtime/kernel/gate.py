"""Hold a program at the point where it reads its configuration, and let it go in one write.

Starting a program takes longer than the rest of a short command; behind a gate it is ready when its
client is. The gate is a pipe with a name: the program waits in open() until somebody writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path

from core.descriptors import write_all

_SUFFIX = ".gate"
_POLL_S = 0.001
_REFUSED = b"refused\n"


class Gate:
    """Used once: open() or close(). What is left by a crash is found by refuse_waiting()."""

    def __init__(self, folder: Path, name: str, text: bytes) -> None:
        self.path = folder / f"{name}{_SUFFIX}"
        self._text = text
        os.mkfifo(self.path, 0o600)

    async def open(self, ended: asyncio.Future[int]) -> None:
        """Give the program its configuration; return at once when it has *ended* before it asked."""
        while not ended.done():
            if (fd := _writer(self.path)) >= 0:
                break
            await asyncio.sleep(_POLL_S)
        self.close()
        if not ended.done():
            try:
                await write_all(fd, self._text)
            finally:
                os.close(fd)

    def close(self) -> None:
        self.path.unlink(missing_ok=True)


def refuse_waiting(folder: Path) -> None:
    """End the programs that wait at gates below *folder* since their owner was killed."""
    for path in folder.glob(f"*/*{_SUFFIX}"):
        if (fd := _writer(path)) >= 0:
            with contextlib.suppress(OSError):
                os.write(fd, _REFUSED)
            os.close(fd)
        path.unlink(missing_ok=True)


def _writer(path: Path) -> int:
    """Return a descriptor; -1 while no program waits at the other end."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in (errno.ENXIO, errno.ENOENT):
            return -1
        raise
