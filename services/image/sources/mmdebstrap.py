"""Build an image from packages as the unprivileged user that this service is.

fakechroot and fakeroot make mmdebstrap believe in a chroot and in owners; the tarball it writes holds
what a build by root holds. Device nodes and owners exist in that tarball only, never on this host.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import tarfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from core.errors import Invalid
from services.image.sources.recipe import Recipe

_CHUNK = 1 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Mmdebstrap:
    """Implements ports.Builder; one build at a time. prefix: what mmdebstrap is run by, if anything."""

    def __init__(self, prefix: tuple[str, ...] = ()) -> None:
        self._prefix = prefix
        self._slot = asyncio.Semaphore(1)

    async def parts(
        self, recipe: Recipe, work: Path, tell: Callable[[str], Awaitable[None]]
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        async with self._slot:
            await asyncio.to_thread(recipe.prepare, work)
            argv = [*self._prefix, *recipe.argv(work, "-", mode="fakechroot")]
            yield "metadata", _metadata_tar(recipe.metadata(time.time()))
            async with contextlib.aclosing(_rootfs(argv, work, tell)) as chunks:
                async for chunk in chunks:
                    yield "rootfs", chunk


async def _rootfs(
    argv: list[str], work: Path, tell: Callable[[str], Awaitable[None]]
) -> AsyncGenerator[bytes, None]:
    environment = {"PATH": _PATH, "HOME": str(work), "TMPDIR": str(work), "LANG": "C.UTF-8"}
    source, target = os.pipe2(os.O_CLOEXEC)
    try:
        build = await asyncio.create_subprocess_exec(
            *argv,
            stdin=DEVNULL,
            stdout=target,
            stderr=PIPE,
            env=environment,
            cwd=work,
            start_new_session=True,
        )
        packer = await asyncio.create_subprocess_exec("zstd", "-q", "-3", "-c", stdin=source, stdout=PIPE)
    finally:
        os.close(source)
        os.close(target)
    said = asyncio.create_task(_listen(build, tell))
    assert packer.stdout
    try:
        while chunk := await packer.stdout.read(_CHUNK):
            yield chunk
        if await build.wait():
            raise Invalid("BUILD_FAILED", f"The image was not built: {await said}")
    finally:
        _kill_session(build)
        while await packer.stdout.read(_CHUNK):
            pass
        await asyncio.gather(said, build.wait(), packer.wait())


async def _listen(process: Process, tell: Callable[[str], Awaitable[None]]) -> str:
    """Tell every line that a build says about itself; return its first error, or its last line."""
    assert process.stderr
    last, error = "it said nothing", ""
    async for raw in process.stderr:
        line = raw.decode(errors="replace").strip()[:200]
        if line.startswith("I: "):
            await tell(line.removeprefix("I: "))
        if line.startswith("E: "):
            error = error or line.removeprefix("E: ")
        last = line or last
    return error or last


def _kill_session(process: Process) -> None:
    """Kill a program that leads a session, and all that it started there."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _metadata_tar(text: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        info = tarfile.TarInfo("metadata.yaml")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return out.getvalue()
