"""Decide and commit, again while what was decided on changes: our caches may be a moment late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.errors import Stale
from core.state.store import Store

T = TypeVar("T")
# About three seconds: a cache may be that late when etcd has just come back.
_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


async def confirm(store: Store, key: str, revision: int = 0) -> None:
    """Look whether what stands in the way is still there, and with *revision* whether it is still the same.

    Who heard that it is gone may ask before we have. Raises: Stale, in an attempt: try again.
    """
    kv = await store.get(key)
    if kv is None or revision not in (0, kv.revision):
        raise Stale("BEHIND", "What was in the way is not any more; try again")


async def until_settled(attempt: Callable[[], Awaitable[T]], *, busy: Stale) -> T:
    """Return what *attempt* does. A Stale STALE of its own is the caller's and final.

    Raises: *busy* when it never ends.
    """
    for pause_s in _PAUSES_S:
        try:
            return await attempt()
        except Stale as exc:
            if exc.reason == "STALE":
                raise
            await asyncio.sleep(pause_s)
    raise busy
