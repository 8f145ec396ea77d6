"""The bytes of one upload: hashed, stored and, where possible, converted in one pass while they arrive."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import Invalid
from services.image.ports import Converter, HeadStart

MADE = "made.squashfs"
_MAX_UPLOAD = 256 << 30
_UNIFIED, _SPLIT = ["unified"], ["metadata", "rootfs"]


@dataclass(frozen=True)
class Received:
    """What arrived. head_start: the conversion of the root file system that goes on, if one began."""

    fingerprint: str
    size: int
    split: bool
    head_start: HeadStart | None


class Receiver:
    """Fills one staging folder. Use once: receive(), which cleans up after itself when it raises."""

    def __init__(self, folder: Path, converter: Converter) -> None:
        self._folder = folder
        self._converter = converter
        self._digest = hashlib.sha256()
        self._size = 0
        self._names: list[str] = []
        self._fd = -1
        self._storing: asyncio.Task[None] | None = None
        self._head_start: HeadStart | None = None

    async def receive(self, parts: AsyncIterator[tuple[str, bytes]]) -> Received:
        """Read *parts* to their end. Raises: Invalid."""
        try:
            async for part, chunk in parts:
                await self._take(part, chunk)
            await self._stored()
            if self._names not in (_UNIFIED, _SPLIT) or not self._size:
                raise _bad_parts()
        except BaseException:
            if self._head_start:
                await self._head_start.drop()
            raise
        finally:
            self._close_when_stored()
        return Received(self._digest.hexdigest(), self._size, self._names == _SPLIT, self._head_start)

    async def _take(self, part: str, chunk: bytes) -> None:
        """Store a chunk while it is fed to the head start and the next one comes in."""
        await self._stored()
        self._size += len(chunk)
        if self._size > _MAX_UPLOAD:
            raise Invalid("TOO_LARGE", "The image is larger than 256 GiB")
        if not self._names or self._names[-1] != part:
            await self._begin(part, chunk)
        self._storing = asyncio.create_task(asyncio.to_thread(_store, self._fd, chunk, self._digest))
        if self._head_start:
            await self._head_start.feed(chunk)

    async def _stored(self) -> None:
        """Wait for the chunk before. Raises: OSError when the disk is full."""
        if self._storing:
            await asyncio.wait([self._storing])
            self._storing.result()

    async def _begin(self, part: str, first: bytes) -> None:
        self._close()
        self._names.append(part)
        if self._names not in (_UNIFIED, _SPLIT[:1], _SPLIT):
            raise _bad_parts()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(self._folder / part, flags, 0o640)
        if part != "metadata":
            self._head_start = await self._converter.head_start(
                first, self._folder / part, self._folder / MADE
            )

    def _close_when_stored(self) -> None:
        """Close, but not under a thread that still writes: its descriptor may become another file's."""
        if self._storing and not self._storing.done():
            self._storing.add_done_callback(lambda _: self._close())
        else:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _bad_parts() -> Invalid:
    return Invalid("BAD_UPLOAD", "An image is one file, or metadata followed by rootfs; it had neither")


def _store(fd: int, chunk: bytes, digest: hashlib._Hash) -> None:
    digest.update(chunk)
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(fd, rest) :]
    # For pages just written this only starts their way to the disk, so that the final fsync is short.
    end = os.lseek(fd, 0, os.SEEK_CUR)
    os.posix_fadvise(fd, end - len(chunk), len(chunk), os.POSIX_FADV_DONTNEED)
