"""What stores share that stand around another one, and change only how it is written."""

from __future__ import annotations

from collections.abc import AsyncIterator

from core.state.store import KV, Change, Listing, Resync, Store


class Around:
    """Reads are those of *inner*; whoever inherits this says what a commit is."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    async def get(self, key: str) -> KV | None:
        return await self._inner.get(key)

    async def list(self, prefix: str) -> Listing:
        return await self._inner.list(prefix)

    def follow(self, prefix: str) -> AsyncIterator[Resync | Change]:
        return self._inner.follow(prefix)

    async def close(self) -> None:
        await self._inner.close()
