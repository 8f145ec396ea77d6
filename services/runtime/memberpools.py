"""Pools as this member sees them: each member of a cluster has its own place for a pool that all share.

The record of a pool is its maker's; what another member made of it is a record beside it, with the
source, size and status there. Rooms ask for a pool and get the one that lies here.
"""

from __future__ import annotations

from dataclasses import replace

from core.membership import is_here
from core.records import Pool
from core.state import keys
from core.state.cache import Cache
from core.state.repository import Entry
from core.state.store import Store

BROKEN = "Broken"
"""Made here, and not to be opened now; unlike Errored, which was never made."""
_SHOWN = {BROKEN: "Errored"}
_NOT_YET = "it is not made on this member yet"


class MemberPools(Cache[Pool]):
    """*member* "" stands for a Podium that knows no others."""

    def __init__(self, store: Store, member: str) -> None:
        super().__init__(store, Pool, keys.POOLS)
        self._member = member
        self.copies: Cache[Pool] = Cache(store, Pool, keys.POOL_COPIES)

    async def start(self) -> None:
        await self.copies.start()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self.copies.stop()

    def get(self, key: str) -> Entry[Pool] | None:
        entry = super().get(key)
        return self._here(entry) if entry else None

    def entries(self, prefix: str = "") -> list[Entry[Pool]]:
        return [self._here(entry) for entry in super().entries(prefix)]

    def recorded(self) -> list[Pool]:
        """Return the records of the makers."""
        return [entry.record for entry in super().entries()]

    def is_ours(self, pool: Pool) -> bool:
        """Return whether a record is of a pool that this member made."""
        return not self._member or is_here(pool.member, self._member)

    def is_made_here(self, name: str) -> bool:
        """Return whether this member made it, so that its custom volumes lie here."""
        entry = super().get(keys.pool(name))
        return entry is None or self.is_ours(entry.record)

    def copy(self, name: str) -> Pool | None:
        entry = self.copies.get(keys.pool_copy(self._member, name))
        return entry.record if entry else None

    def _here(self, entry: Entry[Pool]) -> Entry[Pool]:
        pool = entry.record
        if self.is_ours(pool):
            return entry
        copy = self.copy(pool.name) or Pool(status="Pending", error=_NOT_YET)
        status = _SHOWN.get(copy.status, copy.status) if pool.status == "Created" else pool.status
        seen = replace(pool, config=copy.config, status=status, error=copy.error, member=self._member)
        return Entry(seen, entry.revision, entry.extra)
