"""One pass over an archive: a program that unpacks it, and the one that makes a squashfs of what comes out.

Nothing touches the disk but the squashfs. The two speak to each other: no byte of an archive passes
through this process, or stays in its memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

from core.descriptors import Writer, big_pipe
from core.errors import Invalid, TooLate
from services.image.formats.layer import REFUSED
from services.image.formats.scanner import Limits

_ROOT = Path(__file__).resolve().parents[3]
_SAID_MAX = 1 << 16
_MAX_BYTES = 64 << 30
_MAX_MEMORY = 4 << 30
_MAX_CPU_S = 900


def bad(why: str) -> Invalid:
    return Invalid("BAD_ARCHIVE", f"The image is not usable: {why}")


def bounded(*argv: str) -> list[str]:
    """Return the command that runs *argv*, options of prlimit(1) and a program, within the usual bounds."""
    return ["prlimit", f"--fsize={_MAX_BYTES}", f"--cpu={_MAX_CPU_S}", *argv]


class Pipeline:
    """Running programs and what lies between them. open(), then run() to its end or cancelled."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._input: Writer | None = None
        self._reader: Process | None = None
        self._writer: Process

    async def open(self, reader: list[str] | None, received: Path, target: Path, source: int | None) -> None:
        """Start the programs. *reader* is None where the archive is not packed.

        source: the first one's stdin, a descriptor or None for what comes through input(). received:
        the file that holds what was received so far.
        """
        if source is not None:
            await self._open(reader, received, target, source)
            return
        theirs, ours = big_pipe()
        self._input = Writer(ours)
        try:
            await self._open(reader, received, target, theirs)
        except BaseException:
            self.end_input()
            raise
        finally:
            os.close(theirs)

    async def write(self, data: bytes) -> bool:
        """Give the first program its next bytes; say whether it still took them."""
        return self._input is not None and await self._input.write(data)

    def input(self) -> int:
        """Return a descriptor of the caller's for what write() writes to."""
        assert self._input
        return self._input.duplicate()

    def end_input(self) -> None:
        """No more comes. Whoever writes calls it, also after run(): a write may be waiting until then."""
        if self._input:
            self._input.close()

    async def _open(self, reader: list[str] | None, received: Path, target: Path, source: int) -> None:
        if reader is None:
            self._writer = await self._layer(received, target, source)
            return
        unpacked = big_pipe()
        try:
            self._reader = await asyncio.create_subprocess_exec(
                *reader, stdin=source, stdout=unpacked[1], stderr=DEVNULL
            )
            try:
                self._writer = await self._layer(received, target, unpacked[0])
            except BaseException:
                _kill(self._reader)
                raise
        finally:
            for descriptor in unpacked:
                os.close(descriptor)

    async def _layer(self, received: Path, target: Path, source: int) -> Process:
        limits = self._limits
        numbers = (limits.tree_bytes, limits.entries, limits.ratio, limits.ratio_floor_bytes)
        return await asyncio.create_subprocess_exec(
            *bounded(f"--as={_MAX_MEMORY}", "--", sys.executable, "-S", "-B"),
            *("-m", "services.image.formats.layer"),
            *(str(received), str(target), ",".join(map(str, numbers))),
            stdin=source,
            stdout=DEVNULL,
            stderr=PIPE,
            cwd="/",
            env={"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "PATH": os.defpath},
        )

    async def run(self, limit_s: float | None) -> None:
        """Return when the squashfs is complete. Leaves no process or descriptor, however it ends.

        Raises: Invalid, TooLate.
        """
        said = asyncio.ensure_future(_said(self._writer))
        try:
            async with asyncio.timeout(limit_s):
                verdict = await self._writer.wait()
                # Who was refused has more to say that nobody hears.
                unpacked = await self._reader.wait() if self._reader and not verdict else 0
        except TimeoutError:
            raise TooLate("ARCHIVE_TIMEOUT", "The image took too long to read; it was refused") from None
        finally:
            for process in (self._reader, self._writer):
                if process:
                    _kill(process)
                    await process.wait()
            await asyncio.wait([said])
        why = said.result().decode(errors="replace").strip().splitlines()[:1]
        if verdict == REFUSED and why:
            raise Invalid("BAD_ARCHIVE", why[0][:300])
        if verdict:
            raise bad("reading it took too much time or memory")
        if unpacked:
            raise bad("its data is damaged")


async def _said(process: Process) -> bytes:
    """Return the beginning of what a program says; the rest is read too, lest it wait for a listener."""
    assert process.stderr
    said = b""
    while chunk := await process.stderr.read(_SAID_MAX):
        said += chunk[: _SAID_MAX - len(said)]
    return said


def _kill(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
