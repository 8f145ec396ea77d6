"""What a project may still receive: uploads count in its limits.disk while they arrive.

The sums are the runtime's, which admits what is made of an upload; here is added what nobody has recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from core.errors import LimitReached
from core.records import Project
from core.state import keys
from core.state.repository import entry_of
from core.state.store import Store
from services.image.ports import Roots

Count = Callable[[int], None]
_LIMIT = "limits.disk"


class Rooms:
    def __init__(self, store: Store, roots: Roots) -> None:
        self._store = store
        self._roots = roots
        self._arriving: Counter[str] = Counter()

    @asynccontextmanager
    async def counted(self, project: str) -> AsyncIterator[Count]:
        """Give what each piece of an upload is to be told to. It raises LimitReached. Raises: Unavailable."""
        limit = await self._limit(project)
        if not limit:
            yield lambda size: None
            return
        room, mine = await self._roots.room(project), 0

        def count(size: int) -> None:
            nonlocal mine
            mine += size
            self._arriving[project] += size
            if room is not None and self._arriving[project] > room:
                why = f'Reached maximum aggregate value "{limit}" for "{_LIMIT}" in project "{project}"'
                raise LimitReached("SUM_REACHED", why, about=project)

        try:
            yield count
        finally:
            self._arriving[project] -= mine

    async def _limit(self, project: str) -> str:
        """Return the limit as it is written; most projects have none, and nobody else is asked then."""
        kv = await self._store.get(keys.project(project))
        return entry_of(Project, kv).record.config.get(_LIMIT, "") if kv else ""
