"""Tasks that an object owns for as long as it lives."""

from __future__ import annotations

import asyncio
import contextlib


async def nothing() -> None:
    """What is awaited where there is nothing to do."""


async def cancelled(task: asyncio.Task[None] | None) -> None:
    """End *task*, if there is one, and return when it has ended. Raises: what it failed with."""
    if task:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
