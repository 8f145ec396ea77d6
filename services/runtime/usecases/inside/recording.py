"""What commands say that nobody listens to, in files of bounded size and number: guests choose neither."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from core.descriptors import Reader, big_pipe

MOST_BYTES = 64 << 20
"""Of one output; what a command says after that is lost."""
_MOST_KEPT, _MOST_KEPT_BYTES = 256, 256 << 20
_SUFFIXES = {"1": "stdout", "2": "stderr"}


class Recording:
    """Both outputs of one command. *outputs*: descriptors for it, which a session closes at its start."""

    def __init__(self, folder: Path, id: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder)
        self.names = {name: f"exec_{id}.{suffix}" for name, suffix in _SUFFIXES.items()}
        self.outputs: dict[str, int] = {}
        self._readers: list[Reader] = []
        self._tasks: list[asyncio.Task[None]] = []
        for name, file in self.names.items():
            ours, self.outputs[name] = big_pipe()
            self._readers.append(Reader(ours))
            # Ended by finish() or close(), one of which is called.
            self._tasks.append(asyncio.create_task(_keep(self._readers[-1], ours, folder / file)))

    async def finish(self) -> None:
        """The command ended: return when all it said is kept."""
        for reader in self._readers:
            reader.finish()
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _keep(reader: Reader, fd: int, path: Path) -> None:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        left = MOST_BYTES
        try:
            while data := await reader.read():
                if kept := data[:left]:
                    await asyncio.to_thread(_write, file, kept)
                    left -= len(kept)
        finally:
            os.close(file)
    finally:
        reader.close()
        os.close(fd)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _make_room(folder: Path) -> None:
    """Remove the oldest records, so that this one may be kept."""
    found = []
    for path in folder.glob("exec_*.std*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    size = sum(row[1] for row in found)
    for number, (_, bytes_, path) in enumerate(sorted(found)):
        if len(found) - number < _MOST_KEPT and size <= _MOST_KEPT_BYTES:
            return
        path.unlink(missing_ok=True)
        size -= bytes_
