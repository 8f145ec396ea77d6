"""Start rsync's ends in jails that show them one folder. Implements usecases.wire.Transit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from core.errors import LimitReached
from services.runtime.kernel import jail, rsync
from services.runtime.kernel.rsync import Rsync
from services.runtime.kernel.trees import Root, open_tree

_ONLY = "volume"
_MOST = 32


class RsyncTransit:
    def __init__(self) -> None:
        self._running = 0

    @asynccontextmanager
    async def receiving(self, folder: Path, name: str, features: frozenset[str]) -> AsyncIterator[Rsync]:
        def start() -> tuple[int, Rsync]:
            return _jailed(
                lambda: _beside(folder, name or _ONLY),
                lambda root: rsync.receiver(root, "" if name else _ONLY, sorted(features)),
            )

        async with self._started(start) as end:
            yield end

    @asynccontextmanager
    async def sending(
        self,
        files: Mapping[str, bytes],
        roots: Mapping[str, Root],
        top: str,
        features: frozenset[str],
        *,
        bound: str = "",
    ) -> AsyncIterator[Rsync]:
        def start() -> tuple[int, Rsync]:
            return _jailed(
                lambda: open_tree(files, roots), lambda root: rsync.sender(root, top, sorted(features), bound)
            )

        async with self._started(start) as end:
            yield end

    @asynccontextmanager
    async def _started(self, start: Callable[[], tuple[int, Rsync]]) -> AsyncIterator[Rsync]:
        """Raises: LimitReached."""
        if self._running >= _MOST:
            raise LimitReached(
                "TRANSFERS", f"This server carries {_MOST} transfers at once at most; try later"
            )
        self._running += 1
        try:
            async with _ended(start) as end:
                yield end
        finally:
            self._running -= 1


def _beside(folder: Path, name: str) -> int:
    """Return a small folder in memory, in which *folder* is to be seen as *name*."""
    top = jail.empty_folder()
    try:
        mount = jail.folder_of(folder)
        try:
            jail.attach_at(top, name, mount)
        finally:
            os.close(mount)
    except OSError:
        os.close(top)
        raise
    return top


def _jailed(data: Callable[[], int], start: Callable[[int], Rsync]) -> tuple[int, Rsync]:
    folder = data()
    try:
        root = jail.open_jail(folder)
    finally:
        os.close(folder)
    try:
        return root, start(root)
    except OSError:
        os.close(root)
        raise


@asynccontextmanager
async def _ended(start: Callable[[], tuple[int, Rsync]]) -> AsyncIterator[Rsync]:
    root, end = await asyncio.to_thread(start)
    try:
        yield end
    finally:
        try:
            await asyncio.shield(end.close())
        finally:
            await asyncio.to_thread(os.close, root)
