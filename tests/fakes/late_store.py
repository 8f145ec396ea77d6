"""A store in memory whose followers may hear of changes a moment later than others read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from core.state.memory import MemoryStore
from core.state.store import Change, Resync


class LateStore(MemoryStore):
    """delay_s: how late; nothing at first."""

    delay_s = 0.0

    async def follow(self, prefix: str) -> AsyncIterator[Resync | Change]:
        async for item in super().follow(prefix):
            await asyncio.sleep(self.delay_s)
            yield item
