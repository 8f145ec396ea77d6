"""Descriptors that are closed while somebody still reads."""

from __future__ import annotations

import asyncio
import os

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
    reader.finish()

    assert await reader.read() == b"last words"
    assert await reader.read() == b""
    for fd in (ours, theirs):
        os.close(fd)
