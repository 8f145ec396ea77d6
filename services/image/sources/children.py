"""Processes of our own that talk to other servers: a JSON request in, frames out.

A frame is one byte of kind, four of length (network order), then that many. Kind "e" says why it failed.
After one of kind "?" the child waits until the next frame is wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from core.errors import Kind, TooLate, Unavailable, error_of

PAUSE = b"?"
_STALL_S = 120.0
_MOST_FRAME = 64 << 20


async def talk(module: str, asked: Mapping[str, Any]) -> AsyncGenerator[tuple[bytes, bytes], None]:
    """Yield the frames of `python -m module`. Closing it early ends the child.

    Raises: what the child says; Unavailable, TooLate.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,
        limit=_MOST_FRAME,
        # Each arena of malloc reserves 64 MiB of the memory that a child may have.
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    assert child.stdin and child.stdout
    try:
        child.stdin.write(msgspec.json.encode(asked) + b"\n")
        async for kind, data in _frames(child.stdout):
            if kind == b"e":
                raise _failure(data)
            yield kind, data
            if kind == PAUSE:
                child.stdin.write(b"\n")
        if await child.wait():
            raise Unavailable("FETCHER_DIED", "The transfer ended without a reason; try again")
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()


async def _frames(stream: asyncio.StreamReader) -> AsyncGenerator[tuple[bytes, bytes], None]:
    while True:
        try:
            async with asyncio.timeout(_STALL_S):
                head = await stream.readexactly(5)
                data = await stream.readexactly(struct.unpack("!I", head[1:])[0])
        except asyncio.IncompleteReadError as exc:
            if exc.partial:
                raise Unavailable("FETCHER_DIED", "The transfer broke off; try again") from None
            return
        except TimeoutError:
            raise TooLate("STALLED", f"The other server said nothing for {_STALL_S:g} s") from None
        yield head[:1], data  # outside of the limit: how long the taker takes is its business


def _failure(data: bytes) -> Exception:
    words: dict[str, Any] = msgspec.json.decode(data)
    kind = Kind.from_wire(words["kind"])
    # Steps wait for services of ours that are unavailable; other people's servers are not waited for.
    kind = Kind.TOO_LATE if kind is Kind.UNAVAILABLE else kind
    return error_of(kind, words["reason"], words["message"])
