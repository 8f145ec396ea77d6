"""Choose members for new instances, by what is recorded and who lives."""

from __future__ import annotations

from collections import Counter

from services.cluster.domain.placement import place
from services.cluster.store import ClusterStore


class Placement:
    def __init__(self, store: ClusterStore, member: str) -> None:
        self._store = store
        self._member = member

    def choose(self, target: str) -> str:
        """Raises: NotFound, Unavailable."""
        presences = (entry.record for entry in self._store.presence.entries())
        return place(
            target,
            here=self._member,
            members=[entry.record.name for entry in self._store.members.entries()],
            living={p.member for p in presences if p.service == "runtime"},
            instances=Counter(record.member for record in self._store.instance_records()),
        )
