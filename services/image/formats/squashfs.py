"""Archives to squashfs, outside root: nothing is unpacked, and what does it is a process that ends.

A squashfs of a stranger is taken apart and made anew, since the kernel will mount the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable
from functools import partial
from io import FileIO
from pathlib import Path

from core.errors import TooLate
from services.image.formats import magic
from services.image.formats.form import Form
from services.image.formats.headstart import HeadStart
from services.image.formats.pipeline import Pipeline, bad
from services.image.formats.scanner import Limits
from services.image.formats.squashwriter import lost_acls
from services.image.ports import Tell

_WORKERS = 2
_TELL_EVERY_S = 0.5


class SquashfsConverter:
    """Implements ports.Converter; at most two conversions of stored files and two head starts at once."""

    def __init__(self, limits: Limits = Limits(), tell_every_s: float = _TELL_EVERY_S) -> None:  # noqa: B008  frozen
        self._limits = limits
        self._tell_every_s = tell_every_s
        self._slots = asyncio.Semaphore(_WORKERS)
        # Apart, since a head start lasts as long as its sender likes.
        self._head_slots = asyncio.Semaphore(_WORKERS)

    async def head_start(
        self, first: bytes, source: Path, target: Path, form: Form = Form.ANY
    ) -> HeadStart | None:
        kind = magic.kind_of(first)
        # A squashfs is read from its end.
        if kind in ("", "squashfs") or self._head_slots.locked():
            return None
        await self._head_slots.acquire()
        try:
            pipeline = Pipeline(self._limits, form)
            await pipeline.open(_reader(kind), source, target, None)
        except BaseException:
            self._head_slots.release()
            raise
        return HeadStart(pipeline, self._head_slots)

    async def convert(
        self, source: Path, target: Path, tell: Tell | None = None, form: Form = Form.ANY
    ) -> None:
        async with self._slots:
            with source.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                kind = magic.kind_of(os.pread(file.fileno(), 512, 0))
                if not kind:
                    raise bad("it is neither a tarball nor a squashfs")
                reader = ["sqfs2tar", str(source)] if kind == "squashfs" else _reader(kind)
                pipeline = Pipeline(self._limits, form)
                await pipeline.open(reader, source, target, file.fileno())
                how_far = partial(_progress, file, size, target)
                async with _telling(tell, how_far, self._tell_every_s):
                    await pipeline.run(self._limits.seconds)

    async def read(self, squashfs: Path, name: str, limit: int) -> bytes:
        process = await asyncio.create_subprocess_exec(
            "rdsquashfs", "-c", name, str(squashfs), stdout=PIPE, stderr=DEVNULL, stdin=DEVNULL
        )
        assert process.stdout
        try:
            data = await asyncio.wait_for(_read_up_to(process.stdout, limit), 30)
        except TimeoutError:
            raise TooLate("ARCHIVE_TIMEOUT", f"Reading {name} from the image took too long") from None
        finally:
            await _end(process)
        if len(data) > limit:
            raise bad(f"{name} is larger than {limit} bytes")
        if process.returncode:
            raise bad(f"{name} is missing or not a regular file")
        return data

    def lost_acls(self, squashfs: Path) -> int:
        return lost_acls(squashfs)

    async def is_directory(self, squashfs: Path, name: str) -> bool:
        process = await asyncio.create_subprocess_exec(
            "rdsquashfs", "-s", name, str(squashfs), stdout=PIPE, stderr=DEVNULL, stdin=DEVNULL
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        return process.returncode == 0 and b"directory" in output.splitlines()[1].lower()


async def _read_up_to(stream: asyncio.StreamReader, limit: int) -> bytes:
    data = b""
    while len(data) <= limit and (chunk := await stream.read(1 << 16)):
        data += chunk
    return data


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it if more is to come, and take what it had said: asyncio reports no end before that."""
    assert process.stdout
    if process.returncode is None and not process.stdout.at_eof():
        process.kill()
    while await process.stdout.read(1 << 20):
        pass
    await process.wait()


def _reader(kind: str) -> list[str]:
    return [] if kind == "tar" else list(magic.decompressor(kind))


@contextlib.asynccontextmanager
async def _telling(tell: Tell | None, how_far: Callable[[], str], every_s: float) -> AsyncIterator[None]:
    async def watch() -> None:
        while tell:
            await asyncio.sleep(every_s)
            await tell(how_far())

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _progress(file: FileIO, size: int, target: Path) -> str:
    """Say how far the reader is: it shares the position in its stdin, or else by what came out of it."""
    position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
    if position:
        return f"{position * 100 // size}%"
    return f"{target.stat().st_size >> 20 if target.exists() else 0} MiB"
