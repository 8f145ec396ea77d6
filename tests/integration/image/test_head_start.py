"""Conversion in the same pass as the upload: it saves time, and what it cannot do is done afterwards."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import Invalid
from services.image.formats.scanner import Limits
from services.image.formats.squashfs import SquashfsConverter
from services.image.usecases.receive import MADE, Received, Receiver

SMALL = Limits(ratio=10, ratio_floor_bytes=1 << 20)


def tarball(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


async def chunks(data: bytes, size: int = 1 << 16) -> AsyncIterator[tuple[str, bytes]]:
    for at in range(0, len(data), size):
        yield "unified", data[at : at + size]


async def receive(converter: SquashfsConverter, folder: Path, data: bytes) -> Received:
    folder.mkdir(exist_ok=True)
    return await Receiver(folder, converter).receive(chunks(data))


def content(squashfs: Path, path: str) -> bytes:
    return subprocess.run(["rdsquashfs", "-c", path, str(squashfs)], capture_output=True, check=True).stdout


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("packed", [True, False])
async def test_an_upload_is_stored_hashed_and_converted_in_one_pass(tmp_path: Path, packed: bool) -> None:
    """The squashfs is complete as soon as the last byte is here, and nothing of it is left running."""
    body = os.urandom(3 << 20)
    data = tarball(a=body, b=b"2")
    data = gzip.compress(data, 1) if packed else data
    before = descriptors(), children()
    received = await receive(SquashfsConverter(), tmp_path, data)
    assert received.head_start and await received.head_start.done(60)

    assert (received.fingerprint, received.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (tmp_path / "unified").read_bytes() == data
    assert content(tmp_path / MADE, "a") == body
    assert (descriptors(), children()) == before


async def test_an_archive_that_only_begins_like_a_bomb_is_converted_afterwards(tmp_path: Path) -> None:
    """How far a file may grow is known when all of it is here; honest images may begin with zeros."""
    converter = SquashfsConverter(SMALL)
    data, known = gzip.compress(tarball(zeros=bytes(16 << 20), noise=os.urandom(2 << 20))), children()

    async def waiting() -> AsyncIterator[tuple[str, bytes]]:
        async for part in chunks(data, 5 << 18):
            yield part
            async with asyncio.timeout(10):
                while children() - known:
                    await asyncio.sleep(0.01)

    received = await Receiver(tmp_path, converter).receive(waiting())
    assert received.head_start and not await received.head_start.done(60)
    await converter.convert(tmp_path / "unified", tmp_path / MADE)
    assert content(tmp_path / MADE, "zeros") == bytes(16 << 20)


async def test_a_third_upload_waits_for_no_other(tmp_path: Path) -> None:
    """Slow senders keep their head starts; whoever comes later is converted after its upload."""
    converter, data = SquashfsConverter(), gzip.compress(tarball(a=b"x"))
    slow = [await converter.head_start(data, tmp_path / "unified", tmp_path / f"slow{n}") for n in range(2)]
    received = await receive(converter, tmp_path, data)

    assert all(slow) and received.head_start is None
    await converter.convert(tmp_path / "unified", tmp_path / MADE)
    assert content(tmp_path / MADE, "a") == b"x"
    for head_start in slow:
        assert head_start
        await head_start.drop()
    assert (await receive(converter, tmp_path, data)).head_start


async def test_an_upload_that_breaks_off_leaves_no_process_and_no_descriptor(tmp_path: Path) -> None:
    converter, before = SquashfsConverter(), (descriptors(), children())

    async def broken() -> AsyncIterator[tuple[str, bytes]]:
        async for part in chunks(gzip.compress(tarball(a=os.urandom(3 << 20)), 1)[: 2 << 20]):
            yield part
        raise ConnectionError

    for _ in range(3):
        with pytest.raises(ConnectionError):
            await Receiver(tmp_path, converter).receive(broken())
    async with asyncio.timeout(5):  # a chunk may still be on its way to the disk
        while (descriptors(), children()) != before:
            await asyncio.sleep(0.01)


async def test_a_decompressor_that_dies_costs_only_time(tmp_path: Path) -> None:
    converter = SquashfsConverter()
    data = gzip.compress(tarball(a=os.urandom(4 << 20)), 1)

    async def killing() -> AsyncIterator[tuple[str, bytes]]:
        known = children()
        async for part in chunks(data):
            yield part
            for pid in children() - known:
                os.kill(int(pid), signal.SIGKILL)
            known |= children()

    received = await Receiver(tmp_path, converter).receive(killing())
    assert received.head_start and not await received.head_start.done(60)
    await converter.convert(tmp_path / "unified", tmp_path / MADE)
    assert len(content(tmp_path / MADE, "a")) == 4 << 20


async def test_half_an_archive_has_no_finished_head_start_and_says_why_afterwards(tmp_path: Path) -> None:
    converter = SquashfsConverter()
    received = await receive(converter, tmp_path, gzip.compress(tarball(a=os.urandom(1 << 20)))[:-9])
    assert received.head_start and not await received.head_start.done(60)
    with pytest.raises(Invalid, match=r"not usable|refused"):
        await converter.convert(tmp_path / "unified", tmp_path / MADE)


async def test_a_writer_with_much_to_say_does_not_stop(tmp_path: Path) -> None:
    """tar2sqfs warns once per odd entry; a pipe full of warnings must not stop it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(5000):
            info = tarfile.TarInfo(f"f{number}")
            info.pax_headers = {"SCHILY.xattr.system.posix_acl_access": "odd" * 10}
            tar.addfile(info)
    (tmp_path / "unified").write_bytes(out.getvalue())
    async with asyncio.timeout(30):
        await SquashfsConverter().convert(tmp_path / "unified", tmp_path / MADE)
    assert (tmp_path / MADE).stat().st_size


async def through_a_pipe(data: bytes, converter: SquashfsConverter, folder: Path, pause_s: float) -> Received:
    """Receive what somebody else writes into a pipe, now and then."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)

    def fill() -> None:
        for at in range(0, len(data), 700_001):
            os.write(theirs, data[at : at + 700_001])
            time.sleep(pause_s)
        os.close(theirs)

    async def parts() -> AsyncIterator[tuple[str, int]]:
        yield "unified", ours

    received, _ = await asyncio.gather(Receiver(folder, converter).receive(parts()), asyncio.to_thread(fill))
    return received


@pytest.mark.parametrize("pause_s", [0.0, 0.02])
async def test_what_comes_through_a_pipe_is_converted_in_the_same_pass(
    tmp_path: Path, pause_s: float
) -> None:
    body, before = os.urandom(6 << 20), (descriptors(), children())
    data = gzip.compress(tarball(a=body), 1)
    received = await through_a_pipe(data, SquashfsConverter(), tmp_path, pause_s)
    assert received.head_start and await received.head_start.done(60)
    assert (received.fingerprint, received.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (tmp_path / "unified").read_bytes() == data
    assert content(tmp_path / MADE, "a") == body
    assert (descriptors(), children()) == before


async def test_a_pipe_outlives_a_head_start_that_dies(tmp_path: Path) -> None:
    """What the dead one missed is no part of any image: all is converted from what was stored."""
    data, before = gzip.compress(tarball(a=os.urandom(6 << 20)), 1), (descriptors(), children())

    async def killer() -> None:
        while not (found := children() - before[1]):
            await asyncio.sleep(0.001)
        for pid in found:
            os.kill(int(pid), signal.SIGKILL)

    received, _ = await asyncio.gather(through_a_pipe(data, SquashfsConverter(), tmp_path, 0.02), killer())
    assert received.head_start is None or not await received.head_start.done(60)
    assert (tmp_path / "unified").read_bytes() == data
    assert (descriptors(), children()) == before


async def test_an_upload_that_is_cancelled_closes_its_pipe(tmp_path: Path) -> None:
    before, (ours, theirs) = descriptors(), os.pipe()
    os.set_blocking(ours, False)

    async def parts() -> AsyncIterator[tuple[str, int]]:
        yield "unified", ours

    os.write(theirs, gzip.compress(tarball(a=b"x")))
    task = asyncio.create_task(Receiver(tmp_path, SquashfsConverter()).receive(parts()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.close(theirs)
    assert descriptors() == before
