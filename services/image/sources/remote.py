"""Images of other servers, brought by a process of their own (see fetcher.py)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from core.errors import TooLate
from services.image.ports import CAME, Known, RemoteSource, Told
from services.image.sources.breaker import Breaker
from services.image.sources.children import PAUSE, talk

_PARTS = {b"m": "metadata", b"u": "unified", b"r": "rootfs", b"p": CAME}
_MOST_AT_ONCE, _MOST_SLOW = 4, 12
_PLACE_S = 30.0
_CHILD = "services.image.sources.fetcher"


class Fetchers:
    """Implements ports.Remotes; a few at once, the others wait, but not for servers that are slow.

    scratch: where large files may lie. mirrors_of: the mirrors of a server, which are asked before it.
    """

    def __init__(
        self,
        architecture: str,
        scratch: Path,
        mirrors_of: Callable[[str], tuple[str, ...]] = lambda server: (),
        place_s: float = _PLACE_S,
    ) -> None:
        """*place_s*: after how long a transfer counts as slow."""
        self._place_s = place_s
        self._architecture = architecture
        self._scratch = scratch
        self._mirrors_of = mirrors_of
        self._breaker = Breaker()
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)
        self._all_slots = asyncio.Semaphore(_MOST_AT_ONCE + _MOST_SLOW)

    async def look(self, source: RemoteSource) -> Known:
        found: list[Known] = []
        async for _ in self._fetch(source, found.append, only_look=True):
            pass
        return found[0]

    async def parts(self, source: RemoteSource, told: Told) -> AsyncGenerator[tuple[str, bytes], None]:
        async with contextlib.aclosing(self._fetch(source, told, only_look=False)) as parts:
            async for part in parts:
                yield part

    def has_others(self, source: RemoteSource) -> bool:
        return bool(self._mirrors_of(source.server.rstrip("/")) and self._bases(source))

    def _bases(self, source: RemoteSource) -> list[dict[str, Any]]:
        """Return where to ask, in order. An administrator chose the mirrors, so they may lie inside."""
        own = source.server.rstrip("/")
        mirrors = [] if source.protocol == "url" else [m for m in self._mirrors_of(own) if m != own]
        inside = dict.fromkeys(mirrors, True) | {own: source.may_reach_inside}
        return [{"url": url, "inside": inside[url]} for url in self._breaker.left([*mirrors, own])]

    async def _fetch(
        self, source: RemoteSource, told: Told, *, only_look: bool
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        bases = self._bases(source)
        if not bases:
            raise TooLate("NOT_ASKED", self._breaker.why_not(source.server.rstrip("/")))
        asked = {
            **asdict(source),
            "architecture": source.architecture or self._architecture,
            "only_look": only_look,
            "scratch": str(self._scratch),
            "bases": bases,
        }
        async with self._all_slots, self._place(), contextlib.aclosing(talk(_CHILD, asked)) as frames:
            async for kind, data in frames:
                if kind == b"j":
                    told(msgspec.json.decode(data, type=Known))
                elif kind == PAUSE:
                    yield CAME, b"0"
                elif kind == b"s":
                    self._note(msgspec.json.decode(data))
                else:
                    yield _PARTS[kind], data

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncGenerator[None, None]:
        """Hold a place for a while: a server that trickles must not keep others from being asked."""
        await self._slots.acquire()
        has_left = False

        def leave() -> None:
            nonlocal has_left
            has_left = True
            self._slots.release()

        timer = asyncio.get_running_loop().call_later(self._place_s, leave)
        try:
            yield
        finally:
            timer.cancel()
            if not has_left:
                leave()

    def _note(self, said: dict[str, Any]) -> None:
        """Take what the child says of a server: reached, not reached, or that its bytes are others."""
        if said["worked"]:
            self._breaker.worked(said["server"])
        else:
            self._breaker.failed(said["server"], is_wrong=said["is_wrong"])
