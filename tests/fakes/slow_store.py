"""A store in memory that lets others read a write before it answers whoever wrote."""

from __future__ import annotations

import asyncio

from core.state.memory import MemoryStore
from core.state.store import Txn


class SlowStore(MemoryStore):
    """Writes at once and answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.has_written = asyncio.Event()

    async def commit(self, txn: Txn) -> int:
        revision = await super().commit(txn)
        self.has_written.set()
        await self.may_answer.wait()
        return revision
