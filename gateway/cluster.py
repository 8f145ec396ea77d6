"""The other members, as this gateway knows them: which live, where each instance is, and lines to them.

Made in a cluster only; a Podium that is alone follows none of this.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from core.errors import Unavailable
from core.records import Member, Presence
from core.rpc.client import member_channel
from core.settings import Settings
from core.state import codec, keys
from core.state.cache import Cache
from core.state.store import Store

_LAST_CALLS_S = 10.0


@dataclass(frozen=True)
class Placed:
    """Of the record of an instance or a pool, what tells where it is."""

    project: str = ""
    name: str = ""
    member: str = ""


class Cluster:
    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self.here = settings.member
        self.members: Cache[Member] = Cache(store, Member, keys.MEMBERS)
        self.presence: Cache[Presence] = Cache(store, Presence, keys.PRESENCE)
        self.placed: Cache[Placed] = Cache(store, Placed, keys.INSTANCES)
        self.pools: Cache[Placed] = Cache(store, Placed, keys.POOLS)
        self._lines: dict[tuple[str, str], tuple[str, Any]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for cache in (self.members, self.presence, self.placed, self.pools):
            await cache.start()

    async def stop(self) -> None:
        for cache in (self.members, self.presence, self.placed, self.pools):
            await cache.stop()
        for _, line in self._lines.values():
            await line.close()
        await asyncio.gather(*self._closing)

    async def member_of(self, project: str, name: str) -> str:
        """Return where an instance is; this member where there is none. Asks the state for what is new."""
        key = keys.instance(project, name)
        if entry := self.placed.get(key):
            return entry.record.member or self.here
        kv = await self._store.get(key)
        return (codec.decode(Placed, kv.value).member if kv else "") or self.here

    async def maker_of(self, pool: str) -> str:
        """Return which member made a pool, and so has its custom volumes."""
        entry = self.pools.get(keys.pool(pool))
        return (entry.record.member if entry else "") or self.here

    def lives(self, member: str, service: str = "runtime") -> bool:
        return self.presence.get(keys.presence(member, service)) is not None

    def others(self) -> list[str]:
        """Return the other members whose runtime lives."""
        names = (entry.record.name for entry in self.members.entries())
        return [name for name in names if name != self.here and self.lives(name)]

    def line(self, member: str, service: str) -> Any:
        """Return a channel to *service* of another member. Raises: Unavailable naming the member."""
        entry = self.presence.get(keys.presence(member, service))
        if entry is None or not entry.record.address:
            raise Unavailable(
                "MEMBER_AWAY", f"Member {member!r} does not answer ({service}); try again", about=member
            )
        holder, line = self._lines.get((member, service), ("", None))
        if line is None or holder != entry.record.holder:
            # A process that came back is reached at once by a new channel; an old one waits before it tries.
            self._close(line)
            line = member_channel(self._settings, service, member=member, address=entry.record.address)
            self._lines[member, service] = entry.record.holder, line
        return line

    def _close(self, line: Any) -> None:
        """Close a line to a process that is gone, once its last calls know that."""
        if line is not None:
            # Owned by this object until it is done, or stop().
            task = asyncio.create_task(line.close(_LAST_CALLS_S))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
