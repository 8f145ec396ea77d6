"""Images of other servers, brought by a process of their own (see fetcher.py)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from core.errors import Kind, TooLate, Unavailable, error_of
from services.image.ports import CAME, Known, RemoteSource, Told

_PARTS = {b"m": "metadata", b"u": "unified", b"r": "rootfs", b"p": CAME}
_STALL_S = 120.0
_MOST_AT_ONCE = 4
_MOST_FRAME = 64 << 20


class Fetchers:
    """Implements ports.Remotes; a few at once, the others wait. scratch: where large files may lie."""

    def __init__(self, architecture: str, scratch: Path) -> None:
        self._architecture = architecture
        self._scratch = scratch
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)

    async def look(self, source: RemoteSource) -> Known:
        found: list[Known] = []
        async for _ in self._fetch(source, found.append, only_look=True):
            pass
        return found[0]

    async def parts(self, source: RemoteSource, told: Told) -> AsyncGenerator[tuple[str, bytes], None]:
        async with contextlib.aclosing(self._fetch(source, told, only_look=False)) as parts:
            async for part in parts:
                yield part

    async def _fetch(
        self, source: RemoteSource, told: Told, *, only_look: bool
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        asked = {
            **asdict(source),
            "architecture": source.architecture or self._architecture,
            "only_look": only_look,
            "scratch": str(self._scratch),
        }
        async with self._slots:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.image.sources.fetcher"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                start_new_session=True,
                limit=_MOST_FRAME,
            )
            assert child.stdin and child.stdout
            try:
                child.stdin.write(msgspec.json.encode(asked))
                child.stdin.close()
                async for kind, data in _frames(child.stdout):
                    if kind == b"j":
                        told(_known(data))
                    elif kind == b"e":
                        raise _failure(data)
                    else:
                        yield _PARTS[kind], data
                if await child.wait():
                    raise Unavailable("FETCHER_DIED", "The download ended without a reason; try again")
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
                yield head[:1], await stream.readexactly(struct.unpack("!I", head[1:])[0])
        except asyncio.IncompleteReadError as exc:
            if exc.partial:
                raise Unavailable("FETCHER_DIED", "The download broke off; try again") from None
            return
        except TimeoutError:
            raise TooLate("STALLED", f"No byte came from the server for {_STALL_S:g} s") from None


def _known(data: bytes) -> Known:
    return msgspec.convert(msgspec.json.decode(data), Known)


def _failure(data: bytes) -> Exception:
    words: dict[str, Any] = msgspec.json.decode(data)
    return error_of(Kind.from_wire(words["kind"]), words["reason"], words["message"])
