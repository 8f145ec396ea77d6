"""Images for other servers, sent by a process of their own (see pusher.py)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import asdict

from services.image.ports import Parcel
from services.image.sources.children import talk

_MOST_AT_ONCE = 4
_CHILD = "services.image.sources.pusher"


class Pushers:
    """Implements ports.Targets; a few at once, the others wait."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)

    async def push(self, parcel: Parcel) -> AsyncGenerator[int, None]:
        async with self._slots, contextlib.aclosing(talk(_CHILD, asdict(parcel))) as frames:
            async for _, data in frames:
                yield int(data or b"0")
