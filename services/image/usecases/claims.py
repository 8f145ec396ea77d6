"""Who brings an image from another server: one in the whole cluster, and the others wait for it.

A claim names the operation that brings. It is void when that one has ended, or when its member is away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from core.errors import Stale, Unavailable
from core.operations.operation import Operation
from core.records import ImageClaim
from core.state import codec, keys
from core.state.cache import Cache
from core.state.repository import Entry
from core.state.store import Store, Txn

_LOOK_EVERY_S = 2.0


class Claims:
    """start() before use."""

    def __init__(self, store: Store, member: str) -> None:
        self._store = store
        self._member = member
        self._claims = Cache(store, ImageClaim, keys.IMAGE_CLAIMS)
        self._changed = asyncio.Event()
        self._claims.on_change(lambda key, entry: self._changed.set())

    async def start(self) -> None:
        await self._claims.start()

    async def stop(self) -> None:
        await self._claims.stop()

    async def take(self, wants: Sequence[str], operation: str) -> bool:
        """Claim all of *wants* for *operation*, or none; True when they are its. Repeatable."""
        txn = Txn()
        for key in map(keys.image_claim, wants):
            kv = await self._store.get(key)
            if kv and await self._holds(codec.decode(ImageClaim, kv.value), operation):
                return False
            txn.unchanged(key, kv.revision if kv else 0).put(key, ImageClaim(self._member, operation))
        try:
            revision = await self._store.commit(txn)
        except Stale:
            return False
        for key in map(keys.image_claim, wants):
            self._claims.apply(key, ImageClaim(self._member, operation), revision)
        return True

    async def give_back(self, wants: Sequence[str], operation: str) -> None:
        """Let others have a try. Repeatable; what cannot be written now is void once the operation ended."""
        txn = Txn()
        for key in map(keys.image_claim, wants):
            entry = self._claims.get(key)
            if entry and entry.record == ImageClaim(self._member, operation):
                txn.unchanged(key, entry.revision).delete(key)
        with contextlib.suppress(Stale, Unavailable):
            if not txn.is_empty():
                await self._store.commit(txn)

    async def released(self, wants: Sequence[str]) -> None:
        """Return when nobody has any of *wants*."""
        while True:
            self._changed.clear()
            if not await self._any_held(wants):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._changed.wait()

    async def sweep(self) -> None:
        """Remove what this member claimed and never gave back. Repeatable."""
        for key, entry in self._claims.items():
            with contextlib.suppress(Stale, Unavailable):
                if entry.record.member == self._member and not await self._holds(entry.record, ""):
                    await self._store.commit(Txn().unchanged(key, entry.revision).delete(key))

    async def _any_held(self, wants: Sequence[str]) -> bool:
        for key in map(keys.image_claim, wants):
            entry: Entry[ImageClaim] | None = self._claims.get(key)
            if entry and await self._holds(entry.record, ""):
                return True
        return False

    async def _holds(self, claim: ImageClaim, mine: str) -> bool:
        """Say whether a claim keeps others out. It does not keep out its own operation after a crash."""
        if (claim.member, claim.operation) == (self._member, mine):
            return False
        kv = await self._store.get(keys.operation(claim.operation))
        if kv is None or codec.decode(Operation, kv.value).is_final:
            return False
        if claim.member == self._member:
            return True
        return await self._store.get(keys.presence(claim.member, "image")) is not None
