"""Roots of instances as archives, for images, backups and other servers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from core.compression import Compression
from core.descriptors import Reader, big_pipe
from core.errors import WrongState
from core.records import Instance
from services.runtime.kernel.archives import pack_squashfs, pack_tar
from services.runtime.kernel.trees import Root, open_tree
from services.runtime.usecases.host import Host

ROOT = "rootfs"
_CHUNK = 1 << 20
_TELL_EVERY_S = 0.5


@dataclass(frozen=True)
class Packed:
    """How far it is: bytes so far, or the next bytes themselves."""

    so_far: int = 0
    chunk: bytes = b""


class Packs:
    def __init__(self, host: Host, state_dir: Path) -> None:
        self._host = host
        self._state_dir = state_dir

    async def root(
        self,
        project: str,
        name: str,
        snapshot: str,
        compression: Compression,
        files: Mapping[str, bytes],
    ) -> AsyncGenerator[Packed, None]:
        """Yield the root of a stopped instance or a snapshot, for an image. Raises: NotFound, WrongState."""
        instance = self._source(project, name, snapshot)
        async with self.tree(files, {ROOT: await self.root_of(instance)}) as tree:
            if compression.name == "squashfs":
                packed = self._squashfs(tree)
            else:
                packed = self._tar(tree, sorted({*(path.split("/")[0] for path in files), ROOT}), compression)
            async with aclosing(packed):
                async for item in packed:
                    yield item
        # What was changed or deleted under our hands would be an image of nothing that ever was.
        self._source(project, name, snapshot)

    def _source(self, project: str, name: str, snapshot: str) -> Instance:
        """Return whose layers to read: of a snapshot those that are named by its own id."""
        instance = self._host.store.instance(project, name).record
        if snapshot:
            found = self._host.store.snapshot(instance, snapshot).record
            return replace(found.instance, id=found.id)
        self._refuse_running(instance)
        return instance

    async def root_of(self, instance: Instance) -> Root:
        lower, volume = await asyncio.gather(self._host.lower(instance), self._host.volume(instance))
        return Root(volume / "upper", lower, instance.base_shift)

    @asynccontextmanager
    async def tree(self, files: Mapping[str, bytes], roots: Mapping[str, Root]) -> AsyncIterator[int]:
        tree = await asyncio.to_thread(open_tree, files, roots)
        try:
            yield tree
        finally:
            await asyncio.to_thread(os.close, tree)

    def _refuse_running(self, instance: Instance) -> None:
        status = self._host.store.observed_of(instance).record.status
        if status not in ("stopped", "error"):
            raise WrongState("RUNNING", "Cannot export a running instance as an image", about=instance.name)

    async def _tar(
        self, tree: int, names: list[str], compression: Compression
    ) -> AsyncGenerator[Packed, None]:
        async for chunk in streamed(lambda target: pack_tar(tree, names, compression, target)):
            yield Packed(chunk=chunk)

    async def _squashfs(self, tree: int) -> AsyncGenerator[Packed, None]:
        root = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
        file = os.open(self._state_dir, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            packing = asyncio.create_task(pack_squashfs(root, file))
            try:
                while not (await asyncio.wait([packing], timeout=_TELL_EVERY_S))[0]:
                    yield Packed(so_far=os.fstat(file).st_size)
                packing.result()
            finally:
                packing.cancel()
                await asyncio.wait([packing])
            while chunk := await asyncio.to_thread(os.read, file, _CHUNK):
                yield Packed(chunk=chunk)
        finally:
            os.close(file)
            os.close(root)


async def streamed(pack: Callable[[int], Awaitable[None]]) -> AsyncGenerator[bytes, None]:
    """Yield what *pack* writes into the descriptor it is given, no faster than it is taken."""
    read, write = big_pipe()
    packing = asyncio.ensure_future(_closing(pack, write))
    reader = Reader(read)
    try:
        while chunk := await reader.read():
            yield chunk
        await packing
    finally:
        packing.cancel()
        await asyncio.wait([packing])
        reader.close()
        os.close(read)


async def _closing(pack: Callable[[int], Awaitable[None]], target: int) -> None:
    try:
        await pack(target)
    finally:
        os.close(target)
