"""One pass over an archive: a program that unpacks it, the scanner, a program that writes a squashfs.

Nothing touches the disk but the squashfs. A thread moves the bytes between the two programs, since
the event loop would copy each of them three times more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from concurrent.futures import Executor
from typing import Any

from core.descriptors import Writer, big_pipe
from core.errors import Invalid, TooLate
from services.image.formats.scanner import TarScanner

_CHUNK = 1 << 20
_SAID_MAX = 1 << 16


def bad(why: str) -> Invalid:
    return Invalid("BAD_ARCHIVE", f"The image is not usable: {why}")


class Pipeline:
    """Two running programs and what lies between them. open(), then run() to its end or cancelled."""

    def __init__(self, scanner: TarScanner, pumps: Executor) -> None:
        self._scanner = scanner
        self._pumps = pumps
        self._ends = (-1, -1)
        self._input: Writer | None = None
        self.reader: Process
        self.writer: Process

    async def open(self, reader: list[str], writer: list[str], source: int | None) -> None:
        """Start both programs; *source* is the reader's stdin, a descriptor or None for what write() gets."""
        if source is not None:
            await self._open(reader, writer, source)
            return
        theirs, ours = big_pipe()
        self._input = Writer(ours)
        try:
            await self._open(reader, writer, theirs)
        except BaseException:
            self.end_input()
            raise
        finally:
            os.close(theirs)

    async def write(self, data: bytes) -> bool:
        """Give the reader its next bytes; say whether it still took them."""
        return self._input is not None and await self._input.write(data)

    def end_input(self) -> None:
        """No more comes. Whoever writes calls it, also after run(): a write may be waiting until then."""
        if self._input:
            self._input.close()

    async def _open(self, reader: list[str], writer: list[str], source: int) -> None:
        unpacked, checked = big_pipe(), big_pipe()
        self._ends = unpacked[0], checked[1]
        try:
            self.reader = await asyncio.create_subprocess_exec(
                *reader, stdin=source, stdout=unpacked[1], stderr=DEVNULL
            )
            try:
                self.writer = await asyncio.create_subprocess_exec(
                    *writer, stdin=checked[0], stdout=DEVNULL, stderr=PIPE
                )
            except BaseException:
                _kill(self.reader)
                raise
        except BaseException:
            _close(self._ends)
            raise
        finally:
            _close((unpacked[1], checked[0]))

    async def run(self, limit_s: float | None) -> None:
        """Return when the squashfs is complete. Leaves no process or descriptor, however it ends.

        Raises: Invalid, TooLate.
        """
        loop = asyncio.get_running_loop()
        pump: asyncio.Future[Any] = loop.run_in_executor(self._pumps, _pump, *self._ends, self._scanner)
        said: asyncio.Future[Any] = asyncio.ensure_future(_said(self.writer))
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.wait([pump, said], return_when=asyncio.FIRST_EXCEPTION)
                if pump.done():
                    pump.result()
                codes = await self.writer.wait(), await self.reader.wait()
        except TimeoutError:
            raise TooLate("ARCHIVE_TIMEOUT", "The image took too long to read; it was refused") from None
        finally:
            _kill(self.reader)
            _kill(self.writer)
            # Both end now that nobody is at the other side; the descriptors are the pump's to close.
            await asyncio.wait([pump, said])
            await self.reader.wait()
            await self.writer.wait()
        if any(codes):
            why = said.result().decode(errors="replace").strip().splitlines()[:1] or ["its data is damaged"]
            raise bad(why[0][:200])
        self._scanner.finish()


def _pump(source: int, target: int, scanner: TarScanner) -> None:
    """Copy what the scanner lets pass, so that a bomb can fill neither disk nor memory."""
    buffer = memoryview(bytearray(_CHUNK))
    try:
        while size := os.readv(source, [buffer]):
            scanner.feed(buffer[:size])
            rest = buffer[:size]
            while rest:
                rest = rest[os.write(target, rest) :]
    except BrokenPipeError:
        # The writer gave up and its exit says why; the reader finds nobody to take its output.
        pass
    finally:
        _close((source, target))


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


def _close(descriptors: tuple[int, int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
