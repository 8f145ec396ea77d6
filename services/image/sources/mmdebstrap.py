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
import sys
import tarfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from core.errors import Invalid
from services.image.sources.recipe import Recipe, RecipeFile

_ROOT = Path(__file__).resolve().parents[3]
_CHUNK = 1 << 20
_STAGES = {
    "running apt-get update": "5% ",
    "downloading packages": "10% ",
    "extracting archives": "35% ",
    "installing essential": "40% ",
    "downloading apt": "45% ",
    "installing remaining": "60% ",
    "running --customize-hook": "85% ",
    "cleaning package": "90% ",
    "creating tarball": "95% ",
}
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
            files = work / "files.tar"
            if recipe.files:
                await asyncio.to_thread(files.write_bytes, _files_tar(recipe.files))
            argv = [*self._prefix, *recipe.argv(work, "-", mode="fakechroot")]
            yield "metadata", _metadata_tar(recipe.metadata(time.time()))
            async with contextlib.aclosing(
                _rootfs(argv, work, files if recipe.files else None, tell)
            ) as chunks:
                async for chunk in chunks:
                    yield "rootfs", chunk


async def _rootfs(
    argv: list[str], work: Path, files: Path | None, tell: Callable[[str], Awaitable[None]]
) -> AsyncGenerator[bytes, None]:
    environment = {"PATH": _PATH, "HOME": str(work), "TMPDIR": str(work), "LANG": "C.UTF-8"}
    async with contextlib.AsyncExitStack() as stack:
        build, packer, others = await _chain(argv, work, files, environment)
        said = asyncio.create_task(_listen(build, tell))
        stack.push_async_callback(_end, build, packer, others, said)
        assert packer.stdout
        while chunk := await packer.stdout.read(_CHUNK):
            yield chunk
        if await build.wait():
            raise Invalid("BUILD_FAILED", f"The image was not built: {await said}")
        if any([await other.wait() for other in others]):
            raise Invalid("BUILD_FAILED", "The image was not built: its files could not be added")


async def _chain(
    argv: list[str], work: Path, files: Path | None, environment: dict[str, str]
) -> tuple[Process, Process, list[Process]]:
    """Start what builds, what adds *files* to it, and what packs it; return first, last and the others."""
    pipes = [os.pipe2(os.O_CLOEXEC)]
    others = []
    try:
        build = await asyncio.create_subprocess_exec(
            *argv,
            stdin=DEVNULL,
            stdout=pipes[0][1],
            stderr=PIPE,
            env=environment,
            cwd=work,
            start_new_session=True,
        )
        if files:
            pipes.append(os.pipe2(os.O_CLOEXEC))
            appender = (sys.executable, "-S", "-m", "services.image.sources.appender", str(files))
            adding = {"PATH": _PATH, "PYTHONPATH": str(_ROOT)}
            others.append(
                await asyncio.create_subprocess_exec(
                    *appender, stdin=pipes[0][0], stdout=pipes[1][1], stderr=DEVNULL, env=adding
                )
            )
        packer = await asyncio.create_subprocess_exec(
            "zstd", "-q", "-3", "-c", stdin=pipes[-1][0], stdout=PIPE
        )
    finally:
        for pipe in pipes:
            os.close(pipe[0])
            os.close(pipe[1])
    return build, packer, others


async def _end(build: Process, packer: Process, others: list[Process], said: asyncio.Task[str]) -> None:
    """Leave no process; those behind the build end with its output."""
    _kill_session(build)
    assert packer.stdout
    while await packer.stdout.read(_CHUNK):
        pass
    await asyncio.gather(said, build.wait(), packer.wait(), *(other.wait() for other in others))


async def _listen(process: Process, tell: Callable[[str], Awaitable[None]]) -> str:
    """Tell every line that a build says about itself; return its first error, or its last line."""
    assert process.stderr
    last, error = "it said nothing", ""
    async for raw in process.stderr:
        line = raw.decode(errors="replace").strip()[:200]
        if line.startswith("I: "):
            await tell(_how_far(line.removeprefix("I: ")))
        if line.startswith("E: "):
            error = error or line.removeprefix("E: ")
        last = line or last
    return error or last


def _how_far(line: str) -> str:
    """Put before a line of mmdebstrap's how far the build is then, about."""
    share = next((share for words, share in _STAGES.items() if line.startswith(words)), "")
    return f"{share}{line}"


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


def _files_tar(files: tuple[RecipeFile, ...]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            info, content = tarfile.TarInfo(f"./{file.path}"), file.content.encode()
            info.size, info.mode, info.mtime = len(content), file.mode, int(time.time())
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
