"""Operations that are recorded only when they last, or when they end.

Meant for what dies with this process anyway and whose client hears of it by a nearer way than the state:
a command whose pipes are lent. One write for a short command instead of two, and none in its client's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from core.operations.operation import Operation
from core.tasks import cancelled

_AFTER_S = 1.0


class Late:
    """Which operations have no record yet. *record* writes one, however long etcd is away."""

    def __init__(self, record: Callable[[Operation], Coroutine[Any, Any, None]]) -> None:
        self._record = record
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}

    def add(self, operation: Operation) -> None:
        """Record *operation* when it lasts."""
        loop = asyncio.get_running_loop()
        self._timers[operation.id] = loop.call_later(_AFTER_S, self._begin, operation)

    async def settle(self, id: str) -> bool:
        """Say whether an operation that ends has no record; a write that has begun is waited for."""
        if timer := self._timers.pop(id, None):
            timer.cancel()
            return True
        if writing := self._writing.pop(id, None):
            await asyncio.wait([writing])
        return False

    async def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        for writing in self._writing.values():
            await cancelled(writing)

    def _begin(self, operation: Operation) -> None:
        del self._timers[operation.id]
        # Owned by this object until the operation ends, or stop().
        self._writing[operation.id] = asyncio.create_task(self._record(operation))
