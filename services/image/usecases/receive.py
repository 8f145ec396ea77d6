"""The bytes of one upload: hashed, stored and, where possible, converted in one pass while they arrive."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import select
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from core.descriptors import readable
from core.errors import Invalid
from services.image.formats.form import Form, form_of
from services.image.ports import Converter, HeadStart
from services.image.usecases.rooms import Count

MADE = "made.squashfs"
_MAX_UPLOAD = 256 << 30
_UNIFIED, _SPLIT = ["unified"], ["metadata", "rootfs"]
_PIECE = 1 << 20
_AT_ONCE = 64 << 20
_IDLE_MS, _STUCK_MS = 5, 30_000
_Moved = tuple[int, bool, bool]
"""How many bytes; whether more may come; whether the head start took them."""


@dataclass(frozen=True)
class Received:
    """What arrived. head_start: the conversion of the root file system that goes on, if one began."""

    fingerprint: str
    size: int
    split: bool
    head_start: HeadStart | None


class Receiver:
    """Fills one staging folder. Use once: receive(), which cleans up after itself when it raises."""

    def __init__(
        self, folder: Path, converter: Converter, count: Count | None = None, *, is_image: bool = False
    ) -> None:
        """*count*: is told the size of each piece, and may raise. is_image: its form is looked at, too."""
        self._is_image = is_image
        self._folder = folder
        self._tell = count
        self._converter = converter
        self._digest = hashlib.sha256()
        self._size = 0
        self._names: list[str] = []
        self._fd = self._pipe = self._feed = -1
        self._storing: asyncio.Task[_Moved] | None = None
        self._head_start: HeadStart | None = None

    async def receive(self, parts: AsyncIterator[tuple[str, bytes | int]]) -> Received:
        """Read *parts* to their end: bytes, or pipes that bring them and are closed here. Raises: Invalid."""
        try:
            async for part, what in parts:
                if isinstance(what, int):
                    await self._drain(part, what)
                else:
                    await self._take(part, what)
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
        self._count(len(chunk))
        if not self._names or self._names[-1] != part:
            await self._begin(part, chunk)
        self._storing = asyncio.create_task(asyncio.to_thread(_store, self._fd, chunk, self._digest))
        if self._head_start:
            await self._head_start.feed(chunk)

    async def _drain(self, part: str, pipe: int) -> None:
        """Take what comes through a pipe, in a thread that comes back whenever nothing does."""
        await self._stored()
        self._pipe, more = pipe, True
        if first := await _first(pipe):
            await self._take(part, first)
            await self._stored()
            self._feed = self._head_start.input() if self._head_start else -1
            buffer = memoryview(bytearray(_PIECE))
        while first and more:
            moving = asyncio.to_thread(_move, pipe, self._fd, self._digest, self._feed, buffer)
            self._storing = asyncio.create_task(moving)
            size, more, was_fed = await self._stored()
            self._count(size)
            if self._head_start and not was_fed:
                await self._lose_head_start()
            if more:
                await readable(pipe)
        self._close_pipes()

    async def _lose_head_start(self) -> None:
        """It missed something, so it is of no use."""
        head_start, self._head_start = self._head_start, None
        self._feed = _closed(self._feed)
        if head_start:
            await head_start.drop()

    def _count(self, size: int) -> None:
        self._size += size
        if self._tell:
            self._tell(size)
        if self._size > _MAX_UPLOAD:
            raise Invalid("TOO_LARGE", "The image is larger than 256 GiB")

    async def _stored(self) -> _Moved:
        """Wait for what was begun before. Raises: OSError when the disk is full."""
        if self._storing is None:
            return 0, False, True
        await asyncio.wait([self._storing])
        return self._storing.result()

    async def _begin(self, part: str, first: bytes) -> None:
        self._close()
        self._names.append(part)
        if self._names not in (_UNIFIED, _SPLIT[:1], _SPLIT):
            raise _bad_parts()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(self._folder / part, flags, 0o640)
        if part != "metadata":
            form = form_of(part) if self._is_image else Form.ANY
            self._head_start = await self._converter.head_start(
                first, self._folder / part, self._folder / MADE, form
            )

    def _close_when_stored(self) -> None:
        """Close, but not under a thread at work: its descriptors may become other files'."""
        if self._storing and not self._storing.done():
            self._storing.add_done_callback(lambda _: self._close_all())
        else:
            self._close_all()

    def _close_all(self) -> None:
        self._close()
        self._close_pipes()

    def _close(self) -> None:
        self._fd = _closed(self._fd)

    def _close_pipes(self) -> None:
        self._pipe, self._feed = _closed(self._pipe), _closed(self._feed)


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1


def _bad_parts() -> Invalid:
    return Invalid("BAD_UPLOAD", "An image is one file, or metadata followed by rootfs; it had neither")


async def _first(pipe: int) -> bytes:
    """Return what comes first; nothing at the end."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return os.read(pipe, _PIECE)
        await readable(pipe)


def _store(fd: int, chunk: bytes | memoryview, digest: hashlib._Hash) -> _Moved:
    digest.update(chunk)
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(fd, rest) :]
    # For pages just written this only starts their way to the disk, so that the final fsync is short.
    end = os.lseek(fd, 0, os.SEEK_CUR)
    os.posix_fadvise(fd, end - len(chunk), len(chunk), os.POSIX_FADV_DONTNEED)
    return len(chunk), True, True


def _move(pipe: int, fd: int, digest: hashlib._Hash, feed: int, buffer: memoryview) -> _Moved:
    """Take what comes for as long as something does."""
    moved, is_fed, waiting = 0, True, select.poll()
    waiting.register(pipe, select.POLLIN)
    while moved < _AT_ONCE:
        try:
            size = os.readv(pipe, [buffer])
        except BlockingIOError:
            if waiting.poll(_IDLE_MS):
                continue
            break
        if not size:
            return moved, False, is_fed
        # First, so that the program at the other end works while we do.
        is_fed = is_fed and (feed < 0 or _fed(feed, buffer[:size]))
        _store(fd, buffer[:size], digest)
        moved += size
    return moved, True, is_fed


def _fed(feed: int, rest: memoryview) -> bool:
    """Give the head start its next bytes; say whether it took them."""
    waiting = select.poll()
    waiting.register(feed, select.POLLOUT)
    while rest:
        try:
            rest = rest[os.write(feed, rest) :]
        except BlockingIOError:
            if not waiting.poll(_STUCK_MS):
                return False
        except OSError:
            return False
    return True
