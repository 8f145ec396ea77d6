"""Archives to squashfs with squashfs-tools-ng: nothing is unpacked, nothing runs as root.

A squashfs of a stranger is taken apart and made anew, since the kernel will mount the result.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from core.errors import Invalid, TooLate
from services.image.formats import magic
from services.image.formats.scanner import Limits, TarScanner

_MAX_BYTES = 64 << 30
_MAX_CPU_S = 900
_MAX_WALL_S = 900.0
_WORKERS = 2


def bad(why: str) -> Invalid:
    return Invalid("BAD_ARCHIVE", f"The image is not usable: {why}")


class SquashfsConverter:
    """Implements ports.Converter; at most two conversions run at once."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008  frozen
        self._limits = limits
        self._slots = asyncio.Semaphore(_WORKERS)

    async def convert(self, source: Path, target: Path) -> None:
        head, size = await asyncio.to_thread(_head, source)
        kind = magic.kind_of(head)
        if not kind:
            raise bad("it is neither a tarball nor a squashfs")
        async with self._slots:
            scanner = TarScanner(self._limits, size)
            await _pipeline(_reader(kind, source), _writer(target), source, scanner)

    async def read(self, squashfs: Path, name: str, limit: int) -> bytes:
        process = await asyncio.create_subprocess_exec(
            "rdsquashfs",
            "-c",
            name,
            str(squashfs),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            stdin=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout
        try:
            data = await asyncio.wait_for(_read_up_to(process.stdout, limit), 30)
        except TimeoutError:
            process.kill()
            raise TooLate("ARCHIVE_TIMEOUT", f"Reading {name} from the image took too long") from None
        if len(data) > limit:
            await _end(process)
            raise bad(f"{name} is larger than {limit} bytes")
        if await process.wait():
            raise bad(f"{name} is missing or not a regular file")
        return data

    async def is_directory(self, squashfs: Path, name: str) -> bool:
        process = await asyncio.create_subprocess_exec(
            "rdsquashfs",
            "-s",
            name,
            str(squashfs),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            stdin=asyncio.subprocess.DEVNULL,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        return process.returncode == 0 and b"directory" in output.splitlines()[1].lower()


async def _read_up_to(stream: asyncio.StreamReader, limit: int) -> bytes:
    data = b""
    while len(data) <= limit and (chunk := await stream.read(1 << 16)):
        data += chunk
    return data


def _head(path: Path) -> tuple[bytes, int]:
    """Return the first bytes of a file and how many there are."""
    with path.open("rb") as file:
        return file.read(512), path.stat().st_size


def _bounded(*argv: str) -> list[str]:
    return ["prlimit", f"--fsize={_MAX_BYTES}", f"--cpu={_MAX_CPU_S}", "--", *argv]


def _reader(kind: str, source: Path) -> list[str]:
    if kind == "squashfs":
        return _bounded("sqfs2tar", str(source))
    if kind == "tar":
        return ["cat"]
    return _bounded(*magic.decompressor(kind))


def _writer(target: Path) -> list[str]:
    return _bounded("tar2sqfs", "-q", "-f", "-c", "zstd", "-X", "level=1", "-j", "2", str(target))


async def _pipeline(reader: list[str], writer: list[str], source: Path, scanner: TarScanner) -> None:
    pipe = asyncio.subprocess.PIPE
    with source.open("rb") as file:
        first = await asyncio.create_subprocess_exec(
            *reader, stdin=file, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, limit=1 << 20
        )
    second = await asyncio.create_subprocess_exec(
        *writer, stdin=pipe, stdout=asyncio.subprocess.DEVNULL, stderr=pipe
    )
    try:
        async with asyncio.timeout(_MAX_WALL_S):
            _, error = await asyncio.gather(_pump(first, second, scanner), _read_all(second))
            codes = await first.wait(), await second.wait()
    except TimeoutError:
        raise TooLate("ARCHIVE_TIMEOUT", "The image took too long to read; it was refused") from None
    finally:
        await _end(first)
        await _end(second)
    # The writer's exit counts first: it says why, the reader may only have lost its listener.
    if any(codes):
        why = error.decode(errors="replace").strip().splitlines()[:1] or ["its data is damaged"]
        raise bad(why[0][:200])
    scanner.finish()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it if it still runs, and take what it had said: asyncio reports no end before that."""
    if process.returncode is None:
        process.kill()
    while process.stdout and await process.stdout.read(1 << 20):
        pass
    await process.wait()


async def _read_all(process: asyncio.subprocess.Process) -> bytes:
    assert process.stderr
    return await _read_up_to(process.stderr, 1 << 16)


async def _pump(
    first: asyncio.subprocess.Process, second: asyncio.subprocess.Process, scanner: TarScanner
) -> None:
    """Copy what the scanner lets pass, so that a bomb can fill neither disk nor memory."""
    assert first.stdout and second.stdin
    try:
        while chunk := await first.stdout.read(1 << 20):
            scanner.feed(chunk)
            second.stdin.write(chunk)
            await second.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        # The writer gave up; the reader would wait for ever for somebody to take its output.
        first.kill()
    finally:
        second.stdin.close()
