"""Descriptors that are closed while somebody still reads."""

from __future__ import annotations

import asyncio
import os

import pytest

from core import descriptors
from core.descriptors import Reader


async def test_a_closed_reader_ends_and_never_reads_who_has_the_number_next() -> None:
    """A killed command's descriptor is closed at once; the next command may get its number."""
    ours, theirs = os.pipe()
    reader = Reader(ours)
    waiting = asyncio.create_task(reader.read())
    await asyncio.sleep(0)

    reader.close()
    os.close(ours)
    other, others = os.pipe()
    os.write(others, b"not for you")

    assert await asyncio.wait_for(waiting, 5) == b""
    assert await reader.read() == b""
    for fd in (theirs, other, others):
        os.close(fd)


async def test_what_was_written_before_the_end_is_read() -> None:
    ours, theirs = os.pipe()
    reader = Reader(ours)
    os.write(theirs, b"last words")
    os.close(theirs)
    reader.finish()

    assert await reader.read() == b"last words"
    assert await reader.read() == b""
    os.close(ours)


async def test_what_outlives_its_command_is_heard_until_it_is_silent() -> None:
    """`exec > >(tee log)`: the shell ends before tee has written. A daemon never does."""
    ours, theirs = os.pipe()
    reader = Reader(ours, quiet_s=0.2)
    reader.finish()
    asyncio.get_running_loop().call_later(0.05, os.write, theirs, b"late")

    assert await asyncio.wait_for(reader.read(), 5) == b"late"
    assert await asyncio.wait_for(reader.read(), 5) == b""  # it keeps the descriptor, and is not waited for
    for fd in (ours, theirs):
        os.close(fd)


async def test_what_never_stops_writing_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_LONGEST_S", 0.1)
    ours, theirs = os.pipe()
    reader = Reader(ours)
    reader.finish()

    ticking = asyncio.create_task(_tick(theirs))

    async with asyncio.timeout(5):
        while await reader.read():
            pass
    ticking.cancel()
    for fd in (ours, theirs):
        os.close(fd)


async def _tick(fd: int) -> None:
    while True:
        os.write(fd, b"tick")
        await asyncio.sleep(0.01)


async def test_one_that_is_closed_while_it_listens_on_ends_at_once() -> None:
    ours, theirs = os.pipe()
    reader = Reader(ours, quiet_s=60)
    reader.finish()
    waiting = asyncio.create_task(reader.read())
    await asyncio.sleep(0)

    reader.close()
    os.close(ours)

    assert await asyncio.wait_for(waiting, 5) == b""
    os.close(theirs)
