"""Hold an instance between the making of its namespaces and its init, through a pipe that a hook reads.

Unlike a gate (gate.py) it survives this process: the hook waits for the next one to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

_POLL_S = 0.001


class Hold:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "hold"

    def make(self) -> None:
        self.remove()
        os.mkfifo(self._path, 0o600)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    async def reached(self, ended: asyncio.Future[int]) -> bool:
        """Return when the hook waits; False when the start has *ended* before."""
        while not ended.done():
            if (fd := self._writer()) >= 0:
                os.close(fd)
                return True
            await asyncio.sleep(_POLL_S)
        return False

    def answer(self, word: str) -> None:
        """Let the hook succeed with "go", fail with any other word. Nothing happens when none waits."""
        if (fd := self._writer()) < 0:
            return
        try:
            with contextlib.suppress(BrokenPipeError):
                os.write(fd, f"{word}\n".encode())
        finally:
            os.close(fd)

    def _writer(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return -1
